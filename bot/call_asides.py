"""What an agent wants beside the form while talking: the same trouble in open tickets, what the caller filed before, answers, counters.

Shows only what this person may read, and of tickets neither words nor people.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bot.call_form import Form
from bot.calls import PhoneCall
from bot.catalogue import Entry
from bot.db import iso, reading
from bot.knowledge import find_entry, points_near
from bot.services import Services
from bot.similar import Earlier, find_cluster, find_earlier, find_similar
from bot.staff import StaffMember
from bot.ticket import FINAL_STATES, STATES

MOST_ENTRIES, NEWEST_TURNS = 3, 8


@dataclass(frozen=True)
class Asides:
    services: Services

    def look(self, call: PhoneCall, form: Form, member: StaffMember) -> dict[str, Any]:
        similar, earlier, cluster = self._tickets(call, form)
        entries = self._entries(call, form)
        return {
            "similar": [self._shown(ticket, cluster) for ticket in similar if self._readable(ticket, member)],
            "earlier": [self._shown(ticket, cluster) for ticket in earlier if self._readable(ticket, member)],
            "knowledge": [_entry(entry) for entry in entries],
            "points": self._points(entries, form.petition.place or {}),
        }

    def person_key(self, call: PhoneCall, form: Form) -> str | None:
        return None if form.petition.anonymous else self.services.vault.person_key(form.petition.phone or call.caller)

    def _tickets(self, call: PhoneCall, form: Form) -> tuple[list[Earlier], list[Earlier], str | None]:
        """Of others, of the caller, and the cluster that the form would join by itself."""
        person, catalogue, petition = self.person_key(call, form), self.services.catalogue, form.petition
        with reading(self.services.engine) as connection:
            similar = find_similar(connection, petition, catalogue, self.services.now(), person_key=person)
            earlier = find_earlier(connection, petition, catalogue, person) if person else []
            cluster = find_cluster(connection, petition, catalogue, self.services.now())
        own = {ticket.number for ticket in earlier} | set(call.ticket_numbers)
        others = [ticket for ticket in similar if ticket.number not in own]
        return others, [ticket for ticket in earlier if ticket.number not in call.ticket_numbers], cluster

    def _readable(self, ticket: Earlier, member: StaffMember) -> bool:
        return member.may_read(district=ticket.district, confidential=ticket.confidential)

    def _shown(self, ticket: Earlier, cluster: str | None) -> dict[str, Any]:
        return {
            "number": ticket.number,
            "title": ticket.title,
            "category": self.services.catalogue.get_category(ticket.category_code).label,
            "state": STATES.get(ticket.state, ticket.state),
            "open": ticket.state not in FINAL_STATES,
            "urgency": ticket.urgency,
            "filed_at": iso(ticket.filed_at),
            "lead": ticket.lead_department,
            "same_matter": ticket.same_matter,
            "auto": ticket.number == cluster,
            "appellants": ticket.appellants,
        }

    def _entries(self, call: PhoneCall, form: Form) -> list[Entry]:
        """Answers to what was asked lately, the newest question first, and to the matter as it is written down."""
        asked = [turn.text for turn in reversed(call.turns) if turn.speaker == "citizen"][:NEWEST_TURNS]
        found = (find_entry(self.services.catalogue, text) for text in [*asked, form.petition.description] if text)
        return list({entry.id: entry for entry in found if entry}.values())[:MOST_ENTRIES]

    def _points(self, entries: Iterable[Entry], place: Mapping[str, Any]) -> list[dict[str, Any]]:
        service = next((entry.service for entry in entries if entry.service), None)
        if service is None:
            return []
        near = points_near(self.services.catalogue, service, place)
        return [
            {"name": point.name, "address": point.address, "phone": point.phone, "hours": point.hours, "materials": point.materials,
             "km": round(km, 1) if km is not None else None}
            for point, km in near
        ]  # fmt: skip


def _entry(entry: Entry) -> dict[str, Any]:
    return {"title": entry.title, "answer": entry.answer, "hotline": entry.hotline, "source": entry.source, "valid_from": entry.valid_from}
