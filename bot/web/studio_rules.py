"""/studio/rules: the city's words, places, categories, routes and time limits in the browser, with what a change would do."""
from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, request

from bot.catalogue import REQUEST_TYPES, URGENCIES
from bot.city_rules import PLACE_KINDS, RulesError, RulesFollower, current_content, get_content, list_versions, save_content
from bot.db import parse_iso
from bot.nlu.corpus import read_lexicon
from bot.rules_preview import preview
from bot.services import DATA_DIR, Services
from bot.web import china_time
from bot.web.api import BadRequest
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

MAX_BODY = 4 * 1024 * 1024


def create_blueprint(services: Services, follower: RulesFollower) -> Blueprint:
    blueprint = staff_blueprint("rules", __name__, url_prefix="/studio/rules")
    shipped_words = read_lexicon(DATA_DIR)

    @blueprint.errorhandler(RulesError)
    def refuse(error: RulesError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    @blueprint.errorhandler(BadRequest)
    def unreadable(error: BadRequest) -> tuple[Response, int]:
        return jsonify(error=str(error)), error.status

    @blueprint.get("")
    @staff_required("supervisor")
    def index() -> str:
        version, content = current_content(services)
        versions = [
            {"id": row.id, "at": china_time(parse_iso(row.at)), "username": row.username, "note": row.note}
            for row in list_versions(services)
        ]
        facts = {"version": version, "content": content, **_facts(services)}
        return render_template("studio/rules.html", page="rules", facts=facts, versions=versions)

    @blueprint.get("/words/<code>")
    @staff_required("supervisor")
    def words(code: str) -> Response:
        if code not in services.catalogue.categories:
            abort(404, "没有这个类别。")
        return jsonify(words=shipped_words.get(code, []))

    @blueprint.get("/versions/<int:version>")
    @staff_required("supervisor")
    def earlier(version: int) -> Response:
        return jsonify(content=get_content(services, version))

    @blueprint.post("/preview")
    @staff_required("supervisor")
    def show_preview() -> Response:
        member = current_member()

        def may_read(district: str | None, confidential: bool) -> bool:
            return member.may_read(district=district, confidential=confidential)

        return jsonify(preview(services, _content(), may_read=may_read))

    @blueprint.post("")
    @staff_required("supervisor")
    def save() -> Response:
        body = request.get_json(silent=True) or {}
        note, based_on = str(body.get("note", "")), body.get("version")
        version = save_content(
            services, _content(), based_on=based_on if isinstance(based_on, int) else -1, username=current_member().username, note=note
        )
        audited("save_rules", f"version {version}")
        follower.follow()
        return jsonify(version=version)

    return blueprint


def _content() -> dict[str, Any]:
    request.max_content_length = MAX_BODY
    body = request.get_json(silent=True)
    content = body.get("content") if isinstance(body, dict) else None
    if not isinstance(content, dict):
        raise BadRequest("内容不完整，请刷新页面再试")
    return content


def _facts(services: Services) -> dict[str, Any]:
    """What the page offers to choose from, and what holds now."""
    catalogue = services.catalogue
    return {
        "categories": [{"code": c.code, "path": list(c.path)} for c in catalogue.categories.values()],
        "departments": [{"role": role, "name": catalogue.department(role)} for role in catalogue.city["departments"]],
        "routing": {code: rule for code, rule in catalogue.routing.items() if code.isdigit()},
        "districts": services.gazetteer.home_districts(),
        "kinds": PLACE_KINDS,
        "request_types": REQUEST_TYPES,
        "urgencies": URGENCIES,
        "limits": [
            {"request_type": kind, "urgency": urgency, "stated": _stated(services, kind, urgency)}
            for kind in REQUEST_TYPES
            for urgency in URGENCIES
        ],
    }


def _stated(services: Services, request_type: str, urgency: str) -> str:
    return services.catalogue.due_at(services.now(), request_type=request_type, urgency=urgency, matter=None)[1]
