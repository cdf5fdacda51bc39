"""/desk/batch: a file in, its classified copy out, with progress; each person sees their own, supervisors see all."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, jsonify, redirect, render_template, request, send_file, url_for
from werkzeug.wrappers import Response as BaseResponse

from bot.batch_job import STATES, result_path
from bot.db import parse_iso
from bot.jobs import DONE, Job, cancel_job, find_job, list_jobs, submit_job
from bot.services import Services
from bot.uploads import KEPT_DAYS, UploadError, Uploads
from bot.web import china_time
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

KIND = "batch"
STATE_NAMES = {"waiting": "排队中", "running": "处理中", "done": "完成", "failed": "没有完成", "cancelled": "已取消"}


def create_blueprint(services: Services) -> Blueprint:
    blueprint = staff_blueprint("batch", __name__, url_prefix="/desk/batch")
    uploads = Uploads(services.settings.var_dir)

    def own_job(job_id: int) -> Job:
        job, member = find_job(services, job_id), current_member()
        if job is None or job.kind != KIND or not (job.username == member.username or member.is_at_least("supervisor")):
            abort(404, "没有这项任务。")
        return job

    @blueprint.get("")
    @staff_required("agent")
    def index() -> str:
        member = current_member()
        mine = [job for job in list_jobs(services, KIND) if job.username == member.username or member.is_at_least("supervisor")]
        return render_template("desk/batch.html", page="batch", jobs=[_view(job, uploads) for job in mine], states=STATES, days=KEPT_DAYS)

    @blueprint.get("/state")
    @staff_required("agent")
    def state() -> Response:
        wanted = request.args.getlist("job", type=int)[:50]
        return jsonify(jobs=[_view(own_job(job_id), uploads) for job_id in wanted])

    @blueprint.post("")
    @staff_required("agent")
    def start() -> Response:
        body = request.get_json(silent=True) or {}
        try:
            upload = uploads.find(str(body.get("upload", "")), owner=current_member().username)
        except UploadError as error:
            abort(400, f"{error}。")
        if not upload.complete:
            abort(400, "文件还没有传完，请重新上传。")
        audited("batch", upload.id, detail=upload.path.suffix)
        params = {"upload": upload.id, "name": upload.name}
        return jsonify(job=submit_job(services, KIND, params, username=current_member().username))

    @blueprint.post("/<int:job_id>/cancel")
    @staff_required("agent")
    def cancel(job_id: int) -> BaseResponse:
        cancel_job(services, own_job(job_id).id)
        return redirect(url_for("batch.index"))

    @blueprint.get("/<int:job_id>/result")
    @staff_required("agent")
    def result(job_id: int) -> BaseResponse:
        job = own_job(job_id)
        path = _result(job, uploads)
        if path is None:
            abort(404, f"结果只保留 {KEPT_DAYS} 天，已经删除，请重新上传。")
        audited("batch_download", f"job {job.id}")
        name = Path(job.params["name"])
        return send_file(path, as_attachment=True, download_name=f"{name.stem}_已分类{name.suffix.lower()}")

    return blueprint


def _result(job: Job, uploads: Uploads) -> Path | None:
    try:
        path = result_path(uploads.find(job.params["upload"], owner=job.username).path)
    except UploadError:
        return None
    return path if job.state == DONE and path.exists() else None


def _view(job: Job, uploads: Uploads) -> dict[str, Any]:
    result = job.result or {}
    return {
        "id": job.id,
        "name": job.params["name"],
        "state": job.state,
        "state_name": STATE_NAMES[job.state],
        "ended": job.ended,
        "step": job.step,
        "percent": round(job.progress * 100),
        "problem": job.problem,
        "username": job.username,
        "created": china_time(parse_iso(job.created_at)),
        "rows": result.get("rows"),
        "review": [{"name": name, "count": count} for name in STATES if (count := result.get("review", {}).get(name))],
        "problems": result.get("problems", []),
        "download": _result(job, uploads) is not None,
    }
