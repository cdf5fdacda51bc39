"""The relay: takes what the outbox holds to the dispatch system, at least once and in each ticket's order.

A row is claimed with a lease in a transaction of its own; HTTP happens with none open; the outcome is a third step. After a
crash in between the lease runs out and the same id is sent again, which the receiver recognises by `webhook-id`; for the
same reason none of the relay's own writes waits for the disk.
"""
from __future__ import annotations

import json
import logging
import random
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import requests
from sqlalchemy import bindparam, exists, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from urllib3.exceptions import HTTPError

from bot.db import StorageError, iso, parse_iso, reading, transaction
from bot.schema import outbox, outbox_attempts, sandbox_deliveries, tickets
from bot.services import Services, utc_now
from bot.settings import Settings, SettingsError
from bot.signing import sign, signing_keys
from bot.vault import VaultError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT, READ_TIMEOUT = 3.0, 10.0
LEASE = timedelta(seconds=CONNECT_TIMEOUT + READ_TIMEOUT + 30)
CONCURRENCY = 8
POLL_SECONDS = 0.5
BREATH_SECONDS = 0.1
FIRST_DELAY, DELAY_FACTOR, MAX_DELAY = 2.0, 2.0, 900.0
MAX_ATTEMPTS, MAX_AGE = 300, timedelta(days=3)
MAX_RETRY_AFTER = 86_400.0
MAX_ANSWER = 64 * 1024
TRANSIENT_4XX = frozenset({408, 409, 425, 429})
# A wrong address or secret in somebody's settings: once that is put right, everything that waits goes out by itself.
SETTINGS_4XX = frozenset({401, 403, 404, 405})
# GeoReport v2 allows no longer description.
OPEN311_DESCRIPTION = 4000


