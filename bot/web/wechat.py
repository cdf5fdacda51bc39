"""The official account's callback: one turn per message, answered inside the platform's five seconds or pushed once.

The platform sends a message again after five and ten seconds without an answer. The first request waits for its turn, up to
4.2 s; then it says `success` and the answer is pushed. A repeated request is answered from what this process remembers of the
first. At most FIRST_PLACES + RETRY_PLACES threads wait, so there is always one free to answer at once.
Where customer-service messages are not permitted, nobody says `success`: the platform's own retries fetch the answer.
"""
from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

from flask import Blueprint, Response, request
from sqlalchemy import select
from werkzeug.exceptions import RequestEntityTooLarge

from bot.conversation import TOO_FAST, Conversations, InboundMessage, Receipt, Reply
from bot.db import iso, parse_iso, reading
from bot.ordered_pool import OrderedPool
from bot.schema import conversations as conversation_table
from bot.schema import inbound_messages
from bot.services import Services
from bot.survey import MENU_PREFIX
from bot.wechat import MAX_BODY, SUCCESS, Incoming, WeChatCodec
from bot.wechat_api import WeChatClient, WeChatError
from bot.wechat_contacts import Contacts
from bot.wechat_delivery import OVERDUE, Delivery, find_last_reply
from bot.wechat_media import MediaKeeper
from bot.wechat_notify import Notifier
from bot.wechat_text import choose_button, passive_text

logger = logging.getLogger(__name__)

# The platform hangs up after 5 s; the rest is for the way there and back.
PASSIVE_SECONDS, HANG_UP_SECONDS = 4.2, 5.2
TYPING_SECONDS = 1.5
FIRST_PLACES, RETRY_PLACES = 56, 8  # of webhook.THREADS
_TURN_THREADS, _PUSH_THREADS = 64, 8
_POLL_SECONDS = 0.1
_REMEMBERED_SECONDS, _REMEMBERED = 60.0, 20_000
_RESUME_AGE = timedelta(seconds=15)

ASK_TO_TYPE = "暂时听不了语音，请把想说的话打字发过来；也可以直接拨打 12345。紧急情况请拨打 110、119、120。"
NO_MEDIA = "暂时收不了图片和视频。请打字说明情况，也可以发位置；紧急情况请拨打 110、119、120。"
STILL_WORKING = "您的话已经记下，正在处理。请过一会儿随便回一个字，就能看到答复。"


class Counter(Protocol):
    def inc(self) -> None: ...


class Counters(Protocol):
    @property
    def forged_signatures(self) -> Counter: ...


@dataclass(frozen=True)
class _Outcome:
    """A finished turn. Without a receipt the reply is not stored: nobody understood a voice message."""

    receipt: Receipt | None
    reply: Reply | None
    fixed: str = ""


@dataclass
class _Work:
    """A message this process answers, or has answered lately. `turn` is None when another process does."""

    started: float  # on the monotonic clock, when the platform sent it first
    kept: threading.Event = field(default_factory=threading.Event)
    receipt: Receipt | None = None
    turn: Future[_Outcome] | None = None
    said: str | None = None  # in an HTTP answer
    closed: bool = False  # `success` was said: the answer is pushed
    failed: bool = False  # could not be stored


