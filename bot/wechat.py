"""The WeChat official account: verify, decrypt, read and render messages, and the client for customer-service messages.

XML and wechatpy stop here. wechatpy does the AES and writes reply elements; signatures, error handling, escaping and tokens
are ours, because in wechatpy 1.8.18 they are unsafe (see docs of the platform and its issue tracker). Knows no Flask.
"""
from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import requests
import xmltodict
from sqlalchemy import select
from urllib3.exceptions import NewConnectionError
from wechatpy.crypto import PrpCrypto, WeChatCrypto
from wechatpy.replies import TextReply

from bot.assistant import Button
from bot.conversation import MAX_TEXT, InboundMessage, Reply, reply_from_dict
from bot.db import inbound_messages, reading
from bot.services import Services, utc_now
from bot.settings import PREFIX, Settings, SettingsError

SUCCESS = "success"  # stops the platform's retries; never encrypted, else the resident sees "服务出现故障"
MAX_BODY = 64 * 1024
# The platform takes 2048 bytes; beyond, a passive reply shows as a fault and a customer-service message fails with 45002.
MAX_TEXT_BYTES = 2000
# Retries of one message come with a fresh signature; this only has to cover clocks that are a little off.
CLOCK_TOLERANCE = timedelta(minutes=10)

GREETING = "你好"
ASK_TO_TYPE = "暂时听不了语音，请把想说的话打字发过来；也可以直接拨打 12345。紧急情况请拨打 110、119、120。"
UNSUPPORTED = "这种消息暂时看不了。请打字说明情况，也可以发图片或位置。"
MENU_HEAD = "回复数字选择："
MORE_FOLLOWS = "\n……（内容较长，后面还有，这里没有显示完）"
_FILE_PLACEHOLDER = "【收到不支持的消息类型，暂无法显示】"  # what the platform sends as text in place of a file

_ROOT = re.compile(r"\s*(?:<\?xml[^>]*\?>\s*)?<xml[\s>]")  # nothing else before the root: no DOCTYPE, no comment
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # not allowed in XML 1.0
_CHINESE_NUMBERS = {character: number for number, character in enumerate("一二三四五六七八九十", start=1)}


class WeChatError(Exception):
    """A request that is not acceptable, or a call that failed. Never carries secrets, tokens, openids or text.

    `code` is the platform's errcode when it answered with one; `unsure` means that the call may have taken effect all the same.
    """

    def __init__(self, reason: str, *, code: int | None = None, unsure: bool = False) -> None:
        super().__init__(reason)
        self.code, self.unsure = code, unsure


@dataclass(frozen=True)
class Incoming:
    """A verified request: a message for the conversation, or a fixed answer, or neither (answer `success`)."""

    account: str
    openid: str
    message: InboundMessage | None = None
    fixed: str = ""
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


def read_message(fields: Mapping[str, str], *, crypto: Any = None) -> Incoming:
    """A message or event from its XML elements. Raises WeChatError when one that every message has is missing."""
    account, openid, kind = (_need(fields, name) for name in ("ToUserName", "FromUserName", "MsgType"))
    content = _READERS.get(kind.lower(), _read_unsupported)(fields)
    if not isinstance(content, dict):
        return Incoming(account, openid, fixed=content or "", crypto=crypto)
    message = InboundMessage("wechat", openid, _message_id(fields), account=account, **content)
    return Incoming(account, openid, message, crypto=crypto)


# What a reader returns: fields of an InboundMessage, or a fixed answer, or None for "say nothing".
Content = dict[str, Any] | str | None


def _read_text(fields: Mapping[str, str]) -> Content:
    text = fields.get("Content", "")
    return UNSUPPORTED if text == _FILE_PLACEHOLDER else {"text": text[:MAX_TEXT]}


def _read_picture(_fields: Mapping[str, str]) -> Content:
    return {"kind": "picture"}


def _read_voice(fields: Mapping[str, str]) -> Content:
    text = fields.get("Recognition", "")  # the platform is retiring it: mostly empty
    return {"text": text[:MAX_TEXT]} if text else ASK_TO_TYPE


def _read_location(fields: Mapping[str, str]) -> Content:
    lat, lng = _degrees(fields.get("Location_X", ""), 90), _degrees(fields.get("Location_Y", ""), 180)
    if lat is None or lng is None:
        return UNSUPPORTED
    return {"kind": "location", "location": {"lat": lat, "lng": lng, "label": fields.get("Label", "")[:200]}}


def _read_event(fields: Mapping[str, str]) -> Content:
    event, key = fields.get("Event", "").lower(), fields.get("EventKey", "")
    if event == "subscribe":
        return _scene(key.removeprefix("qrscene_")) if key.startswith("qrscene_") else {"text": GREETING}
    if event == "scan" and key:
        return _scene(key)
    return {"text": key} if event == "click" and key else None


def _read_unsupported(_fields: Mapping[str, str]) -> Content:
    return UNSUPPORTED


_READERS: dict[str, Callable[[Mapping[str, str]], Content]] = {
    "text": _read_text,
    "image": _read_picture,
    "voice": _read_voice,
    "location": _read_location,
    "event": _read_event,
}


