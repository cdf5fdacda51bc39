"""The WeChat platform as seen from an official account's server: signs and encrypts callbacks, takes API calls on loopback.

Its crypto is written from the platform's description, independent of bot/wechat.py and wechatpy, so that the two check each other.
"""
from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import secrets
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

import requests
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.loopback import Answer, LoopbackServer, Request, json_answer

RESIDENT = "oResident-0001"
_message_ids = itertools.count(24_000_000_000_000_000)


def signature(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()


def to_xml(fields: Mapping[str, Any]) -> str:
    """Values are text, or elements inside, or a list of them: one element each."""
    root = ElementTree.Element("xml")
    _add_elements(root, fields)
    return ElementTree.tostring(root, encoding="unicode")


def _add_elements(parent: ElementTree.Element, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            element = ElementTree.SubElement(parent, name)
            if isinstance(item, Mapping):
                _add_elements(element, item)
            else:
                element.text = item


def from_xml(text: str) -> dict[str, str]:
    return {element.tag: element.text or "" for element in ElementTree.fromstring(text)}


@dataclass(frozen=True)
class Account:
    """One official account. An empty `aes_key` is plaintext mode."""

    app_id: str = "wxba5fad812f8e6fb9"
    token: str = "AAAAA"
    aes_key: str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
    name: str = "gh_minsheng"

    # -- messages -------------------------------------------------------------------------------------------------

    def text(self, content: str, **more: str) -> dict[str, Any]:
        return self.message("text", Content=content, **more)

    def message(self, kind: str, **fields: str) -> dict[str, Any]:
        return {**self._common(kind), "MsgId": str(next(_message_ids)), **fields}

    def event(self, name: str, **fields: Any) -> dict[str, Any]:
        return {**self._common("event"), "Event": name, **fields}

    def _common(self, kind: str) -> dict[str, str]:
        return {"ToUserName": self.name, "FromUserName": RESIDENT, "CreateTime": str(int(time.time())), "MsgType": kind}

    # -- requests -------------------------------------------------------------------------------------------------

    def sign_request(self, fields: Mapping[str, Any], *, at: float | None = None) -> tuple[dict[str, str], bytes]:
        """Query and body of the callback for a message, signed anew each time as in the platform's retries."""
        return self.sign_xml(to_xml(fields), at=at)

    def sign_xml(self, xml: str, *, at: float | None = None) -> tuple[dict[str, str], bytes]:
        query = {"timestamp": str(int(time.time() if at is None else at)), "nonce": secrets.token_hex(5)}
        query["signature"] = signature(self.token, query["timestamp"], query["nonce"])
        if not self.aes_key:
            return query, xml.encode()
        encrypted = self.encrypt(xml)
        query |= {"encrypt_type": "aes", "msg_signature": signature(self.token, query["timestamp"], query["nonce"], encrypted)}
        return query, to_xml({"ToUserName": self.name, "Encrypt": encrypted}).encode()

    def post(self, client: Any, fields: Mapping[str, Any]) -> Any:
        """Call the account's server back through a Flask test client; returns its response."""
        query, body = self.sign_request(fields)
        return client.post("/wechat", query_string=query, data=body, content_type="text/xml")

    def post_to(self, url: str, fields: Mapping[str, Any]) -> requests.Response:
        """Call a running server back as the platform does, hanging up after five seconds."""
        query, body = self.sign_request(fields)
        return requests.post(url, params=query, data=body, headers={"Content-Type": "text/xml"}, timeout=5)

    def read_reply(self, body: str) -> dict[str, str] | None:
        """The passive reply in an answer; None for `success`. Fails like the platform does on anything else."""
        if body in ("success", ""):
            return None
        fields = from_xml(body)
        if self.aes_key:
            signed = signature(self.token, fields["TimeStamp"], fields["Nonce"], fields["Encrypt"])
            assert signed == fields["MsgSignature"], "服务出现故障"
            fields = from_xml(self.decrypt(fields["Encrypt"]))
        assert len(fields.get("Content", "").encode()) <= 2048, "服务出现故障"
        return fields

    def said(self, response: Any) -> str | None:
        """The text of the passive reply, addressed to the resident; None for `success`."""
        assert response.status_code == 200
        fields = self.read_reply(response.get_data(as_text=True))
        if fields is None:
            return None
        assert (fields["FromUserName"], fields["ToUserName"], fields["MsgType"]) == (self.name, RESIDENT, "text")
        return fields["Content"]

    # -- AES ------------------------------------------------------------------------------------------------------

    def encrypt(self, text: str) -> str:
        content = text.encode()
        plain = secrets.token_bytes(16) + struct.pack(">I", len(content)) + content + self.app_id.encode()
        padding = 32 - len(plain) % 32
        encryptor = self._cipher().encryptor()
        return base64.b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()

    def decrypt(self, encrypted: str) -> str:
        decryptor = self._cipher().decryptor()
        plain = decryptor.update(base64.b64decode(encrypted)) + decryptor.finalize()
        plain = plain[: -plain[-1]]
        length = struct.unpack(">I", plain[16:20])[0]
        assert plain[20 + length :].decode() == self.app_id
        return plain[20 : 20 + length].decode()

    def _cipher(self) -> Cipher[modes.CBC]:
        key = base64.b64decode(self.aes_key + "=")
        return Cipher(algorithms.AES(key), modes.CBC(key[:16]))

    def with_key(self, aes_key: str) -> Account:
        return replace(self, aes_key=aes_key)


@dataclass
class Platform:
    """api.weixin.qq.com on loopback. `errcodes` answer the next sends (0 = take it); `delay` slows sends down.

    With `count_quota` a send needs an allowance that interact() gave. `media` holds what residents sent, by media id.
    `templates` are the account's template ids with their keys; `notifications` what was sent with them; `refuse` answers the
    next calls of one kind ("template", "subscription", "msgmenu") with these codes; `subscribed` holds (openid, template id).
    """

    secret: str = "app-secret-of-the-test"
    sends: list[dict[str, Any]] = field(default_factory=list)  # accepted messages
    attempts: int = 0
    token_requests: list[dict[str, Any]] = field(default_factory=list)
    errcodes: deque[int] = field(default_factory=deque)
    permanent_errcode: int = 0
    permitted: bool = True  # an account without verification gets 48001
    count_quota: bool = False
    media: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # id → content type, content
    downloads: list[str] = field(default_factory=list)
    typing: list[str] = field(default_factory=list)
    menu: dict[str, Any] | None = None
    codes: dict[str, str] = field(default_factory=dict)  # scene → address inside its permanent code
    code_requests: list[str] = field(default_factory=list)
    templates: dict[str, set[str]] = field(default_factory=dict)
    notifications: list[dict[str, Any]] = field(default_factory=list)
    notification_attempts: int = 0
    subscribed: set[tuple[str, str]] = field(default_factory=set)
    refuse: dict[str, deque[int]] = field(default_factory=dict)
    delay: float = 0.0
    token_delay: float = 0.0
    token: str = ""
    _allowances: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # openid → left, until when
    _forced: list[float] = field(default_factory=list)
    _serial: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> str:
        self._server = LoopbackServer(self._route)
        return self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def revoke_token(self) -> None:
        with self._lock:
            self.token = ""

    def texts(self) -> list[str]:
        return [_words_of(send) for send in self.sends]

    def menus(self) -> list[dict[str, Any]]:
        return [send["msgmenu"] for send in self.sends if send["msgtype"] == "msgmenu"]

    def wait_for_sends(self, count: int, *, seconds: float = 5.0) -> list[str]:
        """The texts pushed once there are `count`, and a little later, so that one too many shows as well."""
        end = time.monotonic() + seconds
        while len(self.sends) < count and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        return self.texts()

    def interact(self, openid: str, kind: str) -> None:
        """The resident did something: five messages in 48 hours after a message, three in a minute after a tap."""
        with self._lock:
            left, seconds = (5, 172_800) if kind == "message" else (3, 60)
            self._allowances.setdefault(openid, []).append((left, time.time() + seconds))

    def _route(self, request: Request) -> Answer:
        token = request.query.get("access_token", "")
        if request.method == "POST":
            return json_answer(self._answer(request.path, token, request.body))
        if request.path == "/cgi-bin/menu/get":
            return json_answer(self._administer(token, self._get_menu))
        return self._download(request, token)

    def _answer(self, path: str, token: str, body: bytes) -> dict[str, Any]:
        payload = json.loads(body)
        if path == "/cgi-bin/stable_token":
            time.sleep(self.token_delay)
            return self._stable_token(payload)
        if path == "/cgi-bin/message/custom/send":
            time.sleep(self.delay)
            return self._send(token, payload, body)
        if path == "/cgi-bin/message/custom/typing":
            return self._typing(token, payload)
        if path == "/cgi-bin/menu/create":
            return self._administer(token, lambda: self._create_menu(payload, body))
        if path == "/cgi-bin/qrcode/create":
            return self._administer(token, lambda: self._create_code(payload))
        if path in ("/cgi-bin/message/template/send", "/cgi-bin/message/subscribe/bizsend"):
            result = self._notification("template" if "template" in path else "subscription", token, payload, body)
            time.sleep(self.delay)
            return result
        return {"errcode": 40066, "errmsg": "invalid url"}

    def _download(self, request: Request, token: str) -> Answer:
        """Errors come with status 200, a video as an address."""
        media_id = request.query.get("media_id", request.path)
        with self._lock:
            self.downloads.append(media_id)
            if request.path.startswith("/video/"):
                return Answer(*self.media[request.path.removeprefix("/video/")])
            refusal = self._refusal(token)
            if not refusal and media_id not in self.media:
                refusal = {"errcode": 40007, "errmsg": "invalid media_id"}
            if refusal:
                return json_answer(refusal)
            kind, content = self.media[media_id]
            if kind.startswith("video/"):
                return json_answer({"video_url": f"http://{request.host}/video/{media_id}"})
            return Answer(kind, content)

    def _refusal(self, token: str) -> dict[str, Any] | None:
        if not self.token or token != self.token:
            return {"errcode": 40001, "errmsg": "invalid credential, access_token is invalid or not latest"}
        return None

    # -- menu and codes -------------------------------------------------------------------------------------------

    def _administer(self, token: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with self._lock:
            errcode = self.errcodes.popleft() if self.errcodes else 0
            if errcode:
                return {"errcode": errcode, "errmsg": "programmed"}
            return self._refusal(token) or (act() if self.permitted else {"errcode": 48001, "errmsg": "api unauthorized"})

    def _get_menu(self) -> dict[str, Any]:
        return {"menu": self.menu} if self.menu else {"errcode": 46003, "errmsg": "menu no exist"}

    def _create_menu(self, payload: dict[str, Any], body: bytes) -> dict[str, Any]:
        errcode = menu_fault(payload)
        if errcode:
            return {"errcode": errcode, "errmsg": "invalid button"}
        assert "\\u" not in body.decode(), "shown to followers as it is"
        self.menu = {"button": [{"sub_button": [], **button} for button in payload["button"]]}
        return {"errcode": 0, "errmsg": "ok"}

    def _create_code(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Permanent codes only. The same scene has the same code for ever."""
        if payload.get("action_name") != "QR_LIMIT_STR_SCENE":
            return {"errcode": 40052, "errmsg": "invalid action name"}
        scene = payload.get("action_info", {}).get("scene", {}).get("scene_str")
        if not isinstance(scene, str) or not 1 <= len(scene.encode()) <= 64:
            return {"errcode": 40053, "errmsg": "invalid action info"}
        self.code_requests.append(scene)
        url = self.codes.setdefault(scene, f"http://weixin.qq.com/q/02{secrets.token_urlsafe(15)}")
        return {"ticket": "gQ" + secrets.token_urlsafe(60), "url": url}

    def _typing(self, token: str, payload: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            refusal = self._refusal(token) or ({} if self.permitted else {"errcode": 48001, "errmsg": "api unauthorized"})
            if refusal:
                return refusal
            if payload["command"] not in ("Typing", "CancelTyping"):
                return {"errcode": 45072, "errmsg": "invalid command"}
            self.typing.append(payload["touser"])
            return {"errcode": 0, "errmsg": "ok"}

    def _spend(self, openid: str) -> int:
        """0, or the code that says that nothing may be sent."""
        valid = [(left, until) for left, until in self._allowances.get(openid, []) if until > time.time()]
        self._allowances[openid] = valid
        if not valid:
            return 45015
        for place, (left, until) in enumerate(valid):
            if left:
                valid[place] = (left - 1, until)
                return 0
        return 45047

    def _stable_token(self, payload: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.token_requests.append(payload)
            if payload["secret"] != self.secret:
                return {"errcode": 40125, "errmsg": "invalid appsecret"}
            if payload["force_refresh"]:
                if len(self._forced) >= 20 or (self._forced and time.time() - self._forced[-1] < 30):
                    return {"errcode": 45009, "errmsg": "reach max api daily quota limit"}
                self._forced.append(time.time())
            if not self.token or payload["force_refresh"]:
                self._serial += 1
                self.token = f"TOKEN-{self._serial}-" + "x" * 500
            return {"access_token": self.token, "expires_in": 7200}

    def _send(self, token: str, payload: dict[str, Any], body: bytes) -> dict[str, Any]:
        with self._lock:
            self.attempts += 1
            if self.permanent_errcode:
                return {"errcode": self.permanent_errcode, "errmsg": "programmed"}
            refusal = self._refusal(token)
            if refusal:
                return refusal
            if not self.permitted:
                return {"errcode": 48001, "errmsg": "api unauthorized"}
            errcode = self.errcodes.popleft() if self.errcodes else 0
            if not errcode and self.count_quota:
                errcode = self._spend(payload["touser"])
            if not errcode and payload["msgtype"] == "msgmenu":
                errcode = self._menu_refusal(payload["msgmenu"])
            if errcode:
                return {"errcode": errcode, "errmsg": "programmed"}
            if payload["msgtype"] == "text" and len(payload["text"]["content"].encode()) > 2048:
                return {"errcode": 45002, "errmsg": "content size out of limit"}
            assert "\\u" not in body.decode(), "shown to residents as it is"
            self.sends.append(payload)
            return {"errcode": 0, "errmsg": "ok"}

    def _menu_refusal(self, menu: dict[str, Any]) -> int:
        programmed = self.refuse.get("msgmenu")
        if programmed:
            return programmed.popleft()
        assert all(isinstance(item["id"], str) and item["content"] for item in menu["list"])
        return 45098 if len(menu["list"]) > 5 else 0

    def _notification(self, kind: str, token: str, payload: dict[str, Any], body: bytes) -> dict[str, Any]:
        with self._lock:
            self.notification_attempts += 1
            refusal = self._refusal(token) or ({} if self.permitted else {"errcode": 48001, "errmsg": "api unauthorized"})
            if refusal:
                return refusal
            programmed = self.refuse.get(kind)
            errcode = programmed.popleft() if programmed else self._notification_refusal(kind, payload)
            if errcode:
                return {"errcode": errcode, "errmsg": "programmed"}
            assert "\\u" not in body.decode(), "shown to residents as it is"
            self.notifications.append({**payload, "kind": kind})
            self._serial += 1
            # The documented answer to a subscription notification carries no id.
            return {"errcode": 0, "errmsg": "ok", **({"msgid": 2_400_000_000 + self._serial} if kind == "template" else {})}

    def _notification_refusal(self, kind: str, payload: dict[str, Any]) -> int:
        template_id = payload["template_id"]
        if template_id not in self.templates:
            return 40037
        if kind == "subscription" and (payload["touser"], template_id) not in self.subscribed:
            return 43101
        fits = payload["data"].keys() == self.templates[template_id] and all(map(_is_valid, *zip(*payload["data"].items())))
        return 0 if fits else 47003


def menu_fault(payload: dict[str, Any]) -> int:
    """0, or the code with which the platform refuses a menu."""
    buttons = payload.get("button")
    if not isinstance(buttons, list) or not 1 <= len(buttons) <= 3:
        return 40016
    return next((fault for button in buttons if (fault := _button_fault(button))), 0)


def _button_fault(button: dict[str, Any], *, below: bool = False) -> int:
    if not 1 <= len(button.get("name", "").encode()) <= (60 if below else 16):
        return 40025 if below else 40018
    if "sub_button" in button:
        if below:
            return 40022
        if not 1 <= len(button["sub_button"]) <= 5:
            return 40023
        return next((fault for inner in button["sub_button"] if (fault := _button_fault(inner, below=True))), 0)
    if button.get("type") == "click":
        return 0 if 1 <= len(button.get("key", "").encode()) <= 128 else 40026 if below else 40019
    if button.get("type") == "view":
        fits = button.get("url", "").startswith(("http://", "https://")) and len(button["url"].encode()) <= 1024
        return 0 if fits else 40027 if below else 40020
    return 40024 if below else 40017


_VALUE_RULES = {
    "thing": r"[^\n\r\U00010000-\U0010ffff]{1,20}",
    "character_string": r"[\x21-\x7e]{1,32}",
    "phrase": r"[\u4e00-\u9fff]{1,5}",
    "time": r"([0-9]{4}年[0-9]{1,2}月[0-9]{1,2}日 )?[0-9]{2}:[0-9]{2}",
}


def _is_valid(key: str, value: dict[str, str]) -> bool:
    """Whether the platform takes this value: what is allowed stands in the key."""
    return re.fullmatch(_VALUE_RULES[key.rstrip("0123456789")], value["value"]) is not None


def _words_of(send: dict[str, Any]) -> str:
    return str(send["text"]["content"] if send["msgtype"] == "text" else send["msgmenu"]["head_content"])
