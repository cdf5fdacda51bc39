"""Gets replies and notices to residents of the official account: each exactly one way, in the order they were asked for.

One column decides: inbound_message.delivery goes by compare-and-set from NULL to `passive` (said in the HTTP answer, and again
to a retry) or to `pushing` and then `pushed` or `pending` (kept as a notice for the next turn). An HTTP answer also carries
the earlier replies that nobody has delivered, so nothing overtakes.
"""
from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, bindparam, or_, select, update
from sqlalchemy.engine import Connection, Row

from bot.conversation import InboundMessage, Receipt, Reply, reply_from_dict
from bot.db import iso, reading, transaction
from bot.notices import beside_choices, head_of
from bot.schema import conversations as conversation_table
from bot.schema import inbound_messages, notices, wechat_contacts
from bot.services import Services
from bot.survey import menu_items
from bot.wechat_api import UNREACHABLE, SendResult, WeChatClient
from bot.wechat_contacts import Contacts
from bot.wechat_http import WeChatError
from bot.wechat_text import MAX_TEXT_BYTES, cut_text, full_text, joined_text, passive_text

logger = logging.getLogger(__name__)

# Customer-service messages are allowed for 48 hours after the resident's last message.
_PUSH_WINDOW = timedelta(hours=48)
# By then the platform has made its last retry and a push of this process is long done: whoever owed the answer is gone.
OVERDUE = timedelta(seconds=60)
# A push older than this died with its process. Nothing is ever pushed twice, so one that is only slow could at worst be overtaken.
_PUSH_TAKES = timedelta(seconds=20)
# An HTTP answer given shortly before this process started may have been cut off by the crash: the platform asks for it again, and
# by then has done so. Until then later answers wait.
_RETRIES_TAKE = timedelta(seconds=11)
_BLOCKED_SECONDS = 0.1  # another process is sending the reply before this one
_BLOCKED_TRIES = int((_PUSH_TAKES.total_seconds() + 2) / _BLOCKED_SECONDS)
SEE_TICKET = "办理情况：{link}"
_PAUSE_SECONDS = 30.0  # between rounds of notices while the platform cannot be reached

_M = inbound_messages.c
_LAST_REPLY = (
    select(_M.reply).where(_M.conversation_id == bindparam("conversation"), _M.reply.is_not(None)).order_by(_M.id.desc()).limit(1)
)


@dataclass(frozen=True)
class Claim:
    """What the HTTP answer may say. None = nothing: delivered otherwise, or not stored (`unanswered`), or wait (`busy`)."""

    text: str | None
    unanswered: bool = False
    busy: bool = False  # an earlier reply is being sent right now


