"""The life of a call: opened by its first turn, filled in while people talk, filed as tickets or dropped. Writes calls and turns.

What a person set in the form is kept here and is never touched by later readings; what the model suggests is not kept, it is read
again from the turns (bot/call_reading.py). Turns, numbers and forms are sealed at rest.
"""
from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.engine import Connection, Row

from bot.db import iso, reading, transaction
from bot.services import Services
from bot.staff_schema import call_turns, calls

OPEN, FILED, DROPPED = "open", "filed", "dropped"
MOST_TURNS, MOST_FORMS, MOST_LISTED, MOST_KNOWN = 2000, 4, 100, 300
# How a form is to be filed: beside an open ticket of the same trouble, as its own, or as an addition to that ticket.
JOIN, ALONE, MERGE = "join", "alone", "merge"

# Statements of every turn, built once: building an expression costs as much as running it.
_OPEN_CALL = text(
    "INSERT INTO call (id, state, username, origin, form, version, ticket_numbers, created_at, updated_at) "
    "VALUES (:id, 'open', NULL, :origin, :form, 0, '', :now, :now) ON CONFLICT DO NOTHING"
)
_BY_ID = select(calls).where(calls.c.id == bindparam("id"))
_LOCKED = _BY_ID.with_for_update()
_VERSION = select(calls.c.version).where(calls.c.id == bindparam("id"))
_NEW_TURN = call_turns.insert()
_REVISE = (
    update(call_turns)
    .where(call_turns.c.call_id == bindparam("of_call"), call_turns.c.turn_id == bindparam("turn"))
    .values(text=bindparam("said"))
)
_TURNS = select(call_turns).where(call_turns.c.call_id == bindparam("id")).order_by(call_turns.c.at, call_turns.c.position)


class CallNotFound(LookupError):
    """No call has this id."""


class CallClosed(ValueError):
    """The call was filed or dropped; the text is what the agent reads."""


@dataclass(frozen=True)
class NewTurn:
    """A turn as it arrives. `at` orders late ones; a turn without it stands behind everything that is known."""

    speaker: str
    text: str
    turn_id: str | None = None
    at: str | None = None


@dataclass(frozen=True)
class CallTurn:
    position: int
    turn_id: str
    speaker: str
    text: str
    at: str


@dataclass(frozen=True)
class PhoneCall:
    """`form`: {"appeals": how many a person said there are, "forms": [{"set": …, "relation": …}, …], "filed": […]}."""

    id: str
    state: str
    username: str | None
    origin: str
    caller: str | None
    form: Mapping[str, Any]
    version: int
    ticket_numbers: tuple[str, ...]
    created_at: str
    updated_at: str
    ended_at: str | None
    turns: tuple[CallTurn, ...]

    def set_by_person(self, number: int) -> Mapping[str, Any]:
        """Field → value of one form."""
        return dict(self._form(number).get("set", {}))

    def relation(self, number: int) -> Mapping[str, Any]:
        return dict(self._form(number).get("relation") or {})

    def _form(self, number: int) -> Mapping[str, Any]:
        forms = self.form.get("forms", ())
        return forms[number] if number < len(forms) else {}


