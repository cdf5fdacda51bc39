"""Rows of tickets as Ticket objects, and what every change of one writes: its timeline and its place in the outbox.

The ground that tickets.py (filing, reading) and ticket_changes.py (what becomes of a filed ticket) stand on.
"""
from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.engine import Connection, Engine, Row

from bot.catalogue import Catalogue
from bot.db import iso, parse_iso
from bot.petition import Lanes, Petition, matter_of, petition_from_dict
from bot.schema import outbox, ticket_events, tickets
from bot.search import add_document, searchable_text
from bot.ticket import Ticket, is_confidential, place_key
from bot.vault import Vault

# Statements of every ticket, built once: building an expression costs as much as running it.
BY_NUMBER = select(tickets).where(tickets.c.number == bindparam("key"))
_BY_NUMBER_LOCKED = BY_NUMBER.with_for_update()
_NEW_EVENT, _NEW_DELIVERY = ticket_events.insert(), outbox.insert()
_LAST_POSITION = select(func.coalesce(func.max(outbox.c.position), 0)).where(outbox.c.ticket_number == bindparam("number"))
# Beyond a thousand appellants the exact number no longer matters.
_CLUSTER_SIZE = select(func.count()).select_from(
    select(tickets.c.number).where(tickets.c.cluster == bindparam("cluster")).limit(1000).subquery()
)


class TicketNotFound(LookupError):
    """No ticket has this number, link or request key."""


class TicketClosed(ValueError):
    """The ticket has ended; the change asked for is no longer possible."""


class TicketChanged(ValueError):
    """Somebody else changed the ticket after it was looked at."""


@dataclass(frozen=True)
class TicketRows:
    """`now` gives the current UTC time; `districts` are the full names of the home city's."""

    engine: Engine
    vault: Vault
    catalogue: Catalogue
    now: Callable[[], datetime]
    lanes: Lanes
    districts: frozenset[str]

    def _get_row(self, connection: Connection, statement: Any, key: str) -> Row:
        row = connection.execute(statement, {"key": key}).first()
        if row is None:
            raise TicketNotFound
        return row

    def _locked_row(self, connection: Connection, number: str) -> Row:
        """The row, kept from changing until the transaction ends (SQLite has one writer anyway)."""
        row = connection.execute(_BY_NUMBER_LOCKED, {"key": number}).first()
        if row is None:
            raise TicketNotFound
        return row

    def _ticket(self, connection: Connection, row: Row) -> Ticket:
        return self._ticket_of(row, connection.execute(_CLUSTER_SIZE, {"cluster": row.cluster}).scalar_one())

    def _ticket_of(self, row: Row, cluster_size: int) -> Ticket:
        return Ticket(
            number=row.number,
            kind=row.kind,
            source=row.source,
            state=row.state,
            title=row.title,
            petition=petition_from_dict(self.vault.open(row.petition)),
            cluster=row.cluster,
            cluster_size=cluster_size,
            lead_department=row.lead_department,
            co_departments=tuple(json.loads(row.co_departments)),
            due_at=parse_iso(row.due_at) if row.due_at else None,
            filed_at=parse_iso(row.filed_at),
            updated_at=parse_iso(row.updated_at),
            status_department=row.status_department,
            service_request_id=row.service_request_id,
            conversation_id=row.conversation_id,
            district=row.district,
            confidential=bool(row.confidential),
            position=row.position,
            search_revision=row.search_revision,
        )

    def _due_at(self, petition: Petition, filed_at: datetime) -> datetime:
        matter = matter_of(petition, self.catalogue)
        due_at, _ = self.catalogue.due_at(filed_at, request_type=petition.request_type, urgency=petition.urgency, matter=matter)
        return due_at

    def district_of(self, petition: Petition) -> str | None:
        """The home city's district that the petition belongs to; None = nobody knows, or another city's: everybody may look after it."""
        district = (petition.place or {}).get("district")
        return str(district) if district in self.districts else None

    def _columns(self, petition: Petition) -> dict[str, Any]:
        """The petition and what of it stands in columns of its own, to be found and guarded by."""
        return {
            "request_type": petition.request_type,
            "category_code": petition.category,
            "urgency": petition.urgency,
            "emergency": petition.emergency,
            "petition": self.vault.seal(petition.as_dict()),
            "place_key": place_key(petition),
            "district": self.district_of(petition),
            "confidential": is_confidential(petition, self.catalogue),
            "person_key": None if petition.anonymous else self.vault.person_key(petition.phone),
        }

    def _index(self, connection: Connection, number: str, title: str, petition: Petition, *, position: int, revision: int) -> None:
        add_document(connection, self.vault, position, revision, searchable_text(number, title, petition))

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
