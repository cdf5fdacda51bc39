"""/studio/models: train, compare, promote, roll back, delete; what is promoted beside what really serves; who did what and why."""
from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, request
from sqlalchemy import func, select
from sqlalchemy.engine import Row

from bot import db
from bot.annotations import hidden_batches
from bot.comparison import first_level_names
from bot.frozen import SHIPPED, count_frozen, find_frozen, retire_item, retire_source
from bot.gate import load_floors
from bot.jobs import Job, cancel_job, find_job, list_jobs, submit_job
from bot.models import (
    PROMOTED,
    ModelError,
    archive_path,
    delete_model,
    earlier_model,
    find_model,
    gate_failures,
    list_events,
    list_rows,
    promote_model,
    promoted_model,
    report_of,
    rollback_model,
)
from bot.schema import tickets
from bot.services import DATA_DIR, Services
from bot.serving import list_serving
from bot.staff_schema import annotation_rows, import_batches
from bot.train_job import COMPARE, TRAIN, running_training
from bot.web import china_time, model_report
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

STATES = {"candidate": "待上线", "promoted": "正在使用", "retired": "用过"}
ACTIONS = {"promoted": "上线", "rolled_back": "退回", "overridden": "强制上线"}
LOG_LINES = 200
FEW_PER_DAY = 1000  # messages a day that the slider assumes where there are hardly any tickets yet


def create_blueprint(services: Services) -> Blueprint:
    blueprint = staff_blueprint("models", __name__, url_prefix="/studio/models")

    @blueprint.errorhandler(ModelError)
    def refuse(error: ModelError) -> tuple[Response, int]:
        return jsonify(error=f"{error.sentence}。"), 409

    @blueprint.get("")
    @staff_required("supervisor")
    def index() -> str:
        facts = {"rows": _model_rows(services), "data": _data_facts(services), "events": _events(services), "tests": _test_rows(services)}
        return render_template("studio/models.html", page="models", live=_live(services), back=earlier_model(services), **facts)

    @blueprint.get("/state")
    @staff_required("supervisor")
    def state() -> Response:
        return jsonify(_live(services))

    @blueprint.post("/train")
    @staff_required("supervisor")
    def train() -> Response:
        body = request.get_json(silent=True) or {}
        left_out = [str(source)[:40] for source in body.get("leave_out") or ()][:50]
        params = {"confirmed": bool(body.get("confirmed")), "leave_out": left_out}
        return jsonify(job=_start(TRAIN, params, "train_model", ",".join(left_out)))

    @blueprint.post("/<version>/compare")
    @staff_required("supervisor")
    def compare(version: str) -> Response:
        _get(services, version)
        return jsonify(job=_start(COMPARE, {"version": version}, "compare_model", version))

    def _start(kind: str, params: dict[str, Any], action: str, subject: str) -> int:
        if running_training(services) is not None:
            abort(409, "已经有一项训练或对比在进行，等它结束再开始。")
        audited(action, subject or "-")
        return submit_job(services, kind, params, username=current_member().username)

    @blueprint.post("/jobs/<int:job_id>/cancel")
    @staff_required("supervisor")
    def cancel(job_id: int) -> Response:
        job = find_job(services, job_id)
        if job is None or job.kind not in (TRAIN, COMPARE):
            abort(404, "没有这项训练。")
        audited("cancel_training", f"job {job_id}")
        cancel_job(services, job_id)
        return jsonify(ok=True)

    @blueprint.post("/<version>/promote")
    @staff_required("supervisor")
    def promote(version: str) -> Response:
        body, member = request.get_json(silent=True) or {}, current_member()
        override = bool(body.get("override"))
        if override and not member.is_at_least("admin"):
            abort(403, "没有达到门槛的模型，只有管理员能强制上线。")
        audited("promote_model", version, detail="override" if override else "")
        promote_model(services, version, username=member.username, reason=str(body.get("reason") or "")[:500], override=override)
        return jsonify(ok=True)

    @blueprint.post("/rollback")
    @staff_required("supervisor")
    def rollback() -> Response:
        body = request.get_json(silent=True) or {}
        audited("rollback_model", promoted_model(services) or "-")
        return jsonify(version=rollback_model(services, username=current_member().username, reason=str(body.get("reason") or "")[:500]))

    @blueprint.post("/<version>/delete")
    @staff_required("supervisor")
    def delete(version: str) -> Response:
        audited("delete_model", version)
        delete_model(services, version)
        return jsonify(ok=True)

    @blueprint.post("/tests/retire")
    @staff_required("supervisor")
    def retire() -> Response:
        body = request.get_json(silent=True) or {}
        if isinstance(body.get("id"), int):
            audited("retire_test_item", str(body["id"]))
            return jsonify(count=int(retire_item(services, body["id"])))
        audited("retire_test_items", str(body.get("source"))[:40])
        return jsonify(count=retire_source(services, str(body.get("source"))[:40]))

    @blueprint.get("/<version>")
    @staff_required("supervisor")
    def report(version: str) -> str:
        row = _get(services, version)
        return render_template("studio/model.html", page="models", **_report_facts(services, row))

    return blueprint


