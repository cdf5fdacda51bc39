"""A resident's own ticket behind a secret link: where it stands, and urging, adding to or withdrawing it.

Whoever holds the link may act, so the page shows as little of the person as it can and its address must not leak.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, abort, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from bot.conversation import MAX_TEXT
from bot.petition import mask
from bot.services import Services
from bot.ticket import FINAL_STATES, Ticket, TimelineEntry
from bot.tickets import TicketClosed, TicketNotFound
from bot.web import add_page_headers, china_time

STEPS = (("filed", "已登记"), ("accepted", "已签收"), ("in_progress", "办理中"), ("replied", "已答复"), ("closed", "已办结"))
POSITION = {"filed": 0, "returned": 0, "accepted": 1, "in_progress": 2, "extended": 2, "replied": 3, "closed": 4}
EXPLAINED = {
    "filed": "已经记下来了，正等部门签收。",
    "accepted": "部门已经签收，会安排人处理。",
    "in_progress": "部门正在办理。",
    "extended": "部门需要更多时间，原因见下面的进展。",
    "replied": "部门已经答复，内容见下面的进展。",
    "closed": "这件事已经办结。",
    "returned": "部门认为不归他们管，正在重新派单，不用您再说一遍。",
    "rejected": "部门没有受理，原因见下面的进展。",
    "withdrawn": "您已经撤回，部门不再办理。",
}
UNKNOWN = "没有找到这张诉求单。请检查链接是否完整，或者在对话里说“查进度”。"
CLOSED = "这件事已经结束，不能再改了。还有问题，请在对话里再说一次。"
# Two taps on the same button are one reminder.
URGE_PAUSE = timedelta(minutes=10)


@dataclass(frozen=True)
class TrackingPages:
    services: Services

    def show(self, token: str) -> Response:
        return self._page(token, self._ticket(token))

    def urge(self, token: str) -> BaseResponse:
        ticket = self._ticket(token)
        last = max((entry.at for entry in self._timeline(ticket) if entry.kind == "urged"), default=None)
        if last is not None and self.services.now() - last < URGE_PAUSE:
            flash("刚刚已经催过了，部门会看到的。")
            return _back(token)
        return self._change(token, lambda: self.services.tickets.urge(ticket.number), "已经替您催办，部门会收到提醒。")

    def supplement(self, token: str) -> BaseResponse:
        ticket, note = self._ticket(token), request.form.get("note", "").replace("\r\n", "\n").strip()
        if not note:
            return self._page(token, ticket, problem="还没有写要补充的内容。", code=400)
        if len(note) > MAX_TEXT:
            return self._page(token, ticket, problem=f"一次最多写 {MAX_TEXT} 个字，请分几次补充。", note=note, code=413)
        if note in ticket.petition.texts:  # the form was sent twice
            flash("这段话已经补充过了。")
            return _back(token)
        return self._change(token, lambda: self.services.tickets.supplement(ticket.number, note), "已补充，部门会看到。")

    def withdraw(self, token: str) -> BaseResponse:
        ticket = self._ticket(token)
        if request.form.get("confirm") != "yes" and ticket.state not in FINAL_STATES:
            return self._page(token, ticket, confirming=True)
        return self._change(token, lambda: self.services.tickets.withdraw(ticket.number), "已撤回。以后还有需要，随时再说。")

    def _change(self, token: str, change: Any, done: str) -> BaseResponse:
        try:
            change()
            flash(done)
        except TicketClosed:
            flash(CLOSED)
        return _back(token)

    def _ticket(self, token: str) -> Ticket:
        try:
            return self.services.tickets.get_by_token(token)
        except TicketNotFound:
            abort(404, UNKNOWN)

    def _timeline(self, ticket: Ticket) -> list[TimelineEntry]:
        return self.services.tickets.timeline(ticket.number)

    def _page(self, token: str, ticket: Ticket, *, code: int = 200, **extra: Any) -> Response:
        view = ticket_view(ticket, self._timeline(ticket))
        category = self.services.catalogue.get_category(ticket.petition.category).label
        page = render_template("tracking.html", token=token, ticket=view, category=category, max_text=MAX_TEXT, **extra)
        return make_response(page, code)


def ticket_view(ticket: Ticket, timeline: Sequence[TimelineEntry]) -> dict[str, Any]:
    """What the page may show. A case about a minor shows none of the words: the phone may be in other hands at home."""
    petition = ticket.petition
    sheltered = ticket.kind == "minor"
    hidden = sheltered or petition.anonymous or petition.confidential
    return {
        "number": ticket.number,
        "title": "您反映的事项" if sheltered else ticket.title,
        "state": ticket.state,
        "state_label": ticket.state_label,
        "explained": EXPLAINED[ticket.state],
        "steps": steps_of(ticket, timeline),
        "open": ticket.state not in FINAL_STATES,
        "department": ticket.status_department or ticket.lead_department,
        "co_departments": ticket.co_departments,
        "due": china_time(ticket.due_at) if ticket.due_at else None,
        "filed": china_time(ticket.filed_at),
        "urgency": petition.urgency,
        "request_type": petition.request_type,
        "place": None if sheltered else (petition.place or {}).get("text"),
        "description": None if sheltered else mask(petition.description),
        "sheltered": sheltered,
        "pictures": len(petition.attachments),
        "name": None if hidden else petition.name,
        "phone": None if hidden or not petition.phone else mask(petition.phone),
        "discretion": "匿名" if petition.anonymous else "保密" if petition.confidential or sheltered else None,
        "cluster_size": ticket.cluster_size,
        "timeline": [_entry_view(entry, sheltered) for entry in reversed(timeline)],
    }


def steps_of(ticket: Ticket, timeline: Sequence[TimelineEntry]) -> list[dict[str, Any]]:
    """The step line. A ticket that ended early shows the steps it reached and how it ended."""
    if ticket.state in POSITION:
        now = POSITION[ticket.state]
        return [{"label": label, "done": n < now or ticket.state == "closed", "current": n == now} for n, (_, label) in enumerate(STEPS)]
    reached = max((POSITION.get(entry.kind, 0) for entry in timeline), default=0)
    passed = [{"label": label, "done": True, "current": False} for _, label in STEPS[: reached + 1]]
    return [*passed, {"label": ticket.state_label, "done": False, "current": True}]


def _entry_view(entry: TimelineEntry, sheltered: bool) -> dict[str, Any]:
    own = entry.actor == "resident"
    return {
        "label": entry.label,
        "at": china_time(entry.at),
        "who": "您" if own else entry.department,
        "note": "" if sheltered and own else mask(entry.note),
    }


def _back(token: str) -> BaseResponse:
    return redirect(url_for("tracking.show", token=token), 303)


def _guard(response: Response) -> Response:
    """The address is the key: no copy on disk, none in a search engine, none in another site's log."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    response.headers["Referrer-Policy"] = "no-referrer"
    return add_page_headers(response)


def create_blueprint(services: Services) -> Blueprint:
    pages = TrackingPages(services)
    blueprint = Blueprint("tracking", __name__, url_prefix="/t")
    blueprint.add_url_rule("/<token>", "show", pages.show)
    blueprint.add_url_rule("/<token>/urge", "urge", pages.urge, methods=["POST"])
    blueprint.add_url_rule("/<token>/supplement", "supplement", pages.supplement, methods=["POST"])
    blueprint.add_url_rule("/<token>/withdraw", "withdraw", pages.withdraw, methods=["POST"])
    blueprint.after_request(_guard)
    return blueprint
