"""The machine API: chat, parse, tickets. JSON in, JSON out; every refusal is one plain sentence."""
from __future__ import annotations

import hmac
import json
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge

from bot.access import Access
from bot.assistant import Assistant, AssistantError, Bubble
from bot.conversation import APOLOGY_STORAGE, MAX_TEXT, TOO_FAST, Conversations, InboundMessage, Reply
from bot.db import StorageError, iso
from bot.parse import parse_text, parse_turns
from bot.services import Services
from bot.staff import StaffMember
from bot.ticket import created_payload, summary_of
from bot.tickets import TicketNotFound

MAX_BODY = 256 * 1024
MAX_PARSE_TEXT = 20_000
MAX_TURNS = 500
LOOPBACK = ("127.0.0.1", "::1")


class BadRequest(ValueError):
    """The request does not fit; the text is what the caller reads."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


def create_blueprint(
    services: Services,
    conversations: Conversations,
    assistant: Assistant,
    allow: Callable[[str, str], bool],
    find_member: Callable[[], StaffMember | None] = lambda: None,
) -> Blueprint:
    """`allow(sender, address)` says whether the rate limit admits one more message. `find_member()` is who of the staff is asking,
    at this machine and without the token: they get no ticket here, because only their own pages mask and audit."""
    blueprint = Blueprint("api", __name__, url_prefix="/api")

    @blueprint.before_request
    def check_caller() -> None:
        if not may_call(services.settings.api_token):
            abort(401)

    @blueprint.errorhandler(BadRequest)
    def refuse(error: BadRequest) -> tuple[Response, int]:
        return jsonify(error=str(error)), error.status

    @blueprint.post("/chat")
    def chat() -> tuple[Response, int] | Response:
        message = chat_message(read_json())
        if not allow(message.sender, request.remote_addr or ""):
            return jsonify(Reply((Bubble(TOO_FAST),)).as_dict()), 429
        try:
            return jsonify(conversations.respond(message).as_dict())
        except StorageError:
            return jsonify(Reply((Bubble(APOLOGY_STORAGE),)).as_dict()), 503

    @blueprint.post("/parse")
    def parse() -> tuple[Response, int] | Response:
        body = read_json()
        try:
            if "turns" in body:
                return jsonify(parse_turns(_turns(body["turns"]), assistant, services.catalogue, services.gazetteer))
            text = _text(body, "text", limit=MAX_PARSE_TEXT)
            return jsonify(parse_text(text, assistant, services.catalogue, services.gazetteer))
        except AssistantError:
            return jsonify(error="理解模块暂时不可用，请稍后再试"), 503

    @blueprint.get("/tickets/<number>")
    def ticket(number: str) -> tuple[Response, int] | Response:
        try:
            member = find_member() if not services.settings.api_token else None
            if member and Access(services, member).get_ticket(number):
                return jsonify(error="请在工单页面查看"), 403
            found = services.tickets.get_ticket(number)
        except TicketNotFound:
            return jsonify(error="没有这个工单号"), 404
        data = created_payload(found, services.catalogue, services.tickets.lanes)
        timeline = [
            {"kind": e.kind, "label": e.label, "at": iso(e.at), "department": e.department, "note": e.note}
            for e in services.tickets.timeline(number)
        ]
        return jsonify({**data, **summary_of(found), "service_request_id": found.service_request_id, "timeline": timeline})

    return blueprint


def may_call(token: str) -> bool:
    """A bearer token where one is set; else only this machine itself, and not through a proxy."""
    if token:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return hmac.compare_digest(given.encode(), token.encode())
    return request.remote_addr in LOOPBACK and "X-Forwarded-For" not in request.headers


def read_json() -> Mapping[str, Any]:
    request.max_content_length = MAX_BODY
    try:
        raw = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise BadRequest("内容太长了", 413) from None
    try:
        body = json.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise BadRequest("请求必须是 UTF-8 的 JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("请求必须是一个 JSON 对象")
    return body


def chat_message(body: Mapping[str, Any]) -> InboundMessage:
    """Raises BadRequest naming the field that does not fit. Fields we do not know are ignored."""
    sender = _text(body, "sender", limit=128)
    if not sender.strip():
        raise BadRequest("sender 不能为空")
    message_id = body.get("message_id")
    if isinstance(message_id, int) and not isinstance(message_id, bool) and abs(message_id) < 10**128:
        message_id = str(message_id)
    if message_id is not None and not (_is_plain(message_id, limit=128) and message_id):
        raise BadRequest("message_id 必须是 1 到 128 个字符的文本或数字")
    text = _text(body, "text", limit=MAX_TEXT, required=False)
    location, scene = _location(body.get("location")), body.get("scene")
    if scene is not None and not _is_plain(scene, limit=64):
        raise BadRequest("scene 必须是不超过 64 个字符的文本")
    kind = "text" if text.strip() else "location" if location else "scene" if scene else "text"
    return InboundMessage(
        channel="api",
        sender=sender,
        message_id=str(message_id) if message_id is not None else uuid.uuid4().hex,
        text=text,
        kind=kind,
        location=location,
        scene=scene,
    )


def _text(body: Mapping[str, Any], field: str, *, limit: int, required: bool = True) -> str:
    value = body.get(field)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"{field} 必须是文本")
    if len(value) > limit:
        raise BadRequest(f"{field} 太长了，最多 {limit} 个字，请分几次说", 413)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest(f"{field} 含有无法识别的字符") from None
    return value.replace("\x00", "")


def _location(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadRequest("location 必须是 {lat, lng, label}")
    lat, lng, label = value.get("lat"), value.get("lng"), value.get("label")
    if not (_is_degrees(lat, 90) and _is_degrees(lng, 180)):
        raise BadRequest("location 的 lat、lng 必须是经纬度数字")
    if label is not None and not _is_plain(label, limit=200):
        raise BadRequest("location 的 label 必须是不超过 200 个字的文本")
    return {"lat": float(lat or 0), "lng": float(lng or 0), "label": label or ""}


def _is_degrees(value: Any, bound: int) -> bool:
    # The bound before isfinite(), which cannot take an integer of 400 digits; NaN fails every comparison.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= bound and math.isfinite(value)


def _is_plain(value: Any, *, limit: int) -> bool:
    """A text that can be stored: no lone surrogates, which JSON can write and UTF-8 cannot."""
    return isinstance(value, str) and len(value) <= limit and value.encode("utf-8", "replace").decode("utf-8") == value


def _turns(value: Any) -> list[Mapping[str, str]]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_TURNS:
        raise BadRequest(f"turns 必须是 1 到 {MAX_TURNS} 轮的列表")
    for turn in value:
        if not isinstance(turn, dict) or turn.get("speaker") not in ("agent", "citizen") or not isinstance(turn.get("text"), str):
            raise BadRequest('每一轮必须是 {"speaker": "agent" 或 "citizen", "text": 文本}')
    if sum(len(turn["text"]) for turn in value) > MAX_PARSE_TEXT:
        raise BadRequest("通话太长了", 413)
    return value