class Callback:
    """Views of /wechat. After a valid signature the answer is a well-formed reply or `success`, whatever happens inside."""

    def __init__(
        self,
        services: Services,
        conversations: Conversations,
        counters: Counters,
        client: WeChatClient,
        allow: Callable[[str], bool],
        *,
        seconds: float = PASSIVE_SECONDS,
        hang_up: float = HANG_UP_SECONDS,
    ) -> None:
        """`seconds` is how long a request may wait for its reply, `hang_up` when the platform gives up on one.

        `allow(openid)` says whether the rate limit admits one more message.
        """
        self.services, self.conversations, self.counters, self.client, self._allow = services, conversations, counters, client, allow
        self.codec = WeChatCodec(services.settings, now=services.now)
        self.contacts, self.media = Contacts(services), MediaKeeper(services, client)
        self.delivery, self._notifier = Delivery(services, client, self.contacts), Notifier(services, client)
        self._seconds, self._hang_up = seconds, hang_up
        self._turns = OrderedPool(_TURN_THREADS, "wechat-turn")
        # Its own pool: a platform that is slow to take pushes must not slow down answers.
        self._pushes = OrderedPool(_PUSH_THREADS, "wechat-push")
        self._first_places, self._retry_places = threading.Semaphore(FIRST_PLACES), threading.Semaphore(RETRY_PLACES)
        self._works: OrderedDict[tuple[str, str], _Work] = OrderedDict()
        self._resuming: set[int] = set()
        self._resumed_once = False
        self._guard = threading.Lock()

    # -- views ----------------------------------------------------------------------------------------------------

    def check_url(self) -> Response:
        try:
            return _plain(self.codec.verify_url(request.args))
        except WeChatError as error:
            return self._refuse(403, str(error))

    def receive(self) -> Response:
        started = time.monotonic()
        request.max_content_length = MAX_BODY
        try:
            incoming = self.codec.open_request(request.args, request.get_data(cache=False))
        except RequestEntityTooLarge:
            return self._refuse(413, "body too large")
        except WeChatError as error:
            return self._refuse(403, str(error))
        incoming = self._without_unreadable(incoming)
        try:
            if incoming.message is not None:
                return self._answer(incoming, incoming.message, started)
            self._note(incoming)
        except Exception as error:
            # Not stored, so not to be acknowledged: the platform will send it again.
            logger.error("message could not be kept: %s", type(error).__name__)
            return _plain("", status=503)
        return self._say(incoming, incoming.fixed)

    def _without_unreadable(self, incoming: Incoming) -> Incoming:
        """Media need the platform's API, and voice a recogniser; where there is none the resident is asked to type."""
        media, settings = incoming.media, self.services.settings
        if media is None:
            return incoming
        if media.kind == "voice" and not (settings.asr_url and settings.wechat_app_secret and media.media_id):
            return replace(incoming, message=None, media=None, fixed=ASK_TO_TYPE)
        if not settings.wechat_app_secret:
            return replace(incoming, message=None, media=None, fixed=NO_MEDIA)
        return incoming

    # -- one message ----------------------------------------------------------------------------------------------

    def _answer(self, incoming: Incoming, message: InboundMessage, started: float) -> Response:
        conversation_id = self.conversations.conversation_id(message.channel, message.sender, message.account)
        work, first = self._work(conversation_id, message.message_id, started)
        if first:
            try:
                admitted = self._take_in(incoming, message, conversation_id, work)
            except BaseException:
                work.failed = True
                self._forget(conversation_id, message.message_id)
                raise
            finally:
                work.kept.set()
            if not admitted:
                self._forget(conversation_id, message.message_id)
                return self._say(incoming, TOO_FAST)
        elif not work.kept.wait(self._seconds) or work.failed:
            return _plain("", status=503)
        try:
            return self._reply(incoming, work, first, started)
        except Exception as error:
            _log_failure("message kept but not answered", error, conversation_id)
            return _plain(SUCCESS)

    def _work(self, conversation_id: str, message_id: str, started: float) -> tuple[_Work, bool]:
        """What this process knows of a message, and whether it is the first to ask."""
        key = (conversation_id, message_id)
        with self._guard:
            work = self._works.get(key)
            if work is not None:
                return work, False
            work = self._works[key] = _Work(started)
            while len(self._works) > _REMEMBERED or next(iter(self._works.values())).started < started - _REMEMBERED_SECONDS:
                self._works.popitem(last=False)
            return work, True

    def _forget(self, conversation_id: str, message_id: str) -> None:
        with self._guard:
            self._works.pop((conversation_id, message_id), None)

    def _take_in(self, incoming: Incoming, message: InboundMessage, conversation_id: str, work: _Work) -> bool:
        """Store the message and start its turn, unless it came before; False when the rate limit does not admit it."""
        if self._came_before(incoming, message, conversation_id, work):
            return True
        if not self._allow(message.sender):
            return False
        self.contacts.grant(conversation_id, message, incoming.grants)
        media = incoming.media
        if media is not None and media.kind == "voice":
            note_id, new = self.media.note_voice(conversation_id, message, media)
            work.closed = not new
            if new:
                work.turn = self._turns.submit(conversation_id, lambda: self._hear(note_id, message))
            return True
        if media is not None:
            message = replace(message, attachment=self.media.note_attachment(conversation_id, message, media))
        elif incoming.menu_id.startswith(MENU_PREFIX):  # its words may be those of a button as well
            message = replace(message, menu_id=incoming.menu_id)
        elif message.kind == "text":
            chosen = choose_button(message.text, find_last_reply(self.services, conversation_id))
            message = message if chosen is None else replace(message, text=chosen)
        receipt = work.receipt = self.conversations.receive(message)
        work.turn = self._turns.submit(conversation_id, lambda: _Outcome(receipt, self.conversations.answer(receipt)))
        return True

    def _came_before(self, incoming: Incoming, message: InboundMessage, conversation_id: str, work: _Work) -> bool:
        """To another process, or to this one before it was restarted."""
        mine = inbound_messages.c.conversation_id == conversation_id, inbound_messages.c.message_id == message.message_id
        with reading(self.services.engine) as connection:
            row = connection.execute(select(inbound_messages.c.id, inbound_messages.c.received_at).where(*mine)).first()
        elapsed: timedelta | None = None
        if row is not None:
            work.receipt = Receipt(row.id, conversation_id)
            elapsed = self.services.now() - parse_iso(row.received_at)
        elif incoming.media is not None and incoming.media.kind == "voice":
            elapsed = self.media.find_voice(conversation_id, message)
        if elapsed is None:
            return False
        work.started -= max(0.0, elapsed.total_seconds())
        # Of a voice message only its own process knows more.
        work.closed = row is None
        return True

    def _hear(self, note_id: str, message: InboundMessage) -> _Outcome:
        words = self.media.listen(note_id)
        if not words:
            self.media.settle_voice(note_id)
            return _Outcome(None, None, ASK_TO_TYPE)
        receipt = self.conversations.receive(replace(message, text=words))
        self.media.settle_voice(note_id)
        return _Outcome(receipt, self.conversations.answer(receipt))

    # -- the answer in time, or not -------------------------------------------------------------------------------

    def _reply(self, incoming: Incoming, work: _Work, first: bool, started: float) -> Response:
        if work.said is not None:
            return self._say(incoming, work.said)
        if work.closed:
            return _plain(SUCCESS)
        pushing = self.client.can_push()
        # With pushes a repeated request waits no longer than the first one; without them each waits as long as it may.
        deadline = (work.started if pushing else started) + self._seconds
        places = self._first_places if first or not pushing else self._retry_places
        seated = places.acquire(blocking=False)
        try:
            if seated:
                self._wait(incoming, work, first and pushing, deadline)
            text = self._claim(work, deadline)
            if text is not None:
                return self._say_claimed(incoming, work, text)
            if pushing or (work.turn is not None and work.turn.done()):
                self._close(incoming, work)
                return _plain(SUCCESS)
            return self._let_time_out(incoming, work, started, seated)
        finally:
            if seated:
                places.release()

    def _wait(self, incoming: Incoming, work: _Work, typing: bool, deadline: float) -> None:
        """Return when the turn is over, or at the deadline; after a while the resident sees that somebody is writing."""
        if typing and not self._wait_until(work, min(deadline, work.started + TYPING_SECONDS)) and time.monotonic() < deadline:
            self._pushes.submit("typing " + incoming.openid, lambda: self._show_typing(incoming.openid))
        self._wait_until(work, deadline)

    def _wait_until(self, work: _Work, deadline: float) -> bool:
        if work.turn is not None:
            return bool(wait([work.turn], max(0.0, deadline - time.monotonic())).done)
        while not self._is_answered(work):
            if time.monotonic() + _POLL_SECONDS > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _is_answered(self, work: _Work) -> bool:
        assert work.receipt is not None
        with reading(self.services.engine) as connection:
            row_id = inbound_messages.c.id == work.receipt.row_id
            return connection.execute(select(inbound_messages.c.answered_at).where(row_id)).scalar_one() is not None

    def _claim(self, work: _Work, deadline: float) -> str | None:
        """What this answer may say; None when there is nothing yet, or it is delivered another way."""
        if work.turn is not None and not work.turn.done():
            return None
        outcome = work.turn.result() if work.turn is not None else _Outcome(work.receipt, None)
        if outcome.receipt is None:
            with self._guard:  # not stored, so nothing but this process keeps it from being said twice
                if work.closed:
                    return None
                work.said = outcome.fixed
            return outcome.fixed
        while True:
            claim = self.delivery.claim_passive(outcome.receipt)
            if claim.unanswered and outcome.reply is not None:
                return passive_text([outcome.reply])  # an apology that was not stored; the real answer follows from recovery
            if not claim.busy or time.monotonic() + _POLL_SECONDS > deadline:
                return claim.text
            time.sleep(_POLL_SECONDS)

    def _close(self, incoming: Incoming, work: _Work) -> None:
        """From now on everybody says `success`; whoever closes first sees to it that the answer is pushed."""
        with self._guard:
            if work.closed or work.said is not None:
                return
            work.closed = True
        if work.turn is not None:
            conversation_id = self.conversations.conversation_id("wechat", incoming.openid, incoming.account)
            work.turn.add_done_callback(lambda turn: self._push_later(conversation_id, incoming.openid, turn))

    def _push_later(self, conversation_id: str, openid: str, turn: Future[_Outcome]) -> None:
        error = turn.exception()
        if error is not None:
            _log_failure("turn failed, recovery answers", error, conversation_id)
            return
        self._pushes.submit(conversation_id, lambda: self._push(conversation_id, openid, turn.result()))

    def _push(self, conversation_id: str, openid: str, outcome: _Outcome) -> None:
        try:
            if outcome.receipt is not None:
                self.delivery.push(outcome.receipt, openid)
            else:
                self.delivery.say_later(conversation_id, outcome.fixed)
        except Exception as error:
            _log_failure("late answer not pushed", error, conversation_id)

    def _show_typing(self, openid: str) -> None:
        try:
            self.client.show_typing(openid)
        except WeChatError as error:
            logger.info("no typing sign: %s", error)

    def _let_time_out(self, incoming: Incoming, work: _Work, started: float, seated: bool) -> Response:
        """Without customer-service messages: no answer now, so that the platform asks again; at last a word of comfort."""
        last = time.monotonic() - work.started > 2 * self._hang_up
        if last or not seated:
            return self._say(incoming, STILL_WORKING)  # the answer is said with the resident's next message
        time.sleep(max(0.0, started + self._hang_up - time.monotonic()))
        return _plain("", status=503)

    # -- events ---------------------------------------------------------------------------------------------------

    def _note(self, incoming: Incoming) -> None:
        """What needs no turn: quotas, and what the platform tells about a resident. Raises StorageError."""
        conversation_id = self.conversations.conversation_id("wechat", incoming.openid, incoming.account)
        if incoming.grants:
            self.contacts.grant(conversation_id, InboundMessage("wechat", incoming.openid, "", account=incoming.account), incoming.grants)
        if incoming.notification is not None:
            person = incoming.notification.details.get("openid") or incoming.openid
            self.contacts.heed(self.conversations.conversation_id("wechat", person, incoming.account), incoming.notification)

    # -- background -----------------------------------------------------------------------------------------------

    def tell_news(self, *, unsaid_for: timedelta = OVERDUE) -> None:
        """By the best way open: a customer-service message, else a notification; else it waits. For a thread that repeats."""
        self.delivery.deliver_notices(unsaid_for=unsaid_for)
        self._notifier.notify()

    def resume(self) -> None:
        """Answer what a crash left behind, side by side; for a thread that repeats. Its first round takes everything."""
        limit = iso(self.services.now() - (_RESUME_AGE if self._resumed_once else timedelta(0)))
        self._resumed_once, stored = True, inbound_messages.c
        with reading(self.services.engine) as connection:
            rows = connection.execute(
                select(stored.id, stored.conversation_id, stored.message_id, conversation_table.c.sender)
                .join(conversation_table, conversation_table.c.id == stored.conversation_id)
                .where(conversation_table.c.channel == "wechat", stored.answered_at.is_(None))
                .where(stored.received_at < limit)
                .order_by(stored.id)
                .limit(2000)
            ).fetchall()
        for row in rows:
            openid = str(self.services.vault.open(row.sender)["sender"])
            self._resume(Receipt(row.id, row.conversation_id), row.message_id, openid)
        if self.services.settings.asr_url:
            for note_id, message in self.media.due_voices():
                self._resume_voice(note_id, message)

    def _resume(self, receipt: Receipt, message_id: str, openid: str) -> None:
        with self._guard:
            work = self._works.get((receipt.conversation_id, message_id))
            if receipt.row_id in self._resuming or (work is not None and work.turn is not None and not work.turn.done()):
                return
            self._resuming.add(receipt.row_id)
        turn = self._turns.submit(receipt.conversation_id, lambda: _Outcome(receipt, self.conversations.answer(receipt)))
        turn.add_done_callback(lambda _: self._resuming.discard(receipt.row_id))
        turn.add_done_callback(lambda done: self._push_later(receipt.conversation_id, openid, done))

    def _resume_voice(self, note_id: str, message: InboundMessage) -> None:
        conversation_id = self.conversations.conversation_id(message.channel, message.sender, message.account)
        turn = self._turns.submit(conversation_id, lambda: self._hear(note_id, message))
        turn.add_done_callback(lambda done: self._push_later(conversation_id, message.sender, done))

    # -- HTTP -----------------------------------------------------------------------------------------------------

    def _say_claimed(self, incoming: Incoming, work: _Work, text: str) -> Response:
        try:
            answer = self._render(incoming, text)
        except WeChatError as error:
            logger.error("reply not rendered: %s", error)
            if work.receipt is not None:
                self.delivery.release(work.receipt)
            self._close(incoming, work)
            return _plain(SUCCESS)
        work.said = text
        return answer

    def _say(self, incoming: Incoming, text: str) -> Response:
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


def create_blueprint(callback: Callback) -> Blueprint:
    """GET and POST /wechat."""
    blueprint = Blueprint("wechat", __name__)
    blueprint.add_url_rule("/wechat", "check_url", callback.check_url, methods=["GET"])
    blueprint.add_url_rule("/wechat", "receive", callback.receive, methods=["POST"])
    return blueprint


def _log_failure(what: str, error: BaseException, conversation_id: str) -> None:
    # Without str(error), which may quote the resident.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: %s\n%s", what, type(error).__qualname__, frames, extra={"conversation": conversation_id})


def _plain(body: str, *, status: int = 200) -> Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(body, status=status, headers=headers, content_type="text/plain; charset=utf-8")
