"""The desk's pages of tickets: list, one ticket, parked deliveries. What may be shown is decided in bot/access.py; 404 for all else.

Who spoke is masked until 显示 is pressed, and each press is in the audit before the answer is.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, abort, flash, jsonify, redirect, render_template, request, send_file, url_for
from markupsafe import Markup, escape
from werkzeug.wrappers import Response as BaseResponse

from bot import deliveries
from bot.access import Access
from bot.catalogue import REQUEST_TYPES, URGENCIES
from bot.db import iso, parse_iso
from bot.outbox import resend
from bot.petition import mask
from bot.services import Services
from bot.ticket import CHINA, FINAL_STATES, RATINGS, STATES, Ticket, TimelineEntry
from bot.ticket_desk import Refused, TicketDesk, departments, returned_because
from bot.ticket_list import FLAGS, MOST_COUNTED, SOURCES, Filters, TicketList, read_filters
from bot.tickets import TicketChanged, TicketClosed, TicketNotFound
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

UNKNOWN = "没有这件工单。"
FLAG_LABELS = {"emergency": "突发警情", "overdue": "已超期", "returned": "被退回", "low": "分类没把握", "mine": "我经手的"}
ENDED = "这件工单已经结束，不能再改。"
CHANGED = "这件工单刚刚被别人改过，请刷新后再看。"
HIDDEN = "这件诉求的反映人信息对您的账号不开放。"
MAX_RESENDS = 200


@dataclass(frozen=True)
class TicketPages:
    services: Services

    def access(self) -> Access:
        return Access(self.services, current_member())

    # -- list -----------------------------------------------------------------------------------------------------

    def index(self) -> str:
        access, filters = self.access(), read_filters(request.args, self.services)
        found, before = TicketList(access), request.args.get("before", "")
        if filters.q and not before:
            audited("search", "tickets", detail=mask(filters.q))
        page = found.page(filters, before=int(before) if re.fullmatch(r"[0-9]{15}", before) else None)
        now = iso(self.services.now())
        return render_template(
            "desk/tickets.html",
            page="tickets",
            rows=[self._row(ticket, now) for ticket in page.tickets],
            older=page.older,
            before=before,
            filters=filters,
            total=found.count(filters),
            most=MOST_COUNTED,
            counts={} if filters.q else found.counts(filters),
            flags=[(name, FLAG_LABELS[name], self._address(filters, **{name: not getattr(filters, name)})) for name in FLAGS],
            address=self._address,
            parked=deliveries.count_parked(access),
            choices=self._choices(access, filters),
        )

    def _address(self, filters: Filters, **changes: Any) -> str:
        given = {**vars(filters), **changes}
        return url_for("tickets.index", **Filters(**{name: given[name] for name in vars(filters)}).as_arguments())

    def _row(self, ticket: Ticket, now: str) -> dict[str, Any]:
        petition = ticket.petition
        due = iso(ticket.due_at) if ticket.due_at else ""
        waits = ticket.state not in FINAL_STATES and ticket.state != "replied"
        return {
            "ticket": ticket,
            "category": self.services.catalogue.get_category(petition.category),
            "place": mask(str((petition.place or {}).get("text") or "")),
            "filed": short_time(ticket.filed_at),
            "due": short_time(ticket.due_at) if ticket.due_at and waits else "",
            "overdue": waits and bool(due) and due < now,
            "low": bool(petition.model) and petition.category_confidence < self.services.tickets.lanes.file and not petition.fixed,
        }

    def _choices(self, access: Access, filters: Filters) -> dict[str, Any]:
        """Options of the filter form; the category opens level by level."""
        categories = self.services.catalogue.categories
        first = {code[:2]: category.path[0] for code, category in categories.items()}
        below: dict[str, str] = {}
        for code, category in categories.items():
            if filters.category and code[:2] == filters.category[:2]:
                below.setdefault(code[:4], category.path[1])
                below[code] = "　" + category.path[2]
        own = access.member.districts
        return {
            "state": list(STATES.items()),
            "district": [(name, name) for name in (own or self.services.gazetteer.home_districts())] + [("none", "（未定区县）")],
            "type": [(name, name) for name in REQUEST_TYPES],
            "urgency": [(name, name) for name in URGENCIES],
            "source": list(SOURCES.items()),
            "department": [(name, name) for name in sorted(set(departments(self.services)))],
            "first": sorted(first.items()),
            "below": sorted(below.items()),
        }

    # -- one ticket -----------------------------------------------------------------------------------------------

    def show(self, number: str) -> str:
        access = self.access()
        ticket = _found(lambda: access.get_ticket(number))
        audited("read_ticket", number)
        petition, catalogue = ticket.petition, self.services.catalogue
        return render_template(
            "desk/ticket.html",
            page="tickets",
            ticket=ticket,
            petition=petition,
            seen=iso(ticket.updated_at),
            category=catalogue.get_category(petition.category),
            alternatives=[(catalogue.get_category(code), confidence) for code, confidence in petition.alternatives[1:4]],
            described=marked(mask(petition.description), [str(span["text"]) for span in petition.evidence]),
            place=mask(str((petition.place or {}).get("text") or "")),
            person=person_masked(ticket),
            may_see=access.may_see_person(petition),
            timeline=[_entry(entry) for entry in reversed(self.services.tickets.timeline(number))],
            cluster=self._cluster(access, ticket),
            deliveries=deliveries.of_ticket(access, number),
            returned=returned_because(self.services, number) if ticket.state == "returned" else "",
            conversation=self._conversation(access, ticket),
            ended=ticket.state in FINAL_STATES,
            row=self._row(ticket, iso(self.services.now())),
            ratings=RATINGS,
            departments=sorted(set(departments(self.services))),
            categories=[(code, "/".join(one.path)) for code, one in catalogue.categories.items()],
            urgencies=URGENCIES,
            request_types=REQUEST_TYPES,
            sources=SOURCES,
            local=local_time,
        )

    def _cluster(self, access: Access, ticket: Ticket) -> list[Ticket]:
        """The other tickets on the same matter that this person may read."""
        members = self.services.tickets.find_of_cluster(ticket.cluster) if ticket.cluster_size > 1 and ticket.cluster else []
        return [other for other in members if other.number != ticket.number and access.may_read(other)]

    def _conversation(self, access: Access, ticket: Ticket) -> str | None:
        known = ticket.conversation_id
        return known if known and access.may_read_conversation(known) and access.may_see_person(ticket.petition) else None

    def reveal(self, number: str) -> Response | tuple[Response, int]:
        """Who spoke, and the words as they were said."""
        access = self.access()
        ticket = _found(lambda: access.get_ticket(number))
        if not access.may_see_person(ticket.petition):
            audited("reveal_refused", number)
            return jsonify(error=HIDDEN), 403
        audited("reveal_person", number)
        petition = ticket.petition
        place = str((petition.place or {}).get("text") or "")
        return jsonify(name=petition.name or "未留姓名", phone=petition.phone or "未留电话", description=petition.description, place=place)

    def picture(self, number: str, picture_id: str) -> Response:
        access = self.access()
        row = _found(lambda: access.get_attachment(number, picture_id))
        path = self.services.settings.attachments_dir / f"{row.id}.jpg"
        if not path.is_file():
            abort(404, "没有这张照片。")
        audited("read_picture", number, detail=row.id)
        return send_file(path, mimetype=row.media_type)

    # -- changes --------------------------------------------------------------------------------------------------

    def correct(self, number: str) -> tuple[Response, int]:
        body = _body()
        values = {name: value for name, value in body.items() if name not in ("seen", "note")}
        note, seen = str(body.get("note") or ""), _moment(body.get("seen"))
        return self._change(number, "correct_ticket", lambda desk: desk.correct(number, values, note=note, seen=seen), list(values))

    def reroute(self, number: str) -> tuple[Response, int]:
        body = _body()
        reason = str(body.pop("reason", "") or "")
        return self._change(number, "reroute_ticket", lambda desk: desk.reroute(number, body, reason=reason), list(body))

    def supplement(self, number: str) -> tuple[Response, int]:
        note = str(_body().get("note") or "")
        return self._change(number, "supplement_ticket", lambda desk: desk.supplement(number, note), [])

    def _change(self, number: str, action: str, change: Any, fields: Any) -> tuple[Response, int]:
        """200 with whether the person may still read the ticket: a corrected place may belong to others."""
        access = self.access()
        _found(lambda: access.get_ticket(number))
        audited(action, number, detail="、".join(fields))
        try:
            changed = change(TicketDesk(access))
        except Refused as refused:
            return jsonify(error=str(refused)), 400
        except TicketClosed:
            return jsonify(error=ENDED), 409
        except TicketChanged:
            return jsonify(error=CHANGED), 409
        gone = not access.may_read(changed)
        if gone:
            flash(f"已改。{number} 不再属于您负责的范围。")
        return jsonify(gone=gone, address=url_for("tickets.index") if gone else url_for("tickets.show", number=number)), 200

    # -- deliveries -----------------------------------------------------------------------------------------------

    def parked(self) -> str:
        return render_template("desk/deliveries.html", page="tickets", deliveries=deliveries.parked(self.access()), local=local_time)

    def resend_some(self) -> BaseResponse:
        """The chosen ones; those of others are not there."""
        access, sent = self.access(), 0
        for outbox_id in request.form.getlist("id")[:MAX_RESENDS]:
            try:
                row = access.get_delivery(outbox_id)
            except TicketNotFound:
                continue
            audited("resend_delivery", row.ticket_number, detail=outbox_id)
            sent += resend(self.services, outbox_id)
        flash(f"{sent} 件重新发送，结果过一会儿在这里看。" if sent else "没有可以重发的。")
        return redirect(_back_to(request.form.get("back", "")), 303)


def create_blueprint(services: Services) -> Blueprint:
    pages, agent = TicketPages(services), staff_required("agent")
    blueprint = staff_blueprint("tickets", __name__, url_prefix="/desk")
    rules: dict[str, tuple[str, Callable[..., Any], str]] = {
        "/tickets": ("index", pages.index, "GET"),
        "/tickets/<number>": ("show", pages.show, "GET"),
        "/tickets/<number>/reveal": ("reveal", pages.reveal, "POST"),
        "/tickets/<number>/pictures/<picture_id>": ("picture", pages.picture, "GET"),
        "/tickets/<number>/correct": ("correct", pages.correct, "POST"),
        "/tickets/<number>/reroute": ("reroute", pages.reroute, "POST"),
        "/tickets/<number>/supplement": ("supplement", pages.supplement, "POST"),
        "/deliveries": ("parked", pages.parked, "GET"),
        "/deliveries/resend": ("resend_some", pages.resend_some, "POST"),
    }
    for rule, (endpoint, view, method) in rules.items():
        blueprint.add_url_rule(rule, endpoint, agent(view), methods=[method])
    return blueprint


# -- what the pages show --------------------------------------------------------------------------------------------------


def person_masked(ticket: Ticket) -> dict[str, str]:
    """The appellant before 显示 is pressed."""
    petition = ticket.petition
    wishes = "、".join(word for word, wish in (("匿名", petition.anonymous), ("保密", ticket.confidential)) if wish)
    name = f"{petition.name[:1]}**" if petition.name else "未留姓名"
    return {"name": name, "phone": mask(petition.phone) if petition.phone else "未留电话", "wishes": wishes}


def marked(text: str, words: Any) -> Markup:
    """The text with the words that the reading rests on marked."""
    known = sorted({word for word in words if word}, key=len, reverse=True)
    if not known:
        return escape(text)
    parts = re.split(f"({'|'.join(map(re.escape, known))})", text)
    mark = Markup('<mark class="mark">{}</mark>')
    return Markup("").join(mark.format(part) if number % 2 else escape(part) for number, part in enumerate(parts))


def _entry(entry: TimelineEntry) -> dict[str, Any]:
    who = {"resident": "居民", "dispatch": entry.department or "派单系统"}.get(entry.actor, f"工作人员 {entry.actor}")
    return {"label": entry.label, "at": local_time(entry.at), "who": who, "note": mask(entry.note), "kind": entry.kind}


def local_time(moment: datetime | str | None) -> str:
    if not moment:
        return ""
    return (parse_iso(moment) if isinstance(moment, str) else moment).astimezone(CHINA).strftime("%Y-%m-%d %H:%M")


def short_time(moment: datetime) -> str:
    return moment.astimezone(CHINA).strftime("%m-%d %H:%M")


def _found(look_up: Any) -> Any:
    try:
        return look_up()
    except TicketNotFound:
        abort(404, UNKNOWN)


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, Mapping):
        abort(400, "请求应为 JSON 对象。")
    return dict(body)


def _moment(value: Any) -> datetime | None:
    try:
        return parse_iso(str(value)) if value else None
    except ValueError:
        abort(400, "seen 应为时间。")


def _back_to(address: str) -> str:
    return address if re.fullmatch(r"/desk/[\w/-]+", address) else url_for("tickets.parked")
