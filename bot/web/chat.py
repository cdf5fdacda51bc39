"""The residents' chat page: browser cookie, messages, pictures. Knows HTTP and files, nothing of dialogue.

Register the blueprint exempt from Flask-WTF's form token: its POSTs come from script and are guarded by _refuse_foreign().
"""
from __future__ import annotations

import hashlib
import logging
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, abort, jsonify, make_response, render_template, request, send_file, session
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from bot.conversation import APOLOGY_STORAGE, MAX_TEXT, TOO_FAST, Conversations, InboundMessage
from bot.db import StorageError, iso, parse_iso, reading, transaction
from bot.history import HistoryItem, read_history
from bot.pictures import MAX_PICTURE_BYTES, BadPicture, clean_picture, write_file
from bot.schema import attachments
from bot.services import Services
from bot.web import add_page_headers, policy_with_scripts_of
from bot.web.wechat_login import inside_wechat
from bot.wechat import Media
from bot.wechat_http import WeChatError
from bot.wechat_media import MediaKeeper
from bot.wechat_pages import WeChatPages

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 128 * 1024
MAX_LABEL = 120
MAX_SCENE = 64
MAX_URL = 2048
SCANNED = "（扫了二维码）"  # the resident's own bubble
EXAMPLES = ("路灯坏了", "查进度", "怎么办老年优待证", "我要提建议")
# A poll repeats this much, because news is dated when written but seen when committed; the page drops what it has.
POLL_OVERLAP = timedelta(minutes=2)
POLL_TURNS, FIRST_TURNS = 20, 60

