"""Conversations that wait for, or are held by, a person: queue, taking, writing, giving back. One open row a conversation.

Who holds a conversation is decided by compare-and-set on that row; each change of hands also counts up the conversation's version,
so that a turn of the bot that was under way at that moment starts again and sees it. Knows no channel: what staff write is a notice.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select, update
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.exc import IntegrityError

from bot.db import iso, parse_iso, reading, transaction
from bot.schema import conversations, handovers, inbound_messages, notices
from bot.staff_schema import users
from bot.vault import Vault

if TYPE_CHECKING:  # bot.staff stands on bot.services, which holds what is here
    from bot.staff import StaffMember

EMERGENCY = "emergency"
REASONS = {
    EMERGENCY: "突发警情",
    "asked": "居民要求",
    "misunderstood": "两次没听懂",
    "assistant_failed": "助手出错",
    "staff": "工作人员联系",
}
MAX_TEXT = 2000
MOST_LISTED = 200

TAKEN = "您好，我是工作人员，接下来由我和您说。前面的内容我都能看到，不用再说一遍。"
GIVEN_BACK = "接下来由智能助手接着为您办理。"
CLOSED = "这次就到这里。以后有事随时说，智能助手一直在。"
UNANSWERED = "工作人员暂时没能回复您，您的话都记着。您可以接着跟我说，我先帮您办；工作人员有空会再来。"

_OPEN = handovers.c.closed_at.is_(None)
_ROWS = (
    select(handovers, conversations.c.channel, users.c.display_name)
    .join(conversations, conversations.c.id == handovers.c.conversation_id)
    .outerjoin(users, users.c.username == handovers.c.username)
)
# Whose turn the next message is; NULL = the bot's. Joined to every turn by bot/conversation.py.
HOLDER = select(handovers.c.username).where(handovers.c.conversation_id == conversations.c.id, _OPEN).scalar_subquery()


class NotYours(Exception):
    """The conversation is held by somebody else, or by nobody; the text is what the person reads."""


@dataclass(frozen=True)
class Handover:
    """An open row. `waits_since` is when the resident began to wait for this person's next words; None = they do not."""

    conversation_id: str
    channel: str
    reason: str
    opened_at: datetime
    username: str | None
    holder: str | None  # the name of who has it
    taken_at: datetime | None
    waits_since: datetime | None

    @property
    def reason_label(self) -> str:
        return REASONS.get(self.reason, self.reason)