def _scene(key: str) -> Content:
    return {"kind": "scene", "scene": key[:64]}


def _degrees(text: str, limit: int) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= limit else None


def _message_id(fields: Mapping[str, str]) -> str:
    """MsgId, which only messages have; for an event what stays the same in its retries."""
    if fields.get("MsgId"):
        return fields["MsgId"][:64]
    created, event, key = (fields.get(name, "") for name in ("CreateTime", "Event", "EventKey"))
    if not event:  # a message without an id: tell two of the same second apart
        key = hashlib.sha256(fields.get("Content", "").encode()).hexdigest()
    return f"{created}:{event}:{key}"[:200]


def _fields(xml: str) -> dict[str, str]:
    """The text elements of an <xml> document. What occurs twice or has children is left out, so it counts as missing."""
    if not _ROOT.match(xml):
        raise WeChatError("not a message")
    try:
        root = xmltodict.parse(xml)["xml"]
    except Exception:  # ExpatError, ValueError for entities, TypeError …
        raise WeChatError("malformed XML") from None
    if not isinstance(root, dict):
        raise WeChatError("empty message")
    return {name: value or "" for name, value in root.items() if value is None or isinstance(value, str)}


def _need(fields: Mapping[str, str], name: str) -> str:
    if not fields.get(name):
        raise WeChatError(f"{name} is missing")
    return fields[name]


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise WeChatError("not UTF-8") from None


# -- replies as text --------------------------------------------------------------------------------------------------


def full_text(reply: Reply) -> str:
    """All bubbles as one text, then the buttons as numbered lines."""
    return "\n".join(part for part in (_body(reply), _menu(reply)) if part)


def passive_text(reply: Reply) -> str:
    """full_text() that fits into a passive reply; when it is too long the body is cut and the choices stay."""
    text, menu = full_text(reply), _menu(reply)
    if _size(text) <= MAX_TEXT_BYTES:
        return text
    tail = MORE_FOLLOWS + ("\n" + menu if menu else "")
    if _size(tail) > MAX_TEXT_BYTES // 2:
        return cut_text(text, MAX_TEXT_BYTES - _size(MORE_FOLLOWS)) + MORE_FOLLOWS
    return cut_text(_body(reply), MAX_TEXT_BYTES - _size(tail)) + tail


def choose_button(text: str, last_reply: Reply | None) -> str | None:
    """The payload meant by "1", "１", "一" or the button's own words; None when the text is not such a choice."""
    answer = unicodedata.normalize("NFKC", text).strip().rstrip(".。、,，")
    buttons = _buttons(last_reply) if last_reply else []
    number = int(answer) if re.fullmatch(r"[0-9]{1,2}", answer) else _CHINESE_NUMBERS.get(answer, 0)
    if 1 <= number <= len(buttons):
        return buttons[number - 1].payload
    return next((button.payload for button in buttons if button.title == text.strip()), None)


def find_last_reply(services: Services, conversation_id: str) -> Reply | None:
    """What the resident was told last, and so what a number refers to. Raises StorageError."""
    with reading(services.engine) as connection:
        row = connection.execute(
            select(inbound_messages.c.reply)
            .where(inbound_messages.c.conversation_id == conversation_id, inbound_messages.c.reply.is_not(None))
            .order_by(inbound_messages.c.id.desc())
            .limit(1)
        ).first()
    return reply_from_dict(services.vault.open(row.reply)) if row else None


def clean(text: str) -> str:
    """Without what XML forbids, and with plain line ends (a parser would change them)."""
    return _UNFIT.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def cut_text(text: str, limit: int) -> str:
    """The longest beginning of at most `limit` UTF-8 bytes, on a character boundary."""
    return text.encode()[:limit].decode(errors="ignore")


def split_text(text: str) -> list[str]:
    parts = []
    while text:
        part = cut_text(text, MAX_TEXT_BYTES)
        parts.append(part)
        text = text[len(part) :]
    return parts


def _body(reply: Reply) -> str:
    return clean("\n\n".join(bubble.text for bubble in reply.messages if bubble.text))


def _menu(reply: Reply) -> str:
    lines = [f"{number} {clean(button.title)}" for number, button in enumerate(_buttons(reply), start=1)]
    return "\n".join([MENU_HEAD, *lines]) if lines else ""


def _buttons(reply: Reply) -> list[Button]:
    return [button for bubble in reply.messages for button in bubble.buttons]


def _size(text: str) -> int:
    return len(text.encode())


def _cdata(text: str) -> str:
    # wechatpy puts values into CDATA as they are: "]]>" would end it and let the rest be read as XML.
    return text.replace("]]>", "]]]]><![CDATA[>")


# -- customer-service messages ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SendResult:
    """`state` is sent, or pending when the platform takes no more now; then `unsent` is what has not gone out."""

    state: str
    unsent: str = ""


@dataclass(frozen=True, eq=False)
class _AccessToken:
    value: str
    expires_at: datetime


