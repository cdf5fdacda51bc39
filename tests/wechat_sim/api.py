"""The platform's API for one account: tokens, customer-service messages with their quotas, the typing sign, media, web logins."""
from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import Answer, json_answer
from tests.wechat_sim.passive import MAX_TEXT_BYTES
from tests.wechat_sim.phone import Phones

TOKEN_SECONDS, OVERLAP_SECONDS, CODE_SECONDS = 7200, 300, 300
FORCED_A_DAY, FORCED_SPACING = 20, 30
QUOTAS = {"message": (5, 48 * 3600.0), "tap": (3, 60.0)}
MOST_CHOICES = 5  # the platform does not say how many; so few it takes for certain
OK = {"errcode": 0, "errmsg": "ok"}
_MESSAGES = {
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40003: "invalid openid",
    40007: "invalid media_id",
    40008: "invalid message type",
    40013: "invalid appid",
    40029: "invalid code",
    40066: "invalid url",
    40097: "invalid args",
    40125: "invalid appsecret",
    40163: "code been used",
    42001: "access_token expired",
    42003: "code expired",
    44004: "empty content",
    45002: "content size out of limit",
    45009: "reach max api daily quota limit",
    45015: "response out of time limit or subscription is canceled",
    45047: "out of response count limit",
    45072: "invalid command",
    45098: "menu list too long",
    47001: "data format error",
    48001: "api unauthorized",
}


class Refused(Exception):
    def __init__(self, code: int, *, violation: str = "") -> None:
        super().__init__(code)
        self.code, self.violation = code, violation


@dataclass
class Login:
    """What a code of the authorise page stands for. Of a snapshot page the openid is a made-up one."""

    openid: str
    until: float
    snapshot: bool = False
    used: bool = False