_MESSAGE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_MEDIA_ID = re.compile(r"[\x21-\x7e]{1,300}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class ChatPages:
    services: Services
    conversations: Conversations
    limiter_check: Callable[[str], bool]
    wechat: WeChatPages
    media: MediaKeeper

    # -- pages ----------------------------------------------------------------------------------------------------

    def home(self) -> str:
        return render_template("home.html", city=self.services.catalogue.city["name"], sandbox=self.services.settings.sandbox)

    def page(self) -> Response:
        _browser()
        scanned = request.args.get("scene", "")
        city, settings = self.services.catalogue.city, self.services.settings
        jssdk = settings.wechat_jssdk_url if settings.pages_in_wechat and inside_wechat() else ""
        page = render_template(
            "chat.html",
            city=city["name"],
            assistant=city.get("assistant", "小民"),
            base_url=settings.base_url,
            examples=EXAMPLES,
            max_text=MAX_TEXT,
            scene=scanned if scanned in self.services.catalogue.scenes else "",
            jssdk=jssdk,
        )
        response = make_response(page)
        if jssdk:
            response.headers["Content-Security-Policy"] = policy_with_scripts_of(jssdk)
        return response

    # -- messages -------------------------------------------------------------------------------------------------

    def messages(self) -> Response:
        """Everything after (and a little before) the item the page has; all of the recent past when it names none."""
        after = request.args.get("after", "")
        items = read_history(self.services, self._conversation(), limit=POLL_TURNS if after else FIRST_TURNS)
        known = next((item for item in items if item.id == after), None)
        if known is not None:
            since = iso(parse_iso(known.at) - POLL_OVERLAP)
            items = [item for item in items if item.at >= since and item.id != after]
        return jsonify(items=[asdict(item) for item in items], person=self._person())

    def send(self) -> tuple[Response, int]:
        _refuse_foreign(self.services)
        request.max_content_length = MAX_JSON_BYTES
        body = request.get_json(silent=True)
        if not isinstance(body, dict):
            abort(400, "请求应为 JSON 对象。")
        message = _message_from(body, _browser())
        if not self.limiter_check(message.sender):
            return _bubble(TOO_FAST), 429
        return self._respond(message)

    def _respond(self, message: InboundMessage) -> tuple[Response, int]:
        try:
            receipt = self.conversations.receive(message)
            reply = receipt.reply or self.conversations.answer(receipt)
            kept = [item for item in self._history() if item.id == f"r{receipt.row_id}" or item.id.startswith(f"b{receipt.row_id}.")]
        except StorageError:
            return _bubble(APOLOGY_STORAGE), 503
        said = next((item for item in kept if item.sender == "resident"), None)
        user_item = {"id": f"r{receipt.row_id}", "at": said.at if said else iso(self.services.now())}
        # `items` are the answers as history will show them. A passing apology is only in `messages`: the true answer may follow.
        items = [asdict(item) for item in kept if item.sender == "bot"]
        return jsonify(**reply.as_dict(), user_item=user_item, items=items, person=self._person()), 200

    # -- pictures -------------------------------------------------------------------------------------------------

    def upload(self) -> tuple[Response, int]:
        _refuse_foreign(self.services)
        request.max_content_length = MAX_PICTURE_BYTES + MAX_JSON_BYTES
        upload, sender = request.files.get("picture"), _browser()
        message_id = _message_id(request.form.get("message_id"))
        if upload is None:
            abort(400, "没有收到照片，请重新选择。")
        if not self.limiter_check(sender):
            return _bubble(TOO_FAST), 429
        data = upload.stream.read(MAX_PICTURE_BYTES + 1)
        if len(data) > MAX_PICTURE_BYTES:
            abort(413, "这张照片超过 10 MB，请换一张小一点的。")
        try:
            picture_id = self._keep_picture(clean_picture(data), message_id)
        except BadPicture as error:
            abort(400, str(error))
        except (StorageError, OSError):  # the disk may be full for the file as well as for the row
            return _bubble(APOLOGY_STORAGE), 503
        return self._respond(InboundMessage("web", sender, message_id, kind="picture", attachment=picture_id))

    def _keep_picture(self, jpeg: bytes, message_id: str) -> str:
        """Never a row without its file; the same message keeps one picture however often it is sent."""
        conversation_id = self._conversation()
        picture_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{conversation_id}:{message_id}"))
        try:
            with transaction(self.services.engine) as connection:
                connection.execute(
                    attachments.insert().values(
                        id=picture_id,
                        conversation_id=conversation_id,
                        media_type="image/jpeg",
                        size=len(jpeg),
                        sha256=hashlib.sha256(jpeg).hexdigest(),
                        created_at=iso(self.services.now()),
                    )
                )
                write_file(self._path(picture_id), jpeg)
        except IntegrityError:  # sent before
            pass
        return picture_id

    def picture(self, picture_id: uuid.UUID) -> Response:
        with reading(self.services.engine) as connection:
            row = connection.execute(
                select(attachments.c.id, attachments.c.media_type).where(
                    attachments.c.id == str(picture_id), attachments.c.conversation_id == self._conversation()
                )
            ).first()
        if row is None or not self._path(row.id).is_file():
            abort(404, "没有这张照片。")
        response = send_file(self._path(row.id), mimetype=row.media_type, max_age=86400)
        response.headers["Cache-Control"] = "private, max-age=86400"
        return response

    def _path(self, picture_id: str) -> Path:
        return self.services.settings.attachments_dir / f"{picture_id}.jpg"

    # -- inside WeChat --------------------------------------------------------------------------------------------

    def sign(self) -> tuple[Response, int]:
        """What the page configures the JS-SDK with, for its own address as the browser has it."""
        url = request.args.get("url", "")
        if not self._is_this_page(url):
            abort(400, "只给对话页面签名。")
        try:
            return jsonify(self.wechat.sign(url)), 200
        except WeChatError as error:  # the page goes on without it
            logger.warning("no signature for the JS-SDK: %s", error)
            return jsonify(error="暂时连不上微信。"), 503

    def _is_this_page(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        ours = urlsplit(self.services.settings.base_url)
        return len(url) <= MAX_URL and (parts.scheme, parts.netloc, parts.path) == (ours.scheme, ours.netloc, f"{ours.path}/chat")

    def take_wechat_picture(self) -> tuple[Response, int]:
        """A picture that the resident's WeChat gave to the platform: fetched from there like those sent to the account."""
        _refuse_foreign(self.services)
        request.max_content_length = MAX_JSON_BYTES
        body, sender = request.get_json(silent=True), _browser()
        media_id = body.get("media_id") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(media_id, str) or not _MEDIA_ID.fullmatch(media_id):
            abort(400, "没有收到照片，请重新选择。")
        message = InboundMessage("web", sender, _message_id(body.get("message_id")), kind="picture")
        if not self.limiter_check(sender):
            return _bubble(TOO_FAST), 429
        try:
            picture_id = self.media.note_attachment(self._conversation(), message, Media("picture", media_id))
        except StorageError:
            return _bubble(APOLOGY_STORAGE), 503
        return self._respond(replace(message, attachment=picture_id))

    # -- who is talking -------------------------------------------------------------------------------------------

    def _conversation(self) -> str:
        return self.conversations.conversation_id("web", _browser())

    def _person(self) -> str | None:
        """Who of the staff is talking with this browser."""
        handover = self.services.handovers.find(self._conversation())
        return handover.holder if handover else None

    def _history(self) -> list[HistoryItem]:
        return read_history(self.services, self._conversation(), limit=POLL_TURNS)


def create_blueprint(
    services: Services, conversations: Conversations, *, limiter_check: Callable[[str], bool], wechat: WeChatPages, media: MediaKeeper
) -> Blueprint:
    """`limiter_check(sender)` is False when this browser has to wait."""
    pages = ChatPages(services, conversations, limiter_check, wechat, media)
    blueprint = Blueprint("chat", __name__)
    blueprint.add_url_rule("/", "home", pages.home)
    blueprint.add_url_rule("/chat", "page", pages.page)
    blueprint.add_url_rule("/chat/messages", "messages", pages.messages)
    blueprint.add_url_rule("/chat/messages", "send", pages.send, methods=["POST"])
    blueprint.add_url_rule("/chat/pictures", "upload", pages.upload, methods=["POST"])
    if services.settings.pages_in_wechat:
        blueprint.add_url_rule("/chat/wechat", "sign", pages.sign)
        blueprint.add_url_rule("/chat/wechat/pictures", "take_wechat_picture", pages.take_wechat_picture, methods=["POST"])
    blueprint.add_url_rule("/chat/pictures/<uuid:picture_id>", "picture", pages.picture)
    blueprint.after_request(add_page_headers)
    return blueprint


def _message_from(body: Mapping[str, Any], sender: str) -> InboundMessage:
    text, kind = body.get("text", ""), body.get("kind")
    if not isinstance(text, str):
        abort(400, "text 应为文字。")
    text = _clean(text)
    if len(text) > MAX_TEXT:
        abort(413, f"一次最多说 {MAX_TEXT} 个字，请分成几条发给我。")
    location = _location(body["location"]) if body.get("location") is not None else None
    if kind is None:
        kind = "location" if location and not text else "text"
    if kind not in ("text", "location", "scene"):
        abort(400, "kind 应为 text、location 或 scene。")
    if kind == "scene":
        return InboundMessage("web", sender, _message_id(body.get("message_id")), SCANNED, "scene", scene=_scene(body.get("scene")))
    if kind == "location" and location is None:
        abort(400, "没有收到位置，请打字告诉我在哪里。")
    if kind == "location" and location is not None and not text:
        text = _spoken(location)
    if not text:
        abort(400, "还没有写内容，说点什么吧。")
    return InboundMessage("web", sender, _message_id(body.get("message_id")), text, kind, location=location)


def _location(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        abort(400, "location 应含 lat 和 lng。")
    lat, lng, label = value.get("lat"), value.get("lng"), value.get("label") or ""
    if not (_within(lat, 90) and _within(lng, 180) and isinstance(label, str)):
        abort(400, "位置不对：lat 应在 -90 到 90 之间，lng 应在 -180 到 180 之间。")
    return {"lat": lat, "lng": lng, "label": _clean(label)[:MAX_LABEL]}


def _scene(value: Any) -> str:
    """What is in a code is only looked up; an unknown one is welcomed all the same."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_SCENE or _CONTROL.search(value):
        abort(400, f"scene 应为 1 到 {MAX_SCENE} 个字符。")
    return value


def _within(value: Any, limit: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -limit <= value <= limit


def _spoken(location: Mapping[str, Any]) -> str:
    """What the resident's own bubble shows for a shared place."""
    return "位置：" + (location["label"] or f"北纬 {location['lat']:.5f}，东经 {location['lng']:.5f}")


def _message_id(value: Any) -> str:
    if not isinstance(value, str) or not _MESSAGE_ID.fullmatch(value):
        abort(400, "message_id 应为 1 到 100 个字母、数字或 _ . : -。")
    return value


def _clean(text: str) -> str:
    """Without control characters and lone surrogates, which no keyboard sends and no database keeps."""
    return _CONTROL.sub("", text.replace("\r\n", "\n")).strip()


def _browser() -> str:
    """The random name of this browser, kept in the signed session cookie."""
    if "browser" not in session:
        session.permanent = True
        session["browser"] = secrets.token_urlsafe(24)
    return str(session["browser"])


def _refuse_foreign(services: Services) -> None:
    """Only this site's own script may speak for the resident: other sites can set neither this header nor this Origin."""
    origin = urlsplit(request.headers.get("Origin", "")).netloc
    ours = origin and origin in (request.host, urlsplit(services.settings.base_url).netloc)
    if not ours or request.headers.get("X-Requested-With") != "minsheng":
        abort(403, "请在对话页面里发送。")


def _bubble(text: str) -> Response:
    return jsonify(error=text, messages=[{"text": text, "buttons": []}], tickets=[])
