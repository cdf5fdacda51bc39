"""Conversations on the desk: who waits for a person, the talk itself, the form beside it. What they may be asked is bot/handover*.py's.

The page polls: a list every few seconds, the open conversation more often. Only opening a conversation is written into the audit,
not every look at what is new in it.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, request, send_file
from sqlalchemy import select

from bot.access import Access
from bot.assistant import Assistant
from bot.catalogue import REQUEST_TYPES, URGENCIES
from bot.conversation import message_of
from bot.db import iso, reading
from bot.handover import MAX_TEXT, Handover, NotYours
from bot.handover_form import HandoverForm
from bot.history import read_history
from bot.petition import mask
from bot.schema import attachments, conversations, inbound_messages
from bot.services import Services
from bot.ticket_desk import Refused
from bot.web.staff import audited, current_member, staff_blueprint, staff_required

UNKNOWN = "没有这个会话。"
CHANNELS = {"wechat": "微信", "web": "网页", "api": "接口"}
FIRST_ITEMS, POLL_ITEMS, MOST_ITEMS = 100, 30, 3000
_LAST_WORDS = 40


@dataclass(frozen=True)
class ChatPages:
    services: Services
    assistant: Assistant

    def access(self) -> Access:
        return Access(self.services, current_member())

    # -- pages ----------------------------------------------------------------------------------------------------

    def page(self, conversation_id: str = "") -> str:
        if conversation_id:
            self._readable(conversation_id)
            audited("read_chat", conversation_id)
        catalogue = self.services.catalogue
        return render_template(
            "desk/chats.html",
            page="chats",
            chosen=conversation_id,
            max_text=MAX_TEXT,
            patience=self.services.settings.handover_minutes,
            categories=[(code, "/".join(one.path)) for code, one in catalogue.categories.items()],
            request_types=REQUEST_TYPES,
            urgencies=URGENCIES,
        )

    # -- what the page asks ---------------------------------------------------------------------------------------

    def waiting(self) -> Response:
        access = self.access()
        found = self.services.handovers.list_open()
        readable = access.readable_conversations([handover.conversation_id for handover in found])
        shown = [self._row(handover) for handover in found if handover.conversation_id in readable]
        return jsonify(chats=shown, now=iso(self.services.now()))

    def _row(self, handover: Handover) -> dict[str, Any]:
        return {**self._state(handover), "last_words": self._last_words(handover.conversation_id)}

    def _state(self, handover: Handover) -> dict[str, Any]:
        return {
            "id": handover.conversation_id,
            "channel": CHANNELS.get(handover.channel, handover.channel),
            "reason": handover.reason,
            "reason_label": handover.reason_label,
            "opened_at": iso(handover.opened_at),
            "holder": handover.holder,
            "mine": handover.username == current_member().username,
            "waits_since": iso(handover.waits_since) if handover.waits_since else None,
        }

    def _last_words(self, conversation_id: str) -> str:
        last = select(inbound_messages).where(inbound_messages.c.conversation_id == conversation_id).order_by(inbound_messages.c.id.desc())
        with reading(self.services.engine) as connection:
            row = connection.execute(last.limit(1)).first()
        if row is None:
            return ""
        message = message_of(self.services, row)
        return mask(message.text)[:_LAST_WORDS] or {"picture": "［照片］", "location": "［位置］"}.get(message.kind, "")

    def messages(self, conversation_id: str) -> Response:
        """The newest of the talk, its form and who has it; `all=1` for all of the past."""
        self._readable(conversation_id)
        limit = MOST_ITEMS if request.args.get("all") else POLL_ITEMS if request.args.get("after") else FIRST_ITEMS
        items = read_history(self.services, conversation_id, limit=limit)
        handover = self.services.handovers.find(conversation_id)
        with reading(self.services.engine) as connection:
            channel = connection.execute(select(conversations.c.channel).where(conversations.c.id == conversation_id)).scalar_one()
        return jsonify(
            items=[asdict(item) for item in items],
            more=len(items) >= limit and limit < MOST_ITEMS,
            chat=self._state(handover) if handover else None,
            pushed=channel == "wechat",
            form=self._form(conversation_id).read(),
            now=iso(self.services.now()),
        )

    def picture(self, conversation_id: str, picture_id: str) -> Response:
        self._readable(conversation_id)
        mine = attachments.c.id == picture_id, attachments.c.conversation_id == conversation_id
        with reading(self.services.engine) as connection:
            row = connection.execute(select(attachments.c.id, attachments.c.media_type).where(*mine)).first()
        path = self.services.settings.attachments_dir / f"{row.id}.jpg" if row else None
        if row is None or path is None or not path.is_file():
            abort(404, "没有这张照片。")
        return send_file(path, mimetype=row.media_type)

    # -- what the person does -------------------------------------------------------------------------------------

    def take(self, conversation_id: str) -> tuple[Response, int]:
        return self._act(conversation_id, "take_chat", lambda _body: self.services.handovers.take(conversation_id, current_member()))

    def write(self, conversation_id: str) -> tuple[Response, int]:
        def say(body: dict[str, Any]) -> None:
            text = str(body.get("text") or "").strip()
            if not text:
                raise Refused("还没有写内容。")
            if len(text) > MAX_TEXT:
                raise Refused(f"一次最多写 {MAX_TEXT} 个字。")
            self.services.handovers.write(conversation_id, current_member(), text)

        return self._act(conversation_id, "write_chat", say)

    def save(self, conversation_id: str) -> tuple[Response, int]:
        return self._act(conversation_id, "", lambda body: self._form(conversation_id).save(str(body.pop("id", "")), body))

    def quote(self, conversation_id: str) -> tuple[Response, int]:
        def add(body: dict[str, Any]) -> None:
            found = re.fullmatch(r"r([0-9]{1,15})", str(body.get("message") or ""))
            if not found:
                raise Refused("这一条不能引用。")
            self._form(conversation_id).quote(int(found.group(1)))

        return self._act(conversation_id, "", add)

    def start(self, conversation_id: str) -> tuple[Response, int]:
        return self._act(conversation_id, "", lambda _body: self._form(conversation_id).start())

    def file(self, conversation_id: str) -> tuple[Response, int]:
        def make(body: dict[str, Any]) -> dict[str, str]:
            return {"number": self._form(conversation_id).file(str(body.get("id") or "")).number}

        return self._act(conversation_id, "file_chat", make)

    def give_back(self, conversation_id: str) -> tuple[Response, int]:
        return self._act(conversation_id, "give_back_chat", lambda _body: self._form(conversation_id).give_back())

    def close(self, conversation_id: str) -> tuple[Response, int]:
        return self._act(conversation_id, "close_chat", lambda _body: self.services.handovers.close(conversation_id, current_member()))

    def dismiss(self, conversation_id: str) -> tuple[Response, int]:
        def leave(_body: dict[str, Any]) -> None:
            if not self.services.handovers.dismiss(conversation_id):
                raise NotYours("同事刚刚接了这个会话。")

        return self._act(conversation_id, "dismiss_chat", leave)

    def _act(self, conversation_id: str, action: str, do: Callable[[dict[str, Any]], Any]) -> tuple[Response, int]:
        self._readable(conversation_id)
        body = request.get_json(silent=True) or {}
        if not isinstance(body, dict):
            abort(400, "请求应为 JSON 对象。")
        if action:
            audited(action, conversation_id)
        try:
            return jsonify(do(dict(body)) or {}), 200
        except NotYours as refused:
            return jsonify(error=str(refused)), 409
        except Refused as refused:
            return jsonify(error=str(refused)), 400

    def _form(self, conversation_id: str) -> HandoverForm:
        return HandoverForm(self.access(), conversation_id, self.assistant)

    def _readable(self, conversation_id: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{32}", conversation_id) or not self.access().may_read_conversation(conversation_id):
            abort(404, UNKNOWN)


def create_blueprint(services: Services, assistant: Assistant) -> Blueprint:
    pages, agent = ChatPages(services, assistant), staff_required("agent")
    blueprint = staff_blueprint("chats", __name__, url_prefix="/desk/chats")
    rules: dict[str, tuple[str, Callable[..., Any], str]] = {
        "": ("index", pages.page, "GET"),
        "/waiting": ("waiting", pages.waiting, "GET"),
        "/<conversation_id>": ("show", pages.page, "GET"),
        "/<conversation_id>/messages": ("messages", pages.messages, "GET"),
        "/<conversation_id>/pictures/<picture_id>": ("picture", pages.picture, "GET"),
        "/<conversation_id>/take": ("take", pages.take, "POST"),
        "/<conversation_id>/write": ("write", pages.write, "POST"),
        "/<conversation_id>/form": ("save", pages.save, "POST"),
        "/<conversation_id>/quote": ("quote", pages.quote, "POST"),
        "/<conversation_id>/start": ("start", pages.start, "POST"),
        "/<conversation_id>/file": ("file", pages.file, "POST"),
        "/<conversation_id>/give-back": ("give_back", pages.give_back, "POST"),
        "/<conversation_id>/close": ("close", pages.close, "POST"),
        "/<conversation_id>/dismiss": ("dismiss", pages.dismiss, "POST"),
    }
    for rule, (endpoint, view, method) in rules.items():
        blueprint.add_url_rule(rule, endpoint, agent(view), methods=[method])
    return blueprint
