"""The WeChat official account's protocol: verify, decrypt, read and render messages. XML and wechatpy stop here; knows no Flask.

wechatpy does the AES and writes reply elements; signatures, error handling and escaping are ours, because in wechatpy 1.8.18
they are unsafe (docs/wechat.md). What the platform's API offers beside the callback is in bot/wechat_api.py.
"""
from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import xmltodict
from wechatpy.crypto import PrpCrypto, WeChatCrypto
from wechatpy.replies import TextReply

from bot.conversation import MAX_TEXT, InboundMessage
from bot.services import utc_now
from bot.settings import PREFIX, Settings, SettingsError
from bot.wechat_http import WeChatError
from bot.wechat_text import clean

SUCCESS = "success"  # stops the platform's retries; never encrypted, else the resident sees "服务出现故障"
MAX_BODY = 64 * 1024
# Retries of one message come with a fresh signature; this only has to cover clocks that are a little off.
CLOCK_TOLERANCE = timedelta(minutes=10)

GREETING = "你好"
UNSUPPORTED = "这种消息暂时看不了。请打字说明情况，也可以发图片、视频或位置。"
LINK = "收到您转来的链接{title}。我打不开网页，请把想反映的事打字告诉我，也可以发截图。"
_FILE_PLACEHOLDER = "【收到不支持的消息类型，暂无法显示】"  # what the platform sends as text in place of a file

_ROOT = re.compile(r"\s*(?:<\?xml[^>]*\?>\s*)?<xml[\s>]")  # nothing else before the root: no DOCTYPE, no comment


@dataclass(frozen=True)
class Media:
    """Something to be fetched from the platform within three days."""

    kind: str  # picture | video | voice
    media_id: str


@dataclass(frozen=True)
class Notification:
    """Something that happened and needs no answer. `details` are words of the platform, never of the resident."""

    name: str  # unsubscribe | revoke | cancel | position | subscriptions | send_result | desk_session
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Incoming:
    """A verified request: a message for the conversation, or a fixed answer, or neither (answer `success`).

    `grants` says what the platform allows us for it: "message" (5 messages in 48 hours), "tap" (3 in a minute), or nothing.
    """

    account: str
    openid: str
    message: InboundMessage | None = None
    fixed: str = ""
    media: Media | None = None
    notification: Notification | None = None
    grants: str = ""
    menu_id: str = ""  # of the msgmenu item that was tapped
    crypto: Any = None  # the AES key that fitted; the reply uses the same one


