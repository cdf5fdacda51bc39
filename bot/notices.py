"""News of a ticket for the resident: its words, the question how it went, who has heard it. Knows no channel.

A notice is delivered by whoever sets `delivered_at` first: with the next answer, or by what bot/wechat_*.py can send.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.engine import Connection, Row

from bot.schema import notices, surveys, ticket_events
from bot.ticket import RATINGS, StatusEvent
from bot.vault import Vault

QUESTION = "这次办得怎么样？"
# How the question is answered where there is nothing to tap; in words, where numbers already mean something else.
BY_NUMBER = "回复数字就行：" + "，".join(f"{number} {label}" for number, label in enumerate(RATINGS.values(), start=1)) + "。"
BY_WORD = f"回复{'、'.join(RATINGS.values())}都行。"

_OPEN = (
    select(notices)
    .where(notices.c.conversation_id == bindparam("conversation"), notices.c.delivered_at.is_(None))
    .order_by(notices.c.id)
)


def tell_status(connection: Connection, vault: Vault, row: Row, event: StatusEvent, now: str) -> None:
    """Write down what the resident is to hear of this event; when it ends the ticket, the question comes with it, once."""
    asks = event.status == "closed" and not _asked_or_rated(connection, row.number)
    values: dict[str, Any] = {"conversation_id": row.conversation_id, "ticket_number": row.number, "created_at": now}
    text = vault.seal(_words(row, event, asks=asks))
    result = connection.execute(notices.insert().values(**values, text=text, status=event.status, asks=asks))
    if asks:
        notice_id = int(result.inserted_primary_key[0])
        connection.execute(
            surveys.insert().values(ticket_number=row.number, conversation_id=row.conversation_id, notice_id=notice_id)
        )


def head_of(text: str) -> str:
    """A notice that asks, without how to answer: the answers are there to be tapped."""
    return text.removesuffix(BY_NUMBER).removesuffix(BY_WORD).rstrip("\n")


def beside_choices(texts: Sequence[str]) -> list[str]:
    """Notices said together with numbered choices of something else: only those may be answered by number."""
    return [text.replace(BY_NUMBER, BY_WORD) for text in texts]


def take_notices(connection: Connection, vault: Vault, conversation_id: str, now: str) -> list[str]:
    """Undelivered notices, oldest first, marked delivered."""
    rows = connection.execute(_OPEN, {"conversation": conversation_id}).fetchall()
    return [str(vault.open(row.text)) for row in rows if _claim(connection, row.id, now)]


def _claim(connection: Connection, notice_id: int, now: str) -> bool:
    """False when somebody else is delivering it at this very moment."""
    free = notices.c.id == notice_id, notices.c.delivered_at.is_(None)
    return bool(connection.execute(update(notices).where(*free).values(delivered_at=now)).rowcount)


def _asked_or_rated(connection: Connection, number: str) -> bool:
    rated = select(ticket_events.c.id).where(ticket_events.c.ticket_number == number, ticket_events.c.kind == "rated")
    asked = select(surveys.c.ticket_number).where(surveys.c.ticket_number == number)
    return connection.execute(rated).first() is not None or connection.execute(asked).first() is not None


def _words(row: Row, event: StatusEvent, *, asks: bool) -> str:
    who = event.department or row.lead_department
    closed = f"已办结。{who}：{event.note}" if event.note else "已办结。"
    what = {
        "accepted": f"{who}已签收，会安排处理。",
        "in_progress": f"{who}正在办理。",
        "replied": f"{who}答复：{event.note}\n这次办得怎么样？回复“满意”或“不满意”。",
        "closed": f"{closed}\n{QUESTION}\n{BY_NUMBER}" if asks else closed,
        "returned": f"{who}认为不归他们管，正在重新派单，不用您再说一遍。",
        "rejected": f"{who}没有受理：{event.note or '原因正在核实'}。",
        "extended": f"{who}需要更多时间：{event.note or '原因正在核实'}。",
    }[event.status]
    return f"您反映的“{row.title}”（{row.number}）有消息了：{what}"