class Delivery:
    """Thread-safe; any number of processes may deliver at once."""

    def __init__(self, services: Services, client: WeChatClient, contacts: Contacts) -> None:
        self.services, self.client, self.contacts = services, client, contacts
        self._paused_until, self._started = 0.0, iso(services.now())

    # -- inside the HTTP answer -----------------------------------------------------------------------------------

    def claim_passive(self, receipt: Receipt) -> Claim:
        """Claim a stored reply, and the undelivered ones before it, for this HTTP answer; a retry gets the same text again."""
        with transaction(self.services.engine, durable=False) as connection:
            rows = self._undelivered(connection, receipt)
            own = rows[-1]
            if own.delivery == "passive":
                said = [row for row in rows if row.delivered_with == own.id]
                self._note_repeated(connection, own.id)
                return Claim(self._fitted(said)) if said else Claim(None)
            if own.answered_at is None or own.delivery is not None:
                return Claim(None, unanswered=own.answered_at is None)
            if any(self._is_under_way(row) for row in rows[:-1]):
                return Claim(None, busy=True)
            if not self._claim(connection, own.id, "passive", own.id):
                return Claim(None)
            earlier = [row for row in rows[:-1] if row.delivery is None and row.answered_at]
            said = [*(row for row in earlier if self._claim(connection, row.id, "passive", own.id)), own]
            self._keep_rest(connection, receipt, said)
        return Claim(self._fitted(said))

    def release(self, receipt: Receipt) -> None:
        """What was claimed for an HTTP answer and could not be said there after all."""
        with transaction(self.services.engine, durable=False) as connection:
            mine = _M.conversation_id == receipt.conversation_id, _M.delivered_with == receipt.row_id
            connection.execute(update(inbound_messages).where(*mine).values(delivery=None, delivered_with=None))

    def _undelivered(self, connection: Connection, receipt: Receipt) -> Sequence[Row]:
        """This message, last, and earlier ones of the same resident that are not delivered or were said together with it."""
        cut_off = and_(_M.delivery == "passive", _M.delivery_at < self._started, _M.delivery_at > self._ago(_RETRIES_TAKE))
        mine = or_(_M.delivered_with == receipt.row_id, _M.id == receipt.row_id)
        relevant = or_(_M.delivery.is_(None), _M.delivery == "pushing", cut_off, mine)
        return connection.execute(
            select(_M.id, _M.delivery, _M.delivery_at, _M.delivered_with, _M.answered_at, _M.reply)
            .where(_M.conversation_id == receipt.conversation_id, _M.id <= receipt.row_id, relevant)
            .order_by(_M.id)
        ).fetchall()

    def _fitted(self, said: Sequence[Row]) -> str:
        replies = [self._reply(row) for row in said]
        # With customer-service messages the rest follows; without them the choices must be in this one.
        return cut_text(joined_text(replies), MAX_TEXT_BYTES) if self.client.can_push() else passive_text(replies)

    def _keep_rest(self, connection: Connection, receipt: Receipt, said: Sequence[Row]) -> None:
        text = joined_text([self._reply(row) for row in said])
        rest = text[len(cut_text(text, MAX_TEXT_BYTES)) :]
        if rest and self.client.can_push():
            self._add_notice(connection, receipt.conversation_id, rest)

    # -- customer-service messages --------------------------------------------------------------------------------

    def push(self, receipt: Receipt, openid: str) -> None:
        """Send the stored replies up to this one, oldest first, except those that were delivered or are being delivered.

        Where customer-service messages are not permitted they stay for the next HTTP answer.
        """
        for _ in range(_BLOCKED_TRIES):
            if not openid or not self.client.can_push():
                return
            try:
                self.client.prepare()
            except WeChatError as error:
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
                logger.warning("no customer-service messages: %s", error, extra={"conversation": receipt.conversation_id})
                return
            row, news, blocked = self._claim_next(receipt)
            if row is not None:
                reply = self._reply(row)
                news = beside_choices(news) if any(bubble.buttons for bubble in reply.messages) else news
                text = "\n\n".join(part for part in (*news, full_text(reply)) if part)
                self._settle(Receipt(row.id, receipt.conversation_id), self._send(receipt.conversation_id, openid, text))
            elif blocked:
                time.sleep(_BLOCKED_SECONDS)
            else:
                return

    def deliver_recovered(self, receipt: Receipt, message: InboundMessage, _reply: Reply) -> None:
        """For what Conversations.recover() answered; other channels fetch their replies themselves."""
        if message.channel == "wechat":
            self.push(receipt, message.sender)

    def deliver_notices(self, *, unsaid_for: timedelta = OVERDUE) -> None:
        """Push what residents are owed: replies left behind by a crash, and notices while the platform allows it.

        `unsaid_for` is how long ago a reply was given that nobody has delivered. After a start it may be no time at all: who owed
        it is most likely this process before it died, and where another one is just saying it, the claim decides.
        """
        if not self.client.can_push():
            return
        for row in self._overdue_replies(unsaid_for):
            if time.monotonic() < self._paused_until:
                return
            self.push(Receipt(row.id, row.conversation_id), self._openid(row))
        for row in self._reachable():
            if time.monotonic() < self._paused_until:
                return
            self._deliver_notices_of(row)

    def _deliver_notices_of(self, reachable: Row) -> None:
        openid = self._openid(reachable)
        # Read before anything is claimed: what is claimed and not sent would be lost.
        reply = find_last_reply(self.services, reachable.conversation_id)
        choosing = reply is not None and any(bubble.buttons for bubble in reply.messages)
        for notice in self._open_notices(reachable.conversation_id) if openid else ():
            if not self._set_delivered(notice.id, iso(self.services.now()), only_if_open=True):
                continue
            text = str(self.services.vault.open(notice.text))
            if choosing:  # a number answers that
                text = beside_choices([text])[0]
            unsent = self._send(reachable.conversation_id, openid, text, notice)
            if unsent:
                # What was shown with it only for this way (the link) is not part of what is said later.
                self._set_delivered(notice.id, None, text=text if notice.ticket_number and unsent.startswith(text) else unsent)
                return

    def _send(self, conversation_id: str, openid: str, text: str, notice: Row | None = None) -> str:
        """What certainly was not sent. A call that may have taken effect counts as sent: nothing is said twice."""
        if not text:  # a person has the conversation, the bot says nothing
            return ""
        try:
            result = self._try(openid, text, notice, lambda: self.contacts.take(conversation_id))
        except WeChatError as error:
            logger.warning("customer-service message failed: %s", error, extra={"conversation": conversation_id})
            if error.unsure:
                return ""
            self.contacts.give_back(conversation_id)
            if error.code in UNREACHABLE:
                self.contacts.exhaust(conversation_id)
            else:
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
            return text
        if result.code:
            logger.info("the platform takes no more messages: %d", result.code, extra={"conversation": conversation_id})
            self.contacts.exhaust(conversation_id)
        return result.unsent

    def _try(self, openid: str, text: str, notice: Row | None, spend: Callable[[], bool]) -> SendResult:
        """Raises WeChatError."""
        link = self._link(notice)
        plain = f"{text}\n{link}" if link else text
        if notice is None or not notice.asks:
            return self.client.send_text(openid, plain, spend=spend)
        return self.client.send_menu(openid, head_of(text), menu_items(notice.ticket_number), link, plain=plain, spend=spend)

    def _link(self, notice: Row | None) -> str:
        settings = self.services.settings
        if notice is None or not notice.status or not settings.public_url:  # without it the address means this machine
            return ""
        return SEE_TICKET.format(link=self.services.tickets.link(notice.ticket_number, settings.base_url))

    # -- rows -----------------------------------------------------------------------------------------------------

    def _claim_next(self, receipt: Receipt) -> tuple[Row | None, list[str], bool]:
        """The oldest undelivered reply and the news to say before it; or that another process is just sending one."""
        with transaction(self.services.engine, durable=False) as connection:
            rows = [row for row in self._undelivered(connection, receipt) if row.answered_at]
            if any(self._is_under_way(row) for row in rows if row.id != receipt.row_id or row.delivery == "pushing"):
                return None, [], True
            row = next((row for row in rows if row.delivery is None), None)
            if row is None or not self._claim(connection, row.id, "pushing"):
                return None, [], False
            return row, self.services.tickets.take_notices(receipt.conversation_id), False

    def _claim(self, connection: Connection, row_id: int, delivery: str, delivered_with: int | None = None) -> bool:
        changed = connection.execute(
            update(inbound_messages)
            .where(_M.id == row_id, _M.delivery.is_(None), _M.answered_at.is_not(None))
            .values(delivery=delivery, delivered_with=delivered_with, delivery_at=iso(self.services.now()))
        )
        return bool(changed.rowcount == 1)

    def _is_under_way(self, row: Row) -> bool:
        """A push, unless it is so old that it died with its process and may have been heard; or an HTTP answer to be asked for again."""
        if row.delivery == "pushing":
            return (row.delivery_at or "") > self._ago(_PUSH_TAKES)
        return row.delivery == "passive"  # _undelivered() finds no others

    def _note_repeated(self, connection: Connection, row_id: int) -> None:
        again = update(inbound_messages).where(_M.delivered_with == row_id, _M.delivery_at < self._started)
        connection.execute(again.values(delivery_at=iso(self.services.now())))

    def _ago(self, span: timedelta) -> str:
        return iso(self.services.now() - span)

    def _settle(self, receipt: Receipt, unsent: str) -> None:
        with transaction(self.services.engine, durable=False) as connection:
            state = "pending" if unsent else "pushed"
            connection.execute(update(inbound_messages).where(_M.id == receipt.row_id).values(delivery=state))
            if unsent:
                self._add_notice(connection, receipt.conversation_id, unsent)

    def say_later(self, conversation_id: str, text: str) -> None:
        """By customer-service message, or with the next turn."""
        with transaction(self.services.engine, durable=False) as connection:
            self._add_notice(connection, conversation_id, text)

    def _add_notice(self, connection: Connection, conversation_id: str, text: str) -> None:
        sealed, now = self.services.vault.seal(text), iso(self.services.now())
        connection.execute(notices.insert().values(conversation_id=conversation_id, text=sealed, created_at=now))

    def _overdue_replies(self, age: timedelta) -> list[Row]:
        """The newest undelivered reply of each resident; push() sends the ones before it as well."""
        now = self.services.now()
        with reading(self.services.engine) as connection:
            rows = connection.execute(
                select(_M.id, _M.conversation_id, conversation_table.c.sender)
                .join(conversation_table, conversation_table.c.id == _M.conversation_id)
                .where(conversation_table.c.channel == "wechat", _M.delivery.is_(None))
                .where(_M.answered_at < iso(now - age), _M.received_at > iso(now - _PUSH_WINDOW))
                .order_by(_M.id)
                .limit(200)
            ).fetchall()
        return list({row.conversation_id: row for row in rows}.values())

    def _reachable(self) -> list[Row]:
        """WeChat conversations with open notices to whom the platform lets us write now."""
        now, contact = iso(self.services.now()), wechat_contacts.c
        waiting = select(notices.c.conversation_id).where(notices.c.delivered_at.is_(None))
        messages = and_(contact.messages_left > 0, contact.messages_until > now)
        taps = and_(contact.taps_left > 0, contact.taps_until > now)
        with reading(self.services.engine) as connection:
            return list(
                connection.execute(
                    select(contact.conversation_id, conversation_table.c.sender)
                    .join(conversation_table, conversation_table.c.id == contact.conversation_id)
                    .where(contact.conversation_id.in_(waiting), or_(messages, taps))
                )
            )

    def _open_notices(self, conversation_id: str) -> list[Row]:
        with reading(self.services.engine) as connection:
            return list(
                connection.execute(
                    select(notices.c.id, notices.c.text, notices.c.ticket_number, notices.c.status, notices.c.asks)
                    .where(notices.c.conversation_id == conversation_id, notices.c.delivered_at.is_(None))
                    .order_by(notices.c.id)
                )
            )

    def _set_delivered(self, notice_id: int, at: str | None, *, text: str | None = None, only_if_open: bool = False) -> bool:
        values: dict[str, object] = {"delivered_at": at}
        if text is not None:
            values["text"] = self.services.vault.seal(text)
        statement = update(notices).where(notices.c.id == notice_id).values(**values)
        with transaction(self.services.engine, durable=False) as connection:
            changed = connection.execute(statement.where(notices.c.delivered_at.is_(None)) if only_if_open else statement)
        return bool(changed.rowcount == 1)

    def _reply(self, row: Row) -> Reply:
        return reply_from_dict(self.services.vault.open(row.reply))

    def _openid(self, row: Row) -> str:
        return str(self.services.vault.open(row.sender)["sender"])


def find_last_reply(services: Services, conversation_id: str) -> Reply | None:
    """What the resident was told last, and so what a number refers to. Raises StorageError."""
    with reading(services.engine) as connection:
        row = connection.execute(_LAST_REPLY, {"conversation": conversation_id}).first()
    return reply_from_dict(services.vault.open(row.reply)) if row else None