@dataclass(frozen=True)
class Handovers:
    """`now` gives the current UTC time."""

    engine: Engine
    vault: Vault
    now: Callable[[], datetime]

    # -- the queue ------------------------------------------------------------------------------------------------

    def open(self, conversation_id: str, reason: str) -> int:
        """Queue the conversation for a person, once; an emergency goes ahead. Returns how many wait before it."""
        with transaction(self.engine) as connection:
            found = self._row(connection, conversation_id)
            if found is None:
                found = self._insert(connection, conversation_id, reason)
            elif reason == EMERGENCY != found.reason:
                connection.execute(update(handovers).where(handovers.c.id == found.id).values(reason=reason))
            waiting = select(func.count()).select_from(handovers).where(_OPEN, handovers.c.username.is_(None), handovers.c.id < found.id)
            return int(connection.execute(waiting).scalar_one())

    def _insert(self, connection: Connection, conversation_id: str, reason: str, **more: Any) -> Row:
        row = {"conversation_id": conversation_id, "reason": reason, "opened_at": iso(self.now()), **more}
        try:
            with connection.begin_nested():
                connection.execute(handovers.insert().values(**row))
        except IntegrityError:  # another process queued it at this moment
            pass
        found = self._row(connection, conversation_id)
        assert found is not None
        return found

    def list_open(self) -> list[Handover]:
        """Emergencies first, then who has waited longest; those held by somebody at the end."""
        order = case((handovers.c.username.is_not(None), 2), (handovers.c.reason == EMERGENCY, 0), else_=1)
        with reading(self.engine) as connection:
            rows = connection.execute(_ROWS.where(_OPEN).order_by(order, handovers.c.id).limit(MOST_LISTED)).fetchall()
            return [self._handover(connection, row) for row in rows]

    def find(self, conversation_id: str) -> Handover | None:
        with reading(self.engine) as connection:
            row = connection.execute(_ROWS.where(_OPEN, handovers.c.conversation_id == conversation_id)).first()
            return self._handover(connection, row) if row else None

    # -- holding --------------------------------------------------------------------------------------------------

    def take(self, conversation_id: str, member: StaffMember) -> None:
        """From now on the resident talks to this person. Raises NotYours when a colleague was faster."""
        with transaction(self.engine) as connection:
            found = self._row(connection, conversation_id) or self._insert(connection, conversation_id, "staff")
            if found.username == member.username:
                return
            now, free = iso(self.now()), (handovers.c.id == found.id, _OPEN, handovers.c.username.is_(None))
            if connection.execute(update(handovers).where(*free).values(username=member.username, taken_at=now)).rowcount != 1:
                raise NotYours("同事刚刚接了这个会话。")
            # Dated like the taking: the greeting is no answer yet (_waits_since).
            self._change_hands(connection, conversation_id, member, TAKEN, at=now)

    def write(self, conversation_id: str, member: StaffMember, text: str) -> int:
        """The id of the notice. Raises NotYours."""
        with transaction(self.engine) as connection:
            self.hold(connection, conversation_id, member)
            return self.tell(connection, conversation_id, member, text)

    def give_back(self, conversation_id: str, member: StaffMember, *, state: Mapping[str, Any] | None = None, question: str = "") -> None:
        """The bot goes on where the form stands: with this state, if given, and this question. Raises NotYours."""
        with transaction(self.engine) as connection:
            self.hold(connection, conversation_id, member)
            self._end(connection, conversation_id)
            if state is not None:
                self.keep_state(connection, conversation_id, state)
            self._change_hands(connection, conversation_id, None, "\n".join(filter(None, (GIVEN_BACK, question))))

    def close(self, conversation_id: str, member: StaffMember) -> None:
        """Nothing more to say; the next message is the bot's again. Raises NotYours."""
        with transaction(self.engine) as connection:
            self.hold(connection, conversation_id, member)
            self._end(connection, conversation_id)
            self._change_hands(connection, conversation_id, member, CLOSED)

    def dismiss(self, conversation_id: str) -> bool:
        """Nobody needs to talk to this one any more; False when somebody just took it. The resident hears nothing."""
        free = handovers.c.conversation_id == conversation_id, _OPEN, handovers.c.username.is_(None)
        with transaction(self.engine) as connection:
            return bool(connection.execute(update(handovers).where(*free).values(closed_at=iso(self.now()))).rowcount)

    def release_idle(self, patience: timedelta) -> list[str]:
        """Conversations whose person let the resident wait too long: they are queued again, and the bot answers meanwhile."""
        late = self.now() - patience
        released = []
        for held in self.list_open():
            if held.username and held.waits_since and held.waits_since <= late and self._release(held):
                released.append(held.conversation_id)
        return released

    def _release(self, held: Handover) -> bool:
        mine = handovers.c.conversation_id == held.conversation_id, _OPEN, handovers.c.username == held.username
        with transaction(self.engine) as connection:
            # Locked first: what this person is just writing is seen below, or finds the conversation gone.
            if connection.execute(update(handovers).where(*mine).values(username=held.username)).rowcount != 1:
                return False
            now = self.find(held.conversation_id)
            if now is None or now.waits_since != held.waits_since:
                return False
            connection.execute(update(handovers).where(*mine).values(username=None, taken_at=None))
            self._change_hands(connection, held.conversation_id, None, UNANSWERED)
            return True

    def hold(self, connection: Connection, conversation_id: str, member: StaffMember) -> None:
        """Return with the row locked for this transaction when the person has the conversation; else raises NotYours."""
        mine = handovers.c.conversation_id == conversation_id, _OPEN, handovers.c.username == member.username
        # Written, not only read: whoever takes it away must wait for what is done here, and the other way round.
        if connection.execute(update(handovers).where(*mine).values(username=member.username)).rowcount != 1:
            raise NotYours("这个会话现在不在您手里。")

    def keep_state(self, connection: Connection, conversation_id: str, state: Mapping[str, Any]) -> None:
        values = {"state": self.vault.seal(dict(state)), "version": conversations.c.version + 1, "updated_at": iso(self.now())}
        connection.execute(update(conversations).where(conversations.c.id == conversation_id).values(**values))

    # -- rows -----------------------------------------------------------------------------------------------------

    def _end(self, connection: Connection, conversation_id: str) -> None:
        mine = handovers.c.conversation_id == conversation_id, _OPEN
        connection.execute(update(handovers).where(*mine).values(closed_at=iso(self.now())))

    def _change_hands(
        self, connection: Connection, conversation_id: str, member: StaffMember | None, text: str, *, at: str | None = None
    ) -> None:
        changed = update(conversations).where(conversations.c.id == conversation_id)
        connection.execute(changed.values(version=conversations.c.version + 1, updated_at=iso(self.now())))
        self.tell(connection, conversation_id, member, text, at=at)

    def tell(
        self, connection: Connection, conversation_id: str, member: StaffMember | None, text: str, *, at: str | None = None
    ) -> int:
        """A notice to the resident in this person's name, or in the service's; its id."""
        words = f"{mark_of(member)} {text}" if member else text
        row = {"conversation_id": conversation_id, "text": self.vault.seal(words), "created_at": at or iso(self.now())}
        result = connection.execute(notices.insert().values(**row, author=member.username if member else None))
        return int(result.inserted_primary_key[0])

    def _row(self, connection: Connection, conversation_id: str) -> Row | None:
        return connection.execute(select(handovers).where(_OPEN, handovers.c.conversation_id == conversation_id)).first()

    def _handover(self, connection: Connection, row: Row) -> Handover:
        taken_at = parse_iso(row.taken_at) if row.taken_at else None
        return Handover(
            conversation_id=row.conversation_id,
            channel=row.channel,
            reason=row.reason,
            opened_at=parse_iso(row.opened_at),
            username=row.username,
            holder=row.display_name or row.username,
            taken_at=taken_at,
            waits_since=self._waits_since(connection, row) if taken_at else None,
        )

    def _waits_since(self, connection: Connection, row: Row) -> datetime | None:
        """When the resident last began to wait for the holder: with the first message after the holder's last, else with the taking."""
        own = notices.c.conversation_id == row.conversation_id, notices.c.author == row.username, notices.c.created_at > row.taken_at
        spoke: str | None = connection.execute(select(func.max(notices.c.created_at)).where(*own)).scalar()
        later = inbound_messages.c.received_at > (spoke or row.taken_at)
        mine = select(func.min(inbound_messages.c.received_at)).where(inbound_messages.c.conversation_id == row.conversation_id, later)
        said: str | None = connection.execute(mine).scalar() if spoke else row.taken_at
        return parse_iso(said) if said else None


def mark_of(member: StaffMember) -> str:
    """How residents know that a person speaks."""
    return f"[{member.display_name}]"


def words_of_staff(text: str) -> str:
    """What was written, without the mark in front."""
    return text.partition("] ")[2] if text.startswith("[") else text


def keep_what_came(state: Mapping[str, Any], kind: str, *, attachment: str | None, point: Mapping[str, Any] | None) -> dict[str, Any]:
    """The conversation's state with a picture or map point that came while a person had it: it belongs to the form all the same."""
    kept, drafts = dict(state), [dict(draft) for draft in state.get("drafts") or ()]
    if kind == "picture" and attachment:
        if drafts:
            drafts[0]["attachments"] = [*drafts[0].get("attachments", ()), attachment]
            kept["drafts"] = drafts
        else:
            kept["pictures"] = [*(state.get("pictures") or ()), attachment][-9:]
    if kind == "location" and point:
        kept["point"] = dict(point)
    return kept

