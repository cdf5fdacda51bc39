"""/studio/data: imports so far, labels out, labels in doubt. A file on its way in has pages of its own (studio_imports.py)."""
from __future__ import annotations

from flask import Blueprint, Response, abort, jsonify, render_template, request, stream_with_context

from bot.annotations import CATEGORY
from bot.exporting import FORMATS, WHAT, export, may_export
from bot.jobs import list_jobs, submit_job
from bot.review_labels import LabelRefused, read_category
from bot.services import Services
from bot.suspects import DECISIONS, SuspectGone, Suspects
from bot.web.staff import audited, staff_blueprint, staff_required
from bot.web.studio_imports import curator, job_view, list_batches, read_body

SUSPECT_JOB = "label_errors"


def create_blueprint(services: Services) -> Blueprint:
    blueprint = staff_blueprint("data", __name__, url_prefix="/studio/data")
    suspects = Suspects(services)

    @blueprint.get("")
    @staff_required("supervisor")
    def index() -> str:
        curator()
        return render_template("studio/data.html", page="data", batches=list_batches(services), what=WHAT, formats=FORMATS, may=may_export)

    # -- export ---------------------------------------------------------------------------------------------------

    @blueprint.get("/export")
    @staff_required("supervisor")
    def download() -> Response:
        curator()
        what, form = request.args.get("what", ""), request.args.get("form", "")
        if not may_export(what, form):
            abort(400, "没有这种导出。")
        audited("export", f"{what}.{form}")
        answer = Response(stream_with_context(export(services, what, form)), mimetype="text/plain; charset=utf-8")
        day = services.now().strftime("%Y%m%d")
        answer.headers["Content-Disposition"] = f"attachment; filename=minsheng-{what}-{day}.{'yml' if form == 'yaml' else form}"
        return answer

    # -- labels in doubt ------------------------------------------------------------------------------------------

    @blueprint.get("/suspects")
    @staff_required("supervisor")
    def doubts() -> Response:
        curator()
        jobs = list_jobs(services, SUSPECT_JOB, limit=1)
        return jsonify(suspects=suspects.page(), counts=suspects.counts(), job=job_view(jobs[0]) if jobs else None)

    @blueprint.post("/suspects/find")
    @staff_required("supervisor")
    def find() -> Response:
        member = curator()
        running = [job for job in list_jobs(services, SUSPECT_JOB, limit=1) if not job.ended]
        return jsonify(job=running[0].id if running else submit_job(services, SUSPECT_JOB, {}, username=member.username))

    @blueprint.post("/suspects/<int:suspect_id>")
    @staff_required("supervisor")
    def decide(suspect_id: int) -> Response:
        member, body = curator(), read_body()
        decision = str(body.get("decision", ""))
        if decision not in DECISIONS:
            abort(400, "没有这种处理。")
        try:
            suggested = read_category(body[CATEGORY], services.catalogue) if body.get(CATEGORY) else None
            suspects.decide(suspect_id, decision, username=member.username, suggested=suggested)
        except LabelRefused as error:
            abort(422, f"{error}。")
        except SuspectGone:
            abort(409, "这一条已经有人处理，或标注已撤销。")
        return jsonify(counts=suspects.counts())

    return blueprint