class WeChatCodec:
    """Requests in, replies out, in plaintext or (when WECHAT_AES_KEY is set, then exclusively) in AES mode."""

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], datetime] = utc_now,
        salt: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._token, self._app_id = settings.wechat_token, settings.wechat_app_id
        self._now, self._salt = now, salt
        keys = (settings.wechat_aes_key, settings.wechat_aes_key_previous) if settings.wechat_aes_key else ()
        self.cryptos = [self._crypto(key) for key in keys if key]

    def _crypto(self, key: str) -> Any:
        try:
            return WeChatCrypto(self._token, key, self._app_id)
        except (AssertionError, ValueError):
            raise SettingsError(f"{PREFIX}WECHAT_AES_KEY is not an EncodingAESKey") from None

    def verify_url(self, args: Mapping[str, str]) -> str:
        """The echostr to answer when the account's console checks our address. Raises WeChatError."""
        self._check_signature(args, args.get("signature", ""))
        return args.get("echostr", "")

    def open_request(self, args: Mapping[str, str], body: bytes) -> Incoming:
        """A verified, decrypted and read message. Raises WeChatError for everything that is not one."""
        if len(body) > MAX_BODY:
            raise WeChatError("body too large")
        fields = _fields(_utf8(body))
        if not self.cryptos:
            self._check_signature(args, args.get("signature", ""))
            return read_message(fields)
        # In AES mode `signature` does not cover the body; only msg_signature counts, and plain elements are not looked at.
        encrypted = _need(fields, "Encrypt")
        self._check_signature(args, args.get("msg_signature", ""), encrypted)
        text, crypto = self.decrypt(encrypted)
        incoming = read_message(_fields(text), crypto=crypto)
        if fields.get("ToUserName", incoming.account) != incoming.account:
            raise WeChatError("envelope for another account")
        return incoming

    def render(self, incoming: Incoming, text: str) -> str:
        """The body of the HTTP answer that says `text`; SUCCESS when there is nothing to say. Raises WeChatError."""
        text = clean(text).strip()
        if not text:
            return SUCCESS
        now = int(self._now().timestamp())
        reply = TextReply(source=_cdata(incoming.account), target=_cdata(incoming.openid), content=_cdata(text), time=now)
        xml = str(reply.render())
        said = _fields(xml)  # a malformed reply would be shown as a fault of the whole service
        if (said.get("Content"), said.get("ToUserName")) != (text, incoming.openid):
            raise WeChatError("reply does not survive XML")
        return self.encrypt(incoming.crypto, xml, timestamp=str(now), nonce=self._salt()) if incoming.crypto else xml

    def encrypt(self, crypto: Any, text: str, *, timestamp: str, nonce: str) -> str:
        return str(crypto._encrypt_message(text, nonce, timestamp, self._cipher))

    def decrypt(self, encrypted: str) -> tuple[str, Any]:
        """The text inside and the key that fitted. Raises WeChatError, also when it was meant for another app id."""
        for crypto in self.cryptos:
            try:
                return str(self._cipher(crypto.key).decrypt(encrypted, self._app_id)), crypto
            except Exception:  # noqa: S112  wrong keys surface as struct.error, UnicodeDecodeError, IndexError, binascii.Error …
                continue
        raise WeChatError("cannot be decrypted")

    def _cipher(self, key: bytes) -> Any:
        cipher = PrpCrypto(key)
        # The IV is fixed by the protocol, so this prefix is all the randomness there is; wechatpy's is predictable.
        cipher.get_random_string = self._salt
        return cipher

    def _check_signature(self, args: Mapping[str, str], given: str, *signed: str) -> None:
        timestamp, nonce = args.get("timestamp", ""), args.get("nonce", "")
        if not self._token:
            raise WeChatError("no WECHAT_TOKEN configured")
        expected = signature_of(self._token, timestamp, nonce, *signed)
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            raise WeChatError("wrong signature")
        if not re.fullmatch(r"\d{1,12}", timestamp) or abs(self._now().timestamp() - int(timestamp)) > CLOCK_TOLERANCE.total_seconds():
            raise WeChatError("timestamp too far away")


def signature_of(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode("utf-8", "replace")).hexdigest()


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Content:
    """What a reader finds: fields of an InboundMessage, or a fixed answer, or nothing to be said."""

    message: Mapping[str, Any] | None = None
    fixed: str = ""
    media: Media | None = None
    notification: Notification | None = None
    grants: str = "message"


Fields = Mapping[str, Any]  # text elements as str; nested ones, which only some events have, as dict or list


def read_message(fields: Fields, *, crypto: Any = None) -> Incoming:
    """A message or event from its XML elements. Raises WeChatError when one that every message has is missing."""
    account, openid, kind = (_need(fields, name) for name in ("ToUserName", "FromUserName", "MsgType"))
    content = _READERS.get(kind.lower(), _read_unsupported)(fields)
    message = None
    if content.message is not None:
        message = InboundMessage("wechat", openid, _message_id(fields), account=account, **content.message)
    menu_id = _text(fields, "bizmsgmenuid")[:100]
    return Incoming(
        account, openid, message, content.fixed, content.media, content.notification, content.grants, menu_id, crypto
    )


