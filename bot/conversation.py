"""One turn of a conversation: keep the message, let the assistant answer once, keep the answer. Knows no HTTP and no XML.

A message is written before anything is done with it. The answer, the conversation's new state and every ticket of the turn
are one commit, so after a crash a message is either answered with everything it caused, or not answered at all and will be:
by the client's retry with the same message id, or by recover().
"""
from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError

from bot.assistant import Assistant, AssistantError, Bubble, Done, PreparedTurn, Turn, TurnResult
from bot.db import StorageError, flush, iso, reading, transaction
from bot.handover import HOLDER, keep_what_came
from bot.notices import beside_choices
from bot.schema import conversations, inbound_messages
from bot.services import Services
from bot.survey import Surveys

logger = logging.getLogger(__name__)

MAX_TEXT = 4000
_STRIPES = 16384
_CONFLICT_RETRIES = 5
# A message that fails this often would fail for ever; a person gets it, and the resident an honest word.
_MAX_FAILURES = 3

APOLOGY_STORAGE = "系统暂时记不下来，您的话还没有登记。请过几分钟再发一次；紧急情况请直接拨打 110、119、120。"
TOO_FAST = "您发得有点快，歇一下再说，前面说的都记着呢。"
APOLOGY_FAILURE = "我这边出了点问题，没能处理好这句话。已经转给工作人员查看，您也可以换个说法再说一次，或拨打 12345。"


# Statements of every turn, built once: building an expression costs as much as running it.
_OPEN_CONVERSATION = text(
    "INSERT INTO conversation (id, channel, sender, version, created_at, updated_at) "
    "VALUES (:id, :channel, :sender, 0, :now, :now) ON CONFLICT DO NOTHING"
)
_STORE_MESSAGE = inbound_messages.insert()
_WAITING = (
    select(inbound_messages, conversations.c.state, conversations.c.version, HOLDER.label("held_by"))
    .join(conversations, conversations.c.id == inbound_messages.c.conversation_id)
    .where(inbound_messages.c.conversation_id == bindparam("conversation"), inbound_messages.c.id <= bindparam("row"))
    .where((inbound_messages.c.answered_at.is_(None)) | (inbound_messages.c.id == bindparam("row")))
    .order_by(inbound_messages.c.id)
)
_STATE = select(conversations.c.state, conversations.c.version, HOLDER.label("held_by")).where(
    conversations.c.id == bindparam("conversation")
)
_KEEP_STATE = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), conversations.c.version == bindparam("known"))
    .values(state=bindparam("state"), version=conversations.c.version + 1, updated_at=bindparam("now"))
)
_KEEP_REPLY = (
    update(inbound_messages)
    .where(inbound_messages.c.id == bindparam("row"), inbound_messages.c.answered_at.is_(None))
    .values(reply=bindparam("said"), answered_at=bindparam("now"), model=bindparam("read_by"))
)


@dataclass(frozen=True)
class InboundMessage:
    """One message as any channel delivers it. `message_id` is unique within the sender's conversation."""

    channel: str  # web | api | wechat
    sender: str
    message_id: str
    text: str = ""
    kind: str = "text"  # text | location | picture | scene
    account: str = ""
    location: Mapping[str, Any] | None = None
    scene: str | None = None
    attachment: str | None = None
    menu_id: str = ""  # of the menu item that was tapped


_MESSAGE_FIELDS = frozenset(InboundMessage.__dataclass_fields__)


def message_from_dict(data: Mapping[str, Any]) -> InboundMessage:
    """A stored message. What a newer version wrote beside it is dropped: after a roll-back the rest must still be answered."""
    return InboundMessage(**{name: value for name, value in data.items() if name in _MESSAGE_FIELDS})


