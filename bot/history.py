"""What was said in a conversation, by whom, in order: for the resident's page and for the desk. Reads only."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.engine import Row

from bot.conversation import message_of, reply_of
from bot.db import reading
from bot.notices import beside_choices
from bot.schema import inbound_messages, notices
from bot.services import Services


@dataclass(frozen=True)
class HistoryItem:
    """One bubble of the past. `id` grows with time; `heard_at`: when a notice reached the resident, where a channel brings it."""

    id: str
    sender: str  # resident | bot | staff
    text: str
    at: str
    buttons: tuple[Mapping[str, str], ...] = ()
    attachment: str | None = None
    heard_at: str | None = None


def read_history(services: Services, conversation_id: str, *, limit: int = 60) -> list[HistoryItem]:
    """The last turns and notices, oldest first."""
    mine, told_to = inbound_messages.c.conversation_id == conversation_id, notices.c.conversation_id == conversation_id
    with reading(services.engine) as connection:
        turns = connection.execute(
            select(inbound_messages).where(mine).order_by(inbound_messages.c.id.desc()).limit(limit)
        ).fetchall()
        told = connection.execute(select(notices).where(told_to).order_by(notices.c.id.desc()).limit(limit)).fetchall()
    news = [_notice(services, row) for row in reversed(told)]
    # Where an answer carried news it is one of its bubbles as well.
    said_twice = {item.text for item in news} | set(beside_choices([item.text for item in news]))
    items = [item for row in reversed(turns) for item in _items_of(services, row) if item.sender != "bot" or item.text not in said_twice]
    return sorted([*items, *news], key=lambda item: item.at)


def _items_of(services: Services, row: Row) -> list[HistoryItem]:
    message, reply = message_of(services, row), reply_of(services, row)
    said = HistoryItem(f"r{row.id}", "resident", message.text, row.received_at, attachment=message.attachment)
    answers = [
        HistoryItem(f"b{row.id}.{number}", "bot", bubble.text, row.answered_at, tuple(button.as_dict() for button in bubble.buttons))
        for number, bubble in enumerate(reply.messages if reply else ())
    ]
    return [said, *answers]


def _notice(services: Services, row: Row) -> HistoryItem:
    sender = "staff" if row.author else "bot"
    return HistoryItem(f"n{row.id}", sender, str(services.vault.open(row.text)), row.created_at, heard_at=row.delivered_at)
