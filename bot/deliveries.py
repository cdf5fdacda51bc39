"""Deliveries to dispatch as staff see them: state and attempts of a ticket's, and all that is parked. Resending is outbox.py's."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Row

from bot.access import Access
from bot.db import reading
from bot.schema import outbox, outbox_attempts, tickets
from bot.services import Services
from bot.ticket import EVENT_LABELS

STATE_LABELS = {"pending": "待送达", "delivered": "已送达", "parked": "已搁置"}
MOST_PARKED = 200


@dataclass(frozen=True)
class Attempt:
    at: str
    outcome: str


@dataclass(frozen=True)
class Delivery:
    id: str
    ticket_number: str
    title: str
    change: str  # what it tells, in words
    state: str
    created_at: str
    delivered_at: str | None
    next_attempt_at: str | None
    last_error: str | None
    attempts: tuple[Attempt, ...]  # oldest first, resends included

    @property
    def state_label(self) -> str:
        return STATE_LABELS[self.state]

    @property
    def may_resend(self) -> bool:
        return self.state != "delivered"


def of_ticket(access: Access, number: str) -> list[Delivery]:
    """In the order they go out. Raises TicketNotFound."""
    access.get_ticket(number)
    with reading(access.services.engine) as connection:
        rows = connection.execute(_ROWS.where(outbox.c.ticket_number == number).order_by(outbox.c.position)).fetchall()
        return _deliveries(access.services, connection, rows)


def parked(access: Access) -> list[Delivery]:
    """What the relay gave up, oldest first, of tickets this person may read; at most MOST_PARKED."""
    chosen = _ROWS.where(outbox.c.state == "parked", *access.readable()).order_by(outbox.c.created_at).limit(MOST_PARKED)
    with reading(access.services.engine) as connection:
        return _deliveries(access.services, connection, connection.execute(chosen).fetchall())


def count_parked(access: Access) -> int:
    chosen = select(func.count()).select_from(outbox.join(tickets, tickets.c.number == outbox.c.ticket_number))
    with reading(access.services.engine) as connection:
        return int(connection.execute(chosen.where(outbox.c.state == "parked", *access.readable())).scalar_one())


_ROWS = select(outbox, tickets.c.title).join(tickets, tickets.c.number == outbox.c.ticket_number)


def _deliveries(services: Services, connection: Connection, rows: Sequence[Row]) -> list[Delivery]:
    made: dict[str, list[Attempt]] = defaultdict(list)
    ids = [row.id for row in rows]
    for row in connection.execute(select(outbox_attempts).where(outbox_attempts.c.outbox_id.in_(ids)).order_by(outbox_attempts.c.id)):
        made[row.outbox_id].append(Attempt(row.at, row.outcome))
    return [
        Delivery(
            row.id, row.ticket_number, row.title, _change(services, row), row.state, row.created_at, row.delivered_at,
            row.next_attempt_at if row.state == "pending" else None, row.last_error, tuple(made[row.id]),
        )
        for row in rows
    ]  # fmt: skip


def _change(services: Services, row: Row) -> str:
    if row.type == "ticket.created":
        return "新工单"
    change = str(services.vault.open(row.body)["data"].get("change", ""))
    return EVENT_LABELS.get(change, change)