class DispatchError(Exception):
    """A delivery failed. `permanent`: sending the same again cannot help. `retry_after`: seconds the receiver asked for."""

    def __init__(self, reason: str, *, permanent: bool, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.permanent, self.retry_after = reason, permanent, retry_after


@dataclass(frozen=True)
class Message:
    """One outbox row as a transport sees it; `payload` has `type`, `timestamp` and `data` (DESIGN §7)."""

    id: str
    type: str
    ticket_number: str
    payload: Mapping[str, Any]


def _claimable() -> tuple[Any, ...]:
    """Due at :now, free, and nothing of the same ticket waits before it: a parked message holds back the later ones too."""
    earlier, now = outbox.alias("earlier"), bindparam("now")
    waits = exists().where(
        earlier.c.ticket_number == outbox.c.ticket_number,
        earlier.c.position < outbox.c.position,
        earlier.c.state != "delivered",
    )
    free = or_(outbox.c.lease_until.is_(None), outbox.c.lease_until <= now)
    return outbox.c.state == "pending", outbox.c.next_attempt_at <= now, free, ~waits


# Statements of every delivery, built once: building an expression costs as much as running it.
_DUE = select(outbox.c.id).where(*_claimable()).order_by(outbox.c.next_attempt_at, outbox.c.position).limit(bindparam("most"))
_ROW = select(outbox).where(outbox.c.id == bindparam("row"))
_TAKE = (
    update(outbox)
    .where(outbox.c.id == bindparam("row"), *_claimable())
    .values(lease_owner=bindparam("owner"), lease_until=bindparam("until"), attempts=outbox.c.attempts + 1)
)
_DELIVERED = (
    update(outbox)
    .where(outbox.c.id == bindparam("row"), outbox.c.state != "delivered")
    .values(state="delivered", delivered_at=bindparam("now"), lease_owner=None, lease_until=None, last_error=None)
)
_NEW_ATTEMPT = outbox_attempts.insert()
_OUTCOME = update(outbox_attempts).where(outbox_attempts.c.id == bindparam("attempt")).values(outcome=bindparam("result"))
_KEEP_REQUEST_ID = update(tickets).where(tickets.c.number == bindparam("ticket")).values(service_request_id=bindparam("request_id"))


class Transport(Protocol):
    def deliver(self, message: Message) -> str | None:
        """Send once; the service_request_id when the answer names one. Raises DispatchError."""


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again. Attempts and age count from the first attempt, and afresh after a resend."""

    first_delay: float = FIRST_DELAY
    factor: float = DELAY_FACTOR
    max_delay: float = MAX_DELAY
    max_attempts: int = MAX_ATTEMPTS
    max_age: timedelta = MAX_AGE
    jitter: Callable[[], float] = random.random  # in [0, 1)

    def delay(self, attempts: int, retry_after: float | None) -> float:
        """Seconds until the next attempt after `attempts` failed ones: 75–100 % of the exponential step, never before
        the receiver's own Retry-After."""
        step = min(self.max_delay, self.first_delay * self.factor ** (attempts - 1))
        return max(step * (0.75 + 0.25 * self.jitter()), retry_after or 0.0)


@dataclass(frozen=True)
class _Claim:
    id: str
    type: str
    ticket_number: str
    body: bytes
    attempts: int
    token: str
    attempt_id: int


class Relay:
    """Delivers for one process; any number of processes may run one on the same database. Set `wake` after a turn."""

    def __init__(self, services: Services, transport: Transport, *, policy: RetryPolicy | None = None) -> None:
        self._services, self._transport, self._policy = services, transport, policy or RetryPolicy()
        self._owner = uuid.uuid4().hex[:12]
        self.wake = threading.Event()

    # -- loops ----------------------------------------------------------------------------------------------------

    def run_once(self) -> int:
        """Deliver what is due now, each row at most once; how many were attempted. Raises StorageError.

        Must not be called inside a transaction: the claim would not be committed before HTTP.
        """
        started, tried, attempted = self._services.now(), set[str](), 0
        running: set[Future[bool]] = set()
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="relay") as pool:
            while True:
                for outbox_id in self._due(started, CONCURRENCY - len(running), tried):
                    tried.add(outbox_id)
                    running.add(pool.submit(self._attempt, outbox_id))
                if not running:
                    return attempted
                done, running = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                attempted += sum(future.result() for future in done)

    def run_forever(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; then finish what is under way. Survives every failure of database and receiver."""
        running: dict[str, Future[bool]] = {}
        failing = False
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="relay") as pool:
            while not stop.is_set():
                self.wake.clear()
                running = {outbox_id: future for outbox_id, future in running.items() if not future.done()}
                try:
                    for outbox_id in self._due(self._services.now(), CONCURRENCY - len(running), running):
                        running[outbox_id] = pool.submit(self._attempt, outbox_id)
                        running[outbox_id].add_done_callback(self._after_attempt)
                    failing = False
                except Exception as error:
                    if not failing:  # an outage is one line, not two a second
                        logger.error("relay cannot read the outbox", extra={"error": type(error).__name__})
                    failing = True
                self.wake.wait(POLL_SECONDS)
                stop.wait(BREATH_SECONDS)  # one look for all deliveries that end together, not one for each

    def resend(self, outbox_id: str) -> bool:
        """See resend()."""
        changed = resend(self._services, outbox_id)
        self.wake.set()
        return changed

    def _after_attempt(self, future: Future[bool]) -> None:
        error = future.exception()
        if error is not None:
            logger.error("relay could not record an attempt", extra={"error": type(error).__name__})
        elif future.result():  # only then: a database that refuses writes must not make the loop spin
            self.wake.set()

    # -- one delivery ---------------------------------------------------------------------------------------------

    def _due(self, now: datetime, limit: int, skip: Collection[str]) -> list[str]:
        if limit <= 0:
            return []
        with reading(self._services.engine) as connection:
            rows = connection.execute(_DUE, {"now": iso(now), "most": limit + len(skip)}).scalars()
            return [outbox_id for outbox_id in rows if outbox_id not in skip][:limit]

    def _attempt(self, outbox_id: str) -> bool:
        """Claim, send, record. False when another relay was faster."""
        claim = self._claim(outbox_id)
        if claim is None:
            return False
        try:
            service_request_id = self._transport.deliver(self._message_of(claim))
        except DispatchError as error:
            self._put_back(claim, error)
        except Exception as error:  # a fault of ours must not stop the others, nor lose this one
            logger.error("delivery failed unexpectedly", extra=_log_fields(claim, error=type(error).__name__))
            self._put_back(claim, DispatchError(f"内部错误（{type(error).__name__}）", permanent=False))
        else:
            self._complete(claim, service_request_id)
        return True

    def _claim(self, outbox_id: str) -> _Claim | None:
        """Take the row if it is still free and its turn. Compare-and-set: of several relays one changes the row."""
        now, token = self._services.now(), f"{self._owner}-{uuid.uuid4().hex[:16]}"
        with transaction(self._services.engine) as connection:  # durable: dispatch must not know of a ticket that we could lose
            taken = connection.execute(_TAKE, {"row": outbox_id, "now": iso(now), "owner": token, "until": iso(now + LEASE)})
            if taken.rowcount != 1:
                return None
            row = connection.execute(_ROW, {"row": outbox_id}).one()
            # Written before sending, so that an attempt that took its process down is on record as well.
            attempt = connection.execute(_NEW_ATTEMPT, {"outbox_id": outbox_id, "at": iso(now), "outcome": "已发出，尚无结果"})
            return _Claim(row.id, row.type, row.ticket_number, row.body, row.attempts, token, int(attempt.inserted_primary_key[0]))

    def _message_of(self, claim: _Claim) -> Message:
        try:
            return Message(claim.id, claim.type, claim.ticket_number, self._services.vault.open(claim.body))
        except VaultError:
            raise DispatchError("内容无法解密，请检查 SECRET_KEY", permanent=True) from None

    def _complete(self, claim: _Claim, service_request_id: str | None) -> None:
        now = iso(self._services.now())
        with transaction(self._services.engine, durable=False) as connection:
            # Without asking for the lease: the receiver has it, whoever else may be trying by now.
            connection.execute(_DELIVERED, {"row": claim.id, "now": now})
            _record_outcome(connection, claim, "已送达")
            if service_request_id:
                connection.execute(_KEEP_REQUEST_ID, {"ticket": claim.ticket_number, "request_id": service_request_id})
        logger.info("delivered", extra=_log_fields(claim))

    def _put_back(self, claim: _Claim, error: DispatchError) -> None:
        now = self._services.now()
        with transaction(self._services.engine, durable=False) as connection:
            parked = error.permanent or self._exhausted(connection, claim, now)
            delay = self._policy.delay(claim.attempts, error.retry_after)
            held = connection.execute(
                update(outbox)
                .where(outbox.c.id == claim.id, outbox.c.lease_owner == claim.token, outbox.c.state == "pending")
                .values(
                    state="parked" if parked else "pending",
                    next_attempt_at=iso(now + timedelta(seconds=delay)),
                    lease_owner=None,
                    lease_until=None,
                    last_error=error.reason,
                )
            )
            verdict = "不再自动重试" if parked else f"{delay:.0f} 秒后重试"
            _record_outcome(connection, claim, f"{error.reason}，{verdict if held.rowcount == 1 else '已由别的进程接手'}")
        logger.warning("delivery failed", extra=_log_fields(claim, error=error.reason, parked=parked))

    def _exhausted(self, connection: Connection, claim: _Claim, now: datetime) -> bool:
        if claim.attempts >= self._policy.max_attempts:
            return True
        first_at = connection.execute(
            select(outbox_attempts.c.at)
            .where(outbox_attempts.c.outbox_id == claim.id)
            .order_by(outbox_attempts.c.id.desc())
            .offset(claim.attempts - 1)  # `attempts` restarts with a resend, the rows do not
            .limit(1)
        ).scalar()
        return first_at is not None and now - parse_iso(first_at) >= self._policy.max_age


def _record_outcome(connection: Connection, claim: _Claim, outcome: str) -> None:
    connection.execute(_OUTCOME, {"attempt": claim.attempt_id, "result": outcome})


def _log_fields(claim: _Claim, **more: object) -> dict[str, object]:
    return {"ticket_number": claim.ticket_number, "webhook_id": claim.id, "attempt": claim.attempts, **more}


def resend(services: Services, outbox_id: str) -> bool:
    """Send a parked message again, or a waiting one now; its history stays. False when there is nothing to do."""
    now = iso(services.now())
    with transaction(services.engine) as connection:
        row = connection.execute(select(outbox.c.state).where(outbox.c.id == outbox_id)).first()
        if row is None or row.state == "delivered":
            return False
        changed = connection.execute(
            update(outbox)
            .where(outbox.c.id == outbox_id, outbox.c.state == row.state, outbox.c.lease_owner.is_(None))
            .values(state="pending", attempts=0, next_attempt_at=now)
        )
        if changed.rowcount != 1:
            return False
        connection.execute(outbox_attempts.insert().values(outbox_id=outbox_id, at=now, outcome="工作人员要求重发"))
        return True


# -- transports ---------------------------------------------------------------------------------------------------


def build_transport(services: Services, session: requests.Session) -> Transport:
    """The transport that the settings ask for. Raises SettingsError."""
    if services.settings.sandbox:
        return SandboxTransport(services)
    if services.settings.dispatch_protocol == "open311":
        return Open311Transport(services.settings, session)
    return WebhookTransport(services.settings, session)


class WebhookTransport:
    """Signed webhooks. What is signed and what is sent are the same bytes."""

    def __init__(self, settings: Settings, session: requests.Session, *, now: Callable[[], datetime] = utc_now) -> None:
        if not settings.dispatch_url:
            raise SettingsError("MINSHENG_DISPATCH_URL is not set")
        signing_keys(settings.dispatch_secret)
        self._url, self._secret, self._session, self._now = settings.dispatch_url, settings.dispatch_secret, session, now

    def deliver(self, message: Message) -> str | None:
        body = json.dumps(message.payload, ensure_ascii=False, separators=(",", ":")).encode()
        timestamp = int(self._now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._secret, message.id, timestamp, body),
        }
        return _request_id(_post(self._session, self._url, data=body, headers=headers))


class Open311Transport:
    """GeoReport v2, as far as filing goes: later changes of a ticket have no place in it and are only logged."""

    def __init__(self, settings: Settings, session: requests.Session) -> None:
        if not settings.dispatch_url:
            raise SettingsError("MINSHENG_DISPATCH_URL is not set")
        self._url, self._api_key, self._session = settings.dispatch_url.rstrip("/"), settings.dispatch_api_key, session

    def deliver(self, message: Message) -> str | None:
        if message.type != "ticket.created":
            logger.info("not sent: Open311 has no updates", extra={"ticket_number": message.ticket_number, "webhook_id": message.id})
            return None
        form = open311_form(message.payload["data"], self._api_key)
        answer = _post(self._session, f"{self._url}/requests.json", data=form, headers={"webhook-id": message.id})
        return _request_id(answer)


def open311_form(data: Mapping[str, Any], api_key: str) -> dict[str, str]:
    """`data` of ticket.created as the form fields of POST /requests.json; empty ones are left out."""
    place, reporter = data["location"], data["reporter"]
    hidden = reporter["anonymous"] or reporter["confidential"]
    fields = {
        "api_key": api_key,
        "service_code": data["category"]["code"],
        "description": data["description"][:OPEN311_DESCRIPTION],
        "address_string": place.get("text"),
        "lat": place.get("lat"),
        "long": place.get("lng"),
        "first_name": None if hidden else reporter["name"],
        "phone": None if hidden else reporter["phone"],
        **{f"attribute[{name}]": value for name, value in data.get("facts", {}).items()},
    }
    return {name: str(value) for name, value in fields.items() if value not in (None, "")}


class SandboxTransport:
    """The stand-in dispatch system: keeps each message once in its own inbox."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def deliver(self, message: Message) -> str | None:
        try:
            with transaction(self._services.engine, durable=False) as connection, suppress(IntegrityError), connection.begin_nested():
                connection.execute(
                    sandbox_deliveries.insert().values(
                        id=message.id,
                        ticket_number=message.ticket_number,
                        type=message.type,
                        body=self._services.vault.seal(message.payload),
                        received_at=iso(self._services.now()),
                    )
                )
        except (StorageError, SQLAlchemyError):
            raise DispatchError("模拟派单箱暂时写不进去", permanent=False) from None
        return f"SANDBOX-{message.ticket_number}"


def _post(session: requests.Session, url: str, *, data: bytes | dict[str, str], headers: Mapping[str, str]) -> bytes:
    """One POST; the beginning of a 2xx answer. Raises DispatchError, whose reason never holds the address or the answer."""
    try:
        with session.post(
            url,
            data=data,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "minsheng", **headers},
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            allow_redirects=False,
            stream=True,
        ) as response:
            if 200 <= response.status_code < 300:
                return _beginning(response)
            raise _refusal(response.status_code, response.headers.get("Retry-After"))
    except requests.Timeout:
        raise DispatchError("派单系统没有按时回应", permanent=False) from None
    except (requests.RequestException, HTTPError, OSError) as error:
        raise DispatchError(f"连不上派单系统（{type(error).__name__}）", permanent=False) from None


