"""The platform's side of the callback: sends each message up to three times, hangs up after five seconds, shows the answer."""
from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.wechat_platform import Account, from_xml, to_xml
from tests.wechat_sim.api import Api
from tests.wechat_sim.passive import BadAnswer, read_answer
from tests.wechat_sim.phone import FAULT_SENTENCE, Phones
from tests.wechat_sim.web import Web

SECRET = "secret-of-the-simulated-account"
SECURE, COMPATIBLE, PLAIN = "secure", "compatible", "plain"
_TAPS = ("subscribe", "SCAN", "CLICK", "scancode_waitmsg")


@dataclass(frozen=True)
class Timing:
    hang_up: float = 5.0
    tries: tuple[float, ...] = (0.0, 5.0, 10.0)

    def scaled(self, factor: float) -> Timing:
        return Timing(self.hang_up * factor, tuple(at * factor for at in self.tries))


@dataclass(frozen=True)
class Try:
    """`outcome`: said | success | bad | late | refused | cut | status NNN. Times of the monotonic clock."""

    started: float
    ended: float
    outcome: str
    words: str | None = None


@dataclass
class Delivery:
    """One message on its way. `faulty`: the resident saw the fault sentence."""

    openid: str
    tries: list[Try] = field(default_factory=list)
    said: str | None = None
    faulty: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class WeChatPlatform:
    """One official account on the platform. Threads of callers are the residents."""

    def __init__(
        self, service: str, *, account: Account | None = None, mode: str = SECURE, timing: Timing | None = None, phones: Phones | None = None
    ) -> None:
        """`service` is the address of the account's server, without /wechat."""
        self.service, self.mode, self.timing = service, mode, timing or Timing()
        self.account = account or Account()
        if mode == PLAIN:
            self.account = self.account.with_key("")
        self.phones = phones or Phones()
        self.api = Api(self.account.app_id, SECRET, self.phones)
        self.web = Web(self.api, lambda: urlsplit(self.service).netloc)

    # -- what a resident does -------------------------------------------------------------------------------------

    def text(self, openid: str, words: str) -> Delivery:
        return self.send(openid, self.account.text(words), shown=words)

    def location(self, openid: str, latitude: float, longitude: float, label: str) -> Delivery:
        fields = {"Location_X": str(latitude), "Location_Y": str(longitude), "Scale": "16", "Label": label}
        return self.send(openid, self.account.message("location", **fields), shown=f"［位置］{label}")

    def picture(self, openid: str, content_type: str, content: bytes) -> Delivery:
        media_id = self.api.keep_media(content_type, content)
        return self.send(openid, self.account.message("image", PicUrl="", MediaId=media_id), shown="［图片］")

    def scan(self, openid: str, scene: str) -> Delivery:
        return self.send(openid, self.account.event("SCAN", EventKey=scene, Ticket="ticket"), shown=f"［扫码］{scene}")

    def subscribe(self, openid: str, scene: str = "") -> Delivery:
        key = f"qrscene_{scene}" if scene else ""
        return self.send(openid, self.account.event("subscribe", EventKey=key), shown="［关注了公众号］")

    def unsubscribe(self, openid: str) -> Delivery:
        return self.send(openid, self.account.event("unsubscribe", EventKey=""), shown="［取消了关注］")

    def click(self, openid: str, key: str) -> Delivery:
        return self.send(openid, self.account.event("CLICK", EventKey=key), shown=f"［菜单］{key}")

    def tap(self, openid: str, choice: str, words: str) -> Delivery:
        """An answer of a menu that was sent as a customer-service message."""
        return self.send(openid, self.account.text(words, bizmsgmenuid=choice), shown=words)

    def send(self, openid: str, fields: Mapping[str, Any], *, shown: str, copies: int = 1) -> Delivery:
        """Blocks until the platform has its answer or gives up. `copies` of each try go out side by side."""
        return self.deliver(self.begin(openid, fields, shown=shown), fields, copies=copies)

    def begin(self, openid: str, fields: Mapping[str, Any], *, shown: str) -> Delivery:
        """The resident has pressed the button; deliver() does the rest."""
        event = fields.get("Event", "")
        tap = event in _TAPS or "bizmsgmenuid" in fields
        self.api.interact(openid, "tap" if tap else "leave" if event == "unsubscribe" else "" if event else "message")
        self.phones.show(openid, "said", shown)
        return Delivery(openid)

    # -- the three tries ------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery, fields: Mapping[str, Any], *, copies: int = 1) -> Delivery:
        fields, begun = {**fields, "FromUserName": delivery.openid}, time.monotonic()
        try:
            for at in self.timing.tries:
                time.sleep(max(0.0, begun + at - time.monotonic()))
                if self._settled(delivery, self._try(delivery.openid, fields, copies)):
                    return delivery
            self._show_fault(delivery)
            return delivery
        finally:
            delivery.done.set()

    def _settled(self, delivery: Delivery, outcomes: list[Try]) -> bool:
        delivery.tries += outcomes
        words = {outcome.words for outcome in outcomes if outcome.words is not None}
        if len(words) > 1:
            self.phones.violate("copies of one message got different answers")
        if words:
            delivery.said = next(outcome.words for outcome in outcomes if outcome.words is not None)
            self.phones.show(delivery.openid, "passive", delivery.said)
        kinds = {outcome.outcome for outcome in outcomes}
        if not words and "bad" in kinds:
            self._show_fault(delivery)
        return bool(words or kinds & {"bad", "success"})

    def _show_fault(self, delivery: Delivery) -> None:
        delivery.faulty = True
        self.phones.show(delivery.openid, "fault", FAULT_SENTENCE)

    def _try(self, openid: str, fields: Mapping[str, Any], copies: int) -> list[Try]:
        if copies == 1:
            return [self._call(openid, fields)]
        with ThreadPoolExecutor(copies) as pool:
            return list(pool.map(lambda _: self._call(openid, fields), range(copies)))

    def _call(self, openid: str, fields: Mapping[str, Any]) -> Try:
        started = time.monotonic()
        outcome, words = self._outcome(openid, fields)
        return Try(started, time.monotonic(), outcome, words)

    def _outcome(self, openid: str, fields: Mapping[str, Any]) -> tuple[str, str | None]:
        try:
            status, kind, body = self._exchange(*self._signed(fields))
        except TimeoutError:
            return "late", None
        except ConnectionRefusedError:
            return "refused", None
        except (OSError, http.client.HTTPException):
            return "cut", None
        if status != 200:
            return f"status {status}", None
        try:
            words = read_answer(
                self.account, openid, body, kind, encrypted=self.mode != PLAIN, optional=self.mode == COMPATIBLE
            )
        except BadAnswer as error:
            self.phones.violate(str(error))
            return "bad", None
        return "success" if words is None else "said", words

    def _signed(self, fields: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
        """Query and body, signed anew each time."""
        query, body = self.account.sign_request(fields)
        if self.mode == COMPATIBLE:
            body = to_xml({**fields, "Encrypt": from_xml(body.decode())["Encrypt"]}).encode()
        return {**query, "openid": str(fields["FromUserName"])}, body

    def _exchange(self, query: Mapping[str, str], body: bytes) -> tuple[int, str, bytes]:
        end, address = time.monotonic() + self.timing.hang_up, urlsplit(self.service)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=self.timing.hang_up)
        try:
            connection.request("POST", f"/wechat?{urlencode(query)}", body, {"Content-Type": "text/xml"})
            answer = connection.getresponse()
            content = answer.read()
            if time.monotonic() > end:
                raise TimeoutError
            return answer.status, answer.headers.get("Content-Type", ""), content
        finally:
            connection.close()