def _get(services: Services, version: str) -> Row:
    row = find_model(services, version)
    if row is None:
        abort(404, "没有这个模型，可能已经删除。")
    return row


# -- the list -------------------------------------------------------------------------------------------------------------


def _live(services: Services) -> dict[str, Any]:
    """What changes while the page is open: the promoted model, every process, the newest job."""
    promoted, seen = promoted_model(services), list_serving(services)
    jobs = list_jobs(services, TRAIN, COMPARE, limit=1)
    processes = [
        {"id": one.id, "model": one.model, "since": china_time(one.since), "problem": one.problem, "ready": one.model == promoted}
        for one in seen
    ]
    return {"promoted": promoted, "processes": processes, "job": _job(services, jobs[0]) if jobs else None}


def _job(services: Services, job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "ended": job.ended,
        "step": job.step,
        "percent": round(job.progress * 100),
        "log": "\n".join(job.log.splitlines()[-LOG_LINES:]),
        "problem": job.problem,
        "result": job.result or {},
        "username": job.username,
        "seconds": round((services.now() - db.parse_iso(job.started_at)).total_seconds()) if job.started_at and not job.ended else None,
        "finished": china_time(db.parse_iso(job.finished_at)) if job.finished_at else None,
        "left_out": list(job.params.get("leave_out") or ()),
    }


def _model_rows(services: Services) -> list[dict[str, Any]]:
    return [_model_row(services, row) for row in list_rows(services)]


def _model_row(services: Services, row: Row) -> dict[str, Any]:
    path = archive_path(services.settings.models_dir, row.version)
    return {
        "version": row.version,
        "state": row.state,
        "state_name": STATES[row.state],
        "trained_at": china_time(db.parse_iso(row.trained_at)),
        "trained_by": row.trained_by,
        "promoted_at": china_time(db.parse_iso(row.promoted_at)) if row.promoted_at else None,
        "metrics": json.loads(row.metrics),
        "size_mb": round(path.stat().st_size / 2**20) if path.exists() else None,
    }


def _events(services: Services) -> list[dict[str, Any]]:
    return [
        {
            "at": china_time(db.parse_iso(event.at)),
            "action": event.action,
            "action_name": ACTIONS[event.action],
            "version": event.version,
            "previous": event.previous,
            "username": event.username,
            "reason": event.reason,
        }
        for event in list_events(services)
    ]


