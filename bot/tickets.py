"""Filing tickets and finding them. The one door to the life of a ticket: what comes later is inherited from ticket_changes.py.

open_ticket() writes ticket, timeline and outbox row in one transaction, and the same request_key always returns the same
ticket: the resident has the number before dispatch is even reachable, and nothing is filed twice.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from bot.db import iso, parse_iso, reading, transaction
from bot.notices import take_notices
from bot.petition import Petition, petition_from_dict, title_of
from bot.schema import attachments, diversions, misunderstandings, ticket_days, ticket_events, tickets
from bot.similar import find_cluster
from bot.ticket import CHINA, Ticket, TimelineEntry, created_payload, departments_of
from bot.ticket_changes import TicketChanges
from bot.ticket_rows import BY_NUMBER
from bot.ticket_rows import TicketChanged as TicketChanged
from bot.ticket_rows import TicketClosed as TicketClosed
from bot.ticket_rows import TicketNotFound as TicketNotFound

MOST_A_DAY = 10_000_000

# Statements of every ticket, built once: building an expression costs as much as running it.
_BY_REQUEST_KEY = select(tickets).where(tickets.c.request_key == bindparam("key"))
_BY_TOKEN = select(tickets).where(tickets.c.token_digest == bindparam("key"))
_NEW_TICKET = tickets.insert()
_LAST_OF_DAY = select(ticket_days.c.last).where(ticket_days.c.day == bindparam("today"))
_COUNT_UP = update(ticket_days).where(ticket_days.c.day == bindparam("today")).values(last=ticket_days.c.last + 1)


class Tickets(TicketChanges):
    """Ticket operations on one database."""

    # -- filing ---------------------------------------------------------------------------------------------------

    def open_ticket(
        self, petition: Petition, *, request_key: str, conversation_id: str | None, cluster: str | None = None, actor: str = "resident"
    ) -> Ticket:
        """File a petition, or return the ticket that this request_key filed before. Raises StorageError.

        `actor` is the username of the agent who filed it for somebody; `cluster` the cluster that person put it into, "" for
        none. None leaves it to the same place and matter.
        """
        with transaction(self.engine) as connection:
            earlier = connection.execute(_BY_REQUEST_KEY, {"key": request_key}).first()
            if earlier is not None:
                return self._ticket(connection, earlier)
            try:
                with connection.begin_nested():
                    return self._insert(connection, petition, request_key, conversation_id, cluster, actor)
            except IntegrityError:  # another process filed the same request between our look and our write
                return self._ticket(connection, self._get_row(connection, _BY_REQUEST_KEY, request_key))

    def _insert(
        self, connection: Connection, petition: Petition, request_key: str, conversation_id: str | None, cluster: str | None, actor: str
    ) -> Ticket:
        now = self.now()
        number, position = self._next_number(connection, now)
        title = title_of(petition)
        lead, co = departments_of(petition, self.catalogue)
        columns = self._columns(petition)
        values: dict[str, Any] = {
            **columns,
            "number": number,
            "position": position,
            "search_revision": 1,
            "request_key": request_key,
            "conversation_id": conversation_id,
            "token_digest": self.vault.digest(self.vault.link_token(number)),
            "kind": petition.kind,
            "source": petition.source,
            "state": "filed",
            "title": title,
            "model": petition.model,
            "confidence": petition.category_confidence if petition.model else None,
            "cluster": (find_cluster(connection, petition, self.catalogue, now) if cluster is None else cluster) or number,
            "lead_department": lead,
            "co_departments": json.dumps(co, ensure_ascii=False),
            "due_at": iso(self._due_at(petition, now)),
            "filed_at": iso(now),
            "updated_at": iso(now),
        }
        connection.execute(_NEW_TICKET, values)
        if petition.attachments:
            connection.execute(
                update(attachments).where(attachments.c.id.in_(petition.attachments)).values(ticket_number=number)
            )
        self._index(connection, number, title, petition, position=position, revision=1)
        self._log(connection, number, "filed", actor=actor, note="")
        ticket = self._ticket(connection, self._get_row(connection, BY_NUMBER, number))
        self._enqueue(connection, number, "ticket.created", created_payload(ticket, self.catalogue, self.lanes))
        return ticket

    def _next_number(self, connection: Connection, now: datetime) -> tuple[str, int]:
        day = now.astimezone(CHINA).strftime("%Y%m%d")
        if connection.execute(_COUNT_UP, {"today": day}).rowcount == 0:
            try:
                with connection.begin_nested():
                    connection.execute(ticket_days.insert().values(day=day, last=1))
            except IntegrityError:  # another process opened the day
                connection.execute(_COUNT_UP, {"today": day})
        last = connection.execute(_LAST_OF_DAY, {"today": day}).scalar_one()
        return f"{day}-{last:04d}", int(day) * MOST_A_DAY + last

    # -- reading --------------------------------------------------------------------------------------------------

    def get_ticket(self, number: str) -> Ticket:
        with reading(self.engine) as connection:
            return self._ticket(connection, self._get_row(connection, BY_NUMBER, number))

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

    def find_of_cluster(self, cluster: str, *, limit: int = 100) -> list[Ticket]:
        """Newest first."""
        with reading(self.engine) as connection:
            chosen = select(tickets.c.position).where(tickets.c.cluster == cluster).order_by(tickets.c.position.desc()).limit(limit)
            return self.at_positions(connection, connection.execute(chosen).scalars().all())

    def at_positions(self, connection: Connection, positions: Sequence[int]) -> list[Ticket]:
        """Newest first."""
        found = select(tickets).where(tickets.c.position.in_(positions)).order_by(tickets.c.position.desc())
        rows = connection.execute(found).fetchall()
        counted = select(tickets.c.cluster, func.count()).where(tickets.c.cluster.in_({row.cluster for row in rows}))
        sizes = dict(connection.execute(counted.group_by(tickets.c.cluster)).fetchall())
        return [self._ticket_of(row, sizes[row.cluster]) for row in rows]

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

    # -- tickets of an earlier version ----------------------------------------------------------------------------

    def index_missing(self, *, most: int = 200) -> int:
        """Put tickets that an earlier version filed into the index and fill their columns; how many there were, at most `most`."""
        with transaction(self.engine) as connection:
            rows = connection.execute(select(tickets).where(tickets.c.search_revision == 0).limit(most)).fetchall()
            for row in rows:
                petition = petition_from_dict(self.vault.open(row.petition))
                self._index(connection, row.number, row.title, petition, position=row.position, revision=1)
                known = {"model": row.model or petition.model, "confidence": petition.category_confidence if petition.model else None}
                values = {**self._columns(petition), **known, "search_revision": 1}
                connection.execute(update(tickets).where(tickets.c.number == row.number).values(**values))
        return len(rows)

    # -- conversation-level records -------------------------------------------------------------------------------

    def take_notices(self, conversation_id: str) -> list[str]:
        """Undelivered notices, oldest first, marked delivered in the caller's transaction."""
        with transaction(self.engine) as connection:
            return take_notices(connection, self.vault, conversation_id, iso(self.now()))

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

