"""The life of a ticket: filed, changed by the resident, moved by dispatch. The one place that writes tickets.

open_ticket() writes ticket, timeline and outbox row in one transaction, and the same request_key always returns the same
ticket: the resident has the number before dispatch is even reachable, and nothing is filed twice.
"""
from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.exc import IntegrityError

from bot.catalogue import Catalogue
from bot.db import iso, parse_iso, reading, transaction
from bot.notices import take_notices, tell_status
from bot.petition import Lanes, Petition, higher_urgency, mask, matter_of, petition_from_dict, title_of
from bot.schema import (
    attachments,
    diversions,
    handovers,
    misunderstandings,
    outbox,
    surveys,
    ticket_days,
    ticket_events,
    tickets,
    webhooks_seen,
)
from bot.ticket import (
    CHINA,
    FINAL_STATES,
    RATINGS,
    StatusEvent,
    Ticket,
    TimelineEntry,
    alike,
    created_payload,
    payload_fields,
    place_key,
)
from bot.vault import Vault

# The same matter at the same place within this time belongs to one cluster.
CLUSTER_DAYS = 60

# Statements of every ticket, built once: building an expression costs as much as running it.
_BY_NUMBER = select(tickets).where(tickets.c.number == bindparam("key"))
_BY_REQUEST_KEY = select(tickets).where(tickets.c.request_key == bindparam("key"))
_BY_TOKEN = select(tickets).where(tickets.c.token_digest == bindparam("key"))
_NEW_TICKET, _NEW_EVENT, _NEW_DELIVERY = tickets.insert(), ticket_events.insert(), outbox.insert()
_LAST_OF_DAY = select(ticket_days.c.last).where(ticket_days.c.day == bindparam("today"))
_COUNT_UP = update(ticket_days).where(ticket_days.c.day == bindparam("today")).values(last=ticket_days.c.last + 1)
_LAST_POSITION = select(func.coalesce(func.max(outbox.c.position), 0)).where(outbox.c.ticket_number == bindparam("number"))
_SAME_PLACE = (
    select(tickets.c.cluster, tickets.c.category_code, tickets.c.title)
    .where(tickets.c.place_key == bindparam("place"), tickets.c.state.notin_(sorted(FINAL_STATES)))
    .where(tickets.c.filed_at >= bindparam("since"))
    .order_by(tickets.c.number)
    .limit(20)
)
# Beyond a thousand appellants the exact number no longer matters.
_CLUSTER_SIZE = select(func.count()).select_from(
    select(tickets.c.number).where(tickets.c.cluster == bindparam("cluster")).limit(1000).subquery()
)


class TicketNotFound(LookupError):
    """No ticket has this number, link or request key."""


class TicketClosed(ValueError):
    """The ticket has ended; the change asked for is no longer possible."""