def _data_facts(services: Services) -> dict[str, Any]:
    """How much the city has labelled, and how much of it since the serving model was trained."""
    counting = annotation_rows.c.undoes.is_(None)
    count = select(func.count(func.distinct(annotation_rows.c.digest))).where(counting)
    with db.reading(services.engine) as connection:
        hidden = hidden_batches(connection)
        count = count.where(annotation_rows.c.source.notin_(sorted(hidden)))
        labelled = connection.execute(count).scalar_one()
        trained_at = next((row.trained_at for row in list_rows(services) if row.state == PROMOTED), "")
        new = connection.execute(count.where(annotation_rows.c.at > trained_at)).scalar_one()
    return {"labelled": labelled, "new": new}


def _test_rows(services: Services) -> list[dict[str, Any]]:
    """The frozen test items by where they come from."""
    with db.reading(services.engine) as connection:
        rows = connection.execute(select(import_batches.c.id, import_batches.c.file_name)).fetchall()
    files = {f"import:{row.id}": row.file_name for row in rows}
    kinds = {"test": "考题", "must_pass": "必答题"}
    return [
        {
            "source": row["source"],
            "name": "随系统附带" if row["source"] == SHIPPED else files.get(row["source"], row["source"]),
            "kind": kinds[row["kind"]],
            "count": row["count"],
            "shipped": row["source"] == SHIPPED,
        }
        for row in count_frozen(services)
    ]


# -- the report -----------------------------------------------------------------------------------------------------------


def _report_facts(services: Services, row: Row) -> dict[str, Any]:
    report, serving = report_of(row), promoted_model(services)
    facts = {"model": _model_row(services, row), "serving": serving, "busy": running_training(services) is not None}
    if report is None:
        return {**facts, "report": None}
    names, floors = first_level_names(services), load_floors(DATA_DIR)
    ids = [change["id"] for kind in ("newly_right", "newly_wrong") for change in report[kind][: model_report.SHOWN_EXAMPLES]]
    wrong = report["candidate"]["must_pass"]["wrong"]
    missed = report["candidate"]["emergency"]["missed"]
    items = find_frozen(services, [*ids, *(one["id"] for one in wrong), *missed])
    return {
        **facts,
        "report": report,
        "failed": gate_failures(row),
        "stale": serving not in (report["serving_model"], row.version),
        "compared_at": china_time(db.parse_iso(report["at"])),
        "cards": model_report.figure_cards(report),
        "classes": model_report.class_rows(report, floors),
        "floors": floors,
        "sources": model_report.SOURCES,
        "confusion": {"new": model_report.confusion_cells(report["candidate"]), "old": _old(report, model_report.confusion_cells)},
        "mixed": model_report.mixed_up(report["candidate"]),
        "newly_right": model_report.examples(report["newly_right"], items, names),
        "newly_wrong": model_report.examples(report["newly_wrong"], items, names),
        "must_pass_wrong": [{**one, "text": items[one["id"]].text} for one in wrong if one["id"] in items],
        "missed": [{"id": number, "text": items[number].text} for number in missed if number in items],
        "shipped_ids": [number for number, item in items.items() if item.source == SHIPPED],
        "calibration": model_report.calibration_rows(report["candidate"]),
        "curve": {"new": model_report.coverage_points(report["candidate"]), "old": _old(report, model_report.coverage_points)},
        "chart": {"width": model_report.CHART_WIDTH, "height": model_report.CHART_HEIGHT},
        "slider": model_report.slider_facts(report, threshold=services.settings.lane_file, per_day=_per_day(services)),
        "names": names,
    }


def _old(report: dict[str, Any], show: Any) -> Any:
    return show(report["serving"]) if report["serving"] and report["serving_model"] != report["model"] else None


def _per_day(services: Services) -> int:
    """Tickets a day over the last thirty days."""
    since = db.iso(services.now() - timedelta(days=30))
    with db.reading(services.engine) as connection:
        count = connection.execute(select(func.count()).select_from(tickets).where(tickets.c.filed_at >= since)).scalar_one()
    return max(1, round(count / 30)) if count >= 30 else FEW_PER_DAY
