"""The relay against a real dispatch server on loopback and real databases; only the clock is ours."""
from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from sqlalchemy import create_engine, select, update
from sqlalchemy.engine import Row
from standardwebhooks.webhooks import Webhook

from bot.db import iso, transaction
from bot.outbox import (
    LEASE,
    MAX_AGE,
    MAX_ATTEMPTS,
    DispatchError,
    Message,
    Open311Transport,
    Relay,
    RetryPolicy,
    SandboxTransport,
    WebhookTransport,
    build_transport,
    open311_form,
)
from bot.petition import Petition
from bot.schema import metadata, outbox, outbox_attempts, sandbox_deliveries
from bot.services import Services, build_services, utc_now
from bot.settings import PROJECT_ROOT, SettingsError, load_settings
from bot.signing import SignatureError, sign, signing_keys, verify
from tests.dispatch_server import DROP_AFTER_RECORDING, DROP_BEFORE_RECORDING, ERROR_500, Behaviour, DispatchServer, hang

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# Published with the specification's reference libraries.
VECTOR = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
NO_DELAY = RetryPolicy(first_delay=0.0, jitter=lambda: 0.0)


class Clock:
    """The real time, moved on by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return utc_now() + self.ahead

    def advance(self, by: timedelta) -> None:
        self.ahead += by


class Impatient(HTTPAdapter):
    """The real adapter with a shorter read timeout, so that a test of timeouts need not take ten seconds."""

    def send(self, request: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().send(request, **{**kwargs, "timeout": (1.0, 0.4)})


@pytest.fixture
def dispatch() -> Iterator[DispatchServer]:
    with DispatchServer(SECRET) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


def build(var: Path, dispatch: DispatchServer | None, now: Callable[[], datetime], **settings: str) -> Services:
    environ = {"MINSHENG_VAR_DIR": str(var), "MINSHENG_DISPATCH_SECRET": SECRET, "MINSHENG_SECRET_KEY": "测试", **settings}
    if dispatch is not None:
        environ.setdefault("MINSHENG_DISPATCH_URL", dispatch.url)
    services = build_services(load_settings(environ), now=now)
    metadata.create_all(services.engine)
    return services


@pytest.fixture
def services(tmp_path: Path, dispatch: DispatchServer, clock: Clock) -> Iterator[Services]:
    built = build(tmp_path, dispatch, clock.now)
    yield built
    built.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_services(request: pytest.FixtureRequest, tmp_path: Path, dispatch: DispatchServer, clock: Clock) -> Iterator[Services]:
    settings = {}
    if request.param == "postgresql":
        settings["MINSHENG_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    built = build(tmp_path, dispatch, clock.now, **settings)
    yield built
    metadata.drop_all(built.engine)
    built.engine.dispose()


def relay_of(services: Services, policy: RetryPolicy | None = None, session: requests.Session | None = None) -> Relay:
    return Relay(services, build_transport(services, session or requests.Session()), policy=policy)


def file_ticket(services: Services, key: str = "k1", **fields: Any) -> str:
    petition = Petition(id=key, texts=("桂花新村8号楼的路灯坏了",), category="010204", **fields)
    return services.tickets.open_ticket(petition, request_key=key, conversation_id=None).number


def rows_of(services: Services, number: str) -> list[Row]:
    with services.engine.connect() as connection:
        return list(connection.execute(select(outbox).where(outbox.c.ticket_number == number).order_by(outbox.c.position)))


def outcomes_of(services: Services, outbox_id: str) -> list[str]:
    query = select(outbox_attempts.c.outcome).where(outbox_attempts.c.outbox_id == outbox_id).order_by(outbox_attempts.c.id)
    with services.engine.connect() as connection:
        return list(connection.execute(query).scalars())


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


# -- signatures ---------------------------------------------------------------------------------------------------


def headers_for(secret: str, *, at: datetime, body: bytes, webhook_id: str = "evt_1") -> dict[str, str]:
    timestamp = int(at.timestamp())
    return {
        "Webhook-Id": webhook_id,
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": sign(secret, webhook_id, timestamp, body),
    }


def test_signature_equals_the_published_vector() -> None:
    webhook_id, timestamp, body, expected = VECTOR
    assert sign(SECRET, webhook_id, timestamp, body) == expected


def test_published_vector_is_accepted_at_its_time() -> None:
    webhook_id, timestamp, body, signature = VECTOR
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1a,xyz v1,AAAA {signature}"}
    verify(SECRET, headers, body, datetime.fromisoformat("2021-02-25T15:02:10+00:00"))


@pytest.mark.parametrize("secret", [SECRET, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "test-secret"])
def test_reference_library_accepts_what_we_sign(secret: str) -> None:
    body = '{"note":"路灯坏了"}'.encode()
    Webhook(secret).verify(body, headers_for(secret, at=utc_now(), body=body))


@pytest.mark.parametrize("key", [b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_secret_without_prefix_is_read_both_ways(key: bytes | str) -> None:
    """As its own bytes, and as base64: senders disagree."""
    now, body = utc_now(), b"{}"
    theirs = Webhook(key).sign("evt_1", now, body.decode())
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": theirs}
    verify("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", headers, body, now)


@pytest.mark.parametrize("secret", ["!!!!????####", "密码密码密码", "。，；a"])
def test_secret_that_decodes_to_almost_nothing_is_taken_literally_only(secret: str) -> None:
    assert signing_keys(secret) == [secret.encode()]


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a"])
def test_secret_that_cannot_work_is_refused_at_start(secret: str) -> None:
    with pytest.raises(SettingsError):
        signing_keys(secret)


@pytest.mark.parametrize("minutes", [-5.1, 5.1])
def test_signature_outside_the_tolerance_is_refused(minutes: float) -> None:
    now = utc_now()
    with pytest.raises(SignatureError):
        verify(SECRET, headers_for(SECRET, at=now + timedelta(minutes=minutes), body=b"{}"), b"{}", now)


@pytest.mark.parametrize(
    "change",
    [
        {"Webhook-Id": "evt_2"},
        {"Webhook-Id": ""},
        {"Webhook-Timestamp": "１７００００００００"},
        {"Webhook-Timestamp": "nan"},
        {"Webhook-Timestamp": "9" * 400},
        {"Webhook-Signature": ""},
        {"Webhook-Signature": "v1,"},
        {"Webhook-Signature": "v1,ü v2,x"},
    ],
)
def test_damaged_headers_are_refused(change: dict[str, str]) -> None:
    now = utc_now()
    with pytest.raises(SignatureError):
        verify(SECRET, {**headers_for(SECRET, at=now, body=b"{}"), **change}, b"{}", now)


def test_id_cannot_swallow_a_piece_of_another_body() -> None:
    """`id.timestamp.body` is signed as one string; moving the borders must not give a second valid message."""
    now = utc_now()
    timestamp = str(int(now.timestamp()))
    body = f'{{"note":"x.{timestamp}.{{}}'.encode()
    good = headers_for(SECRET, at=now, body=body)
    moved = {**good, "Webhook-Id": f'evt_1.{timestamp}.{{"note":"x'}
    verify(SECRET, good, body, now)
    with pytest.raises(SignatureError):
        verify(SECRET, moved, b"{}", now)


# -- delivery -----------------------------------------------------------------------------------------------------


def test_ticket_is_delivered_once_with_its_service_request_id(any_services: Services, dispatch: DispatchServer) -> None:
    number = file_ticket(any_services)
    relay = relay_of(any_services)
    assert relay.run_once() == 1
    assert relay.run_once() == 0
    (row,) = rows_of(any_services, number)
    assert (row.state, row.attempts, row.lease_owner) == ("delivered", 1, None) and row.delivered_at
    assert any_services.tickets.get_ticket(number).service_request_id == f"SR-{number}"
    assert dispatch.counts() == {number: 1} and dispatch.bad_signatures == 0
    assert dispatch.events[0].id == row.id
    assert outcomes_of(any_services, row.id) == ["已送达"]


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "一个不是base64的口令"])
def test_delivery_is_accepted_with_a_secret_without_prefix(tmp_path: Path, clock: Clock, secret: str) -> None:
    with DispatchServer(secret) as server:
        services = build(tmp_path, server, clock.now, MINSHENG_DISPATCH_SECRET=secret)
        file_ticket(services)
        relay_of(services).run_once()
        assert len(server.events) == 1


def test_messages_of_a_ticket_leave_in_order(services: Services, dispatch: DispatchServer) -> None:
    numbers = [file_ticket(services, f"k{index}") for index in range(5)]
    for number in numbers:
        services.tickets.supplement(number, "第二天也没亮")
        services.tickets.urge(number)
        services.tickets.withdraw(number)
    assert relay_of(services).run_once() == 20
    for number in numbers:
        changes = [event.payload["data"].get("change", "created") for event in dispatch.events if event.ticket_number == number]
        assert changes == ["created", "supplemented", "urged", "withdrawn"]


def test_undelivered_message_holds_back_later_ones_of_its_ticket_only(services: Services, dispatch: DispatchServer) -> None:
    stuck, free = file_ticket(services, "k1"), file_ticket(services, "k2")
    services.tickets.urge(stuck)
    dispatch.rule = lambda _id, payload: ERROR_500 if payload["data"]["ticket_number"] == stuck else None
    relay_of(services).run_once()
    assert [row.state for row in rows_of(services, stuck)] == ["pending", "pending"]
    assert dispatch.counts() == {free: 1}


def test_two_relays_never_deliver_the_same_message(any_services: Services, dispatch: DispatchServer) -> None:
    numbers = [file_ticket(any_services, f"k{index}") for index in range(24)]
    for number in numbers:
        any_services.tickets.urge(number)
    dispatch.default = Behaviour(hang=0.03)
    attempted: list[int] = []
    relays = [threading.Thread(target=lambda: attempted.append(relay_of(any_services).run_once())) for _ in range(4)]
    for thread in relays:
        thread.start()
    for thread in relays:
        thread.join(60)
    relay_of(any_services).run_once()  # what was blocked when the last relay looked
    assert dispatch.overlaps == []
    assert len(dispatch.requests) == len(set(dispatch.requests)) == 48
    assert all(row.state == "delivered" for number in numbers for row in rows_of(any_services, number))


def test_no_transaction_is_open_during_http(services: Services, dispatch: DispatchServer) -> None:
    """SQLite has one writer: a second ticket can be filed while the dispatch system hangs."""
    file_ticket(services)
    dispatch.plan(hang(1.5))
    thread = threading.Thread(target=relay_of(services).run_once)
    thread.start()
    wait_until(lambda: len(dispatch.requests) == 1)
    began = time.monotonic()
    file_ticket(services, "k2")
    assert time.monotonic() - began < 1.0
    thread.join(10)


def test_one_hanging_delivery_does_not_block_the_others(services: Services, dispatch: DispatchServer) -> None:
    slow, *others = [file_ticket(services, f"k{index}") for index in range(12)]
    dispatch.rule = lambda _id, payload: hang(3.0) if payload["data"]["ticket_number"] == slow else None
    thread = threading.Thread(target=relay_of(services).run_once)
    thread.start()
    wait_until(lambda: all(rows_of(services, number)[0].state == "delivered" for number in others), 2.5)
    assert rows_of(services, slow)[0].state == "pending"
    thread.join(10)
    assert rows_of(services, slow)[0].state == "delivered"


CRASHING_RELAY = """
import json, sys, requests
from bot.outbox import Relay, build_transport
from bot.services import build_services
from bot.settings import load_settings
services = build_services(load_settings(json.loads(sys.argv[1])))
Relay(services, build_transport(services, requests.Session())).run_once()
"""


def test_crash_after_http_leads_to_redelivery_with_the_same_id(
    tmp_path: Path, services: Services, dispatch: DispatchServer, clock: Clock
) -> None:
    number = file_ticket(services)
    dispatch.plan(hang(8.0))
    environ = {
        "MINSHENG_VAR_DIR": str(tmp_path),
        "MINSHENG_DISPATCH_URL": dispatch.url,
        "MINSHENG_DISPATCH_SECRET": SECRET,
        "MINSHENG_SECRET_KEY": "测试",
    }
    crashing = subprocess.Popen([sys.executable, "-c", CRASHING_RELAY, json.dumps(environ)], cwd=PROJECT_ROOT)
    wait_until(lambda: len(dispatch.events) == 1, 30)
    crashing.send_signal(signal.SIGKILL)
    crashing.wait(10)
    relay = relay_of(services)
    assert relay.run_once() == 0, "the lease of the dead relay still holds"
    clock.advance(LEASE + timedelta(seconds=1))
    assert relay.run_once() == 1
    (row,) = rows_of(services, number)
    assert dispatch.attempts(row.id) == 2 and dispatch.counts() == {number: 1}
    assert (row.state, row.attempts) == ("delivered", 2)
    assert outcomes_of(services, row.id) == ["已发出，尚无结果", "已送达"]


@pytest.mark.parametrize("behaviour", [DROP_BEFORE_RECORDING, DROP_AFTER_RECORDING, hang(1.0)], ids=["before", "after", "timeout"])
def test_lost_answer_is_made_good_with_the_same_id(services: Services, dispatch: DispatchServer, behaviour: Behaviour) -> None:
    session = requests.Session()
    session.mount("http://", Impatient())
    number = file_ticket(services)
    dispatch.plan(behaviour)
    relay = relay_of(services, NO_DELAY, session)
    relay.run_once()
    assert rows_of(services, number)[0].state == "pending"
    relay.run_once()
    (row,) = rows_of(services, number)
    assert (row.state, dispatch.counts()) == ("delivered", {number: 1}) and dispatch.attempts(row.id) == 2


def test_late_failure_of_a_lost_lease_changes_nothing(services: Services, dispatch: DispatchServer, clock: Clock) -> None:
    """The first relay's refusal arrives while the second, which took over the expired lease, is still waiting."""
    number = file_ticket(services)
    dispatch.plan(Behaviour(status=400, hang=1.5), hang(4.0))
    first, second = (threading.Thread(target=relay_of(services).run_once) for _ in range(2))
    first.start()
    wait_until(lambda: len(dispatch.requests) == 1)
    clock.advance(LEASE + timedelta(seconds=1))
    second.start()
    wait_until(lambda: len(dispatch.requests) == 2, 1.4)
    holder = rows_of(services, number)[0].lease_owner
    first.join(10)
    (row,) = rows_of(services, number)
    assert second.is_alive() and (row.state, row.lease_owner) == ("pending", holder) and holder
    assert outcomes_of(services, row.id)[0].endswith("已由别的进程接手")
    second.join(10)
    assert rows_of(services, number)[0].state == "delivered"


