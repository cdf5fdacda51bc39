"""The stand-in dispatch system's inbox, used while no DISPATCH_URL is set: see what arrives, answer like a department.

Each answer is a really signed event that takes the same way as one from outside. The page shows residents' data and moves
tickets, so by default only this machine may open it.
"""
from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.engine import Row

from bot.db import StorageError, iso, parse_iso, reading
from bot.schema import sandbox_deliveries, tickets
from bot.services import Services
from bot.signing import sign
from bot.ticket import CHINA, EVENT_LABELS, STATES
from bot.tickets import TicketNotFound
from bot.vault import VaultError
from bot.web import CONTENT_POLICY, add_page_headers
from bot.web.dispatch import MAX_DEPARTMENT, MAX_NOTE, EventError, record_signed_event

NEWEST = 100
QUICK_ACTIONS = {"accepted": "签收", "in_progress": "办理中", "returned": "退回"}
TEXT_ACTIONS = {"replied": "答复", "closed": "办结", "rejected": "不予受理"}
_BADGES = {"一般": "plain", "紧急": "urgent", "特急": "critical"}


@dataclass(frozen=True)
class Delivery:
    id: str
    label: str
    received_at: str
    raw: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """One ticket as the dispatch system knows it: what was filed, with every later change laid over it."""

    number: str
    data: Mapping[str, Any]
    deliveries: tuple[Delivery, ...]
    state: str
    due: str

    @property
    def state_label(self) -> str:
        return STATES.get(self.state, "")

    @property
    def badge(self) -> str:
        return _BADGES.get(str(self.data.get("urgency")), "plain")

    @property
    def reporter_label(self) -> str:
        reporter = self.data.get("reporter") or {}
        if reporter.get("anonymous") or reporter.get("confidential"):
            return "匿名" if reporter.get("anonymous") else "要求保密"
        return " ".join(filter(None, (reporter.get("name"), reporter.get("phone")))) or "未留姓名"


NOT_HERE = "模拟派单箱里有居民的信息，只能在运行本服务的电脑上打开。"
NOT_YOURS = "模拟派单箱里有全市居民的信息，登录的账号要不限区县、可看保密件才能打开。"


def create_blueprint(services: Services, *, may_open: Callable[[], bool] | None = None) -> Blueprint:
    """Register only when settings.sandbox. `may_open` decides on the current request; without it only this machine may."""
    blueprint = Blueprint("sandbox", __name__, template_folder="templates")
    allowed = may_open or comes_from_this_machine

    @blueprint.before_request
    def guard() -> ResponseReturnValue | None:
        g.nonce = secrets.token_urlsafe(16)  # the page's own style and script; everything else comes from files
        if allowed():
            return None
        problem = NOT_YOURS if comes_from_this_machine() else NOT_HERE
        return render_template("sandbox.html", problem=problem, cards=[], nonce=g.nonce), 403

    @blueprint.after_request
    def add_headers(response: Response) -> Response:
        if nonce := g.get("nonce"):  # absent when the request was refused before it came to us
            own = f"'self' 'nonce-{nonce}'"
            response.headers["Content-Security-Policy"] = f"{CONTENT_POLICY}; script-src {own}; style-src {own}"
        return add_page_headers(response)

    @blueprint.get("/sandbox")
    def inbox() -> ResponseReturnValue:
        return _page(services)

    @blueprint.post("/sandbox/<ticket_number>/status")
    def change_status(ticket_number: str) -> ResponseReturnValue:
        status, note = request.form.get("status", ""), request.form.get("note", "").replace("\r\n", "\n").strip()
        if status not in {**QUICK_ACTIONS, **TEXT_ACTIONS}:
            return _page(services, problem="没有这个操作。"), 422
        if status in TEXT_ACTIONS and not note:
            return _page(services, problem=f"{TEXT_ACTIONS[status]}要写几句话给居民。", failed=ticket_number), 422
        try:
            record_signed_event(services, *build_signed_event(services, ticket_number, status, note))
        except TicketNotFound:
            return _page(services, problem=f"没有 {ticket_number[:20]} 这张工单。"), 404
        except EventError:
            return _page(services, problem=f"文字最多 {MAX_NOTE} 个字。", failed=ticket_number, note=note), 422
        except StorageError:
            return _page(services, problem="现在存不进去，请稍后再试。", failed=ticket_number, note=note), 503
        return redirect(url_for("sandbox.inbox", _anchor=f"ticket-{ticket_number}"), 303)

    return blueprint