@dataclass
class Api:
    """Thread-safe. Every refusal is counted as `errcode`; what a careful account never does is a violation as well."""

    app_id: str
    secret: str
    phones: Phones
    permitted: bool = True  # an account without verification gets 48001
    now: Callable[[], float] = time.time
    latency: Callable[[], float] = lambda: 0.0  # seconds before a call takes effect, and again before it is answered
    media: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # id → content type, content
    calls: list[tuple[str, int]] = field(default_factory=list)  # path, errcode
    logins: dict[str, Login] = field(default_factory=dict)  # code → whose
    ticket: str = ""  # of the JS-SDK
    _ticket_until: float = 0.0
    _tokens: dict[str, float] = field(default_factory=dict)  # token → until when
    _current: str = ""
    _forced: list[float] = field(default_factory=list)
    _quotas: dict[str, dict[str, tuple[int, float]]] = field(default_factory=dict)  # openid → kind → left, until when
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # -- what residents and tests do ------------------------------------------------------------------------------

    def interact(self, openid: str, kind: str) -> None:
        """A message of the resident, a tap, or (leave) the end of the subscription: what may be sent from now on."""
        with self._lock:
            mine = self._quotas.setdefault(openid, {})
            if kind == "leave":
                mine.clear()
            elif kind in QUOTAS:
                left, seconds = QUOTAS[kind]
                mine[kind] = (left, self.now() + seconds)

    def keep_media(self, content_type: str, content: bytes) -> str:
        with self._lock:
            media_id = f"media-{len(self.media) + 1}-{secrets.token_hex(8)}"
            self.media[media_id] = (content_type, content)
            return media_id

    def give_code(self, openid: str, *, snapshot: bool = False) -> str:
        """A code of a web login, good once and for five minutes."""
        with self._lock:
            code = secrets.token_hex(16)
            self.logins[code] = Login(f"oSnapshot-{secrets.token_hex(8)}" if snapshot else openid, self.now() + CODE_SECONDS, snapshot)
            return code

    def expire_tokens(self) -> None:
        with self._lock:
            self._tokens = dict.fromkeys(self._tokens, self.now() - 1)

    def revoke_tokens(self) -> None:
        with self._lock:
            self._tokens.clear()

    # -- calls of the account -------------------------------------------------------------------------------------

    def post(self, path: str, token: str, body: bytes) -> dict[str, Any]:
        time.sleep(self.latency())
        answer = self._answered(path, lambda: self._post(path, token, body))
        time.sleep(self.latency())
        return answer

    def get(self, path: str, token: str, query: Mapping[str, str], host: str) -> Answer:
        if path.startswith("/video/"):
            return Answer(*self.media.get(path.removeprefix("/video/"), ("text/plain", b"")))
        if path == "/sns/oauth2/access_token":
            return json_answer(self._answered(path, lambda: self._take_code(query)))
        if path == "/cgi-bin/ticket/getticket":
            return json_answer(self._answered(path, lambda: self._give_ticket(token, query)))
        return self._get_media(path, token, query.get("media_id", ""), host)

    def _get_media(self, path: str, token: str, media_id: str, host: str) -> Answer:
        """Errors come with status 200, a video as an address."""
        refusal = self._answered(path, lambda: self._check_media(path, token, media_id))
        if refusal["errcode"]:
            return json_answer(refusal)
        kind, content = self.media[media_id]
        if kind.startswith("video/"):
            return json_answer({"video_url": f"http://{host}/video/{media_id}"})
        return Answer(kind, content)

    def _answered(self, path: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            with self._lock:
                answer = call()
        except Refused as refused:
            self.calls.append((path, refused.code))
            if refused.violation:
                self.phones.violate(refused.violation)
            return {"errcode": refused.code, "errmsg": _MESSAGES[refused.code]}
        self.calls.append((path, 0))
        return answer

    def _post(self, path: str, token: str, body: bytes) -> dict[str, Any]:
        handlers = {"/cgi-bin/message/custom/send": self._send, "/cgi-bin/message/custom/typing": self._type}
        if path == "/cgi-bin/stable_token":
            return self._stable_token(_json(body))
        if path not in handlers:
            raise Refused(40066, violation=f"unknown call {path[:60]}")
        self._check_token(token)
        return handlers[path](_json(body), body)

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _stable_token(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted.get("grant_type") != "client_credential":
            raise Refused(40002, violation="wrong grant_type")
        if wanted.get("appid") != self.app_id:
            raise Refused(40013, violation="wrong appid")
        if wanted.get("secret") != self.secret:
            raise Refused(40125, violation="wrong secret")
        now, until = self.now(), self._tokens.get(self._current, 0.0)
        if wanted.get("force_refresh"):
            self._force(now)
        if wanted.get("force_refresh") or until - now <= OVERLAP_SECONDS:
            self._current = f"{len(self.calls)}-" + secrets.token_urlsafe(400)[:512]
            until = self._tokens[self._current] = now + TOKEN_SECONDS
        return {"access_token": self._current, "expires_in": int(until - now)}

    def _force(self, now: float) -> None:
        lately = [at for at in self._forced if at > now - 86_400]
        if len(lately) >= FORCED_A_DAY or (lately and now - lately[-1] < FORCED_SPACING):
            raise Refused(45009, violation="force_refresh too often")
        self._forced = [*lately, now]
        self._tokens.clear()

    def _check_token(self, token: str) -> None:
        until = self._tokens.get(token)
        if until is None:
            raise Refused(40001)
        if until <= self.now():
            raise Refused(42001)

    # -- web pages ------------------------------------------------------------------------------------------------

    def _take_code(self, query: Mapping[str, str]) -> dict[str, Any]:
        if query.get("appid") != self.app_id:
            raise Refused(40013, violation="wrong appid")
        if query.get("secret") != self.secret:
            raise Refused(40125, violation="wrong secret")
        if query.get("grant_type") != "authorization_code":
            raise Refused(40002, violation="wrong grant_type")
        login = self.logins.get(query.get("code", ""))
        if login is None:
            raise Refused(40029)
        if login.used:
            raise Refused(40163)
        if login.until < self.now():
            raise Refused(42003)
        login.used = True
        told = {"access_token": f"web-{secrets.token_urlsafe(60)}", "expires_in": TOKEN_SECONDS, "refresh_token": secrets.token_urlsafe(60)}
        return {**told, "openid": login.openid, "scope": "snsapi_base", **({"is_snapshotuser": 1} if login.snapshot else {})}

    def _give_ticket(self, token: str, query: Mapping[str, str]) -> dict[str, Any]:
        self._check_token(token)
        if query.get("type") != "jsapi":
            raise Refused(40097, violation="a ticket of another type than jsapi")
        if self._ticket_until <= self.now():
            self.ticket, self._ticket_until = "sM4-" + secrets.token_urlsafe(60), self.now() + TOKEN_SECONDS
        return {**OK, "ticket": self.ticket, "expires_in": int(self._ticket_until - self.now())}

    # -- messages -------------------------------------------------------------------------------------------------

    def _send(self, wanted: dict[str, Any], body: bytes) -> dict[str, Any]:
        openid = self._addressee(wanted)
        if not self.permitted:
            raise Refused(48001)
        content, choices = self._content(wanted)
        if not isinstance(content, str) or not content.strip():
            raise Refused(44004, violation="empty customer-service message")
        if len(content.encode()) > MAX_TEXT_BYTES:
            raise Refused(45002, violation="customer-service message longer than 2048 bytes")
        if b"\\u" in body:
            self.phones.violate(r"escaped characters: residents would see \uXXXX")
            content = json.dumps(content).strip('"')
        self._spend(openid)
        self.phones.show(openid, "push", content, choices)
        return OK

    def _content(self, wanted: dict[str, Any]) -> tuple[Any, tuple[tuple[str, str], ...]]:
        """The text and, of a menu, the answers to tap."""
        kind = wanted.get("msgtype")
        inner = wanted.get(str(kind))
        if kind == "text" and isinstance(inner, dict):
            return inner.get("content"), ()
        if kind != "msgmenu" or not isinstance(inner, dict):
            raise Refused(40008, violation="a message type that is not known here")
        choices = tuple((item.get("id"), item.get("content")) for item in inner["list"])
        if not 1 <= len(choices) <= MOST_CHOICES:
            raise Refused(45098, violation="a menu of no or too many answers")
        if not all(isinstance(value, str) and value for choice in choices for value in choice):
            raise Refused(47001, violation="an answer of a menu without id or words")
        return "\n".join(filter(None, (inner.get("head_content"), inner.get("tail_content")))), choices

    def _type(self, wanted: dict[str, Any], _body: bytes) -> dict[str, Any]:
        openid = self._addressee(wanted)
        if not self.permitted:
            raise Refused(48001)
        if wanted.get("command") not in ("Typing", "CancelTyping"):
            raise Refused(45072, violation="wrong typing command")
        if wanted["command"] == "Typing":
            self.phones.show(openid, "typing", "对方正在输入…")
        return OK

    def _addressee(self, wanted: dict[str, Any]) -> str:
        openid = wanted.get("touser")
        if not isinstance(openid, str) or openid not in self._quotas:
            raise Refused(40003, violation="openid that never wrote")
        return openid

    def _spend(self, openid: str) -> None:
        """Use up one message, of the allowance that ends first."""
        mine, now = self._quotas[openid], self.now()
        valid = {kind: (left, until) for kind, (left, until) in mine.items() if until > now}
        if not valid:
            raise Refused(45015)
        for kind, (left, until) in sorted(valid.items(), key=lambda item: item[1][1]):
            if left:
                mine[kind] = (left - 1, until)
                return
        raise Refused(45047)

    def _check_media(self, path: str, token: str, media_id: str) -> dict[str, Any]:
        if path != "/cgi-bin/media/get":
            old = path == "/cgi-bin/token"
            raise Refused(40066, violation="the old token call" if old else f"unknown call {path[:60]}")
        self._check_token(token)
        if media_id not in self.media:
            raise Refused(40007, violation="media id that was never given out")
        return OK


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode())
    except ValueError:
        raise Refused(47001, violation="body is not JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise Refused(47001, violation="body is not a JSON object")
    return found