ODD_ANSWERS = [b"", b"not json", b"[]", b"[1]", b'{"service_request_id": null}', b'{"service_request_id": "\\ud800"}', b"[" * 9000]


@pytest.mark.parametrize("body", [*ODD_ANSWERS, b'"' + b"x" * 99999])
def test_odd_answer_to_a_delivery_is_still_a_delivery(services: Services, dispatch: DispatchServer, body: bytes) -> None:
    number = file_ticket(services)
    dispatch.plan(Behaviour(status=202, body=body))
    relay_of(services).run_once()
    assert rows_of(services, number)[0].state == "delivered"
    assert services.tickets.get_ticket(number).service_request_id is None


# -- failure ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 408, 409, 425, 429, 500, 503, 599])
def test_transient_refusal_is_tried_again(services: Services, dispatch: DispatchServer, clock: Clock, status: int) -> None:
    number = file_ticket(services)
    dispatch.plan(Behaviour(status=status, record=False))
    relay = relay_of(services)
    relay.run_once()
    assert rows_of(services, number)[0].state == "pending" and f"HTTP {status}" in rows_of(services, number)[0].last_error
    assert relay.run_once() == 0, "not before its time"
    clock.advance(timedelta(seconds=2))
    assert relay.run_once() == 1
    assert rows_of(services, number)[0].state == "delivered" and rows_of(services, number)[0].last_error is None


