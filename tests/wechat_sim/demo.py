"""Residents of a demonstration and what they can do, for the web page and for the terminal."""
from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.phrases import menu_keys
from bot.services import DATA_DIR
from bot.settings import Settings
from bot.wechat_menu import Button, load_menu
from tests.loopback import Answer, Request, json_answer
from tests.wechat_sim.phone import Seen
from tests.wechat_sim.platform import WeChatPlatform

PAGE = Path(__file__).with_name("page.html")
RESIDENTS = {"oDemo-zhang": "张阿姨", "oDemo-li": "李师傅", "oDemo-wang": "小王"}
SCENES = {"c:shanyang": "山阳小区", "s:qingpu": "清浦街道", "r:daxiang": "笪巷村议事室"}
PLACE = (33.5907, 119.0214, "江苏省淮安市清江浦区桂花新村")
_PICTURES = ("image/jpeg", "image/png")


class BadAction(ValueError):
    """What the page or the terminal asked for cannot be done; the text says why."""


@dataclass
class Demo:
    """The menu is that of the city, as `python -m bot menu apply` puts it on the account."""

    platform: WeChatPlatform
    city: str = Settings.city

    @property
    def menu(self) -> tuple[Button, ...]:
        return load_menu(DATA_DIR / "cities" / self.city / "menu.yml", keys=menu_keys(), public_url=self.platform.service)

    def act(self, openid: str, action: str, value: Any) -> None:
        """Returns at once; what comes of it shows on the phone."""
        if openid not in RESIDENTS:
            raise BadAction("没有这位居民")
        does = self._action(openid, action, value)
        threading.Thread(target=does, daemon=True).start()

    def _action(self, openid: str, action: str, value: Any) -> Callable[[], Any]:
        platform, words = self.platform, value.strip() if isinstance(value, str) else ""
        if action == "picture":
            kind, content = _picture(value)
            return lambda: platform.picture(openid, kind, content)
        if action == "location":
            latitude, longitude, label = _place(value)
            return lambda: platform.location(openid, latitude, longitude, label)
        if action == "tap":
            choice, said = _choice(value)
            return lambda: platform.tap(openid, choice, said)
        if action == "subscribe":
            return lambda: platform.subscribe(openid, words)
        if action == "unsubscribe":
            return lambda: platform.unsubscribe(openid)
        if not words or len(words) > 2000:
            raise BadAction("请先写点什么（最多 2000 字）")
        known = {"text": platform.text, "scan": platform.scan, "click": platform.click}
        if action not in known:
            raise BadAction("不认识这个操作")
        return lambda: known[action](openid, words)

    # -- the page -------------------------------------------------------------------------------------------------

    def pages(self, request: Request) -> Answer | None:
        # Only for pages of this address: another site must not talk as a resident.
        here = f"http://{request.host}"
        if request.headers.get("Origin", here) != here:
            return None
        asked = (request.method, request.path)
        if asked == ("GET", "/"):
            return Answer("text/html; charset=utf-8", PAGE.read_bytes())
        if asked == ("GET", "/demo/start"):
            menu = [button.as_dict() for button in self.menu]
            return json_answer({"residents": RESIDENTS, "menu": menu, "scenes": SCENES, "place": PLACE})
        if asked == ("GET", "/demo/phone"):
            return json_answer(self._phone(request.query.get("openid", ""), request.query.get("after", "0")))
        if asked == ("POST", "/demo/act"):
            return json_answer(self._act(request.body))
        return None

    def _phone(self, openid: str, after: str) -> dict[str, Any]:
        """What is new on a phone; waits a little when there is nothing."""
        known = int(after) if after.isdecimal() else 0
        self.platform.phones.wait_for_more(openid, known, seconds=10)
        return {"seen": [seen.as_dict() for seen in self.platform.phones.of(openid, after=known)], "violations": self.violations()}

    def violations(self) -> list[str]:
        return [f"{reason} ×{count}" for reason, count in self.platform.phones.violations.items()]

    def _act(self, body: bytes) -> dict[str, str]:
        try:
            wanted = json.loads(body)
            self.act(wanted["openid"], wanted["action"], wanted.get("value"))
        except BadAction as error:
            return {"error": str(error)}
        except (ValueError, KeyError, TypeError):
            return {"error": "这个请求看不懂"}
        return {}


def describe(seen: Seen) -> str:
    """A line of the phone for a terminal."""
    marks = {"said": "我", "passive": "公众号", "push": "公众号（客服消息）", "typing": "", "fault": "微信"}
    choices = "".join(f"\n  /选 {place} {words}" for place, (_, words) in enumerate(seen.choices, start=1))
    return f"{marks[seen.way]}：{seen.text}{choices}" if marks[seen.way] else f"（{seen.text}）"


def _picture(value: Any) -> tuple[str, bytes]:
    """From a data: address as a page makes it."""
    head, _, data = value.partition(",") if isinstance(value, str) else ("", "", "")
    kind = head.removeprefix("data:").removesuffix(";base64")
    if kind not in _PICTURES:
        raise BadAction("只能发 JPG 或 PNG 图片")
    try:
        return kind, base64.b64decode(data, validate=True)
    except binascii.Error:
        raise BadAction("图片读不出来") from None


def _choice(value: Any) -> tuple[str, str]:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)):
        raise BadAction("没有这个选项")
    return value[0], value[1]


def _place(value: Any) -> tuple[float, float, str]:
    try:
        latitude, longitude, label = value or PLACE
        return float(latitude), float(longitude), str(label)[:100]
    except (TypeError, ValueError):
        raise BadAction("位置要写成：纬度、经度、地名") from None