def _beginning(response: requests.Response) -> bytes:
    """At most MAX_ANSWER bytes. The status already says delivered: an answer that breaks off, or dribbles, changes nothing."""
    answer, deadline = b"", utc_now() + timedelta(seconds=READ_TIMEOUT)
    with suppress(requests.RequestException, HTTPError, OSError):
        while len(answer) < MAX_ANSWER and utc_now() < deadline:
            piece = response.raw.read1(MAX_ANSWER - len(answer))
            if not piece:
                break
            answer += piece
    return answer


def _refusal(status: int, retry_after: str | None) -> DispatchError:
    if status in TRANSIENT_4XX or status >= 500:
        return DispatchError(f"派单系统暂时不能受理（HTTP {status}）", permanent=False, retry_after=_seconds_until(retry_after))
    if status in SETTINGS_4XX or status < 400:
        return DispatchError(f"派单系统不认这个地址或密钥，请检查 DISPATCH_URL 和 DISPATCH_SECRET（HTTP {status}）", permanent=False)
    return DispatchError(f"派单系统拒收（HTTP {status}）", permanent=True)


def _seconds_until(retry_after: str | None) -> float | None:
    """Retry-After in seconds, given as a number or as a date."""
    if not retry_after:
        return None
    with suppress(ValueError, TypeError, OverflowError):
        if retry_after.strip().isdecimal():
            return min(float(retry_after), MAX_RETRY_AFTER)
        wanted = (parsedate_to_datetime(retry_after) - utc_now()).total_seconds()
        return min(max(wanted, 0.0), MAX_RETRY_AFTER)
    return None


def _request_id(answer: bytes) -> str | None:
    """service_request_id of a JSON answer: an object, or GeoReport's list of one."""
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    first = parsed[0] if isinstance(parsed, list) and parsed else parsed
    value = first.get("service_request_id") if isinstance(first, dict) else None
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    return text if 0 < len(text) <= 120 and text.isprintable() else None
