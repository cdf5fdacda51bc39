"""/studio/data/imports: a file of work orders from its upload to its outcome. What rows become is decided in bot/importing.py."""
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, request
from sqlalchemy import select
from sqlalchemy.engine import Row

from bot import db
from bot.annotations import CATEGORY, REQUEST_TYPE
from bot.catalogue import REQUEST_TYPES, URGENCIES
from bot.comparison import first_level_names
from bot.import_jobs import BRING, LOOK, REVIEW
from bot.importing import (
    DONE,
    FAILED,
    LOOKING,
    READY,
    STAGING,
    WITHDRAWN,
    change_batch,
    open_batch,
    remember_columns,
    remember_labels,
    withdraw_batch,
)
from bot.jobs import Job, cancel_job, find_job, submit_job
from bot.orders import FIELD_NAMES, LEAVE_OUT, ROLES, TEXT
from bot.review_labels import LabelRefused, read_category
from bot.services import Services
from bot.staff import StaffMember
from bot.staff_schema import import_batches, users
from bot.tables import harmless
from bot.uploads import UploadError, Uploads
from bot.web import china_time
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

STATE_NAMES = {LOOKING: "读取中", READY: "待确认", STAGING: "导入中", DONE: "已导入", WITHDRAWN: "已撤回", FAILED: "没有完成"}
OUTCOME_NAMES = {
    "imported": "导入", "items": "送审", "frozen": "留作测试", "refused": "有问题", "repeated": "重复", "twins": "近似重复未导入",
    "differing": "相同文字标签不同", "left_out": "标签不学习", "unplaced": "地点不在文字里", "read": "模型读过", "rows": "总行数",
}  # fmt: skip
NEWEST, SHOWN_PROBLEMS = 30, 50
MOST_REVIEWED = 5000


def create_blueprint(services: Services) -> Blueprint:
    blueprint = staff_blueprint("imports", __name__, url_prefix="/studio/data/imports")
    uploads = Uploads(services.settings.var_dir)

    @blueprint.post("")
    @staff_required("supervisor")
    def begin() -> Response:
        member = curator()
        try:
            upload = uploads.find(str(read_body().get("upload", "")), owner=member.username)
        except UploadError as error:
            abort(400, f"{error}。")
        if not upload.complete:
            abort(400, "文件还没有传完，请重新上传。")
        audited("import", upload.id, detail=upload.path.suffix)
        batch_id = open_batch(services, upload.name, username=member.username, upload=upload.id)
        _run(services, batch_id, LOOK, {}, member)
        return jsonify(batch=batch_id)

    @blueprint.get("/<int:batch_id>")
    @staff_required("supervisor")
    def batch_page(batch_id: int) -> str:
        curator()
        batch = _find_batch(services, batch_id)
        choices = {"roles": list(ROLES.items()), "request_types": REQUEST_TYPES, "urgencies": URGENCIES, "fields": FIELD_NAMES}
        return render_template("studio/import.html", page="data", batch=_summary(batch, _names(services)), choices=choices)

    @blueprint.get("/<int:batch_id>/state")
    @staff_required("supervisor")
    def batch_state(batch_id: int) -> Response:
        curator()
        return jsonify(_view(services, _find_batch(services, batch_id)))

    @blueprint.post("/<int:batch_id>/columns")
    @staff_required("supervisor")
    def check(batch_id: int) -> Response:
        member, batch = curator(), _idle_batch(services, batch_id)
        columns = _columns(read_body().get("columns"))
        _run(services, batch.id, LOOK, {"columns": columns}, member)
        return jsonify(batch=batch_id)

    @blueprint.post("/<int:batch_id>/start")
    @staff_required("supervisor")
    def start(batch_id: int) -> Response:
        member, batch, body = curator(), _idle_batch(services, batch_id), read_body()
        preview = services.vault.open(batch.preview)
        if preview.get("same_file") and body.get("again") is not True:
            abort(409, "这个文件已经导入过。确实要再导入一次，请先勾选。")
        plan = json.loads(batch.plan)
        if TEXT not in plan["columns"].values():
            abort(422, "请先指定哪一列是诉求内容。")
        told = _told_labels(services, body.get("labels"))
        labelled = body.get("labelled") is not False
        plan |= {"labelled": labelled, "keep_twins": body.get("keep_twins") is True, "most": _most(body.get("most"))}
        audited("import_start", f"batch {batch_id}", detail=batch.file_name)
        with db.transaction(services.engine) as connection:
            now = db.iso(services.now())
            headings = [column["heading"] for column in preview["columns"]]
            remember_columns(connection, headings, plan["columns"], username=member.username, at=now)
            remember_labels(connection, told, username=member.username, at=now)
        kind = "labelled" if labelled else "unlabelled"
        change_batch(services, batch_id, plan=json.dumps(plan, ensure_ascii=False), kind=kind)
        _run(services, batch_id, BRING if labelled else REVIEW, {}, member)
        return jsonify(batch=batch_id)

    @blueprint.post("/<int:batch_id>/cancel")
    @staff_required("supervisor")
    def cancel(batch_id: int) -> Response:
        curator()
        batch = _find_batch(services, batch_id)
        if batch.job_id:
            cancel_job(services, batch.job_id)
        return jsonify(batch=batch_id)

    @blueprint.post("/<int:batch_id>/withdraw")
    @staff_required("supervisor")
    def withdraw(batch_id: int) -> Response:
        curator()
        audited("import_withdraw", f"batch {batch_id}")
        if not withdraw_batch(services, batch_id):
            abort(409, "这次导入没有完成，或已经撤回。")
        return jsonify(batch=batch_id)

    @blueprint.get("/<int:batch_id>/problems.csv")
    @staff_required("supervisor")
    def problems(batch_id: int) -> Response:
        curator()
        batch = _find_batch(services, batch_id)
        lines = ["\ufeff行号,问题", *(f'{row},"{_csv_text(sentence)}"' for row, sentence in json.loads(batch.problems))]
        answer = Response("\r\n".join(lines) + "\r\n", mimetype="text/csv")
        answer.headers["Content-Disposition"] = f"attachment; filename=import-{batch_id}-problems.csv"
        return answer

    return blueprint