def _read_text(fields: Fields) -> _Content:
    text = _text(fields, "Content")
    if text == _FILE_PLACEHOLDER:
        return _Content(fixed=UNSUPPORTED)
    # A tap on a msgmenu item comes as text, but counts as a tap.
    return _Content({"text": text[:MAX_TEXT]}, grants="tap" if fields.get("bizmsgmenuid") else "message")


def _read_picture(fields: Fields) -> _Content:
    return _Content({"kind": "picture"}, media=Media("picture", _need(fields, "MediaId")[:500]))


def _read_video(fields: Fields) -> _Content:
    return _Content({"kind": "picture"}, media=Media("video", _need(fields, "MediaId")[:500]))


def _read_voice(fields: Fields) -> _Content:
    words = _text(fields, "Recognition")  # the platform is retiring it: mostly empty
    if words:
        return _Content({"text": words[:MAX_TEXT]})
    media_id = _text(fields, "MediaId16K") or _text(fields, "MediaId")
    return _Content({}, media=Media("voice", media_id[:500]))


def _read_location(fields: Fields) -> _Content:
    point = _point(fields, "Location_X", "Location_Y")
    if point is None:
        return _Content(fixed=UNSUPPORTED)
    return _Content({"kind": "location", "location": {**point, "label": clean(_text(fields, "Label")).strip()[:200]}})


def _read_link(fields: Fields) -> _Content:
    title = clean(_text(fields, "Title")).strip()[:60]
    return _Content(fixed=LINK.format(title=f"《{title}》" if title else ""))


def _read_unsupported(_fields: Fields) -> _Content:
    return _Content(fixed=UNSUPPORTED)


def _read_event(fields: Fields) -> _Content:
    return _EVENTS.get(_text(fields, "Event").lower(), _nothing)(fields)


def _nothing(_fields: Fields) -> _Content:
    return _Content(grants="")


def _read_subscribe(fields: Fields) -> _Content:
    key = _text(fields, "EventKey")
    return _scene(key.removeprefix("qrscene_")) if key.startswith("qrscene_") else _Content({"text": GREETING}, grants="tap")


def _read_scan(fields: Fields) -> _Content:
    key = _text(fields, "EventKey")
    return _scene(key) if key else _Content(grants="tap")


def _read_click(fields: Fields) -> _Content:
    key = _text(fields, "EventKey")
    return _Content({"text": key[:MAX_TEXT]} if key else None, grants="tap")


def _read_scancode(fields: Fields) -> _Content:
    """The app waits for our answer. What is in the code is looked up like a scene, and mostly unknown."""
    return _scene(_text(_inner(fields, "ScanCodeInfo"), "ScanResult") or "?")


def _read_position(fields: Fields) -> _Content:
    point = _point(fields, "Latitude", "Longitude")
    return _Content(notification=Notification("position", point) if point else None, grants="")


def _read_subscriptions(fields: Fields) -> _Content:
    """Which templates a resident wants. One item comes as an element, several as a list."""
    items = _inner(fields, "SubscribeMsgPopupEvent").get("List") or _inner(fields, "SubscribeMsgChangeEvent").get("List") or []
    chosen = {
        _text(item, "TemplateId")[:120]: _text(item, "SubscribeStatusString")
        for item in (items if isinstance(items, list) else [items])
        if isinstance(item, dict) and _text(item, "SubscribeStatusString") in ("accept", "reject")
    }
    return _Content(notification=Notification("subscriptions", {key: value for key, value in chosen.items() if key}), grants="")


def _read_send_result(fields: Fields) -> _Content:
    items = _inner(fields, "SubscribeMsgSentEvent").get("List") or fields
    results = [
        {"message_id": _text(item, "MsgID")[:40], "status": (_text(item, "Status") or _text(item, "ErrorStatus"))[:60]}
        for item in (items if isinstance(items, list) else [items])
        if isinstance(item, dict) or item is fields
    ]
    return _Content(notification=Notification("send_result", {"results": results}), grants="")


