"""Who looks at a page inside WeChat: a login that asks the resident nothing (snsapi_base), kept in the session.

The session holds the openid sealed and no token. A login begins from one of our pages and goes back to it: nothing in an
address says where to, so there is nowhere else to be sent.
"""
from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, make_response, redirect, render_template, request, session
from werkzeug.wrappers import Response as BaseResponse

from bot.db import iso, parse_iso
from bot.services import Services
from bot.vault import VaultError
from bot.web import guard_secret
from bot.wechat_api import SnapshotUser
from bot.wechat_http import WeChatError
from bot.wechat_pages import LOGIN_PATH, WeChatPages

logger = logging.getLogger(__name__)

# Short, because the next login costs nobody anything, and two accounts may take turns on one phone.
FRESH, ACTING = timedelta(hours=2), timedelta(hours=12)  # to see a page; to send off what a page shown in time was for
_BEGUN_FOR = timedelta(minutes=10)
_MOST_BEGUN = 5  # pages opened side by side
_CODE_SPENT = (40029, 40163, 42003)

NOT_BEGUN = "登录没有完成，请再试一次。"
SPENT = "这次登录已经用过或过期了，请再试一次。"
SNAPSHOT = "现在看到的是网页快照，认不出您是谁。请点右下角的“使用完整服务”，再打开一次。"
UNREACHABLE = "暂时连不上微信，请稍后再试。"
TOO_OFTEN = "请求太频繁，请稍等一会儿再试。"


class WebLogin:
    def __init__(self, services: Services, pages: WeChatPages, allow: Callable[[str], bool]) -> None:
        """`allow(name)` says whether the rate limit admits one more attempt."""
        self._services, self._pages, self._allow = services, pages, allow

    def possible(self) -> bool:
        return self._services.settings.pages_in_wechat and inside_wechat()

    def find_viewer(self, within: timedelta) -> str | None:
        """The conversation of whoever logged in, not longer ago than `within`; empty where they have none. Raises StorageError."""
        try:
            known = self._services.vault.open(str(session.get("resident", "")).encode())
        except VaultError:  # nobody, or SECRET_KEY was changed
            return None
        if parse_iso(known["at"]) + within < self._services.now():
            return None
        return self._pages.find_conversation(str(known["openid"]))

    def begin(self, path: str) -> BaseResponse:
        """Off to WeChat, and then back to `path`, one of our own."""
        state = secrets.token_hex(16)
        begun = sorted(session.get("logins", {}).items(), key=lambda item: item[1][1])[1 - _MOST_BEGUN :]
        session["logins"] = {**dict(begun), state: [path, iso(self._services.now())]}
        return redirect(self._pages.login_address(state))

    def finish(self) -> BaseResponse:
        """The view of LOGIN_PATH. A state is good once and in the session that began with it, so is a code with the platform."""
        state, code = request.args.get("state", ""), request.args.get("code", "")
        path = self._take_begun(state)
        if path is None or not 1 <= len(code) <= 512:
            return _refused(400, NOT_BEGUN, path)
        if not self._allow("login " + state):
            return _refused(429, TOO_OFTEN, path)
        try:
            openid = self._pages.fetch_openid(code)
        except SnapshotUser:
            return _refused(403, SNAPSHOT, path)
        except WeChatError as error:
            logger.warning("web login failed: %s", error)
            return _refused(400, SPENT, path) if error.code in _CODE_SPENT else _refused(503, UNREACHABLE, path)
        session["resident"] = self._services.vault.seal({"openid": openid, "at": iso(self._services.now())}).decode()
        return redirect(path, 303)

    def _take_begun(self, state: str) -> str | None:
        begun: dict[str, Any] = dict(session.get("logins", {}))
        path, at = begun.pop(state, (None, ""))
        session["logins"] = begun
        return path if path and parse_iso(at) + _BEGUN_FOR > self._services.now() else None


def inside_wechat() -> bool:
    """WeChat's own browser; that of WeCom (wxwork) calls itself so too, and has other logins."""
    agent = request.user_agent.string
    return "MicroMessenger" in agent and "wxwork" not in agent


def _refused(status: int, sentence: str, path: str | None) -> Response:
    return make_response(render_template("error.html", code=status, sentence=sentence, again=path), status)


def create_blueprint(login: WebLogin) -> Blueprint:
    blueprint = Blueprint("wechat_login", __name__)
    blueprint.add_url_rule(LOGIN_PATH, "finish", login.finish)
    blueprint.after_request(guard_secret)
    return blueprint