def curator() -> StaffMember:
    """Labels and imports belong to the whole city, so who is bound to districts or to a department does not touch them."""
    member = current_member()
    if member.department or member.districts:
        abort(403, "这一页的数据涉及全市，请由负责全市的班长或管理员操作。")
    return member


def read_body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        abort(400, "这个请求看不懂，请刷新页面再试。")
    return body


def _run(services: Services, batch_id: int, kind: str, params: Mapping[str, Any], member: StaffMember) -> None:
    job_id = submit_job(services, kind, {"batch": batch_id, **params}, username=member.username)
    change_batch(services, batch_id, job_id=job_id)


def _columns(given: Any) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(key, str) and role in ROLES for key, role in given.items()):
        abort(400, "列的用途不对，请重新选。")
    return dict(given)


def _most(given: Any) -> int:
    return min(max(int(given), 1), MOST_REVIEWED) if isinstance(given, (int, float)) else 1000


def _told_labels(services: Services, given: Any) -> dict[tuple[str, str], str]:
    """What a person said that foreign labels mean; those left open are not remembered."""
    told: dict[tuple[str, str], str] = {}
    for entry in given if isinstance(given, list) else ():
        name, label, meaning = (entry.get(key) for key in ("field", "label", "meaning")) if isinstance(entry, dict) else (None, None, None)
        if name not in FIELD_NAMES or not isinstance(label, str) or meaning is None:
            continue
        if meaning != LEAVE_OUT:
            allowed = REQUEST_TYPES if name == REQUEST_TYPE else URGENCIES
            try:
                meaning = read_category(meaning, services.catalogue) if name == CATEGORY else meaning
            except LabelRefused as error:
                abort(422, f"{error}。")
            if name != CATEGORY and meaning not in allowed:
                abort(422, f"没有这种{FIELD_NAMES[name]}，请从列表里选。")
        told[name, label] = meaning
    return told


# -- views ----------------------------------------------------------------------------------------------------------------


def _find_batch(services: Services, batch_id: int) -> Row:
    with db.reading(services.engine) as connection:
        row = connection.execute(select(import_batches).where(import_batches.c.id == batch_id)).first()
    if row is None:
        abort(404, "没有这次导入。")
    return row


def _idle_batch(services: Services, batch_id: int) -> Row:
    """One that has been looked through and is not at work."""
    batch = _find_batch(services, batch_id)
    job = find_job(services, batch.job_id) if batch.job_id else None
    if batch.state in (DONE, WITHDRAWN) or batch.preview is None or job is not None and not job.ended:
        abort(409, "这次导入正在进行或已经结束，请刷新页面。")
    return batch


def list_batches(services: Services) -> list[dict[str, Any]]:
    with db.reading(services.engine) as connection:
        rows = connection.execute(select(import_batches).order_by(import_batches.c.id.desc()).limit(NEWEST)).fetchall()
    names = _names(services)
    return [_summary(row, names) for row in rows]


def _names(services: Services) -> dict[str, str]:
    """How people are called, by their user names."""
    with db.reading(services.engine) as connection:
        return {row.username: row.display_name or row.username for row in connection.execute(select(users))}


def _summary(batch: Row, names: Mapping[str, str]) -> dict[str, Any]:
    outcome = json.loads(batch.outcome)
    return {
        "id": batch.id,
        "name": batch.file_name,
        "username": names.get(batch.username, batch.username),
        "at": china_time(db.parse_iso(batch.at)),
        "state": batch.state,
        "state_name": STATE_NAMES[batch.state],
        "labelled": batch.kind == "labelled",
        "outcome": [{"name": name, "count": outcome[key]} for key, name in OUTCOME_NAMES.items() if outcome.get(key)],
    }


def _view(services: Services, batch: Row) -> dict[str, Any]:
    job = find_job(services, batch.job_id) if batch.job_id else None
    problems, names = json.loads(batch.problems), _names(services)
    preview = services.vault.open(batch.preview) if batch.preview else None
    if preview and preview.get("check"):
        _name_classes(preview["check"], services)
    if preview and preview.get("same_file"):
        same = preview["same_file"]
        who = names.get(same["username"], same["username"])
        preview["same_file"] = {**same, "at": china_time(db.parse_iso(same["at"])), "username": who}
    return {
        **_summary(batch, names),
        "job": job_view(job) if job else None,
        "preview": preview,
        "plan": json.loads(batch.plan),
        "problems": problems[:SHOWN_PROBLEMS],
        "problem_count": len(problems),
    }


def _name_classes(check: dict[str, Any], services: Services) -> None:
    """Codes become what people call them; which first levels have no row is as telling as which have."""
    counts, names = check["classes"], first_level_names(services)
    check["classes"] = _named(counts, names)
    check["no_rows"] = [name for code, name in sorted(names.items()) if code not in counts]
    for one in check["copies"]:
        one["labels"] = _named(one["labels"], names)


def _named(counts: Mapping[str, int], names: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": names.get(code, "没有类别"), "count": count} for code, count in counts.items()]


def job_view(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state,
        "ended": job.ended,
        "step": job.step,
        "percent": round(job.progress * 100),
        "problem": job.problem,
        "finished": china_time(db.parse_iso(job.finished_at)) if job.finished_at else "",
    }


def _csv_text(sentence: str) -> str:
    return harmless(sentence).replace('"', '""')