def _read_as(name: str) -> Callable[[Fields], _Content]:
    # On a revocation FromUserName need not be the resident; OpenID then is.
    return lambda fields: _Content(notification=Notification(name, {"openid": _text(fields, "OpenID")[:64]}), grants="")


_READERS: dict[str, Callable[[Fields], _Content]] = {
    "text": _read_text,
    "image": _read_picture,
    "video": _read_video,
    "shortvideo": _read_video,
    "voice": _read_voice,
    "location": _read_location,
    "link": _read_link,
    "event": _read_event,
}
# Every other event (VIEW, view_miniprogram, pic_*, location_select, user_info_modified …) needs nothing: what is sent with
# pic_* and location_select arrives as messages of its own.
_EVENTS: dict[str, Callable[[Fields], _Content]] = {
    "subscribe": _read_subscribe,
    "unsubscribe": _read_as("unsubscribe"),
    "scan": _read_scan,
    "click": _read_click,
    "scancode_push": lambda _: _Content(grants="tap"),
    "scancode_waitmsg": _read_scancode,
    "location": _read_position,
    "templatesendjobfinish": _read_send_result,
    "subscribe_msg_sent_event": _read_send_result,
    "subscribe_msg_popup_event": _read_subscriptions,
    "subscribe_msg_change_event": _read_subscriptions,
    "kf_create_session": _read_as("desk_session"),
    "kf_close_session": _read_as("desk_session"),
    "kf_switch_session": _read_as("desk_session"),
    "user_authorization_revoke": _read_as("revoke"),
    "user_authorization_cancellation": _read_as("cancel"),
}


def _scene(key: str) -> _Content:
    return _Content({"kind": "scene", "scene": key[:64]}, grants="tap")


def _point(fields: Fields, latitude: str, longitude: str) -> dict[str, float] | None:
    lat, lng = _degrees(_text(fields, latitude), 90), _degrees(_text(fields, longitude), 180)
    return {"lat": lat, "lng": lng} if lat is not None and lng is not None else None


def _degrees(text: str, limit: int) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= limit else None


def _message_id(fields: Fields) -> str:
    """MsgId, which only messages have; for an event what stays the same in its retries."""
    if _text(fields, "MsgId"):
        return _text(fields, "MsgId")[:64]
    created, event, key = (_text(fields, name) for name in ("CreateTime", "Event", "EventKey"))
    if not event:  # a message without an id: tell two of the same second apart
        key = hashlib.sha256(_text(fields, "Content").encode()).hexdigest()
    return f"{created}:{event}:{key}"[:200]


def _fields(xml: str) -> dict[str, Any]:
    """The elements of an <xml> document; what occurs twice is left out, so it counts as missing."""
    if not _ROOT.match(xml):
        raise WeChatError("not a message")
    try:
        root = xmltodict.parse(xml)["xml"]
    except Exception:  # ExpatError, ValueError for entities, RecursionError, TypeError …
        raise WeChatError("malformed XML") from None
    if not isinstance(root, dict):
        raise WeChatError("empty message")
    return {name: "" if value is None else value for name, value in root.items() if not isinstance(value, list)}


def _need(fields: Fields, name: str) -> str:
    found = _text(fields, name)
    if not found:
        raise WeChatError(f"{name} is missing")
    return found


def _text(fields: Fields, name: str) -> str:
    """An element's words; one with elements inside has none of its own."""
    found = fields.get(name)
    return found if isinstance(found, str) else ""


def _inner(fields: Fields, name: str) -> Mapping[str, Any]:
    found = fields.get(name)
    return found if isinstance(found, dict) else {}


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise WeChatError("not UTF-8") from None


def _cdata(text: str) -> str:
    # wechatpy puts values into CDATA as they are: "]]>" would end it and let the rest be read as XML.
    return text.replace("]]>", "]]]]><![CDATA[>")
