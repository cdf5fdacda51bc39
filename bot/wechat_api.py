"""The platform's HTTP API: customer-service messages, notifications, typing, media, menu, codes, web logins. One client per process.

wechatpy's client is not used: it retries without bound and loses the token race (docs/wechat.md). Errors never carry a URL.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select

from bot.db import StorageError, iso, reading, transaction
from bot.schema import wechat_accounts
from bot.services import Services
from bot.wechat_http import BUSY, PlatformHttp, WeChatError, code_of
from bot.wechat_text import MAX_TEXT_BYTES, clean, split_text
from bot.wechat_token import SharedTokens, TokenRefused

NOT_NOW = (45015, 45047)  # outside 48 hours; all messages for this interaction used up
# No such follower, not following, wants nothing, silent for too long: until the next contact.
UNREACHABLE = (40003, 43004, 43019, 43101, 45015)
_NO_CHOICES = (40200, 45098)  # this kind of account has none, or not of this size
_NOT_PERMITTED = 48001  # an account without verification has no customer-service messages
_TOKEN_REFUSED = (40001, 40014, 42001)
_NO_MENU = 46003
_BUSY_PAUSES = (0.2, 0.8)
_ASK_AGAIN = timedelta(hours=1)  # after "not permitted", which the owner of the account can change
_REREAD_SECONDS = 30.0


@dataclass(frozen=True)
class SendResult:
    """`state` is sent, or pending when the platform takes no more now; then `unsent` is what has not gone out."""

    state: str
    unsent: str = ""
    code: int = 0


class SnapshotUser(WeChatError):
    """Somebody who looks at a snapshot of the page; their openid is made up."""


class WeChatClient:
    """Thread-safe. A refused access token is exchanged once and the call made once more, never oftener."""

    def __init__(self, services: Services) -> None:
        self._services, self._settings, self._now = services, services.settings, services.now
        self._http = PlatformHttp(services.settings.wechat_api_base)
        app_id = services.settings.wechat_app_id
        self._tokens = SharedTokens(services, app_id, self._fetch_token)
        self._tickets = SharedTokens(services, f"{app_id}/jsapi", self._fetch_ticket)
        self._push_known_at, self._push_refused = -_REREAD_SECONDS, False

    # -- customer-service messages --------------------------------------------------------------------------------

    def can_push(self) -> bool:
        """Whether customer-service messages may be expected to work: a secret is set and the platform did not refuse lately."""
        if not self._settings.wechat_app_secret:
            return False
        if time.monotonic() - self._push_known_at > _REREAD_SECONDS:
            self._push_refused, self._push_known_at = self._read_push_refused(), time.monotonic()
        return not self._push_refused

    def prepare(self) -> None:
        """Have a token at hand, so that little time lies between claiming a message and sending it. Raises WeChatError."""
        self._token()

    def send_text(self, openid: str, text: str, *, spend: Callable[[], bool] = lambda: True) -> SendResult:
        """Send in as many messages as the size needs, each only when `spend()` allows it.

        Raises WeChatError when nothing, or nobody knows what, was sent.
        """
        parts = split_text(clean(text).strip())
        for sent, part in enumerate(parts):
            unsent = "".join(parts[sent:])
            if not spend():
                return SendResult("pending", unsent)
            try:
                code = self._send_text(openid, part)
            except WeChatError as error:
                if sent == 0 or error.unsure:
                    raise
                return SendResult("pending", unsent)
            if code:
                return SendResult("pending", unsent, code)
        return SendResult("sent")

    def send_menu(
        self, openid: str, head: str, items: Sequence[tuple[str, str]], tail: str, *, plain: str, spend: Callable[[], bool] = lambda: True
    ) -> SendResult:
        """A question with answers to tap, (id, words) each; `plain` is the same as text, for accounts without menus.

        Raises WeChatError when nothing, or nobody knows what, was sent.
        """
        if len(plain.encode()) > MAX_TEXT_BYTES:
            return self.send_text(openid, plain, spend=spend)
        if not spend():
            return SendResult("pending", plain)
        choices = [{"id": menu_id, "content": clean(words)} for menu_id, words in items]
        menu = {"head_content": clean(head).strip(), "list": choices, "tail_content": clean(tail).strip()}
        code = self._send({"touser": openid, "msgtype": "msgmenu", "msgmenu": menu}, passing=_NO_CHOICES)
        if code in _NO_CHOICES:
            code = self._send_text(openid, clean(plain).strip())
        return SendResult("pending", plain, code) if code else SendResult("sent")

    def send_notification(self, path: str, payload: Mapping[str, Any]) -> tuple[int, str]:
        """A template message or subscription notification: errcode and the message's id. Raises WeChatError."""
        answer = self._exchange(path, payload)
        return code_of(answer), str(answer.get("msgid") or "")[:40]

    def show_typing(self, openid: str) -> None:
        """The sign that somebody is writing, for fifteen seconds or until the next message. Raises WeChatError."""
        code = self._call("/cgi-bin/message/custom/typing", {"touser": openid, "command": "Typing"})
        if code not in (0, 45081):  # 45081: it is shown already
            raise WeChatError(f"custom/typing refused with {code}", code=code)

    def _send_text(self, openid: str, text: str) -> int:
        return self._send({"touser": openid, "msgtype": "text", "text": {"content": text}})

    def _send(self, payload: Mapping[str, Any], *, passing: Sequence[int] = ()) -> int:
        """0, or the code that says that the platform takes no more messages for this person now, or one of `passing`."""
        code = self._call("/cgi-bin/message/custom/send", payload)
        for pause in _BUSY_PAUSES:
            if code != BUSY:
                break
            time.sleep(pause)
            code = self._call("/cgi-bin/message/custom/send", payload)
        if code and code not in (*NOT_NOW, *passing):
            raise WeChatError(f"custom/send refused with {code}", code=code)
        return code

    def _call(self, path: str, payload: Mapping[str, Any]) -> int:
        """The errcode of a customer-service call."""
        code = code_of(self._exchange(path, payload))
        if code == _NOT_PERMITTED:
            self._note_push_refused()
        return code

    def _exchange(self, path: str, payload: Mapping[str, Any] | None, **params: str) -> Mapping[str, Any]:
        token = self._token()
        answer = self._http.ask(path, payload, access_token=token, **params)
        if code_of(answer) in _TOKEN_REFUSED:
            answer = self._http.ask(path, payload, access_token=self._token(refused=token), **params)
        return answer

    # -- menu and codes -------------------------------------------------------------------------------------------

    def get_menu(self) -> Mapping[str, Any]:
        """What was set through this API, as menu/get answers it; {} when nothing was. Raises WeChatError."""
        return self._administer("/cgi-bin/menu/get", None, fine=_NO_MENU)

    def create_menu(self, menu: Mapping[str, Any]) -> None:
        """Replaces the account's menu. Raises WeChatError."""
        self._administer("/cgi-bin/menu/create", menu)

    def create_code(self, scene: str) -> str:
        """The address inside the account's permanent code for `scene`, which followers' scans bring back. Raises WeChatError."""
        wanted = {"action_name": "QR_LIMIT_STR_SCENE", "action_info": {"scene": {"scene_str": scene}}}
        url = self._administer("/cgi-bin/qrcode/create", wanted).get("url")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise WeChatError("qrcode/create answered without an address")
        return url

    def _administer(self, path: str, payload: Mapping[str, Any] | None, *, fine: int = 0) -> Mapping[str, Any]:
        """A call that says nothing to anybody: repeating it does no harm, and its refusal tells nothing about messages."""
        answer = self._exchange(path, payload)
        for pause in _BUSY_PAUSES:
            if code_of(answer) != BUSY:
                break
            time.sleep(pause)
            answer = self._exchange(path, payload)
        code = code_of(answer)
        if code not in (0, fine):
            raise WeChatError(f"{path.removeprefix('/cgi-bin/')} refused with {code}", code=code)
        return answer if code == 0 else {}

    # -- media ----------------------------------------------------------------------------------------------------

    def download_media(self, media_id: str, *, limit: int) -> bytes:
        """A resident's picture, video or voice. Raises WeChatError, with code 45001 when it is larger than `limit` bytes."""
        token = self._token()
        content = self._get_media(media_id, token, limit)
        if isinstance(content, dict) and code_of(content) in _TOKEN_REFUSED:
            content = self._get_media(media_id, self._token(refused=token), limit)
        if isinstance(content, dict) and isinstance(content.get("video_url"), str):
            content = self._get_media_url(content["video_url"], limit)
        if isinstance(content, bytes):
            return content
        code = code_of(content)
        raise WeChatError(f"media/get refused with {code}", code=code)

    def _get_media(self, media_id: str, token: str, limit: int) -> bytes | dict[str, Any]:
        return self._http.download("/cgi-bin/media/get", limit=limit, access_token=token, media_id=media_id)

    def _get_media_url(self, url: str, limit: int) -> bytes | dict[str, Any]:
        """Where a video is. The address comes from the platform; it must stay with the platform."""
        host, own = urlsplit(url).hostname or "", urlsplit(self._settings.wechat_api_base).hostname
        if urlsplit(url).scheme not in ("http", "https") or not (host == own or host.endswith((".qq.com", ".qpic.cn"))):
            raise WeChatError("media/get pointed to a foreign host", code=40007)
        return self._http.download_from(url, limit=limit)

    # -- web pages ------------------------------------------------------------------------------------------------

    def fetch_openid(self, code: str) -> str:
        """Whose web login this is. A code is good once. Raises WeChatError, SnapshotUser."""
        settings = self._settings
        answer = self._http.ask(
            "/sns/oauth2/access_token",
            appid=settings.wechat_app_id,
            secret=settings.wechat_app_secret,
            code=code,
            grant_type="authorization_code",
        )
        if code_of(answer):
            raise WeChatError(f"sns/oauth2/access_token refused with {code_of(answer)}", code=code_of(answer))
        if str(answer.get("is_snapshotuser") or 0) != "0":
            raise SnapshotUser("the page is shown as a snapshot")
        openid = answer.get("openid")  # the answer's own token is for calls that we do not make
        if not isinstance(openid, str) or not openid:
            raise WeChatError("sns/oauth2/access_token answered without an openid")
        return openid

    def jsapi_ticket(self) -> str:
        """With it our pages sign for the JS-SDK; kept like the access token. Raises WeChatError."""
        self._token()  # before the lease, which covers one call and not two
        return self._held(self._tickets)

    def _fetch_ticket(self, _force: bool) -> tuple[str, int]:
        """A ticket and its lifetime in seconds. Raises TokenRefused."""
        failure = None
        try:
            answer = self._exchange("/cgi-bin/ticket/getticket", None, type="jsapi")
        except WeChatError as error:
            failure = TokenRefused(str(error), code=error.code)
        if failure is not None:
            raise failure
        return _lent("ticket/getticket", answer, "ticket")

    # -- access token ---------------------------------------------------------------------------------------------

    def _token(self, *, refused: str | None = None) -> str:
        return self._held(self._tokens, refused=refused)

    def _held(self, tokens: SharedTokens, *, refused: str | None = None) -> str:
        try:
            return tokens.get(refused=refused)
        except TokenRefused as error:  # whatever happened to it, the call was not made
            raise WeChatError(str(error), code=error.code) from None
        except StorageError:
            raise WeChatError("the access token's place in the database cannot be reached") from None

    def _fetch_token(self, force: bool) -> tuple[str, int]:
        """A token and its lifetime in seconds. Raises TokenRefused."""
        payload = {
            "grant_type": "client_credential",
            "appid": self._settings.wechat_app_id,
            "secret": self._settings.wechat_app_secret,
            "force_refresh": force,
        }
        failure = None
        try:
            answer = self._http.ask("/cgi-bin/stable_token", payload)
        except WeChatError as error:
            failure = str(error)
        if failure is not None:
            raise TokenRefused(failure)
        return _lent("stable_token", answer, "access_token")

    # -- permission -----------------------------------------------------------------------------------------------

    def _read_push_refused(self) -> bool:
        mine = wechat_accounts.c.app_id == self._settings.wechat_app_id
        try:
            with reading(self._services.engine) as connection:
                row = connection.execute(select(wechat_accounts.c.push_refused_at).where(mine)).first()
        except StorageError:
            return self._push_refused
        return row is not None and row.push_refused_at is not None and row.push_refused_at > iso(self._now() - _ASK_AGAIN)

    def _note_push_refused(self) -> None:
        self._push_refused, self._push_known_at = True, time.monotonic()
        mine = wechat_accounts.c.app_id == self._settings.wechat_app_id
        with transaction(self._services.engine, durable=False) as connection:  # the row is there: a token was needed
            connection.execute(wechat_accounts.update().where(mine).values(push_refused_at=iso(self._now())))


def _lent(call: str, answer: Mapping[str, Any], name: str) -> tuple[str, int]:
    """The value under `name` and its lifetime. Raises TokenRefused."""
    value, lifetime = answer.get(name), answer.get("expires_in")
    if not isinstance(value, str) or not value or not isinstance(lifetime, int):
        raise TokenRefused(f"{call} refused with {code_of(answer)}", code=code_of(answer))
    return value, lifetime
