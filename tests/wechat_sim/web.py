"""What a page inside WeChat meets: the page that authorises a web login, and the JS-SDK with the phone behind it."""
from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.loopback import Answer, Request
from tests.wechat_sim.api import Api

USER_AGENT = (
    "Mozilla/5.0 (Linux; Android 14; SIM) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/126.0 Mobile Safari/537.36"
    " MicroMessenger/8.0.50.2701(0x28003253) WeChat/arm64 Weixin NetType/WIFI Language/zh_CN ABI/arm64"
)
AUTHORISE, SCRIPT, CALL = "/connect/oauth2/authorize", "/open/js/jweixin-1.6.0.js", "/jssdk/call"
_PARAMETERS = ("appid", "redirect_uri", "response_type", "scope", "state")
_STATE = re.compile(r"[A-Za-z0-9]{1,128}")
_JWEIXIN = Path(__file__).with_name("jweixin.js")


@dataclass
class Web:
    """`domain()` is what the account's console knows as the domain of web logins and of the JS-SDK; `holder` has the phone.

    `place` and `album` are the phone's; `refuses` names JS-SDK calls that its owner does not allow.
    """

    api: Api
    domain: Callable[[], str]
    holder: str = ""
    snapshot: bool = False  # the page is shown as a snapshot, to somebody whom the account shall not know
    place: tuple[float, float] = (33.5907, 119.0214)
    album: list[tuple[str, bytes]] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)  # of the JS-SDK

    def pages(self, request: Request) -> Answer | None:
        if request.path == AUTHORISE:
            return self._authorise(request.query)
        if request.path == SCRIPT:
            return Answer("application/javascript", _JWEIXIN.read_bytes())
        return self._call(request.query) if request.path == CALL else None

    # -- web login ------------------------------------------------------------------------------------------------

    def _authorise(self, query: Mapping[str, str]) -> Answer:
        """snsapi_base asks nobody anything: straight back with a code, or a page with an error that only the resident sees."""
        fault = self._fault(query)
        if fault:
            self.api.phones.violate(f"authorise page: {fault}")
            return Answer("text/html; charset=utf-8", fault.encode())
        code = self.api.give_code(self.holder, snapshot=self.snapshot)
        back = query["redirect_uri"]
        address = f"{back}{'&' if '?' in back else '?'}{urlencode({'code': code, 'state': query['state']})}"
        return Answer("text/plain", b"", 302, {"Location": address})

    def _fault(self, query: Mapping[str, str]) -> str:
        if tuple(query) != _PARAMETERS:
            return "parameters are missing or not in the documented order"
        if query["appid"] != self.api.app_id:
            return "40013 wrong appid"
        if urlsplit(query["redirect_uri"]).netloc != self.domain():
            return "10003 redirect_uri is not of the account's domain"
        if query["response_type"] != "code" or query["scope"] != "snsapi_base":
            return "10005 wrong scope or response_type"
        return "" if _STATE.fullmatch(query["state"]) else "state is not 1 to 128 letters and digits"

    # -- JS-SDK ---------------------------------------------------------------------------------------------------

    def _call(self, query: Mapping[str, str]) -> Answer:
        """The phone's answer to a call of the script; {"errMsg": "name:ok" or "name:fail …"} and what was asked for."""
        name, wanted = query["name"], json.loads(query["options"])
        self.calls.append(name)
        told = {"errMsg": f"{name}:fail auth deny"} if name in self.refuses else self._answer(name, wanted, query["url"])
        return Answer("application/javascript", f"{query['callback']}({json.dumps(told)})".encode())

    def _answer(self, name: str, wanted: Mapping[str, Any], url: str) -> dict[str, Any]:
        if name == "config":
            return {"errMsg": "config:" + self._config_fault(wanted, url)}
        if name == "getLocation":
            latitude, longitude = self.place
            return {"errMsg": "getLocation:ok", "latitude": latitude, "longitude": longitude, "accuracy": 30, "speed": 0}
        if name == "chooseImage":
            return {"errMsg": "chooseImage:ok", "localIds": [f"wxLocalResource://{n}" for n in range(len(self.album))][: wanted["count"]]}
        kind, content = self.album[int(wanted["localId"].rpartition("/")[2])]
        if name == "getLocalImgData":
            return {"errMsg": f"{name}:ok", "localData": f"data:{kind};base64,{base64.b64encode(content).decode()}"}
        return {"errMsg": f"{name}:ok", "serverId": self.api.keep_media(kind, content)}

    def _config_fault(self, wanted: Mapping[str, Any], url: str) -> str:
        signed = f"jsapi_ticket={self.api.ticket}&noncestr={wanted['nonceStr']}&timestamp={wanted['timestamp']}&url={url}"
        if wanted["appId"] != self.api.app_id:
            return self._wrong("invalid appid")
        if urlsplit(url).netloc != self.domain():
            return self._wrong("invalid url domain")
        return "ok" if hashlib.sha1(signed.encode()).hexdigest() == wanted["signature"] else self._wrong("invalid signature")

    def _wrong(self, fault: str) -> str:
        self.api.phones.violate(f"JS-SDK: {fault}")
        return fault
