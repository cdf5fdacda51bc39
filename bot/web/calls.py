"""One call on the desk: its page, its state as it changes, what the agent sets, filing. What may be done is decided in bot/call_desk.py."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, request, url_for

from bot.call_desk import CallDesk, NotFiled
from bot.call_form import FormError
from bot.calls import CallClosed, CallNotFound
from bot.catalogue import REQUEST_TYPES, URGENCIES
from bot.tickets import TicketClosed, TicketNotFound
from bot.transcripts import turns_of_lines
from bot.web.desk import MAX_TRANSCRIPT, new_turns
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

WAIT_SECONDS = 20.0
MOST_SEEN = 2000
UNKNOWN = "没有这通电话，或者不归您办。"


def create_blueprint(desk: CallDesk) -> Blueprint:
    blueprint = staff_blueprint("call", __name__, url_prefix="/desk/calls")
    seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def note_reading(call_id: str) -> None:
        """Reading a call is written down once for each person, not once for every turn that arrives."""
        key = (current_member().username, call_id)
        if key not in seen:
            desk.get(call_id, current_member())
            audited("read_call", call_id)
            seen[key] = None
            while len(seen) > MOST_SEEN:
                seen.popitem(last=False)

    def route(rule: str, method: str = "POST") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A view of one call: for its agent and supervisors; what cannot be done is said in a sentence."""

        def register(view: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(view)
            @staff_required("agent")
            def answer(call_id: str) -> Any:
                try:
                    return view(call_id)
                except (CallNotFound, TicketNotFound):
                    abort(404, UNKNOWN)
                except FormError as error:
                    abort(422, str(error))
                except CallClosed as error:
                    abort(409, str(error))
                except TicketClosed:
                    abort(409, "那张工单已经办结，不能再并入或撤销，请改为单独登记。")

            blueprint.add_url_rule(f"/<call_id>{rule}", view.__name__, answer, methods=[method])
            return answer

        return register

    def state(call_id: str) -> Response:
        return jsonify(desk.view(desk.get(call_id, current_member()), current_member()))

    @route("", "GET")
    def page(call_id: str) -> str:
        call = desk.get(call_id, current_member())
        audited("read_call", call_id)
        seen[(current_member().username, call_id)] = None
        names = [desk.services.catalogue.department(role) for role in desk.services.catalogue.city["departments"]]
        choices = {"request_types": REQUEST_TYPES, "urgencies": URGENCIES, "departments": names}
        return render_template("desk/call.html", page="desk", call=call, **choices)

    @route("/state", "GET")
    def show_state(call_id: str) -> Response:
        note_reading(call_id)
        found = desk.wait(call_id, current_member(), request.args.get("have", ""), WAIT_SECONDS if "have" in request.args else 0.0)
        return jsonify(found or {"same": True})

    @route("/aside", "GET")
    def show_aside(call_id: str) -> Response:
        note_reading(call_id)
        return jsonify(desk.look_aside(call_id, request.args.get("form", 0, type=int), current_member()))

    @route("/form")
    def set_field(call_id: str) -> Response:
        body = _body()
        name, release = str(body.get("field")), body.get("release") is True
        desk.set_field(call_id, _number(body), name, body.get("value"), current_member(), release=release)
        return state(call_id)

    @route("/appeals")
    def set_appeals(call_id: str) -> Response:
        count = _body().get("count")
        desk.set_appeals(call_id, count if isinstance(count, int) and not isinstance(count, bool) else None, current_member())
        return state(call_id)

    @route("/relation")
    def set_relation(call_id: str) -> Response:
        body = _body()
        desk.set_relation(call_id, _number(body), body.get("kind"), body.get("number"), current_member())
        return state(call_id)

    @route("/turns")
    def add_turns(call_id: str) -> Response:
        """What the agent types or pastes into a call under way; a line without a name is the caller's."""
        text = _body().get("text")
        if not isinstance(text, str) or not text.strip():
            abort(400, "还没有写内容。")
        if len(text) > MAX_TRANSCRIPT:
            abort(413, "一次贴得太多，请分几次。")
        desk.add_turns(call_id, new_turns(turns_of_lines(text)), current_member())
        return state(call_id)

    @route("/take")
    def take(call_id: str) -> Response:
        desk.get(call_id, current_member())
        if not desk.calls.take(call_id, current_member().username):
            abort(409, "这通电话刚被同事接手。")
        audited("take_call", call_id)
        return state(call_id)

    @route("/file")
    def file(call_id: str) -> tuple[Response, int] | Response:
        try:
            numbers = desk.file(call_id, _forms(_body()), current_member())
        except NotFiled as refused:
            problems = [{"form": number, "field": problem.field, "text": problem.text} for number, problem in refused.problems]
            return jsonify(error="".join(problem.text for _, problem in refused.problems) or "没有可登记的内容。", problems=problems), 422
        for number in numbers:
            audited("file_ticket", number, call_id)
        return jsonify(numbers=numbers, state=desk.view(desk.get(call_id, current_member()), current_member()))

    @route("/undo")
    def undo(call_id: str) -> Response:
        number = desk.undo(call_id, _number(_body()), current_member())
        audited("undo_merge", number, call_id)
        return state(call_id)

    @route("/drop")
    def drop(call_id: str) -> Response:
        desk.drop(call_id, current_member())
        audited("drop_call", call_id)
        return jsonify(url=url_for("desk.calls"))

    return blueprint


def _body() -> Mapping[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        abort(400, "请求应为 JSON 对象。")
    return body


def _number(body: Mapping[str, Any]) -> int:
    number = body.get("form", 0)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        abort(400, "form 应为第几件（从 0 数起）。")
    return number


def _forms(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    forms = body.get("forms")
    fits = isinstance(forms, list) and all(
        isinstance(form, dict) and isinstance(form.get("values"), dict) and isinstance(form.get("touched"), list) for form in forms
    )
    if not fits or not isinstance(forms, list):
        abort(400, "forms 应为每件的 values 和 touched。")
    return forms