@dataclass(frozen=True)
class Reply:
    messages: tuple[Bubble, ...] = ()
    tickets: tuple[Mapping[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"messages": [bubble.as_dict() for bubble in self.messages], "tickets": [dict(t) for t in self.tickets]}


def reply_from_dict(data: Mapping[str, Any]) -> Reply:
    return Reply(tuple(Bubble.from_dict(message) for message in data["messages"]), tuple(data["tickets"]))


def message_of(services: Services, row: Row) -> InboundMessage:
    return message_from_dict(services.vault.open(row.body))


def reply_of(services: Services, row: Row) -> Reply | None:
    return reply_from_dict(services.vault.open(row.reply)) if row.reply else None


@dataclass(frozen=True)
class Receipt:
    """A message that is safely stored; `reply` is there when it was answered before."""

    row_id: int
    conversation_id: str
    reply: Reply | None = None


@dataclass
class Conversations:
    services: Services
    assistant: Assistant
    _locks: list[threading.Lock] = field(default_factory=lambda: [threading.Lock() for _ in range(_STRIPES)])
    _failures: dict[int, int] = field(default_factory=dict)
    _turns: ThreadPoolExecutor = field(init=False)
    _intake: ThreadPoolExecutor = field(init=False)
    _surveys: Surveys = field(init=False)

    def __post_init__(self) -> None:
        # Turns inside this process share one interpreter lock. In every thread at once, whoever holds the database waits for
        # that lock at each statement while everybody else waits for the database: throughput halves and the tail is seconds.
        # In one thread they keep the order in which they came, and their data stays in that core's cache: a quarter less time.
        self._turns = ThreadPoolExecutor(self.assistant.concurrency, thread_name_prefix="turn")
        # Keeping a message must not wait for turns, which may take seconds: the sender would give up before it is stored.
        self._intake = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._surveys = Surveys(self.services, self.assistant.parse)

    def conversation_id(self, channel: str, sender: str, account: str = "") -> str:
        return self.services.vault.pseudonym(channel, account, sender)

    def respond(self, message: InboundMessage) -> Reply:
        """Receive and answer in one go. Raises StorageError when either could not be kept; the same message may be sent again."""
        conversation_id = self.conversation_id(message.channel, message.sender, message.account)
        with self._lock(conversation_id):
            reply = self._turns.submit(self._keep_and_reply, conversation_id, message).result()
        flush(self.services.engine)  # whoever is told something may rely on it; waiting for the disk here keeps nobody else waiting
        return reply

    def receive(self, message: InboundMessage, *, beside: Callable[[], None] | None = None) -> Receipt:
        """Store a message, or find it when it came before. After this returns nothing about it can be lost.

        What `beside` writes becomes one commit with a new message.
        """
        conversation_id = self.conversation_id(message.channel, message.sender, message.account)
        receipt = self._intake.submit(self._keep, conversation_id, message, beside).result()
        flush(self.services.engine)
        return receipt

    def answer(self, receipt: Receipt) -> Reply:
        """The reply to a stored message; waits for an attempt already under way.

        Raises StorageError, never for a failing assistant.
        """
        with self._lock(receipt.conversation_id):
            reply = self._turns.submit(self._reply_to, receipt).result()
        flush(self.services.engine)
        return reply

    def recover(self, *, older_than: timedelta) -> list[tuple[Receipt, InboundMessage, Reply]]:
        """Answer messages that a crash left unanswered; the channel decides how to deliver what is returned."""
        limit = iso(self.services.now() - older_than)
        with reading(self.services.engine) as connection:
            rows = connection.execute(
                select(inbound_messages)
                .where(inbound_messages.c.answered_at.is_(None), inbound_messages.c.received_at < limit)
                .order_by(inbound_messages.c.id)
                .limit(200)
            ).fetchall()
        answered = []
        for row in rows:
            receipt = Receipt(row.id, row.conversation_id)
            answered.append((receipt, message_of(self.services, row), self.answer(receipt)))
        return answered

    # -- one turn -------------------------------------------------------------------------------------------------

    def _keep_and_reply(self, conversation_id: str, message: InboundMessage) -> Reply:
        receipt = self._keep(conversation_id, message)
        return receipt.reply or self._reply_to(receipt)

    def _keep(self, conversation_id: str, message: InboundMessage, beside: Callable[[], None] | None = None) -> Receipt:
        message = replace(message, text=message.text.encode("utf-8", "replace").decode("utf-8"))  # lone surrogates cannot be stored
        try:
            return Receipt(self._store(conversation_id, message, beside), conversation_id)
        except IntegrityError:  # it came before
            stored = self._get(conversation_id, message.message_id)
            return Receipt(stored.id, conversation_id, reply_of(self.services, stored))

    def _reply_to(self, receipt: Receipt) -> Reply:
        for row in self._unanswered_up_to(receipt):
            reply = self._take_turn(row)
        return reply if row.id == receipt.row_id else self._stored_reply(receipt.row_id)

    def _take_turn(self, row: Row) -> Reply:
        if row.answered_at is not None:
            return self._stored_reply(row.id)
        message, known = message_of(self.services, row), row  # the row was read together with the conversation's state
        for _ in range(_CONFLICT_RETRIES):
            try:
                return self._commit_turn(row, message, known)
            except _Conflict as conflict:
                if conflict.reply is not None:
                    return conflict.reply
                known = self._conversation(row.conversation_id)
            except StorageError:  # kept but not answered: the same message id may be sent again, or recover() answers it
                raise
            except Exception as error:  # whatever it is, it must not block this conversation or the recovery of others
                # Without str(error), which may quote the resident.
                cause = error.__cause__ or error
                frames = "".join(traceback.format_tb(cause.__traceback__))
                logger.error("turn failed: %s\n%s", type(cause).__qualname__, frames, extra={"conversation": row.conversation_id})
                return self._give_up(row)
        raise StorageError("conversation kept changing under this turn")

    def _commit_turn(self, row: Row, message: InboundMessage, known: Row) -> Reply:
        """Understand outside the transaction (slow, pure), act and store inside one (short).

        `known` is the conversation as it was looked at: its state, and who holds it.
        """
        state = self.services.vault.open(known.state) if known.state else None
        prepared = self._turn_without_rasa(row, message, state, held=known.held_by is not None) or self.assistant.prepare(
            Turn(
                conversation_id=row.conversation_id,
                text=message.text,
                kind=message.kind,
                metadata={
                    "message_id": f"{row.conversation_id}:{row.message_id}",
                    "source": "wechat" if message.channel == "wechat" else "web",
                    "location": message.location,
                    "scene": message.scene,
                    "attachment": message.attachment,
                },
                state=state,
            )
        )
        with transaction(self.services.engine, durable=False) as connection:  # answer() flushes
            news = [] if message.channel == "web" else self.services.tickets.take_notices(row.conversation_id)
            result = prepared.run()
            if any(bubble.buttons for bubble in result.bubbles):
                news = beside_choices(news)
            reply = Reply((*map(Bubble, news), *result.bubbles), result.tickets)
            now = iso(self.services.now())
            state_after = self.services.vault.seal(result.state)
            changed = connection.execute(
                _KEEP_STATE, {"conversation": row.conversation_id, "known": known.version, "state": state_after, "now": now}
            )
            if changed.rowcount != 1:
                raise _Conflict
            said = self.services.vault.seal(reply.as_dict())
            answered = connection.execute(_KEEP_REPLY, {"row": row.id, "said": said, "now": now, "read_by": result.model})
            if answered.rowcount != 1:
                raise _Conflict(self._stored_reply(row.id))
        return reply

    def _turn_without_rasa(
        self, row: Row, message: InboundMessage, state: Mapping[str, Any] | None, *, held: bool
    ) -> PreparedTurn | None:
        """The answer to a survey; silence while a person has the conversation. Danger is Rasa's, whoever has it."""
        rating = None
        if message.kind == "text" and (not held or message.menu_id):  # a tap names its ticket, words are for the person
            rating = self._surveys.find_turn(row, message.text, menu_id=message.menu_id, channel=message.channel, state=state)
            rating = rating or (None if held else self._surveys.find_reason(row, message.text, state))
        if rating or not held or self._is_emergency(message):
            return rating
        kept = keep_what_came(state or {}, message.kind, attachment=message.attachment, point=message.location)
        return Done(TurnResult((), (), kept))

    def _is_emergency(self, message: InboundMessage) -> bool:
        if message.kind != "text":
            return False
        try:
            found = self.assistant.parse(message.text).get("reading") or {}
        except AssistantError:  # the person reads it all the same
            return False
        return bool((found.get("urgency") or {}).get("emergency"))

    def _give_up(self, row: Row) -> Reply:
        """After repeated failure the message goes to a person; before that a later retry may still succeed."""
        reply = Reply((Bubble(APOLOGY_FAILURE),))
        self._failures[row.id] = self._failures.get(row.id, 0) + 1
        if self._failures[row.id] >= _MAX_FAILURES:
            with transaction(self.services.engine) as connection:
                self.services.handovers.open(row.conversation_id, "assistant_failed")
                self.services.tickets.log_misunderstanding(row.conversation_id, row.message_id)
                connection.execute(
                    update(inbound_messages)
                    .where(inbound_messages.c.id == row.id)
                    .values(reply=self.services.vault.seal(reply.as_dict()), answered_at=iso(self.services.now()))
                )
        return reply

    # -- rows -----------------------------------------------------------------------------------------------------

    def _store(self, conversation_id: str, message: InboundMessage, beside: Callable[[], None] | None) -> int:
        now = iso(self.services.now())
        with transaction(self.services.engine, durable=False) as connection:
            sealed = self.services.vault.seal({"sender": message.sender, "account": message.account})
            opened = {"id": conversation_id, "channel": message.channel, "sender": sealed, "now": now}
            connection.execute(_OPEN_CONVERSATION, opened)
            body = self.services.vault.seal(vars(message))
            result = connection.execute(
                _STORE_MESSAGE,
                {"conversation_id": conversation_id, "message_id": message.message_id, "body": body, "received_at": now},
            )
            if beside is not None:
                beside()
            return int(result.inserted_primary_key[0])

    def _get(self, conversation_id: str, message_id: str) -> Row:
        with reading(self.services.engine) as connection:
            return connection.execute(
                select(inbound_messages).where(
                    inbound_messages.c.conversation_id == conversation_id, inbound_messages.c.message_id == message_id
                )
            ).one()

    def _unanswered_up_to(self, receipt: Receipt) -> Sequence[Row]:
        """This message and earlier ones of the same resident that still wait: turns keep the order they were said in."""
        with reading(self.services.engine) as connection:
            wanted = {"conversation": receipt.conversation_id, "row": receipt.row_id}
            rows = connection.execute(_WAITING, wanted).fetchall()
        waiting = [row for row in rows if row.answered_at is None]
        return waiting or rows[-1:]

    def _stored_reply(self, row_id: int) -> Reply:
        with reading(self.services.engine) as connection:
            row = connection.execute(select(inbound_messages).where(inbound_messages.c.id == row_id)).one()
        reply = reply_of(self.services, row)
        if reply is None:
            raise StorageError("the message is not answered yet")
        return reply

    def _conversation(self, conversation_id: str) -> Row:
        with reading(self.services.engine) as connection:
            return connection.execute(_STATE, {"conversation": conversation_id}).one()

    def _lock(self, conversation_id: str) -> threading.Lock:
        return self._locks[int(conversation_id[:8], 16) % _STRIPES]


class _Conflict(Exception):
    """Another process changed the conversation, or answered the message, while this turn was thinking."""

    def __init__(self, reply: Reply | None = None) -> None:
        super().__init__("conflict")
        self.reply = reply


