"""/studio/review: one item at a time beside the list, judged with the keyboard; groups accepted at once. Rules are in bot/judging.py."""
from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

from flask import Blueprint, Response, abort, jsonify, render_template, request
from pypinyin import Style, lazy_pinyin

from bot import db
from bot.catalogue import REQUEST_TYPES, URGENCIES, Catalogue
from bot.judging import JudgementRefused, Judging
from bot.orders import parse_time
from bot.review_index import ReviewIndex
from bot.review_labels import APPEALS, INTENT_NAMES, LabelRefused
from bot.review_queue import Filters, ItemNotFound, ReviewQueue
from bot.reviews import REASON_NAMES
from bot.services import Services
from bot.staff import StaffMember
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

CHANNEL_NAMES = {"wechat": "微信", "web": "网页", "api": "接口", "hotline": "热线", "import": "导入"}
MAX_WORDS = 60


def create_blueprint(services: Services, index: ReviewIndex) -> Blueprint:
    blueprint = staff_blueprint("review", __name__, url_prefix="/studio/review")
    queue, judging = ReviewQueue(services, index), Judging(services)

    @blueprint.errorhandler(ItemNotFound)
    def missing(_error: ItemNotFound) -> tuple[Response, int]:
        return jsonify(error="没有这一条，可能已被合并或不在您的辖区。"), 404

    @blueprint.errorhandler(LabelRefused)
    def bad_label(error: LabelRefused) -> tuple[Response, int]:
        return jsonify(error=f"{error}。"), 422

    @blueprint.errorhandler(JudgementRefused)
    def refused(error: JudgementRefused) -> tuple[Response, int]:
        return jsonify(error=f"{error}。"), 409

    @blueprint.get("")
    @staff_required("supervisor")
    def page() -> str:
        _reviewer()
        choices = {
            "intents": [{"code": code, "name": name, **typed_as(name), "appeal": code in APPEALS} for code, name in INTENT_NAMES.items()],
            "request_types": REQUEST_TYPES,
            "urgencies": URGENCIES,
            "reasons": list(REASON_NAMES.items()),
            "channels": CHANNEL_NAMES,
        }
        return render_template("studio/review.html", page="review", choices=choices)

    @blueprint.get("/categories")
    @staff_required("supervisor")
    def categories() -> Response:
        return jsonify(categories=list_categories(services.catalogue))

    @blueprint.get("/items")
    @staff_required("supervisor")
    def items() -> Response:
        after = request.args.get("after", "")
        priority, _, item_id = after.partition(":")
        try:
            position = (float(priority), int(item_id)) if after else None
        except ValueError:
            abort(400, "翻页的位置不对，请刷新页面。")
        found = queue.page(_reviewer(), _filters(), after=position)
        return jsonify(items=found, ready=index.ready)

    @blueprint.get("/facets")
    @staff_required("supervisor")
    def facets() -> Response:
        return jsonify(queue.facets(_reviewer()))

    @blueprint.get("/items/<int:item_id>")
    @staff_required("supervisor")
    def item(item_id: int) -> Response:
        return jsonify(queue.item(_reviewer(), item_id))

    @blueprint.get("/items/<int:item_id>/similar")
    @staff_required("supervisor")
    def similar(item_id: int) -> Response:
        return jsonify(similar=queue.similar(_reviewer(), item_id), ready=index.ready)

    @blueprint.post("/items/<int:item_id>")
    @staff_required("supervisor")
    def judge(item_id: int) -> Response:
        body, member = _body(), _reviewer()
        version, final = str(body.get("version", "")), body.get("final") is True
        if final:
            audited("review_final", f"item {item_id}")
        return jsonify(state=judging.judge(member, item_id, body.get("labels"), version=version, final=final))

    @blueprint.post("/items/<int:item_id>/skip")
    @staff_required("supervisor")
    def skip(item_id: int) -> Response:
        return jsonify(state=judging.skip(_reviewer(), item_id, version=str(_body().get("version", ""))))

    @blueprint.post("/undo")
    @staff_required("supervisor")
    def undo() -> Response:
        return jsonify(items=judging.undo(_reviewer()))

    @blueprint.get("/clusters")
    @staff_required("supervisor")
    def clusters() -> Response:
        return jsonify(clusters=queue.clusters(_reviewer(), _filters()))

    @blueprint.get("/clusters/<int:cluster>")
    @staff_required("supervisor")
    def cluster(cluster: int) -> Response:
        return jsonify(queue.cluster(_reviewer(), cluster))

    @blueprint.post("/clusters/<int:cluster>")
    @staff_required("supervisor")
    def accept(cluster: int) -> Response:
        body, member = _body(), _reviewer()
        chosen = body.get("items")
        if not isinstance(chosen, list) or not chosen or not all(isinstance(one, int) for one in chosen):
            abort(400, "请至少勾选一条。")
        audited("review_bulk", f"cluster {cluster}", detail=f"{len(chosen)} items")
        return jsonify(accepted=judging.judge_all(member, chosen, body))

    return blueprint


def _reviewer() -> StaffMember:
    """Who works for a department must not read what is said about it, however masked."""
    member = current_member()
    if member.department:
        abort(403, "承办单位的账号不参与审核。")
    return member


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    return body if isinstance(body, dict) else _refuse()


def _refuse() -> NoReturn:
    abort(400, "这个请求看不懂，请刷新页面再试。")


def _filters() -> Filters:
    given = {name: request.args.get(name, "").strip()[:MAX_WORDS] for name in vars(Filters())}
    return Filters(**{**given, "state": given["state"] or "open", "since": _day(given["since"]), "until": _day(given["until"], later=1)})


def _day(text: str, *, later: int = 0) -> str:
    """Midnight in China of the day written, so many days later; empty for what is no day."""
    moment = parse_time(text)
    return db.iso(moment + timedelta(days=later)) if moment else ""


def list_categories(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Every class of every level, in the order of the tree."""
    found: dict[str, dict[str, Any]] = {}
    for category in catalogue.categories.values():
        for level in (1, 2, 3):
            code, name = category.code[: 2 * level], category.path[level - 1]
            if code not in found:
                path = category.path[:level]
                found[code] = {"code": code, "name": name, "path": list(path), **typed_as(name)}
    return list(found.values())


def typed_as(name: str) -> dict[str, str]:
    """What somebody may type to find a Chinese name."""
    styles = {"initials": Style.FIRST_LETTER, "pinyin": Style.NORMAL}
    return {key: "".join(lazy_pinyin(name, style=style, errors="ignore")) for key, style in styles.items()}
