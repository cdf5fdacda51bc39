"""What a message of the official account starts in this process: its turn, the push of a late answer, and after a crash both again.

Knows no HTTP: bot/web/wechat.py says what a request is answered, and how long it waits for that.
"""
from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from sqlalchemy import bindparam, select

from bot.conversation import Conversations, InboundMessage, Receipt, Reply
from bot.db import iso, parse_iso, reading
from bot.ordered_pool import OrderedPool
from bot.schema import conversations as conversation_table
from bot.schema import inbound_messages
from bot.services import Services
from bot.survey import MENU_PREFIX
from bot.wechat import Incoming
from bot.wechat_api import WeChatClient
from bot.wechat_contacts import Contacts
from bot.wechat_delivery import OVERDUE, Delivery, find_last_reply
from bot.wechat_http import WeChatError
from bot.wechat_media import MediaKeeper
from bot.wechat_notify import Notifier
from bot.wechat_pages import AccountName
from bot.wechat_text import choose_button

logger = logging.getLogger(__name__)

_TURN_THREADS, _PUSH_THREADS = 64, 8
# Few, so that fifty signs at once do not take the interpreter from requests that wait; a sign that comes later than this says nothing.
_TYPING_THREADS, _TYPING_SECONDS = 1, 4.0
_REMEMBERED_SECONDS, _REMEMBERED = 60.0, 20_000
_RESUME_AGE = timedelta(seconds=15)

# Built once, like all statements of every message: building an expression costs as much as running it.
_CAME_BEFORE = (
    select(inbound_messages.c.id, inbound_messages.c.received_at)
    .where(inbound_messages.c.conversation_id == bindparam("conversation"))
    .where(inbound_messages.c.message_id == bindparam("message"))
)

ASK_TO_TYPE = "暂时听不了语音，请把想说的话打字发过来；也可以直接拨打 12345。紧急情况请拨打 110、119、120。"


@dataclass(frozen=True)
class Outcome:
    """A finished turn. Without a receipt the reply is not stored: nobody understood a voice message."""

    receipt: Receipt | None
    reply: Reply | None
    fixed: str = ""


@dataclass
class Work:
    """A message this process answers, or has answered lately. `turn` is None when another process does."""

    started: float  # on the monotonic clock, when the platform sent it first
    kept: threading.Event = field(default_factory=threading.Event)
    receipt: Receipt | None = None
    turn: Future[Outcome] | None = None
    said: str | None = None  # in an HTTP answer
    closed: bool = False  # `success` was said: the answer is pushed
    failed: bool = False  # could not be stored