def build_signed_event(services: Services, ticket_number: str, status: str, note: str) -> tuple[dict[str, str], bytes]:
    """Headers and body exactly as a dispatch system would send them. Raises TicketNotFound, StorageError."""
    department = services.tickets.get_ticket(ticket_number).lead_department[:MAX_DEPARTMENT]
    now, webhook_id = services.now(), f"evt_{uuid.uuid4().hex}"
    data = {"ticket_number": ticket_number, "status": status, "department": department, "note": note, "at": iso(now)}
    body = json.dumps({"type": "ticket.status", "timestamp": iso(now), "data": data}, ensure_ascii=False).encode()
    timestamp = int(now.timestamp())
    signature = sign(services.settings.dispatch_secret, webhook_id, timestamp, body)
    return {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}, body


def _page(services: Services, *, problem: str = "", failed: str = "", note: str = "") -> str:
    try:
        cards = load_cards(services)
    except StorageError:
        cards, problem = [], problem or "现在读不出来，请稍后再试。"
    # Changes exactly when the list does: the page asks every few seconds and touches nothing while this stays the same.
    version = hashlib.sha256(repr([(card.number, card.state, len(card.deliveries)) for card in cards]).encode()).hexdigest()[:16]
    return render_template(
        "sandbox.html",
        nonce=g.nonce,
        cards=cards,
        version=version,
        problem=problem,
        failed=failed,
        note=note,
        quick_actions=QUICK_ACTIONS,
        text_actions=TEXT_ACTIONS,
    )


def load_cards(services: Services) -> list[Card]:
    """The tickets of the newest deliveries, most recently touched first, each with its whole history."""
    with reading(services.engine) as connection:
        newest = connection.execute(
            select(sandbox_deliveries.c.ticket_number).order_by(sandbox_deliveries.c.received_at.desc()).limit(NEWEST)
        ).scalars()
        numbers = list(dict.fromkeys(newest))
        rows = connection.execute(
            select(sandbox_deliveries)
            .where(sandbox_deliveries.c.ticket_number.in_(numbers))
            .order_by(sandbox_deliveries.c.received_at, sandbox_deliveries.c.type)  # created sorts before updated
        ).fetchall()
        states = dict(connection.execute(select(tickets.c.number, tickets.c.state).where(tickets.c.number.in_(numbers))).fetchall())
    deliveries: dict[str, list[Delivery]] = {number: [] for number in numbers}
    for row in rows:
        deliveries[row.ticket_number].append(_delivery(services, row))
    return [_card(number, deliveries[number], states.get(number, "")) for number in numbers]


def _delivery(services: Services, row: Row) -> Delivery:
    try:
        payload = services.vault.open(row.body)
    except VaultError:  # the key was changed: one unreadable row must not hide the rest
        payload = {"type": row.type, "data": {"title": "（内容无法解密）"}}
    change = payload["data"].get("change", "filed")
    raw = json.dumps(payload, ensure_ascii=False, indent=2)
    return Delivery(row.id, EVENT_LABELS.get(change, change), _clock(parse_iso(row.received_at)), raw, payload)


def _card(number: str, deliveries: Sequence[Delivery], state: str) -> Card:
    data: dict[str, Any] = {}
    for delivery in deliveries:
        data.update(delivery.payload["data"])
    due = data.get("due_at")
    return Card(number, data, tuple(deliveries), state, _clock(parse_iso(due)) if due else "")


def _clock(moment: datetime) -> str:
    return moment.astimezone(CHINA).strftime("%Y-%m-%d %H:%M")


def comes_from_this_machine() -> bool:
    """A proxy on this machine forwards strangers too, and says so."""
    if request.headers.get("X-Forwarded-For") or request.headers.get("Forwarded"):
        return False
    try:
        return ipaddress.ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False