@dataclass(frozen=True)
class Tickets:
    """Ticket operations on one database. `now` gives the current UTC time."""

    engine: Engine
    vault: Vault
    catalogue: Catalogue
    now: Callable[[], datetime]
    lanes: Lanes

    # -- filing ---------------------------------------------------------------------------------------------------

    def open_ticket(self, petition: Petition, *, request_key: str, conversation_id: str | None) -> Ticket:
        """File a petition, or return the ticket that this request_key filed before. Raises StorageError."""
        with transaction(self.engine) as connection:
            earlier = connection.execute(_BY_REQUEST_KEY, {"key": request_key}).first()
            if earlier is not None:
                return self._ticket(connection, earlier)
            try:
                with connection.begin_nested():
                    return self._insert(connection, petition, request_key, conversation_id)
            except IntegrityError:  # another process filed the same request between our look and our write
                return self._ticket(connection, self._get_row(connection, _BY_REQUEST_KEY, request_key))

    def _insert(self, connection: Connection, petition: Petition, request_key: str, conversation_id: str | None) -> Ticket:
        now = self.now()
        number = self._next_number(connection, now)
        matter = matter_of(petition, self.catalogue)
        lead_role, co_roles, local = self.catalogue.route(
            petition.category, matter, kind=petition.kind, emergency_kind=petition.emergency_kind if petition.emergency else None
        )
        lead, co = self.catalogue.department(lead_role), [self.catalogue.department(role) for role in co_roles]
        district = (petition.place or {}).get("district")
        if local and district and district not in co:
            co.append(str(district))
        due_at, _ = self.catalogue.due_at(now, request_type=petition.request_type, urgency=petition.urgency, matter=matter)
        key = place_key(petition)
        values: dict[str, Any] = {
            "number": number,
            "request_key": request_key,
            "conversation_id": conversation_id,
            "token_digest": self.vault.digest(self.vault.link_token(number)),
            "kind": petition.kind,
            "source": petition.source,
            "state": "filed",
            "request_type": petition.request_type,
            "category_code": petition.category,
            "urgency": petition.urgency,
            "emergency": petition.emergency,
            "title": title_of(petition),
            "petition": self.vault.seal(petition.as_dict()),
            "place_key": key,
            "cluster": self._cluster(connection, petition, key, now) or number,
            "lead_department": lead,
            "co_departments": json.dumps([name for name in co if name != lead], ensure_ascii=False),
            "due_at": iso(due_at),
            "filed_at": iso(now),
            "updated_at": iso(now),
        }
        connection.execute(_NEW_TICKET, values)
        if petition.attachments:
            connection.execute(
                update(attachments).where(attachments.c.id.in_(petition.attachments)).values(ticket_number=number)
            )
        self._log(connection, number, "filed", actor="resident", note="")
        ticket = self._ticket(connection, self._get_row(connection, _BY_NUMBER, number))
        self._enqueue(connection, number, "ticket.created", created_payload(ticket, self.catalogue, self.lanes))
        return ticket

    def _next_number(self, connection: Connection, now: datetime) -> str:
        day = now.astimezone(CHINA).strftime("%Y%m%d")
        if connection.execute(_COUNT_UP, {"today": day}).rowcount == 0:
            try:
                with connection.begin_nested():
                    connection.execute(ticket_days.insert().values(day=day, last=1))
            except IntegrityError:  # another process opened the day
                connection.execute(_COUNT_UP, {"today": day})
        last = connection.execute(_LAST_OF_DAY, {"today": day}).scalar_one()
        return f"{day}-{last:04d}"

    def _cluster(self, connection: Connection, petition: Petition, key: str | None, now: datetime) -> str | None:
        """The first open ticket on the same matter at the same place; each appellant keeps a ticket and hears the result."""
        if key is None or petition.kind in ("minor", "need"):
            return None
        since = iso(now - timedelta(days=CLUSTER_DAYS))
        rows = connection.execute(_SAME_PLACE, {"place": key, "since": since}).fetchall()
        return next((row.cluster for row in rows if self._is_same_matter(petition, row)), None)

    def _is_same_matter(self, petition: Petition, row: Row) -> bool:
        """Whether an earlier ticket of the same place is about the same: read as the same leaf, or told in the same words."""
        if row.category_code == petition.category or alike(title_of(petition), row.title):
            return True
        matter, earlier = matter_of(petition, self.catalogue), self.catalogue.find_matter(row.title)
        return matter is not None and matter == earlier

    # -- reading --------------------------------------------------------------------------------------------------

    def get_ticket(self, number: str) -> Ticket:
        with reading(self.engine) as connection:
            return self._ticket(connection, self._get_row(connection, _BY_NUMBER, number))

    def get_by_token(self, token: str) -> Ticket:
        with reading(self.engine) as connection:
            return self._ticket(connection, self._get_row(connection, _BY_TOKEN, self.vault.digest(token)))

    def find_of_conversation(self, conversation_id: str, *, limit: int = 10) -> list[Ticket]:
        """Newest first."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                select(tickets).where(tickets.c.conversation_id == conversation_id).order_by(tickets.c.number.desc()).limit(limit)
            ).fetchall()
            return [self._ticket(connection, row) for row in rows]

    def timeline(self, number: str) -> list[TimelineEntry]:
        with reading(self.engine) as connection:
            rows = connection.execute(
                select(ticket_events).where(ticket_events.c.ticket_number == number).order_by(ticket_events.c.at, ticket_events.c.id)
            ).fetchall()
        return [
            TimelineEntry(row.kind, parse_iso(row.at), row.actor, row.department, self.vault.open(row.note) if row.note else "")
            for row in rows
        ]

    def link(self, number: str, base_url: str) -> str:
        return f"{base_url}/t/{self.vault.link_token(number)}"

    # -- changes by the resident ----------------------------------------------------------------------------------

    def supplement(self, number: str, note: str, *, urgency: str | None = None, attachment_ids: Sequence[str] = ()) -> Ticket:
        """Add what the resident says later. A higher urgency raises the ticket's. Raises TicketNotFound, TicketClosed."""
        with transaction(self.engine) as connection:
            ticket = self._open_one(connection, number)
            petition = replace(
                ticket.petition,
                texts=(*ticket.petition.texts, note) if note else ticket.petition.texts,
                attachments=(*ticket.petition.attachments, *attachment_ids),
                urgency=higher_urgency(ticket.petition.urgency, urgency or ticket.petition.urgency),
            )
            fields: dict[str, Any] = {"description": petition.description}
            if petition.urgency != ticket.petition.urgency:
                fields["urgency"] = petition.urgency
            if attachment_ids:
                fields["attachments"] = list(petition.attachments)
                connection.execute(update(attachments).where(attachments.c.id.in_(attachment_ids)).values(ticket_number=number))
            return self._change(connection, ticket, petition, "supplemented", note, fields)

    def correct(self, number: str, petition: Petition, *, note: str = "") -> Ticket:
        """Exchange facts of a filed ticket (place, phone, name …); dispatch gets each changed field whole."""
        with transaction(self.engine) as connection:
            ticket = self._open_one(connection, number)
            before, after = payload_fields(ticket, self.catalogue), payload_fields(replace(ticket, petition=petition), self.catalogue)
            fields = {key: value for key, value in after.items() if value != before[key]}
            if not fields:
                return ticket
            return self._change(connection, ticket, petition, "corrected", note, fields)

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
            ticket = self._ticket(connection, self._get_row(connection, _BY_NUMBER, number))
            rated = connection.execute(
                select(ticket_events.c.id).where(ticket_events.c.ticket_number == number, ticket_events.c.kind == "rated")
            ).first()
            if rated is None:
                self._log(connection, number, "rated", actor="resident", note=RATINGS[score] + (f"：{note}" if note else ""))
                survey = surveys.c.ticket_number == number
                connection.execute(update(surveys).where(survey).values(score=score, answered_at=iso(self.now())))
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
    ) -> Ticket:
        now = iso(self.now())
        connection.execute(
            update(tickets)
            .where(tickets.c.number == ticket.number)
            .values(
                petition=self.vault.seal(petition.as_dict()),
                urgency=petition.urgency,
                emergency=petition.emergency,
                place_key=place_key(petition),
                state=state or ticket.state,
                updated_at=now,
            )
        )
        self._log(connection, ticket.number, change, actor="resident", note=note)
        payload = {"ticket_number": ticket.number, "change": change, "note": note, **fields}
        self._enqueue(connection, ticket.number, "ticket.updated", payload)
        return self._ticket(connection, self._get_row(connection, _BY_NUMBER, ticket.number))

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
            if row.status_at and parse_iso(row.status_at) >= event.at or row.state == "withdrawn":
                return True
            connection.execute(
                update(tickets)
                .where(tickets.c.number == row.number)
                .values(
                    state=event.status,
                    status_at=iso(event.at),
                    status_department=event.department or row.status_department,
                    updated_at=iso(self.now()),
                )
            )
            if row.conversation_id:
                tell_status(connection, self.vault, row, event, iso(self.now()))
            return True

    def _first_time(self, connection: Connection, webhook_id: str) -> bool:
        try:
            with connection.begin_nested():
                connection.execute(webhooks_seen.insert().values(id=webhook_id, at=iso(self.now())))
            return True
        except IntegrityError:
            return False

    # -- conversation-level records -------------------------------------------------------------------------------

    def take_notices(self, conversation_id: str) -> list[str]:
        """Undelivered notices, oldest first, marked delivered in the caller's transaction."""
        with transaction(self.engine) as connection:
            return take_notices(connection, self.vault, conversation_id, iso(self.now()))

    def open_handover(self, conversation_id: str, reason: str) -> int:
        """Queue the conversation for a person, once; returns how many wait before it."""
        with transaction(self.engine) as connection:
            waiting = connection.execute(select(handovers).where(handovers.c.closed_at.is_(None)).order_by(handovers.c.id)).fetchall()
            for place, row in enumerate(waiting):
                if row.conversation_id == conversation_id:
                    return place
            connection.execute(
                handovers.insert().values(conversation_id=conversation_id, reason=reason, opened_at=iso(self.now()))
            )
            return len(waiting)

    def log_diversion(self, conversation_id: str, reason_code: str) -> None:
        with transaction(self.engine) as connection:
            connection.execute(
                diversions.insert().values(conversation_id=conversation_id, reason_code=reason_code, at=iso(self.now()))
            )

    def log_misunderstanding(self, conversation_id: str, message_id: str) -> None:
        """A message that was not understood; supervisors will see it (bot/reviews.py)."""
        with transaction(self.engine) as connection:
            row = {"conversation_id": conversation_id, "message_id": message_id, "at": iso(self.now())}
            connection.execute(misunderstandings.insert().values(**row))

    # -- rows -----------------------------------------------------------------------------------------------------

    def _get_row(self, connection: Connection, statement: Any, key: str) -> Row:
        row = connection.execute(statement, {"key": key}).first()
        if row is None:
            raise TicketNotFound
        return row

    def _locked_row(self, connection: Connection, number: str) -> Row:
        """The row, kept from changing until the transaction ends (SQLite has one writer anyway)."""
        row = connection.execute(_BY_NUMBER.with_for_update(), {"key": number}).first()
        if row is None:
            raise TicketNotFound
        return row

    def _ticket(self, connection: Connection, row: Row) -> Ticket:
        size = connection.execute(_CLUSTER_SIZE, {"cluster": row.cluster}).scalar_one()
        return Ticket(
            number=row.number,
            kind=row.kind,
            source=row.source,
            state=row.state,
            title=row.title,
            petition=petition_from_dict(self.vault.open(row.petition)),
            cluster=row.cluster,
            cluster_size=size,
            lead_department=row.lead_department,
            co_departments=tuple(json.loads(row.co_departments)),
            due_at=parse_iso(row.due_at) if row.due_at else None,
            filed_at=parse_iso(row.filed_at),
            updated_at=parse_iso(row.updated_at),
            status_department=row.status_department,
            service_request_id=row.service_request_id,
            conversation_id=row.conversation_id,
        )

    def _log(
        self,
        connection: Connection,
        number: str,
        kind: str,
        *,
        actor: str,
        note: str,
        at: datetime | None = None,
        department: str | None = None,
    ) -> None:
        event = {"ticket_number": number, "kind": kind, "at": iso(at or self.now()), "actor": actor, "department": department}
        connection.execute(_NEW_EVENT, {**event, "note": self.vault.seal(note) if note else None})

    def _enqueue(self, connection: Connection, number: str, kind: str, data: Mapping[str, Any]) -> None:
        now = iso(self.now())
        position = connection.execute(_LAST_POSITION, {"number": number}).scalar_one() + 1
        body = self.vault.seal({"type": kind, "timestamp": now, "data": dict(data)})
        message = {"id": f"msg_{uuid.uuid4().hex}", "position": position, "ticket_number": number, "type": kind, "body": body}
        connection.execute(_NEW_DELIVERY, {**message, "state": "pending", "attempts": 0, "next_attempt_at": now, "created_at": now})
