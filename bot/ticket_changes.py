"""What becomes of a filed ticket: changed by the resident or by staff, moved by dispatch, rated. The number stays.

Each change is one transaction of ticket, timeline and outbox row; dispatch gets every changed field whole.
"""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from bot.db import iso, parse_iso, transaction
from bot.notices import tell_status
from bot.petition import Petition, higher_urgency, mask
from bot.schema import attachments, surveys, ticket_events, tickets, webhooks_seen
from bot.search import searchable_text
from bot.ticket import FINAL_STATES, RATINGS, StatusEvent, Ticket, departments_of, payload_fields
from bot.ticket_rows import BY_NUMBER, TicketChanged, TicketClosed, TicketRows

# How the contract with dispatch (DESIGN §7) calls a change that the timeline names more exactly.
_AT_DISPATCH = {"rerouted": "corrected"}
_RESPONSES = frozenset({"accepted", "in_progress", "extended", "replied", "closed"})


class TicketChanges(TicketRows):
    # -- changes by the resident, or by staff in their name ---------------------------------------------------------

    def supplement(
        self, number: str, note: str, *, urgency: str | None = None, attachment_ids: Sequence[str] = (), actor: str = "resident"
    ) -> Ticket:
        """Add what the resident says later. A higher urgency raises the ticket's. Raises TicketNotFound, TicketClosed."""
        with transaction(self.engine) as connection:
            ticket = self._open_one(connection, number)
            petition = replace(
                ticket.petition,
                texts=(*ticket.petition.texts, note) if note else ticket.petition.texts,
                attachments=(*ticket.petition.attachments, *attachment_ids),
                urgency=higher_urgency(ticket.petition.urgency, urgency or ticket.petition.urgency),
            )
            fields = {"description": payload_fields(replace(ticket, petition=petition), self.catalogue)["description"]}
            if petition.urgency != ticket.petition.urgency:
                fields["urgency"] = petition.urgency
            if attachment_ids:
                fields["attachments"] = list(petition.attachments)
                connection.execute(update(attachments).where(attachments.c.id.in_(attachment_ids)).values(ticket_number=number))
            return self._change(connection, ticket, petition, "supplemented", note, fields, actor=actor)

    def correct(self, number: str, petition: Petition, *, note: str = "", actor: str = "resident", seen: datetime | None = None) -> Ticket:
        """Exchange facts of a filed ticket (place, phone, category …); dispatch gets each changed field whole.

        `seen` is the `updated_at` of what a person looked at. Raises TicketNotFound, TicketClosed, TicketChanged.
        """
        with transaction(self.engine) as connection:
            ticket = self._open_one(connection, number)
            if seen is not None and ticket.updated_at != seen:
                raise TicketChanged(number)
            before, after = payload_fields(ticket, self.catalogue), payload_fields(_rewritten(ticket, petition), self.catalogue)
            fields = {key: value for key, value in after.items() if value != before[key]}
            rerouted = departments_of(petition, self.catalogue) != departments_of(ticket.petition, self.catalogue)
            if not fields and not rerouted:
                return ticket
            return self._change(connection, ticket, petition, "corrected", note, fields, actor=actor)

    def reroute(self, number: str, petition: Petition, *, reason: str, actor: str) -> Ticket:
        """Send a ticket that a department returned to whom `petition` now names; one that moved on meanwhile raises TicketChanged."""
        with transaction(self.engine) as connection:
            ticket = self._open_one(connection, number)
            if ticket.state != "returned":
                raise TicketChanged(number)
            lead, co = departments_of(petition, self.catalogue)
            after = payload_fields(_rewritten(ticket, petition), self.catalogue)
            fields = {"category": after["category"], "department": {"lead": lead, "co": list(co)}}
            connection.execute(update(tickets).where(tickets.c.number == number).values(status_department=None))
            return self._change(connection, ticket, petition, "rerouted", reason, fields, state="filed", actor=actor)

    def regroup(self, number: str, cluster: str | None, *, actor: str) -> Ticket:
        """Put a ticket into the cluster of the same trouble, or out of any (None). Raises TicketNotFound, TicketClosed."""
        with transaction(self.engine) as connection:
            ticket = self._open_one(connection, number)
            values = {"cluster": cluster or number, "updated_at": iso(self.now())}
            connection.execute(update(tickets).where(tickets.c.number == number).values(**values))
            self._log(connection, number, "merged" if cluster else "separated", actor=actor, note=cluster or ticket.cluster or "")
            changed = self._ticket(connection, self._get_row(connection, BY_NUMBER, number))
            group = {"first": changed.cluster, "appellants": changed.cluster_size}
            payload = {"ticket_number": number, "change": "corrected", "note": "", "cluster": group}
            self._enqueue(connection, number, "ticket.updated", payload)
            return changed

    def urge(self, number: str) -> Ticket:
        with transaction(self.engine) as connection:
            ticket = self._open_one(connection, number)
            return self._change(connection, ticket, ticket.petition, "urged", "", {})

    def withdraw(self, number: str, note: str = "") -> Ticket:
        with transaction(self.engine) as connection:
            ticket = self._open_one(connection, number)
            return self._change(connection, ticket, ticket.petition, "withdrawn", note, {}, state="withdrawn")

    def rate(self, number: str, *, satisfied: bool, note: str, score: int | None = None) -> Ticket:
        """The resident's verdict on the reply; the first one counts, and answers the survey. `score`: see RATINGS."""
        score = score or (4 if satisfied else 2)
        with transaction(self.engine) as connection:
            ticket = self._ticket(connection, self._get_row(connection, BY_NUMBER, number))
            rated = connection.execute(
                select(ticket_events.c.id).where(ticket_events.c.ticket_number == number, ticket_events.c.kind == "rated")
            ).first()
            if rated is None:
                self._log(connection, number, "rated", actor="resident", note=RATINGS[score] + (f"：{note}" if note else ""))
                survey = surveys.c.ticket_number == number
                connection.execute(update(surveys).where(survey).values(score=score, answered_at=iso(self.now())))
                connection.execute(update(tickets).where(tickets.c.number == number).values(score=score))
            return ticket

    def give_feedback(self, number: str, note: str) -> Ticket:
        """What the resident found wrong with a ticket that may have ended; dispatch hears it as a supplement."""
        with transaction(self.engine) as connection:
            ticket = self._ticket(connection, self._locked_row(connection, number))
            self._log(connection, number, "feedback", actor="resident", note=note)
            hidden = ticket.petition.anonymous or ticket.petition.confidential
            told = f"居民评价时说没办好的地方：{mask(note) if hidden else note}"
            self._enqueue(connection, number, "ticket.updated", {"ticket_number": number, "change": "supplemented", "note": told})
            return ticket

    def _open_one(self, connection: Connection, number: str) -> Ticket:
        ticket = self._ticket(connection, self._locked_row(connection, number))
        if ticket.state in FINAL_STATES:
            raise TicketClosed(number)
        return ticket

    def _change(
        self,
        connection: Connection,
        ticket: Ticket,
        petition: Petition,
        change: str,
        note: str,
        fields: Mapping[str, Any],
        *,
        state: str | None = None,
        actor: str = "resident",
    ) -> Ticket:
        values, told = self._derived(ticket, petition)
        values |= {**self._columns(petition), "state": state or ticket.state, "updated_at": iso(self.now())}
        title = _rewritten(ticket, petition).title
        if searchable_text(ticket.number, title, petition) != searchable_text(ticket.number, ticket.title, ticket.petition):
            values["search_revision"] = revision = ticket.search_revision + 1
            self._index(connection, ticket.number, title, petition, position=ticket.position, revision=revision)
        connection.execute(update(tickets).where(tickets.c.number == ticket.number).values(**values, title=title))
        self._log(connection, ticket.number, change, actor=actor, note=note)
        hidden = petition.anonymous or petition.confidential
        head = {"ticket_number": ticket.number, "change": _AT_DISPATCH.get(change, change), "note": mask(note) if hidden else note}
        self._enqueue(connection, ticket.number, "ticket.updated", {**head, **told, **fields})
        return self._ticket(connection, self._get_row(connection, BY_NUMBER, ticket.number))

    def _derived(self, ticket: Ticket, petition: Petition) -> tuple[dict[str, Any], dict[str, Any]]:
        """What else the change moves, as columns and as dispatch is told: who is responsible, and until when."""
        values: dict[str, Any] = {}
        told: dict[str, Any] = {}
        lead, co = departments_of(petition, self.catalogue)
        if (lead, co) != departments_of(ticket.petition, self.catalogue):
            values |= {"lead_department": lead, "co_departments": json.dumps(co, ensure_ascii=False)}
            told["department"] = {"lead": lead, "co": list(co)}
        due_at = self._due_at(petition, ticket.filed_at)
        if due_at != self._due_at(ticket.petition, ticket.filed_at):
            values["due_at"] = told["due_at"] = iso(due_at)
        return values, told

    # -- changes by dispatch --------------------------------------------------------------------------------------

    def record_status(self, event: StatusEvent) -> bool:
        """Apply a status event once and in order of `at`; False when it was seen before. Raises TicketNotFound.

        A late older event is kept on the timeline but does not move the state back.
        """
        with transaction(self.engine) as connection:
            if not self._first_time(connection, event.webhook_id):
                return False
            row = self._locked_row(connection, event.ticket_number)
            self._log(connection, row.number, event.status, actor="dispatch", note=event.note, at=event.at, department=event.department)
            late = bool(row.status_at and parse_iso(row.status_at) >= event.at or row.state == "withdrawn")
            moved = {} if late else self._moved(row, event)
            connection.execute(update(tickets).where(tickets.c.number == row.number).values(**moved, **_milestones(row, event)))
            if late:
                return True
            if row.conversation_id:
                tell_status(connection, self.vault, row, event, iso(self.now()))
            return True

    def _moved(self, row: Row, event: StatusEvent) -> dict[str, Any]:
        return {
            "state": event.status,
            "status_at": iso(event.at),
            "status_department": event.department or row.status_department,
            "updated_at": iso(self.now()),
            "closed_at": iso(event.at) if event.status == "closed" else None,
        }

    def _first_time(self, connection: Connection, webhook_id: str) -> bool:
        try:
            with connection.begin_nested():
                connection.execute(webhooks_seen.insert().values(id=webhook_id, at=iso(self.now())))
            return True
        except IntegrityError:
            return False


def _rewritten(ticket: Ticket, petition: Petition) -> Ticket:
    """The ticket with this petition; its title stays what it was filed under, unless a person wrote another."""
    return replace(ticket, petition=petition, title=petition.title or ticket.title)


def _milestones(row: Row, event: StatusEvent) -> dict[str, str]:
    """When a department first answered for the ticket and first replied, whatever the order in which events arrive."""
    at = iso(event.at)
    reached = {"responded_at": event.status in _RESPONSES, "replied_at": event.status in ("replied", "closed")}
    return {name: min(at, getattr(row, name) or at) for name, here in reached.items() if here}
