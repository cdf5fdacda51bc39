"""The official account's callback: one turn per message, answered inside the platform's five seconds or pushed once.

Who answers is decided by one column: inbound_message.delivery goes by compare-and-set from NULL to `passive` (said in the
HTTP answer, and again to a retry) or to `pushing` and then `pushed` or `pending` (kept as a notice for the next turn).
"""
from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from flask import Blueprint, Response, request
from sqlalchemy import func, select, update
from sqlalchemy.engine import Row
from werkzeug.exceptions import RequestEntityTooLarge

from bot.conversation import TOO_FAST, Conversations, InboundMessage, Receipt, Reply, reply_from_dict
from bot.db import conversations as conversation_table
from bot.db import inbound_messages, iso, notices, parse_iso, reading, transaction
from bot.services import Services
from bot.wechat import (
    MAX_BODY,
    SUCCESS,
    CustomerServiceClient,
    Incoming,
    WeChatCodec,
    WeChatError,
    choose_button,
    find_last_reply,
    full_text,
    passive_text,
)

logger = logging.getLogger(__name__)

# The platform hangs up after 5 s; the rest is for the way there and back.
PASSIVE_SECONDS = 4.2
_POLL_SECONDS = 0.1
# Customer-service messages are allowed for 48 hours after the resident's last message.
_PUSH_WINDOW = timedelta(hours=48)
# By then the platform has made its last retry and a push of this process is long done: whoever owed the answer is gone.
_OVERDUE = timedelta(seconds=60)


class Counter(Protocol):
    def inc(self) -> None: ...


class Counters(Protocol):
    @property
    def forged_signatures(self) -> Counter: ...


class Delivery:
    """Gets stored replies and notices to residents, each at most once, whoever else is trying."""

    def __init__(self, services: Services, client: CustomerServiceClient) -> None:
        self.services, self.client = services, client
        self._refused_at: dict[str, int] = {}  # conversation → its last message when the platform would take no more

    def claim_passive(self, row_id: int) -> bool:
        """Whether the HTTP answer may say the reply: first to claim it, or it was said this way before (a retry)."""
        if self._claim(row_id, "passive"):
            return True
        with reading(self.services.engine) as connection:
            row = connection.execute(
                select(inbound_messages.c.delivery, inbound_messages.c.answered_at).where(inbound_messages.c.id == row_id)
            ).one()
        # Not answered: the reply is an apology that was not stored. It may be said; the real answer follows from recover().
        return row.delivery == "passive" or row.answered_at is None

    def push(self, receipt: Receipt, openid: str, reply: Reply) -> None:
        """Send a stored reply as customer-service message, unless it was delivered or is being delivered."""
        if self._claim(receipt.row_id, "pushing"):
            unsent = self._send(receipt.conversation_id, openid, full_text(reply))
            self._settle(receipt, unsent)

    def deliver_recovered(self, receipt: Receipt, message: InboundMessage, reply: Reply) -> None:
        """For what Conversations.recover() answered; other channels fetch their replies themselves."""
        if message.channel == "wechat":
            self.push(receipt, message.sender, reply)

    def deliver_notices(self) -> None:
        """Push what residents are owed: replies left behind by a crash, and notices while the platform allows it."""
        for row in self._overdue_replies():
            receipt = Receipt(row.id, row.conversation_id)
            self.push(receipt, self._openid(row), reply_from_dict(self.services.vault.open(row.reply)))
        since = iso(self.services.now() - _PUSH_WINDOW)
        for row in self._reachable(since):
            if self._refused_at.get(row.conversation_id) != row.last_id:
                self._deliver_notices_of(row)

    def _deliver_notices_of(self, reachable: Row) -> None:
        for notice in self._open_notices(reachable.conversation_id):
            if not self._set_delivered(notice.id, iso(self.services.now()), only_if_open=True):
                continue
            unsent = self._send(reachable.conversation_id, self._openid(reachable), self.services.vault.open(notice.text))
            if unsent:
                self._set_delivered(notice.id, None, text=unsent)
                self._refused_at[reachable.conversation_id] = reachable.last_id
                return

    def _send(self, conversation_id: str, openid: str, text: str) -> str:
        """What certainly was not sent. A call that may have taken effect counts as sent: nothing is said twice."""
        try:
            return self.client.send_text(openid, text).unsent
        except WeChatError as error:
            logger.warning("customer-service message failed: %s", error, extra={"conversation": conversation_id})
            return "" if error.unsure else text

    # -- rows -----------------------------------------------------------------------------------------------------

    def _claim(self, row_id: int, delivery: str) -> bool:
        with transaction(self.services.engine) as connection:
            changed = connection.execute(
                update(inbound_messages)
                .where(inbound_messages.c.id == row_id, inbound_messages.c.delivery.is_(None))
                .where(inbound_messages.c.answered_at.is_not(None))
                .values(delivery=delivery)
            )
        return bool(changed.rowcount == 1)

    def _settle(self, receipt: Receipt, unsent: str) -> None:
        with transaction(self.services.engine) as connection:
            connection.execute(
                update(inbound_messages)
                .where(inbound_messages.c.id == receipt.row_id)
                .values(delivery="pending" if unsent else "pushed")
            )
            if unsent:
                connection.execute(
                    notices.insert().values(
                        conversation_id=receipt.conversation_id,
                        text=self.services.vault.seal(unsent),
                        created_at=iso(self.services.now()),
                    )
                )

    def _overdue_replies(self) -> list[Row]:
        now = self.services.now()
        with reading(self.services.engine) as connection:
            return list(
                connection.execute(
                    select(inbound_messages.c.id, inbound_messages.c.conversation_id, inbound_messages.c.reply, conversation_table.c.sender)
                    .join(conversation_table, conversation_table.c.id == inbound_messages.c.conversation_id)
                    .where(conversation_table.c.channel == "wechat", inbound_messages.c.delivery.is_(None))
                    .where(inbound_messages.c.answered_at < iso(now - _OVERDUE), inbound_messages.c.received_at > iso(now - _PUSH_WINDOW))
                    .order_by(inbound_messages.c.id)
                    .limit(200)
                )
            )

    def _reachable(self, since: str) -> list[Row]:
        """WeChat conversations with open notices whose last message is younger than `since`."""
        last_id, last_at = func.max(inbound_messages.c.id).label("last_id"), func.max(inbound_messages.c.received_at)
        waiting = select(notices.c.conversation_id).where(notices.c.delivered_at.is_(None))
        with reading(self.services.engine) as connection:
            return list(
                connection.execute(
                    select(inbound_messages.c.conversation_id, conversation_table.c.sender, last_id)
                    .join(conversation_table, conversation_table.c.id == inbound_messages.c.conversation_id)
                    .where(conversation_table.c.channel == "wechat", inbound_messages.c.conversation_id.in_(waiting))
                    .group_by(inbound_messages.c.conversation_id, conversation_table.c.sender)
                    .having(last_at > since)
                )
            )

    def _open_notices(self, conversation_id: str) -> list[Row]:
        with reading(self.services.engine) as connection:
            return list(
                connection.execute(
                    select(notices.c.id, notices.c.text)
                    .where(notices.c.conversation_id == conversation_id, notices.c.delivered_at.is_(None))
                    .order_by(notices.c.id)
                )
            )

    def _set_delivered(self, notice_id: int, at: str | None, *, text: str | None = None, only_if_open: bool = False) -> bool:
        values: dict[str, object] = {"delivered_at": at}
        if text is not None:
            values["text"] = self.services.vault.seal(text)
        statement = update(notices).where(notices.c.id == notice_id).values(**values)
        with transaction(self.services.engine) as connection:
            changed = connection.execute(statement.where(notices.c.delivered_at.is_(None)) if only_if_open else statement)
        return bool(changed.rowcount == 1)

    def _openid(self, row: Row) -> str:
        return str(self.services.vault.open(row.sender)["sender"])