@pytest.mark.parametrize("status", [400, 410, 413, 422])
def test_permanent_refusal_is_parked_at_once_with_its_reason(services: Services, dispatch: DispatchServer, status: int) -> None:
    number = file_ticket(services)
    services.tickets.urge(number)
    dispatch.plan(Behaviour(status=status, record=False))
    relay = relay_of(services, NO_DELAY)
    relay.run_once()
    created, urged = rows_of(services, number)
    assert (created.state, created.attempts) == ("parked", 1) and f"HTTP {status}" in created.last_error
    assert relay.run_once() == 0 and urged.state == "pending", "a parked message holds back the later ones"


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_wrong_address_or_secret_waits_until_it_is_put_right(services: Services, dispatch: DispatchServer, clock: Clock, status: int) -> None:
    number = file_ticket(services)
    dispatch.plan(Behaviour(status=status, record=False))
    relay = relay_of(services)
    relay.run_once()
    waiting = rows_of(services, number)[0]
    assert waiting.state == "pending" and "DISPATCH_SECRET" in waiting.last_error
    clock.advance(timedelta(seconds=3))
    assert relay.run_once() == 1
    assert rows_of(services, number)[0].state == "delivered"


def test_redirect_is_not_followed(services: Services, dispatch: DispatchServer) -> None:
    file_ticket(services)
    dispatch.plan(Behaviour(status=307, record=False, headers={"Location": dispatch.url}))
    relay_of(services).run_once()
    assert len(dispatch.requests) == 1


