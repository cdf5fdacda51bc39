"""POST /api/calls/<id>/turns: what a speech recogniser or telephone system says of a call. JSON in, JSON out, as in api.py."""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, abort, jsonify

from bot.call_desk import CallDesk
from bot.calls import CallClosed, NewTurn
from bot.conversation import APOLOGY_STORAGE
from bot.db import StorageError, iso, parse_iso
from bot.petition import find_phone
from bot.staff import Staff
from bot.web.api import BadRequest, may_call, read_json

MOST_IN_ONE, MAX_TURN_TEXT = 500, 4000
SPEAKERS = ("agent", "citizen")
_CALL_ID = re.compile(r"[A-Za-z0-9_.@-]{1,64}")


def create_blueprint(desk: CallDesk) -> Blueprint:
    blueprint = Blueprint("turns", __name__, url_prefix="/api/calls")
    staff = Staff(desk.services.engine, desk.services.now)

    @blueprint.before_request
    def check_caller() -> None:
        if not may_call(desk.services.settings.api_token):
            abort(401)

    @blueprint.errorhandler(BadRequest)
    def refuse(error: BadRequest) -> tuple[Response, int]:
        return jsonify(error=str(error)), error.status

    @blueprint.post("/<call_id>/turns")
    def take(call_id: str) -> tuple[Response, int] | Response:
        if not _CALL_ID.fullmatch(call_id):
            raise BadRequest("通话编号应为 1 到 64 个字母、数字或 _ . @ -")
        body = read_json()
        turns, ended = turns_in(body), body.get("ended", False)
        if not isinstance(ended, bool):
            raise BadRequest("ended 必须是 true 或 false")
        agent = _short_text(body, "agent", 40)
        known = agent if agent and staff.find(agent) else None
        caller = caller_number(_short_text(body, "caller", 40))
        try:
            call = desk.calls.take_turns(call_id, turns, caller=caller, username=known, ended=ended)
        except CallClosed as error:
            raise BadRequest(str(error), 413) from None
        except StorageError:
            return jsonify(error=APOLOGY_STORAGE), 503
        desk.heard(call)
        # An agent we do not know costs no words: the call waits for whoever takes it.
        return jsonify(call_id=call.id, state=call.state, version=call.version, turns=len(call.turns), agent=call.username)

    return blueprint


def turns_in(body: Mapping[str, Any]) -> list[NewTurn]:
    """Raises BadRequest naming what does not fit; then none of the turns is kept."""
    value = body.get("turns")
    if not isinstance(value, list) or len(value) > MOST_IN_ONE:
        raise BadRequest(f"turns 必须是不超过 {MOST_IN_ONE} 轮的列表")
    return [_turn(item) for item in value]


def _turn(item: Any) -> NewTurn:
    if not isinstance(item, dict) or item.get("speaker") not in SPEAKERS or not isinstance(item.get("text"), str):
        raise BadRequest('每一轮必须是 {"speaker": "agent" 或 "citizen", "text": 文本, "turn_id"?, "at"?}')
    if len(item["text"]) > MAX_TURN_TEXT:
        raise BadRequest(f"一轮最多 {MAX_TURN_TEXT} 个字", 413)
    text = item["text"].replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    turn_id = item.get("turn_id")
    if isinstance(turn_id, int) and not isinstance(turn_id, bool):
        turn_id = str(turn_id)
    if turn_id is not None and not (isinstance(turn_id, str) and 0 < len(turn_id) <= 64 and turn_id.isprintable()):
        raise BadRequest("turn_id 必须是 1 到 64 个字符的文本或数字")
    return NewTurn(item["speaker"], text, turn_id, _moment(item.get("at")))


def _moment(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return iso(parse_iso(value))
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise BadRequest("at 必须是带时区的 ISO 8601 时间，例如 2026-11-28T09:30:00+08:00") from None


def _short_text(body: Mapping[str, Any], name: str, limit: int) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise BadRequest(f"{name} 必须是不超过 {limit} 个字符的文本")
    return value.strip()


def caller_number(shown: str) -> str | None:
    """The number as digits; None where the telephone system shows none ("anonymous", a SIP name)."""
    return find_phone(re.sub(r"^(?:\+|00)86[\s-]?", "", shown))