class Turns:
    """Of one process; others may work on the same messages. `allow(openid)` says whether the rate limit admits one more message."""

    def __init__(self, services: Services, conversations: Conversations, client: WeChatClient, allow: Callable[[str], bool]) -> None:
        self.services, self.conversations, self.client, self._allow = services, conversations, client, allow
        self._account = AccountName(services)
        self.contacts, self.media = Contacts(services), MediaKeeper(services, client)
        self.delivery, self._notifier = Delivery(services, client, self.contacts), Notifier(services, client)
        self._turns = OrderedPool(_TURN_THREADS, "wechat-turn")
        # Its own pool: a platform that is slow to take pushes must not slow down answers.
        self._pushes = OrderedPool(_PUSH_THREADS, "wechat-push")
        self._signs = OrderedPool(_TYPING_THREADS, "wechat-typing")
        self._works: OrderedDict[tuple[str, str], Work] = OrderedDict()
        self._resuming: set[int] = set()
        self._resumed_once = False
        self._guard = threading.Lock()

    # -- one message ----------------------------------------------------------------------------------------------

    def find_work(self, conversation_id: str, message_id: str, started: float) -> tuple[Work, bool]:
        """What this process knows of a message, and whether it is the first to ask."""
        key = (conversation_id, message_id)
        with self._guard:
            work = self._works.get(key)
            if work is not None:
                return work, False
            work = self._works[key] = Work(started)
            while len(self._works) > _REMEMBERED or next(iter(self._works.values())).started < started - _REMEMBERED_SECONDS:
                self._works.popitem(last=False)
            return work, True

    def forget(self, conversation_id: str, message_id: str) -> None:
        with self._guard:
            self._works.pop((conversation_id, message_id), None)

    def take_in(self, incoming: Incoming, message: InboundMessage, conversation_id: str, work: Work) -> bool:
        """Store the message and start its turn, unless it came before; False when the rate limit does not admit it."""
        if self._came_before(incoming, message, conversation_id, work):
            return True
        if not self._allow(message.sender):
            return False
        self._account.note(incoming.account)
        media = incoming.media
        if media is not None and media.kind == "voice":
            self.contacts.grant(conversation_id, message, incoming.grants)
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
        granted = partial(self.contacts.grant, conversation_id, message, incoming.grants)
        receipt = work.receipt = self.conversations.receive(message, beside=granted)
        work.turn = self._turns.submit(conversation_id, lambda: Outcome(receipt, self.conversations.answer(receipt)))
        return True

    def _came_before(self, incoming: Incoming, message: InboundMessage, conversation_id: str, work: Work) -> bool:
        """To another process, or to this one before it was restarted."""
        with reading(self.services.engine) as connection:
            row = connection.execute(_CAME_BEFORE, {"conversation": conversation_id, "message": message.message_id}).first()
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

    def _hear(self, note_id: str, message: InboundMessage) -> Outcome:
        words = self.media.listen(note_id)
        if not words:
            self.media.settle_voice(note_id)
            return Outcome(None, None, ASK_TO_TYPE)
        receipt = self.conversations.receive(replace(message, text=words))
        self.media.settle_voice(note_id)
        return Outcome(receipt, self.conversations.answer(receipt))

    def claim_unstored(self, work: Work, text: str) -> bool:
        """Whether these words, which are stored nowhere, may be said in an HTTP answer: only where they are not pushed."""
        with self._guard:
            if work.closed:
                return False
            work.said = text
            return True

    # -- late answers ---------------------------------------------------------------------------------------------

    def close(self, incoming: Incoming, work: Work) -> None:
        """From now on everybody says `success`; whoever closes first sees to it that the answer is pushed."""
        with self._guard:
            if work.closed or work.said is not None:
                return
            work.closed = True
        if work.turn is not None:
            conversation_id = self.conversations.conversation_id("wechat", incoming.openid, incoming.account)
            work.turn.add_done_callback(lambda turn: self._push_later(conversation_id, incoming.openid, turn))

    def _push_later(self, conversation_id: str, openid: str, turn: Future[Outcome]) -> None:
        error = turn.exception()
        if error is not None:
            log_failure("turn failed, recovery answers", error, conversation_id)
            return
        self._pushes.submit(conversation_id, lambda: self._push(conversation_id, openid, turn.result()))

    def _push(self, conversation_id: str, openid: str, outcome: Outcome) -> None:
        try:
            if outcome.receipt is not None:
                self.delivery.push(outcome.receipt, openid)
            else:
                self.delivery.say_later(conversation_id, outcome.fixed)
        except Exception as error:
            log_failure("late answer not pushed", error, conversation_id)

    def show_typing(self, openid: str, work: Work) -> None:
        """Soon, and only while there is something to wait for."""
        until = time.monotonic() + _TYPING_SECONDS
        self._signs.submit(openid, lambda: self._show_typing(openid, work, until))

    def _show_typing(self, openid: str, work: Work, until: float) -> None:
        if time.monotonic() > until or (work.turn is not None and work.turn.done()):
            return
        try:
            self.client.show_typing(openid)
        except WeChatError as error:
            logger.info("no typing sign: %s", error)

    # -- events ---------------------------------------------------------------------------------------------------

    def note(self, incoming: Incoming) -> None:
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
        turn = self._turns.submit(receipt.conversation_id, lambda: Outcome(receipt, self.conversations.answer(receipt)))
        turn.add_done_callback(lambda _: self._resuming.discard(receipt.row_id))
        turn.add_done_callback(lambda done: self._push_later(receipt.conversation_id, openid, done))

    def _resume_voice(self, note_id: str, message: InboundMessage) -> None:
        conversation_id = self.conversations.conversation_id(message.channel, message.sender, message.account)
        turn = self._turns.submit(conversation_id, lambda: self._hear(note_id, message))
        turn.add_done_callback(lambda done: self._push_later(conversation_id, message.sender, done))


def log_failure(what: str, error: BaseException, conversation_id: str) -> None:
    # Without str(error), which may quote the resident.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: %s\n%s", what, type(error).__qualname__, frames, extra={"conversation": conversation_id})
