"""A resident's own ticket behind a secret link: where it stands, and urging, adding to or withdrawing it.

Whoever holds the link may act, so the page shows as little of the person as it can and its address must not leak. Links are
passed on inside WeChat, where the page can know who looks: there only whoever told the account may act, others see how far it is.
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
from bot.web import china_time, guard_secret
from bot.web.wechat_login import ACTING, FRESH, WebLogin

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
LOG_IN_FIRST = "还不知道是不是您本人，请先登录，再点一次。"
FOREIGN = "这张诉求单是别人在公众号登记的，您只能看进度。要反映自己的事，请在对话里说。"
CLOSED = "这件事已经结束，不能再改了。还有问题，请在对话里再说一次。"
# Two taps on the same button are one reminder.
URGE_PAUSE = timedelta(minutes=10)


@dataclass(frozen=True)
class TrackingPages:
    services: Services
    login: WebLogin

    def show(self, token: str) -> Response:
        return self._page(token, self._ticket(token))

    def log_in(self, token: str) -> BaseResponse:
        self._ticket(token)
        return self.login.begin(url_for("tracking.show", token=token)) if self.login.possible() else _back(token)

    def urge(self, token: str) -> BaseResponse:
        ticket = self._own_ticket(token)
        if ticket is None:
            return _back(token)
        last = max((entry.at for entry in self._timeline(ticket) if entry.kind == "urged"), default=None)
        if last is not None and self.services.now() - last < URGE_PAUSE:
            flash("刚刚已经催过了，部门会看到的。")
            return _back(token)
        return self._change(token, lambda: self.services.tickets.urge(ticket.number), "已经替您催办，部门会收到提醒。")

    def supplement(self, token: str) -> BaseResponse:
        ticket, note = self._own_ticket(token), request.form.get("note", "").replace("\r\n", "\n").strip()
        if ticket is None:
            return _back(token)
        if not note:
            return self._page(token, ticket, problem="还没有写要补充的内容。", code=400)
        if len(note) > MAX_TEXT:
            return self._page(token, ticket, problem=f"一次最多写 {MAX_TEXT} 个字，请分几次补充。", note=note, code=413)
        if note in ticket.petition.texts:  # the form was sent twice
            flash("这段话已经补充过了。")
            return _back(token)
        return self._change(token, lambda: self.services.tickets.supplement(ticket.number, note), "已补充，部门会看到。")

    def withdraw(self, token: str) -> BaseResponse:
        ticket = self._own_ticket(token)
        if ticket is None:
            return _back(token)
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

    def _own_ticket(self, token: str) -> Ticket | None:
        """The ticket to be changed; None, with a word why, where it has to be known first who asks for it."""
        ticket = self._ticket(token)
        if self._is_for_viewer(ticket, ACTING):
            return ticket
        if self.login.find_viewer(ACTING) is not None:
            abort(403, FOREIGN)
        flash(LOG_IN_FIRST)
        return None

    def _is_for_viewer(self, ticket: Ticket, within: timedelta) -> bool:
        if ticket.source != "wechat" or not self.login.possible():
            return True  # the link is the only key there is
        return self.login.find_viewer(within) == ticket.conversation_id

    def _timeline(self, ticket: Ticket) -> list[TimelineEntry]:
        return self.services.tickets.timeline(ticket.number)

    def _page(self, token: str, ticket: Ticket, *, code: int = 200, **extra: Any) -> Response:
        visitor = not self._is_for_viewer(ticket, FRESH)
        stranger = visitor and self.login.find_viewer(FRESH) is not None
        view = ticket_view(ticket, self._timeline(ticket), visitor=visitor)
        category = self.services.catalogue.get_category(ticket.petition.category).label
        shown = {"ticket": view, "category": category, "visitor": visitor, "stranger": stranger, "max_text": MAX_TEXT}
        page = render_template("tracking.html", token=token, **shown, **extra)
        return make_response(page, code)


def title_of(ticket: Ticket, *, visitor: bool = False) -> str:
    """A case about a minor shows none of the words: the phone may be in other hands at home."""
    if visitor and (ticket.petition.anonymous or ticket.petition.confidential):
        return "居民反映的事项"
    return "您反映的事项" if ticket.kind == "minor" else ticket.title


def ticket_view(ticket: Ticket, timeline: Sequence[TimelineEntry], *, visitor: bool) -> dict[str, Any]:
    """What the page may show. A visitor sees how far it is and none of the words."""
    petition = ticket.petition
    sheltered = ticket.kind == "minor"
    hidden = sheltered or petition.anonymous or petition.confidential
    return {
        "number": ticket.number,
        "title": title_of(ticket, visitor=visitor),
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
        "timeline": [_entry_view(entry, "all" if visitor else "own" if sheltered else "none") for entry in reversed(timeline)],
    }


def steps_of(ticket: Ticket, timeline: Sequence[TimelineEntry]) -> list[dict[str, Any]]:
    """The step line. A ticket that ended early shows the steps it reached and how it ended."""
    if ticket.state in POSITION:
        now = POSITION[ticket.state]
        return [{"label": label, "done": n < now or ticket.state == "closed", "current": n == now} for n, (_, label) in enumerate(STEPS)]
    reached = max((POSITION.get(entry.kind, 0) for entry in timeline), default=0)
    passed = [{"label": label, "done": True, "current": False} for _, label in STEPS[: reached + 1]]
    return [*passed, {"label": ticket.state_label, "done": False, "current": True}]


def _entry_view(entry: TimelineEntry, unsaid: str) -> dict[str, Any]:
    """`unsaid` says whose words are left out: none | own | all."""
    own = entry.actor == "resident"
    return {
        "label": entry.label,
        "at": china_time(entry.at),
        "who": ("居民" if unsaid == "all" else "您") if own else entry.department,
        "note": "" if unsaid == "all" or (unsaid == "own" and own) else mask(entry.note),
    }


def _back(token: str) -> BaseResponse:
    return redirect(url_for("tracking.show", token=token), 303)


def create_blueprint(services: Services, login: WebLogin) -> Blueprint:
    pages = TrackingPages(services, login)
    blueprint = Blueprint("tracking", __name__, url_prefix="/t")
    blueprint.add_url_rule("/<token>", "show", pages.show)
    blueprint.add_url_rule("/<token>/login", "log_in", pages.log_in)
    blueprint.add_url_rule("/<token>/urge", "urge", pages.urge, methods=["POST"])
    blueprint.add_url_rule("/<token>/supplement", "supplement", pages.supplement, methods=["POST"])
    blueprint.add_url_rule("/<token>/withdraw", "withdraw", pages.withdraw, methods=["POST"])
    blueprint.after_request(guard_secret)
    return blueprint