@dataclass(frozen=True)
class Calls:
    services: Services
    _known: OrderedDict[str, PhoneCall] = field(default_factory=OrderedDict)  # the newest version that was read of a call
    _knowing: threading.Lock = field(default_factory=threading.Lock)

    # -- turns ----------------------------------------------------------------------------------------------------

    def take_turns(
        self,
        call_id: str,
        turns: Sequence[NewTurn],
        *,
        origin: str = "live",
        caller: str | None = None,
        username: str | None = None,
        ended: bool = False,
    ) -> PhoneCall:
        """Add what was said; the first delivery opens the call. Raises CallClosed when it has no room, StorageError.

        A repeated `turn_id` is one turn, and its words are the ones that came last: recognisers revise what they heard.
        """
        with transaction(self.services.engine) as connection:
            now = iso(self.services.now())
            connection.execute(_OPEN_CALL, {"id": call_id, "origin": origin, "form": self.seal({}), "now": now})
            row = connection.execute(_LOCKED, {"id": call_id}).one()
            changed = self._add_turns(connection, call_id, turns, now)
            values: dict[str, Any] = {}
            if caller and not row.caller and row.state == OPEN:  # who was promised anonymity is not noted by a late delivery
                values.update(caller=self.seal(caller), person_key=self.services.vault.person_key(caller))
            if username and not row.username:
                values["username"] = username
            if ended and not row.ended_at:
                values["ended_at"] = now
            if changed or values:
                self.touch(connection, call_id, **values)
            call = self._load(connection, call_id)
        return self._remember(call)

    def open(self, turns: Sequence[NewTurn], *, username: str, origin: str) -> PhoneCall:
        """A call that a person brings: pasted, uploaded or blank. It is theirs and over."""
        return self.take_turns(f"{origin}-{uuid.uuid4().hex[:12]}", turns, origin=origin, username=username, ended=bool(turns))

    def _add_turns(self, connection: Connection, call_id: str, turns: Sequence[NewTurn], now: str) -> bool:
        rows = connection.execute(_TURNS, {"id": call_id}).fetchall()
        sealed = {row.turn_id: row.text for row in rows}
        known = {turn.turn_id: str(self._unseal(sealed[turn.turn_id])) for turn in turns if turn.turn_id in sealed}
        position = max((row.position for row in rows), default=-1)
        latest = max((row.at for row in rows), default=now)
        changed = False
        for turn in (turn for turn in turns if turn.text.strip()):
            turn_id = turn.turn_id or uuid.uuid4().hex
            if known.get(turn_id) == turn.text:
                continue
            if turn_id in known:
                connection.execute(_REVISE, {"of_call": call_id, "turn": turn_id, "said": self.seal(turn.text)})
            elif position + 1 >= MOST_TURNS:
                raise CallClosed(f"一通电话最多记 {MOST_TURNS} 轮，后面的请另开一张空白单。")
            else:
                position += 1
                row = {"call_id": call_id, "position": position, "turn_id": turn_id, "speaker": turn.speaker, "at": turn.at or latest}
                connection.execute(_NEW_TURN, {**row, "text": self.seal(turn.text)})
            known[turn_id], latest, changed = turn.text, max(latest, turn.at or latest), True
        return changed

    # -- reading --------------------------------------------------------------------------------------------------

    def get(self, call_id: str) -> PhoneCall:
        """Raises CallNotFound."""
        with reading(self.services.engine) as connection:
            row = connection.execute(_VERSION, {"id": call_id}).first()
            if row is None:
                raise CallNotFound
            known = self._known.get(call_id)  # its turns are opened once a version, however many pages look
            return known if known and known.version == row.version else self._remember(self._load(connection, call_id))

    def _remember(self, call: PhoneCall) -> PhoneCall:
        with self._knowing:
            self._known[call.id] = call
            self._known.move_to_end(call.id)
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return call

    def list_open(self, username: str | None) -> list[PhoneCall]:
        """Calls nobody has and those of this person, or everybody's (None); oldest first."""
        wanted = select(calls.c.id).where(calls.c.state == OPEN).order_by(calls.c.created_at).limit(MOST_LISTED)
        if username is not None:
            wanted = wanted.where((calls.c.username == username) | calls.c.username.is_(None))
        with reading(self.services.engine) as connection:
            ids = [row.id for row in connection.execute(wanted).fetchall()]
        return [self.get(call_id) for call_id in ids]

    def count_filed(self, username: str, since: str) -> int:
        filed = (calls.c.username == username) & (calls.c.state == FILED) & (calls.c.updated_at >= since)
        with reading(self.services.engine) as connection:
            return int(connection.execute(select(func.count()).select_from(calls).where(filed)).scalar_one())

    # -- who has it -----------------------------------------------------------------------------------------------

    def take(self, call_id: str, username: str) -> bool:
        """Whether the call is theirs now; False when a colleague was faster. Raises CallNotFound."""
        with transaction(self.services.engine) as connection:
            free = (calls.c.id == call_id) & (calls.c.state == OPEN) & calls.c.username.is_(None)
            if connection.execute(update(calls).where(free).values(**self._stamp(), username=username)).rowcount:
                return True
            return self._load(connection, call_id).username == username

    def take_next(self, username: str, first: Callable[[PhoneCall], bool] = lambda call: False) -> str | None:
        """The id of the call that has waited longest, now theirs: before that one of their own that is still open, then what goes `first`."""
        waiting = [call for call in self.list_open(username) if call.username in (None, username)]
        waiting.sort(key=lambda call: (call.username is None, call.username is None and not first(call), call.created_at))
        return next((call.id for call in waiting if self.take(call.id, username)), None)

    # -- what a person sets ---------------------------------------------------------------------------------------

    def set_field(self, call_id: str, number: int, name: str, value: Any, *, username: str) -> PhoneCall:
        """Keep what a person set in one form. Raises CallNotFound, CallClosed."""
        return self._change_form(call_id, number, lambda form: {**form, "set": {**form.get("set", {}), name: value}}, username)

    def release_field(self, call_id: str, number: int, name: str, *, username: str) -> PhoneCall:
        """Back to what the model suggests."""

        def release(form: Mapping[str, Any]) -> dict[str, Any]:
            return {**form, "set": {kept: value for kept, value in form.get("set", {}).items() if kept != name}}

        return self._change_form(call_id, number, release, username)

    def set_relation(self, call_id: str, number: int, kind: str | None, ticket: str | None, *, username: str) -> PhoneCall:
        """How the form stands to an open ticket: JOIN, MERGE or ALONE; None undoes the choice."""
        relation = {"kind": kind, "number": ticket} if kind else None
        return self._change_form(call_id, number, lambda form: {**form, "relation": relation}, username)

    def set_appeals(self, call_id: str, count: int | None, *, username: str) -> PhoneCall:
        """How many appeals a person says there are; None leaves it to the model. Forms beyond the count lose what was set."""
        with self._changing(call_id, username) as (connection, call):
            form = {**call.form, "appeals": count, "forms": list(call.form.get("forms", ()))[: count or MOST_FORMS]}
            connection.execute(update(calls).where(calls.c.id == call_id).values(form=self.seal(form)))
        return self.get(call_id)

    def end(self, call_id: str, *, username: str) -> PhoneCall:
        """The caller hung up."""
        with self._changing(call_id, username) as (connection, call):
            if call.ended_at is None:
                connection.execute(update(calls).where(calls.c.id == call_id).values(ended_at=iso(self.services.now())))
        return self.get(call_id)

    def _change_form(
        self, call_id: str, number: int, change: Callable[[Mapping[str, Any]], dict[str, Any]], username: str
    ) -> PhoneCall:
        with self._changing(call_id, username) as (connection, call):
            forms = [dict(form) for form in call.form.get("forms", ())]
            forms += [{} for _ in range(number + 1 - len(forms))]
            forms[number] = change(forms[number])
            form = {**call.form, "forms": forms}
            connection.execute(update(calls).where(calls.c.id == call_id).values(form=self.seal(form)))
        return self.get(call_id)

    @contextmanager
    def _changing(self, call_id: str, username: str) -> Iterator[tuple[Connection, PhoneCall]]:
        """An open call while this person changes it; a call that nobody has becomes theirs."""
        with transaction(self.services.engine) as connection:
            call = self.lock(connection, call_id)
            if call.state != OPEN:
                raise CallClosed("这通电话已经办完，不能再改。")
            yield connection, call
            self.touch(connection, call_id, username=call.username or username)

    def drop(self, call_id: str, *, username: str) -> None:
        """No ticket comes of it: a wrong number, a question answered at once, a hoax."""
        with self._changing(call_id, username) as (connection, call):
            ended = call.ended_at or iso(self.services.now())
            connection.execute(update(calls).where(calls.c.id == call_id).values(state=DROPPED, ended_at=ended))

    # -- rows -----------------------------------------------------------------------------------------------------

    def lock(self, connection: Connection, call_id: str) -> PhoneCall:
        connection.execute(_LOCKED, {"id": call_id}).first()
        return self._load(connection, call_id)

    def _load(self, connection: Connection, call_id: str) -> PhoneCall:
        row = connection.execute(_BY_ID, {"id": call_id}).first()
        if row is None:
            raise CallNotFound
        return self._call(row, connection.execute(_TURNS, {"id": call_id}))

    def _call(self, row: Row, turns: Iterable[Row]) -> PhoneCall:
        return PhoneCall(
            id=row.id,
            state=row.state,
            username=row.username,
            origin=row.origin,
            caller=self._unseal(row.caller) if row.caller else None,
            form=self._unseal(row.form),
            version=row.version,
            ticket_numbers=tuple(filter(None, row.ticket_numbers.split(","))),
            created_at=row.created_at,
            updated_at=row.updated_at,
            ended_at=row.ended_at,
            turns=tuple(CallTurn(turn.position, turn.turn_id, turn.speaker, self._unseal(turn.text), turn.at) for turn in turns),
        )

    def touch(self, connection: Connection, call_id: str, **values: Any) -> None:
        connection.execute(update(calls).where(calls.c.id == call_id).values(**self._stamp(), **values))

    def _stamp(self) -> dict[str, Any]:
        return {"version": calls.c.version + 1, "updated_at": iso(self.services.now())}

    def seal(self, value: Any) -> bytes:
        return self.services.vault.seal(value)

    def _unseal(self, sealed: bytes) -> Any:
        return self.services.vault.open(sealed)
