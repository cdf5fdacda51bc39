"""A call as the desk works on it: who may, the forms of its appeals, their state as JSON, and filing what the agent saw.

Between the life of a call (bot/calls.py), its readings (bot/call_reading.py) and its forms (bot/call_form.py); knows no Flask.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bot.access import Access
from bot.assistant import Assistant
from bot.call_asides import Asides
from bot.call_draft import drafts_of
from bot.call_filing import ALONE, JOIN, MERGE, CallFiling, Filing
from bot.call_form import (
    FIELDS,
    Draft,
    Form,
    FormError,
    Remark,
    Suggestion,
    build_form,
    clean_value,
    find_corrections,
    find_problems,
)
from bot.call_reading import CallReader, Reading
from bot.call_view import state_of, token_of
from bot.calls import FILED, MOST_FORMS, OPEN, CallClosed, CallNotFound, Calls, NewTurn, PhoneCall
from bot.services import Services
from bot.staff import StaffMember
from bot.ticket import is_confidential

CHECK_SECONDS = 1.0
# Values that are shown as the model suggested them; the others follow from them.
SUGGESTED = ("title", "summary", "category", "request_type", "urgency", "place", "when", "persons", "amount", "name", "phone")


class NotFiled(Exception):
    """What keeps the forms from being filed: (number of the form, remark)."""

    def __init__(self, problems: Sequence[tuple[int, Remark]]) -> None:
        super().__init__("not filed")
        self.problems = problems


class Watchers:
    """Requests that wait for news of a call, woken by whoever makes it in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bells: dict[str, threading.Event] = {}

    def bell(self, call_id: str) -> threading.Event:
        """Taken before looking: what happens between looking and waiting has rung it already."""
        with self._lock:
            return self._bells.setdefault(call_id, threading.Event())

    def ring(self, call_id: str) -> None:
        with self._lock:
            bell = self._bells.pop(call_id, None)
        if bell is not None:
            bell.set()