class Callback:
    """Views of /wechat. After a valid signature the answer is a well-formed reply or `success`, whatever happens inside."""

    def __init__(
        self,
        services: Services,
        conversations: Conversations,
        counters: Counters,
        client: CustomerServiceClient,
        allow: Callable[[str], bool],
        *,
        seconds: float,
    ) -> None:
        self.services, self.conversations, self.counters, self._allow = services, conversations, counters, allow
        self.codec = WeChatCodec(services.settings, now=services.now)
        self.delivery = Delivery(services, client)
        self._seconds = seconds
        self._turns = ThreadPoolExecutor(64, thread_name_prefix="wechat-turn")
        # Its own pool: a platform that is slow to take pushes must not slow down answers.
        self._pushes = ThreadPoolExecutor(8, thread_name_prefix="wechat-push")
        self._running: dict[int, Future[Reply]] = {}
        self._guard = threading.Lock()

    def check_url(self) -> Response:
        try:
            return _plain(self.codec.verify_url(request.args))
        except WeChatError as error:
            return self._refuse(403, str(error))

    def receive(self) -> Response:
        deadline = time.monotonic() + self._seconds
        request.max_content_length = MAX_BODY
        try:
            incoming = self.codec.open_request(request.args, request.get_data(cache=False))
        except RequestEntityTooLarge:
            return self._refuse(413, "body too large")
        except WeChatError as error:
            return self._refuse(403, str(error))
        if incoming.message is None:
            return self._say_fixed(incoming, incoming.fixed)
        if not self._allow(incoming.message.sender):
            return self._say_fixed(incoming, TOO_FAST)
        try:
            message, receipt, waited = self._keep(incoming.message)
        except Exception as error:
            # Not stored, so not to be acknowledged: the platform will send it again.
            logger.error("message could not be kept: %s", type(error).__name__)
            return _plain("", status=503)
        try:
            # A retry waits no longer than the first request did: once that said `success`, the answer comes by push.
            reply = receipt.reply or self._wait(message, receipt, waited is None, deadline - (waited or 0.0))
            # Rendered before it is claimed: what cannot be said here is then pushed later.
            answer = self._render(incoming, passive_text(reply) if reply else "")
            return answer if reply and self.delivery.claim_passive(receipt.row_id) else _plain(SUCCESS)
        except Exception as error:
            _log_failure("message kept but not answered", error, receipt)
            return _plain(SUCCESS)

    def _keep(self, message: InboundMessage) -> tuple[InboundMessage, Receipt, float | None]:
        """The message as stored (a number as the choice it stands for), and for a retry the seconds since the first request."""
        conversation_id = self.conversations.conversation_id(message.channel, message.sender, message.account)
        waited = self._seconds_known(conversation_id, message.message_id)
        if waited is None and message.kind == "text":
            chosen = choose_button(message.text, find_last_reply(self.services, conversation_id))
            message = message if chosen is None else replace(message, text=chosen)
        return message, self.conversations.receive(message), waited

    def _seconds_known(self, conversation_id: str, message_id: str) -> float | None:
        with reading(self.services.engine) as connection:
            row = connection.execute(
                select(inbound_messages.c.received_at).where(
                    inbound_messages.c.conversation_id == conversation_id, inbound_messages.c.message_id == message_id
                )
            ).first()
        return max(0.0, (self.services.now() - parse_iso(row.received_at)).total_seconds()) if row else None

    def _wait(self, message: InboundMessage, receipt: Receipt, first: bool, deadline: float) -> Reply | None:
        turn = self._start(message, receipt) if first else self._running.get(receipt.row_id)
        if turn is None:  # it runs in another process, or died with it: then recover() answers
            return self._watch(message, deadline)
        try:
            return turn.result(timeout=max(0.0, deadline - time.monotonic()))
        except TooLate:
            turn.add_done_callback(lambda done: self._pushes.submit(self._push, receipt, message, done))
            return None

    def _start(self, message: InboundMessage, receipt: Receipt) -> Future[Reply]:
        """The one turn of this message in this process; parallel first requests share it."""
        with self._guard:
            running = self._running.get(receipt.row_id)
            if running is not None:
                return running
            # respond() looks once more whether the message was answered meanwhile.
            turn = self._running[receipt.row_id] = self._turns.submit(self.conversations.respond, message)
        turn.add_done_callback(lambda _: self._running.pop(receipt.row_id, None))
        return turn

    def _watch(self, message: InboundMessage, deadline: float) -> Reply | None:
        while time.monotonic() + _POLL_SECONDS < deadline:
            reply = self.conversations.receive(message).reply
            if reply is not None:
                return reply
            time.sleep(_POLL_SECONDS)
        return None

    def _push(self, receipt: Receipt, message: InboundMessage, turn: Future[Reply]) -> None:
        try:
            self.delivery.push(receipt, message.sender, turn.result())
        except Exception as error:
            _log_failure("late answer not pushed", error, receipt)

    def _say_fixed(self, incoming: Incoming, text: str) -> Response:
        try:
            return self._render(incoming, text)
        except WeChatError as error:
            logger.error("fixed answer not rendered: %s", error)
            return _plain(SUCCESS)

    def _render(self, incoming: Incoming, text: str) -> Response:
        body = self.codec.render(incoming, text)
        return _plain(body) if body == SUCCESS else Response(body, content_type="application/xml; charset=utf-8")

    def _refuse(self, status: int, reason: str) -> Response:
        self.counters.forged_signatures.inc()
        logger.warning("refused a request to /wechat: %s", reason)
        return _plain("", status=status)


def create_blueprint(
    services: Services,
    conversations: Conversations,
    counters: Counters,
    client: CustomerServiceClient,
    allow: Callable[[str], bool],
    *,
    seconds: float = PASSIVE_SECONDS,
) -> Blueprint:
    """GET and POST /wechat. `seconds` is how long a resident's message may wait for its passive reply.

    `allow(openid)` says whether the rate limit admits one more message.
    """
    callback = Callback(services, conversations, counters, client, allow, seconds=seconds)
    blueprint = Blueprint("wechat", __name__)
    blueprint.add_url_rule("/wechat", "check_url", callback.check_url, methods=["GET"])
    blueprint.add_url_rule("/wechat", "receive", callback.receive, methods=["POST"])
    return blueprint


def _log_failure(what: str, error: Exception, receipt: Receipt) -> None:
    # Without str(error), which may quote the resident.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: %s\n%s", what, type(error).__qualname__, frames, extra={"conversation": receipt.conversation_id})


def _plain(body: str, *, status: int = 200) -> Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(body, status=status, headers=headers, content_type="text/plain; charset=utf-8")