class CustomerServiceClient:
    """Pushes texts to followers. Thread-safe; one access token in memory, fetched once for any number of threads."""

    TIMEOUT_SECONDS = 5
    _TOKEN_REFUSED = (40001, 40014, 42001)
    _NOT_NOW = (45015, 45047)  # outside 48 hours; all messages for this interaction used up
    _FORCE_SPACING = 86400 / 20  # force_refresh is allowed 20 times a day

    def __init__(self, services: Services) -> None:
        self._settings, self._now = services.settings, services.now
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=16))
        self._lock = threading.Lock()
        self._held: _AccessToken | None = None
        self._forced_at = -math.inf
        logging.getLogger("urllib3.connectionpool").addFilter(_redact_token)  # its debug lines carry whole URLs

    def send_text(self, openid: str, text: str) -> SendResult:
        """Send in as many messages as the size needs. Raises WeChatError when nothing, or nobody knows what, was sent."""
        parts = split_text(clean(text).strip())
        for sent, part in enumerate(parts):
            unsent = "".join(parts[sent:])
            try:
                if not self._send(openid, part):
                    return SendResult("pending", unsent)
            except WeChatError as error:
                if sent == 0 or error.unsure:
                    raise
                return SendResult("pending", unsent)
        return SendResult("sent")

    def _send(self, openid: str, text: str) -> bool:
        """False when the platform takes no more messages for this person now."""
        payload = {"touser": openid, "msgtype": "text", "text": {"content": text}}
        token = self._token()
        code = self._code(self._post("/cgi-bin/message/custom/send", payload, token))
        if code in self._TOKEN_REFUSED:  # nothing was sent: trying once more cannot send it twice
            code = self._code(self._post("/cgi-bin/message/custom/send", payload, self._token(refused=token)))
        if code in self._NOT_NOW:
            return False
        if code:
            raise WeChatError(f"custom/send refused with {code}", code=code)
        return True

    def _token(self, *, refused: _AccessToken | None = None) -> _AccessToken:
        with self._lock:
            held = self._held
            if held is not None and held is not refused and held.expires_at > self._now():
                return held
            fresh = self._fetch_token(force=False)
            if refused is not None and fresh.value == refused.value and time.monotonic() - self._forced_at > self._FORCE_SPACING:
                self._forced_at = time.monotonic()
                fresh = self._fetch_token(force=True)
            self._held = fresh
            return fresh

    def _fetch_token(self, *, force: bool) -> _AccessToken:
        if not self._settings.wechat_app_secret:
            raise WeChatError("no WECHAT_APP_SECRET configured")
        payload = {
            "grant_type": "client_credential",
            "appid": self._settings.wechat_app_id,
            "secret": self._settings.wechat_app_secret,
            "force_refresh": force,
        }
        try:
            answer = self._post("/cgi-bin/stable_token", payload, None)
        except WeChatError as error:
            raise WeChatError(str(error)) from None  # whatever happened to it, no message was sent
        value, lifetime = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(value, str) or not value or not isinstance(lifetime, int):
            code = self._code(answer)
            raise WeChatError(f"stable_token refused with {code}", code=code)
        # For its last five minutes the platform hands out the next token beside the old one.
        return _AccessToken(value, self._now() + timedelta(seconds=max(lifetime - 300, 60)))

    def _post(self, path: str, payload: Mapping[str, Any], token: _AccessToken | None) -> Mapping[str, Any]:
        """The platform's JSON. The original exceptions are dropped on purpose: they carry the URL with its token."""
        failure = None
        try:
            answer = self._session.post(
                self._settings.wechat_api_base.rstrip("/") + path,
                params={"access_token": token.value} if token else None,
                # Escaped characters would reach the resident as \uXXXX.
                data=json.dumps(payload, ensure_ascii=False).encode(),
                headers={"Content-Type": "application/json; charset=utf-8"},
                timeout=self.TIMEOUT_SECONDS,
                allow_redirects=False,
            )
            data = answer.json()
        except requests.exceptions.JSONDecodeError:
            failure = WeChatError(f"{path} answered {answer.status_code} without JSON", unsure=answer.status_code == 504)
        except requests.RequestException as error:
            failure = WeChatError(f"{path} failed: {type(error).__name__}", unsure=not _never_left(error))
        if failure is None and not (answer.ok and isinstance(data, dict)):
            # A gateway's error page: only with 504 may the request have gone through behind it.
            failure = WeChatError(f"{path} answered {answer.status_code}", unsure=answer.status_code == 504)
        if failure is not None:
            raise failure
        found: Mapping[str, Any] = data
        return found

    @staticmethod
    def _code(answer: Mapping[str, Any]) -> int:
        code = answer.get("errcode", 0)
        return code if isinstance(code, int) else -1


def _never_left(error: requests.RequestException) -> bool:
    """Whether the request certainly did not reach the platform."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)


_ACCESS_TOKEN = re.compile(r"(access_token=)[^&\s]+")


def _redact_token(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_ACCESS_TOKEN.sub(r"\1***", value) if isinstance(value, str) else value for value in record.args)
    return True
