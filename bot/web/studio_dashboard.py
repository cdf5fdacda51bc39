"""/studio/dashboard: the numbers of a period, to be looked at; each number leads to the tickets it counts."""
from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, jsonify, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from bot.access import Access
from bot.dashboard import build_dashboard
from bot.dashboard_files import as_pdf, as_workbook
from bot.db import parse_iso
from bot.hotspot_job import find_hot_spot_job, submit_hot_spots
from bot.services import Services
from bot.statistics import Scope, numbers_behind
from bot.ticket import CHINA
from bot.tickets import TicketNotFound
from bot.web import china_time
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

PERIODS = {"1": "今天", "7": "近 7 天", "30": "近 30 天", "90": "近 90 天"}
MAX_DAYS = 366
MOST_LISTED = 200
FILES = {
    "xlsx": (as_workbook, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "pdf": (as_pdf, "application/pdf"),
}


def create_blueprint(services: Services) -> Blueprint:
    blueprint = staff_blueprint("dashboard", __name__, url_prefix="/studio/dashboard")

    @blueprint.get("")
    @staff_required("supervisor")
    def index() -> str:
        scope = _scope(services)
        board = build_dashboard(services, scope)
        return render_template(
            "studio/dashboard.html",
            page="dashboard",
            board=board,
            hot=_hot_spots(services, scope),
            periods=PERIODS,
            districts=_districts(services),
            asked=_asked(scope),
        )

    @blueprint.post("/hotspots")
    @staff_required("supervisor")
    def look_for_hot_spots() -> BaseResponse:
        scope = _scope(services)
        job = find_hot_spot_job(services, scope)
        if job is None or job.ended:
            submit_hot_spots(services, scope, username=current_member().username)
        return redirect(f"{url_for('dashboard.index')}?{urlencode(_asked(scope))}#hotspots")

    @blueprint.get("/hotspots")
    @staff_required("supervisor")
    def hot_spot_state() -> Response:
        job = find_hot_spot_job(services, _scope(services))
        return jsonify(ended=job is None or job.ended, step=job.step if job else "")

    @blueprint.get("/tickets")
    @staff_required("supervisor")
    def behind() -> str:
        scope, key, missed = _scope(services), request.args.get("rate", ""), request.args.get("missed") == "1"
        try:
            numbers = numbers_behind(services, scope, key, missed=missed)
        except KeyError:
            abort(404, "没有这个指标。")
        audited("list_tickets", f"rate {key}", detail=f"{len(numbers)}")
        rate = next(rate for rate in build_dashboard(services, scope).rates if rate.key == key)
        rows = [row for number in numbers[:MOST_LISTED] if (row := _row(services, number))]
        return render_template(
            "studio/dashboard_tickets.html", page="dashboard", rate=rate, missed=missed, rows=rows, total=len(numbers), asked=_asked(scope)
        )

    @blueprint.get("/export.<kind>")
    @staff_required("supervisor")
    def export(kind: str) -> Response:
        if kind not in FILES:
            abort(404)
        scope = _scope(services)
        write, media_type = FILES[kind]
        target = io.BytesIO()
        write(build_dashboard(services, scope), target)
        audited("export_dashboard", kind)
        response = make_response(target.getvalue())
        response.headers["Content-Type"] = media_type
        name = f"minsheng-{scope.since.astimezone(CHINA):%Y%m%d}-{scope.days}d.{kind}"
        response.headers["Content-Disposition"] = f"attachment; filename={name}"
        return response

    return blueprint


def _scope(services: Services) -> Scope:
    """From `days` or `from` and `to` (dates in China, both included) and `district`; never beyond the person's districts."""
    today = services.now().astimezone(CHINA).date()
    first, last = _day("from"), _day("to") or today
    if first is None:
        days = request.args.get("days", "7")
        last, first = today, today - timedelta(days=int(days if days in PERIODS else "7") - 1)
    if not first <= last or (last - first).days >= MAX_DAYS:
        abort(400, f"日期不对：开始要在结束之前，最多看 {MAX_DAYS} 天。")
    own, wanted = current_member().districts, request.args.get("district", "")
    if wanted and own and wanted not in own:
        abort(403, "这个区县不在您的辖区。")
    return Scope(_midnight(first), _midnight(last + timedelta(days=1)), (wanted,) if wanted else own)


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(request.args.get(name, ""))
    except ValueError:
        return None


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), CHINA)


def _districts(services: Services) -> Sequence[str]:
    return current_member().districts or services.gazetteer.home_districts()


def _asked(scope: Scope) -> Mapping[str, Any]:
    """The period and district once more, for links and the form."""
    last = scope.until.astimezone(CHINA).date() - timedelta(days=1)
    return {
        "from": scope.since.astimezone(CHINA).date().isoformat(),
        "to": last.isoformat(),
        "days": request.args.get("days", "7") if "from" not in request.args else "",
        "district": request.args.get("district", ""),
    }


def _hot_spots(services: Services, scope: Scope) -> Mapping[str, Any] | None:
    """What the newest search of this period found; None before the first."""
    job = find_hot_spot_job(services, scope)
    if job is None:
        return None
    spots = [{**spot, "when": _range(spot)} for spot in (job.result or {}).get("spots", ())]
    made = china_time(parse_iso(job.finished_at)) if job.finished_at else ""
    return {"ended": job.ended, "step": job.step, "problem": job.problem, "made": made, **(job.result or {}), "spots": spots}


def _range(spot: Mapping[str, Any]) -> str:
    first, last = (parse_iso(spot[end]).astimezone(CHINA) for end in ("first_at", "last_at"))
    begin = f"{first.month}月{first.day}日"
    return begin if first.date() == last.date() else f"{begin}至{last.month}月{last.day}日"


def _row(services: Services, number: str) -> Mapping[str, Any] | None:
    try:
        ticket = Access(services, current_member()).get_ticket(number)
    except TicketNotFound:
        return None
    return {
        "number": number,
        "title": ticket.title,
        "state": ticket.state_label,
        "department": ticket.status_department or ticket.lead_department,
        "filed": china_time(ticket.filed_at),
        "due": china_time(ticket.due_at) if ticket.due_at else "",
    }