def test_back_off_doubles_up_to_its_cap_and_stays_within_its_jitter() -> None:
    longest, shortest = RetryPolicy(jitter=lambda: 1.0), RetryPolicy(jitter=lambda: 0.0)
    assert [longest.delay(attempts, None) for attempts in (1, 2, 3, 9, 10, 20, 5000 // 5)] == [2, 4, 8, 512, 900, 900, 900]
    assert shortest.delay(3, None) == 6


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(services: Services, dispatch: DispatchServer, clock: Clock, status: int) -> None:
    file_ticket(services)
    dispatch.plan(Behaviour(status=status, record=False, headers={"Retry-After": "120"}))
    relay = relay_of(services)
    relay.run_once()
    clock.advance(timedelta(seconds=118))
    assert relay.run_once() == 0
    clock.advance(timedelta(seconds=3))
    assert relay.run_once() == 1


@pytest.mark.parametrize("value", ["-5", "soon", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 1990 00:00:00 -0000", "٣"])
def test_odd_retry_after_harms_nothing(services: Services, dispatch: DispatchServer, clock: Clock, value: str) -> None:
    number = file_ticket(services)
    dispatch.plan(Behaviour(status=429, record=False, headers={"Retry-After": value.encode().decode("latin-1")}))
    relay = relay_of(services)
    relay.run_once()
    clock.advance(timedelta(days=1, seconds=5))
    relay.run_once()
    assert rows_of(services, number)[0].state == "delivered"


def test_message_is_parked_after_the_last_attempt(services: Services, dispatch: DispatchServer) -> None:
    number = file_ticket(services)
    dispatch.default = ERROR_500
    relay = relay_of(services, NO_DELAY)
    for _ in range(MAX_ATTEMPTS + 3):
        relay.run_once()
    (row,) = rows_of(services, number)
    assert (row.state, row.attempts, len(dispatch.requests)) == ("parked", MAX_ATTEMPTS, MAX_ATTEMPTS)
    assert len(outcomes_of(services, row.id)) == MAX_ATTEMPTS and "不再自动重试" in outcomes_of(services, row.id)[-1]


def test_message_is_parked_when_it_has_failed_for_days(services: Services, dispatch: DispatchServer, clock: Clock) -> None:
    number = file_ticket(services)
    dispatch.default = ERROR_500
    relay = relay_of(services, NO_DELAY)
    clock.advance(MAX_AGE)
    relay.run_once()
    assert rows_of(services, number)[0].state == "pending", "age counts from the first attempt, not from waiting"
    clock.advance(MAX_AGE)
    relay.run_once()
    assert rows_of(services, number)[0].state == "parked"


def test_resend_delivers_a_parked_message_and_keeps_its_history(any_services: Services, dispatch: DispatchServer, clock: Clock) -> None:
    number = file_ticket(any_services)
    any_services.tickets.urge(number)
    dispatch.plan(Behaviour(status=422, record=False), ERROR_500)
    relay = relay_of(any_services, NO_DELAY)
    relay.run_once()
    clock.advance(MAX_AGE * 2)
    parked = rows_of(any_services, number)[0]
    assert relay.resend(parked.id)
    relay.run_once()
    assert rows_of(any_services, number)[0].state == "pending", "a resend starts the count afresh"
    relay.run_once()
    assert [row.state for row in rows_of(any_services, number)] == ["delivered", "delivered"]
    history = outcomes_of(any_services, parked.id)
    assert len(history) == 4 and "HTTP 422" in history[0] and "重发" in history[1] and history[3] == "已送达"


def test_resend_of_delivered_or_unknown_messages_does_nothing(services: Services) -> None:
    number = file_ticket(services)
    relay = relay_of(services)
    relay.run_once()
    assert not relay.resend(rows_of(services, number)[0].id)
    assert not relay.resend("msg_unknown")


def test_reason_never_holds_the_address(tmp_path: Path, clock: Clock) -> None:
    url = "http://user:geheim@127.0.0.1:9/hook?token=geheim"
    services = build(tmp_path, None, clock.now, MINSHENG_DISPATCH_URL=url)
    number = file_ticket(services)
    relay_of(services).run_once()
    (row,) = rows_of(services, number)
    assert row.state == "pending" and "geheim" not in row.last_error + "".join(outcomes_of(services, row.id))


def test_message_sealed_with_another_key_is_parked(tmp_path: Path, services: Services, dispatch: DispatchServer, clock: Clock) -> None:
    number = file_ticket(services)
    other = build(tmp_path, dispatch, clock.now, MINSHENG_SECRET_KEY="另一个")
    relay_of(other).run_once()
    assert rows_of(services, number)[0].state == "parked" and dispatch.requests == []


def test_fault_in_a_transport_is_a_transient_failure(services: Services) -> None:
    class Broken:
        def deliver(self, message: Message) -> str | None:
            raise KeyError("13800000000")

    number = file_ticket(services)
    Relay(services, Broken()).run_once()
    (row,) = rows_of(services, number)
    assert row.state == "pending" and "KeyError" in row.last_error and "13800000000" not in row.last_error


# -- the thread ---------------------------------------------------------------------------------------------------


@pytest.fixture
def running(services: Services) -> Iterator[Relay]:
    relay, stop = relay_of(services), threading.Event()
    thread = threading.Thread(target=relay.run_forever, args=(stop,), daemon=True)
    thread.start()
    yield relay
    stop.set()
    thread.join(15)
    assert not thread.is_alive()


def test_thread_delivers_soon_after_a_turn(services: Services, running: Relay, dispatch: DispatchServer) -> None:
    file_ticket(services)
    running.wake.set()
    wait_until(lambda: len(dispatch.events) == 1, 2)


def test_thread_survives_a_database_outage(services: Services, running: Relay, dispatch: DispatchServer) -> None:
    with transaction(services.engine) as connection:
        connection.exec_driver_sql("ALTER TABLE outbox RENAME TO gone")
    time.sleep(1.2)
    with transaction(services.engine) as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO outbox")
    file_ticket(services)
    wait_until(lambda: len(dispatch.events) == 1, 5)


def test_thread_survives_a_database_that_refuses_writes(services: Services, dispatch: DispatchServer) -> None:
    number = file_ticket(services)
    locker = create_engine(services.settings.sqlalchemy_url).raw_connection()
    locker.isolation_level = None
    locker.cursor().execute("CREATE TRIGGER full BEFORE UPDATE ON outbox BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    relay, stop = relay_of(services), threading.Event()
    thread = threading.Thread(target=relay.run_forever, args=(stop,), daemon=True)
    thread.start()
    time.sleep(1.2)
    assert dispatch.requests == [], "nothing is sent that could not be claimed"
    locker.cursor().execute("DROP TRIGGER full")
    locker.close()
    wait_until(lambda: rows_of(services, number)[0].state == "delivered", 5)
    stop.set()
    thread.join(15)


def test_stopping_finishes_what_is_under_way(services: Services, dispatch: DispatchServer) -> None:
    number = file_ticket(services)
    dispatch.plan(hang(1.0))
    relay, stop = relay_of(services), threading.Event()
    thread = threading.Thread(target=relay.run_forever, args=(stop,), daemon=True)
    thread.start()
    wait_until(lambda: len(dispatch.requests) == 1)
    stop.set()
    thread.join(10)
    assert rows_of(services, number)[0].state == "delivered"


# -- the other transports -----------------------------------------------------------------------------------------


def test_sandbox_keeps_each_message_once(tmp_path: Path, clock: Clock) -> None:
    services = build(tmp_path, None, clock.now)
    number = file_ticket(services)
    relay = relay_of(services)
    relay.run_once()
    with transaction(services.engine) as connection:  # as if the outcome had been lost
        connection.execute(update(outbox).values(state="pending", next_attempt_at=iso(clock.now())))
    relay.run_once()
    with services.engine.connect() as connection:
        (kept,) = connection.execute(select(sandbox_deliveries)).fetchall()
    assert services.vault.open(kept.body)["data"]["ticket_number"] == number
    assert services.tickets.get_ticket(number).service_request_id == f"SANDBOX-{number}"


def test_settings_choose_the_transport(tmp_path: Path, dispatch: DispatchServer, clock: Clock) -> None:
    session = requests.Session()
    assert isinstance(build_transport(build(tmp_path, None, clock.now), session), SandboxTransport)
    assert isinstance(build_transport(build(tmp_path, dispatch, clock.now), session), WebhookTransport)
    open311 = build(tmp_path, dispatch, clock.now, MINSHENG_DISPATCH_PROTOCOL="open311")
    assert isinstance(build_transport(open311, session), Open311Transport)


def test_open311_files_the_ticket_and_acknowledges_updates(tmp_path: Path, dispatch: DispatchServer, clock: Clock) -> None:
    services = build(
        tmp_path,
        dispatch,
        clock.now,
        MINSHENG_DISPATCH_URL=dispatch.base_url,
        MINSHENG_DISPATCH_PROTOCOL="open311",
        MINSHENG_DISPATCH_API_KEY="钥匙",
    )
    place = {"text": "桂花新村8号楼", "lat": 33.61, "lng": 119.02}
    number = file_ticket(services, name="王女士", phone="13800000000", facts={"when": "每晚"}, place=place)
    services.tickets.urge(number)
    relay_of(services).run_once()
    (form,) = dispatch.forms
    assert form == {
        "api_key": "钥匙",
        "service_code": "010204",
        "description": "桂花新村8号楼的路灯坏了",
        "address_string": "桂花新村8号楼",
        "lat": "33.61",
        "long": "119.02",
        "first_name": "王女士",
        "phone": "13800000000",
        "attribute[when]": "每晚",
    }
    assert [row.state for row in rows_of(services, number)] == ["delivered", "delivered"]
    assert services.tickets.get_ticket(number).service_request_id == "311001"


@pytest.mark.parametrize("wish", ["anonymous", "confidential"])
def test_open311_never_names_who_wants_to_stay_hidden(wish: str) -> None:
    reporter = {"name": "王女士", "phone": "13800000000", "anonymous": False, "confidential": False, wish: True}
    data = {"category": {"code": "0102"}, "description": "x" * 5000, "location": {"text": None}, "reporter": reporter}
    assert open311_form(data, "") == {"service_code": "0102", "description": "x" * 4000}


def test_dispatch_error_says_whether_to_try_again() -> None:
    assert DispatchError("拒收", permanent=True).permanent and not DispatchError("超时", permanent=False).permanent