@dataclass(frozen=True)
class CallDesk:
    services: Services
    calls: Calls
    filing: CallFiling
    reader: CallReader
    watchers: Watchers
    asides: Asides
    places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(64))  # how many requests may wait at once

    # -- access ---------------------------------------------------------------------------------------------------

    def get(self, call_id: str, member: StaffMember) -> PhoneCall:
        """Raises CallNotFound also for a colleague's call: an agent sees their own and those nobody has."""
        call = self.calls.get(call_id)
        if call.username not in (None, member.username) and not self._oversees(call, member):
            raise CallNotFound
        return call

    def _oversees(self, call: PhoneCall, member: StaffMember) -> bool:
        """Supervisors read every call of their districts, confidential ones where they are cleared for it."""
        if not member.is_at_least("supervisor"):
            return False
        access, petitions = Access(self.services, member), [form.petition for form in self.forms(call, self.reader.follow(call))]
        return all(
            member.may_read(district=self.services.tickets.district_of(p), confidential=is_confidential(p, self.services.catalogue))
            and access.may_see_person(p)
            for p in petitions
        )

    # -- forms ----------------------------------------------------------------------------------------------------

    def forms(self, call: PhoneCall, reading: Reading) -> list[Form]:
        drafts = self._drafts(call, reading)
        return [self._form(draft, call.set_by_person(number)) for number, draft in enumerate(drafts)]

    def _form(self, draft: Draft, set_by_person: Mapping[str, Any]) -> Form:
        return build_form(draft, set_by_person, self.services.catalogue, self.services.gazetteer, self.services.now())

    def _drafts(self, call: PhoneCall, reading: Reading) -> list[Draft]:
        """As many as a person says there are, else as many as the model hears."""
        wanted = call.form.get("appeals")
        drafts = drafts_of(reading, call.caller, as_one=wanted == 1)
        if wanted is None:
            return drafts[:MOST_FORMS]
        known = {name: drafts[0].fields[name] for name in ("name", "phone") if name in drafts[0].fields}
        return [*drafts, *(Draft(fields=known, model=drafts[0].model) for _ in range(wanted - len(drafts)))][:wanted]

    # -- changes by the agent -------------------------------------------------------------------------------------

    def set_field(self, call_id: str, number: int, name: str, value: Any, member: StaffMember, *, release: bool = False) -> None:
        """Raises FormError, CallNotFound, CallClosed."""
        self.get(call_id, member)
        if name not in FIELDS or not 0 <= number < MOST_FORMS:
            raise FormError("没有这一栏。")
        if release:
            self.calls.release_field(call_id, number, name, username=member.username)
        else:
            self.calls.set_field(call_id, number, name, clean_value(name, value, self.services.catalogue), username=member.username)
        self.watchers.ring(call_id)

    def set_appeals(self, call_id: str, count: int | None, member: StaffMember) -> None:
        self.get(call_id, member)
        if count is not None and not 1 <= count <= MOST_FORMS:
            raise FormError(f"一通电话最多分 {MOST_FORMS} 件。")
        self.calls.set_appeals(call_id, count, username=member.username)
        self.watchers.ring(call_id)

    def set_relation(self, call_id: str, number: int, kind: Any, ticket: Any, member: StaffMember) -> None:
        """Only to a ticket that this person may read. Raises FormError, CallNotFound, TicketNotFound, CallClosed."""
        self.get(call_id, member)
        if kind not in (JOIN, ALONE, MERGE, None) or not 0 <= number < MOST_FORMS:
            raise FormError("没有这种并单方式。")
        if kind in (JOIN, MERGE):
            Access(self.services, member).get_ticket(str(ticket))
        self.calls.set_relation(call_id, number, kind, str(ticket) if kind in (JOIN, MERGE) else None, username=member.username)
        self.watchers.ring(call_id)

    def add_turns(self, call_id: str, turns: Sequence[NewTurn], member: StaffMember) -> None:
        call = self.get(call_id, member)
        if call.state != OPEN:
            raise CallClosed("这通电话已经办完，不能再改。")
        self.heard(self.calls.take_turns(call_id, turns, username=call.username or member.username))

    def heard(self, call: PhoneCall) -> None:
        """Turns have come: read them now, so that the page has not to ask for it, and wake who is looking."""
        self.reader.follow(call)
        self.watchers.ring(call.id)

    def is_emergency(self, call: PhoneCall) -> bool:
        """As far as the model has read the call by now."""
        parse = self.reader.follow(call).parse
        return bool(parse and parse["urgency"]["emergency"])

    def take_next(self, username: str) -> str | None:
        """The id of the call that is theirs now; somebody in danger does not wait for their turn."""
        return self.calls.take_next(username, self.is_emergency)

    def undo(self, call_id: str, number: int, member: StaffMember) -> str:
        self.get(call_id, member)
        ticket = self.filing.undo_relation(call_id, number, username=member.username)
        self.watchers.ring(call_id)
        return ticket

    def drop(self, call_id: str, member: StaffMember) -> None:
        self.get(call_id, member)
        self.calls.drop(call_id, username=member.username)
        self.watchers.ring(call_id)

    # -- filing ---------------------------------------------------------------------------------------------------

    def file(self, call_id: str, seen: Sequence[Mapping[str, Any]], member: StaffMember) -> list[str]:
        """Ticket numbers. `seen`: for each form {"values": what the page showed, "touched": which of them a person set}.

        What the agent saw is filed, also where a newer suggestion was on its way. Raises NotFiled, FormError, CallNotFound,
        CallClosed, TicketClosed.
        """
        call = self.get(call_id, member)
        if call.state == FILED:
            return list(call.ticket_numbers)
        drafts = self._drafts(call, self.reader.follow(call))
        drafts += [Draft()] * (len(seen) - len(drafts))
        forms = [self._seen_form(call, number, drafts[number], shown) for number, shown in enumerate(seen)]
        problems = [
            (number, problem)
            for number, form in enumerate(forms)
            for problem in find_problems(form)
            if call.relation(number).get("kind") != MERGE or problem.field == "summary"
        ]
        if problems or not forms:
            raise NotFiled(problems)
        filings = [self._filing(call, number, form, drafts[number]) for number, form in enumerate(forms)]
        numbers = self.filing.file(call_id, filings, username=member.username)
        self.watchers.ring(call_id)
        return numbers

    def _seen_form(self, call: PhoneCall, number: int, draft: Draft, shown: Mapping[str, Any]) -> Form:
        values = {
            name: clean_value(name, value, self.services.catalogue) for name, value in shown["values"].items() if name in FIELDS
        }
        touched = {name: values[name] for name in shown["touched"] if name in values}
        set_by_person = {**call.set_by_person(number), **touched}
        # A person who released a field on the page did not set it, whatever arrived here before.
        set_by_person = {name: value for name, value in set_by_person.items() if name in shown["touched"]}
        fields = dict(draft.fields)
        for name in SUGGESTED:
            if name in values and name not in set_by_person:
                fields[name] = replace(fields.get(name, Suggestion(None)), value=values[name])
        place = draft.place if fields.get("place") == draft.fields.get("place") else None
        return self._form(replace(draft, fields=fields, place=place), set_by_person)

    def _filing(self, call: PhoneCall, number: int, form: Form, draft: Draft) -> Filing:
        petition = replace(form.petition, id=f"{call.id}-{number + 1}")
        who = "" if petition.anonymous or petition.confidential else "".join(filter(None, (petition.name, petition.phone)))
        note = f"又来电反映：{petition.description}" + (f"（来电人 {who}）" if who else "")
        return Filing(petition, call.relation(number), note, find_corrections(replace(form, draft=draft)))

    def look_aside(self, call_id: str, number: int, member: StaffMember) -> dict[str, Any]:
        call = self.get(call_id, member)
        forms = self.forms(call, self.reader.follow(call))
        return self.asides.look(call, forms[min(max(number, 0), len(forms) - 1)], member)

    # -- what the page shows --------------------------------------------------------------------------------------

    def view(self, call: PhoneCall, member: StaffMember) -> dict[str, Any]:
        reading = self.reader.follow(call)
        forms = self.forms(call, reading)
        filed = [self.services.tickets.get_ticket(item["number"]) for item in call.form.get("filed", ())]
        # Who filed a confidential call without being cleared for such may not go on reading it.
        withheld = bool(filed) and not member.cleared and any(f.petition.confidential for f in forms)
        return {"token": token_of(call, reading), **state_of(call, reading, forms, filed, self.services, withheld=withheld)}

    def wait(self, call_id: str, member: StaffMember, have: str, seconds: float) -> dict[str, Any] | None:
        """The state as soon as it is another than the page has; None when nothing happens in this time."""
        until = time.monotonic() + seconds
        while True:
            bell = self.watchers.bell(call_id)
            call = self.get(call_id, member)
            reading = self.reader.follow(call)
            if token_of(call, reading) != have:
                return self.view(call, member)
            left = until - time.monotonic()
            if left <= 0 or not self._rest(bell, min(left, CHECK_SECONDS)):
                return None

    def _rest(self, bell: threading.Event, seconds: float) -> bool:
        """Wait for the bell; False at once when too many are waiting. Another process does not ring here, so never for long."""
        if not self.places.acquire(blocking=False):
            return False
        try:
            bell.wait(seconds)
        finally:
            self.places.release()
        return True


def build_desk(services: Services, assistant: Assistant) -> CallDesk:
    watchers, calls = Watchers(), Calls(services)
    reader = CallReader(services, assistant, watchers.ring)
    return CallDesk(services, calls, CallFiling(services, calls), reader, watchers, Asides(services))
