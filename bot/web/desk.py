"""The desk's first page: calls that wait or are under way, the next one, and calls that an agent brings (pasted, a file, blank)."""
from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, request, url_for
from pypinyin import Style, lazy_pinyin
from werkzeug.datastructures import FileStorage

from bot.call_desk import CallDesk
from bot.call_view import ORIGINS
from bot.calls import NewTurn, PhoneCall
from bot.catalogue import Catalogue
from bot.db import iso, parse_iso
from bot.petition import mask
from bot.ticket import CHINA
from bot.transcripts import FILES, TranscriptError, read_transcript, turns_of_lines
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

MAX_TRANSCRIPT, MAX_FILE = 100_000, 2 * 1024 * 1024
MAX_TURN_TEXT = 4000
FIRST_WORDS = 40


def create_blueprint(desk: CallDesk) -> Blueprint:
    blueprint = staff_blueprint("desk", __name__, url_prefix="/desk")
    catalogue = desk.services.catalogue
    kept: list[Any] = [None, []]  # the categories as they were last, and their index: the city may change them

    @blueprint.get("")
    @staff_required("agent")
    def calls() -> str:
        return render_template("desk/calls.html", page="desk", files=",".join(FILES), **listing(desk))

    @blueprint.get("/queue")
    @staff_required("agent")
    def queue() -> Response:
        return jsonify(listing(desk))

    @blueprint.post("/next")
    @staff_required("agent")
    def take_next() -> Response:
        call_id = desk.take_next(current_member().username)
        return jsonify(url=url_for("call.page", call_id=call_id) if call_id else None)

    @blueprint.post("/calls")
    @staff_required("agent")
    def bring() -> tuple[Response, int]:
        upload = request.files.get("file")
        turns, origin = (_uploaded(upload), "uploaded") if upload else _pasted(request.get_json(silent=True))
        username = current_member().username
        call = desk.calls.open(turns, username=username, origin=origin)
        audited("open_call", call.id, origin)
        desk.heard(call)
        return jsonify(url=url_for("call.page", call_id=call.id)), 201

    @blueprint.get("/categories.json")
    @staff_required("agent")
    def categories() -> Response:
        if kept[0] is not catalogue.categories:
            kept[:] = catalogue.categories, _category_index(catalogue)
        response = jsonify(kept[1])
        response.headers["Cache-Control"] = "private, max-age=300"
        return response

    return blueprint


def listing(desk: CallDesk) -> dict[str, Any]:
    """Whose calls these are shows in the list; the caller only with a masked number and masked first words. Emergencies come first."""
    member = current_member()
    found = desk.calls.list_open(None if member.is_at_least("supervisor") else member.username)
    rows = [_row(call, member.username, desk) for call in found]
    rows.sort(key=lambda row: not row["urgent"])  # the others stay in the order they came
    midnight = desk.services.now().astimezone(CHINA).replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "waiting": [row for row in rows if row["owner"] == ""],
        "mine": [row for row in rows if row["owner"] == "mine"],
        "others": [row for row in rows if row["owner"] not in ("", "mine")],
        "filed_today": desk.calls.count_filed(member.username, iso(midnight)),
    }


def _row(call: PhoneCall, username: str, desk: CallDesk) -> dict[str, Any]:
    said = next((turn.text for turn in call.turns if turn.speaker == "citizen" and len(turn.text) > 6), "")
    mine = call.username in (None, username)
    words = mask(said.replace("\n", " ")) if mine else "（同事在办）"  # who oversees it reads it there, and that is written down
    return {
        "id": call.id,
        "url": url_for("call.page", call_id=call.id),
        "owner": "mine" if call.username == username else call.username or "",
        "origin": ORIGINS.get(call.origin, call.origin),
        "state": "已挂断" if call.ended_at else "通话中",
        "live": call.ended_at is None,
        "urgent": mine and desk.is_emergency(call),
        "caller": f"{call.caller[:3]}****{call.caller[-4:]}" if call.caller else "未显示",
        "started": (parse_iso(call.created_at) + timedelta(hours=8)).strftime("%H:%M"),
        "turns": len(call.turns),
        "words": words[:FIRST_WORDS] + ("…" if len(words) > FIRST_WORDS else ""),
    }


def _pasted(body: Any) -> tuple[list[NewTurn], str]:
    text = body.get("text", "") if isinstance(body, dict) else None
    if not isinstance(text, str):
        abort(400, "请求应为 JSON 对象，text 是文字。")
    if len(text) > MAX_TRANSCRIPT:
        abort(413, f"文字太长，最多 {MAX_TRANSCRIPT // 10_000} 万字。")
    return new_turns(turns_of_lines(text)), "pasted" if text.strip() else "blank"


def _uploaded(upload: FileStorage) -> list[NewTurn]:
    data = upload.stream.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        abort(413, "文件太大，最多 2 MB。")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"call{Path(upload.filename or '').suffix.lower()[:8]}"
        path.write_bytes(data)
        try:
            return new_turns(read_transcript(path))
        except TranscriptError as error:
            abort(400, str(error))


def new_turns(turns: Sequence[Mapping[str, str]]) -> list[NewTurn]:
    return [NewTurn(turn["speaker"], turn["text"][:MAX_TURN_TEXT].replace("\x00", "")) for turn in turns]


def _category_index(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Every leaf with its initials: 村务公开 is found by cwgk, by 公开 and by its code."""
    leaves = sorted(catalogue.categories.values(), key=lambda category: category.code)
    return [{"code": leaf.code, "path": list(leaf.path), "initials": [_initials(name) for name in leaf.path]} for leaf in leaves]


def _initials(name: str) -> str:
    return "".join(lazy_pinyin(name, style=Style.FIRST_LETTER)).lower()


