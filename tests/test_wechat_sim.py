"""The simulated platform: its three tries, its strict reading of answers, its tokens and quotas; and the service beside it."""
from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from flask import Flask, Response, request

from tests.stub_app import serving
from tests.wechat_channel import ACCOUNT, MakeChannel
from tests.wechat_platform import Account, signature, to_xml
from tests.wechat_sim.demo import RESIDENTS, Demo
from tests.wechat_sim.passive import BadAnswer, read_answer
from tests.wechat_sim.phone import FAULT_SENTENCE
from tests.wechat_sim.platform import COMPATIBLE, PLAIN, SECRET, SECURE, Timing, WeChatPlatform
from tests.wechat_sim.server import SimulatorServer

pytest_plugins = ("tests.wechat_channel",)

WHO = "oResident-0007"
QUICK = Timing().scaled(0.1)
Serve = Callable[[Flask], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app))


@pytest.fixture
def simulated(serve: Serve) -> Iterator[Callable[..., WeChatPlatform]]:
    """A platform whose account's server answers with what the view returns; its API is at `platform.url`."""
    servers = []

    def make(view: Callable[[], Any], *, mode: str = SECURE) -> WeChatPlatform:
        app = Flask("account")
        app.add_url_rule("/wechat", view_func=view, methods=["POST"])
        platform = WeChatPlatform(serve(app), mode=mode, timing=QUICK)
        servers.append(SimulatorServer(platform.api, platform.web.pages))
        servers[-1].start()
        platform.url = servers[-1].url  # type: ignore[attr-defined]
        return platform

    yield make
    for server in servers:
        server.stop()


def reply(content: str, **changes: str) -> str:
    fields = {"ToUserName": WHO, "FromUserName": ACCOUNT.name, "CreateTime": "1714036504", "MsgType": "text", "Content": content}
    return to_xml({**fields, **changes})


def sealed(xml: str, account: Account = ACCOUNT, **changes: str) -> bytes:
    encrypted = account.encrypt(xml)
    signed = signature(account.token, "1714036504", "nonce", encrypted)
    envelope = {"Encrypt": encrypted, "MsgSignature": signed, "TimeStamp": "1714036504", "Nonce": "nonce"}
    return to_xml({**envelope, **changes}).encode()


# -- answers ----------------------------------------------------------------------------------------------------------


def test_good_answers_are_read() -> None:
    assert read_answer(ACCOUNT, WHO, sealed(reply("您好]]>")), "application/xml", encrypted=True) == "您好]]>"
    assert read_answer(ACCOUNT, WHO, sealed(reply("字" * 682)), "text/xml", encrypted=True) == "字" * 682
    assert read_answer(ACCOUNT, WHO, reply("您好").encode(), "text/xml", encrypted=True, optional=True) == "您好"
    for nothing in (b"success", b""):
        assert read_answer(ACCOUNT, WHO, nothing, "text/plain; charset=utf-8", encrypted=True) is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"None", "XML content type"),
        (b"<xml><Encrypt>", "malformed"),
        (reply("您好").encode(), "not an encrypted envelope"),
        (sealed(reply("您好"), MsgSignature="0" * 40), "MsgSignature"),
        (sealed(reply("您好"), ACCOUNT.with_key("B" * 43)), "decrypted"),
        (sealed("success"), "malformed"),
        (sealed(reply("您好", ToUserName="oOther")), "ToUserName"),
        (sealed(reply("您好", FromUserName="gh_other")), "FromUserName"),
        (sealed(reply(" ")), "empty"),
        (sealed(reply("字" * 683)), "2048"),
        (sealed(reply("您好").replace("</xml>", "<Content>再来</Content></xml>")), "twice"),
        (sealed(reply("您好") + reply("再来")), "malformed"),
        (sealed("<!DOCTYPE xml>" + reply("您好")), "DOCTYPE"),
        (sealed(reply("您好")).decode().encode("utf-16"), "UTF-8"),
    ],
    # A sealed answer is another one each time: named by it, no two processes would find the same tests.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_answers_show_as_a_fault(body: bytes, reason: str) -> None:
    kind = "text/html" if body == b"None" else "application/xml"
    with pytest.raises(BadAnswer, match=reason):
        read_answer(ACCOUNT, WHO, body, kind, encrypted=True)


def test_success_as_html_is_refused() -> None:
    with pytest.raises(BadAnswer, match="plain text"):
        read_answer(ACCOUNT, WHO, b"success", "text/html", encrypted=True)


def test_bad_answer_is_shown_and_counted_with_its_reason(simulated: Callable[..., WeChatPlatform]) -> None:
    platform = simulated(lambda: Response("<html>500</html>", content_type="text/html"))
    assert platform.text(WHO, "路灯坏了").faulty
    assert platform.phones.texts(WHO) == [FAULT_SENTENCE]
    assert list(platform.phones.violations) == ["a reply without an XML content type"]


# -- three tries ------------------------------------------------------------------------------------------------------


def test_same_message_three_times_and_then_the_fault_sentence(simulated: Callable[..., WeChatPlatform]) -> None:
    bodies, times = [], []

    def slow() -> str:
        times.append(time.monotonic())
        bodies.append(ACCOUNT.decrypt(request.get_data(as_text=True).split("<Encrypt>")[1].split("</Encrypt>")[0]))
        time.sleep(0.7)
        return "success"

    platform = simulated(slow)
    delivery = platform.text(WHO, "路灯坏了")
    assert len(bodies) == 3 and len(set(bodies)) == 1
    assert [round(at - times[0], 1) for at in times] == [0.0, 0.5, 1.0]
    assert [one.outcome for one in delivery.tries] == ["late"] * 3
    assert [seen.way for seen in platform.phones.of(WHO)] == ["said", "fault"]


def test_service_that_is_down_is_told_from_one_that_is_late() -> None:
    platform = WeChatPlatform("http://127.0.0.1:9", timing=QUICK)
    assert [one.outcome for one in platform.text(WHO, "在吗").tries] == ["refused"] * 3


def test_answer_to_the_second_try_is_shown_once(simulated: Callable[..., WeChatPlatform]) -> None:
    calls: list[int] = []

    def view() -> Response:
        calls.append(1)
        return Response(sealed(reply("收到")), content_type="application/xml") if len(calls) == 2 else Response("", 503)

    platform = simulated(view)
    assert platform.text(WHO, "路灯坏了").said == "收到" and platform.phones.texts(WHO) == ["收到"]


# -- the API ----------------------------------------------------------------------------------------------------------


def call(platform: Any, path: str, payload: Any, token: str = "") -> int:
    body = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    return int(requests.post(platform.url + path, params={"access_token": token}, data=body, timeout=5).json().get("errcode", 0))


def fetch_token(platform: Any, *, force: bool = False, secret: str = SECRET) -> dict[str, Any]:
    wanted = {"grant_type": "client_credential", "appid": ACCOUNT.app_id, "secret": secret, "force_refresh": force}
    return dict(requests.post(platform.url + "/cgi-bin/stable_token", json=wanted, timeout=5).json())


def push(platform: Any, token: str, content: str = "您好", **changes: Any) -> int:
    return call(platform, "/cgi-bin/message/custom/send", {"touser": WHO, "msgtype": "text", "text": {"content": content}, **changes}, token)


@pytest.fixture
def wechat(simulated: Callable[..., WeChatPlatform]) -> WeChatPlatform:
    return simulated(lambda: Response("success", content_type="text/plain"))


def test_tokens_expire_and_are_refused(wechat: Any) -> None:
    wechat.text(WHO, "在吗")
    token = fetch_token(wechat)["access_token"]
    assert fetch_token(wechat)["access_token"] == token and push(wechat, token) == 0
    wechat.api.expire_tokens()
    assert push(wechat, token) == 42001
    fresh = fetch_token(wechat)["access_token"]
    assert fresh != token and push(wechat, fresh) == 0 and push(wechat, "made up") == 40001
    assert fetch_token(wechat, secret="wrong")["errcode"] == 40125


def test_near_its_end_a_token_overlaps_with_the_next_one(wechat: Any) -> None:
    wechat.text(WHO, "在吗")
    token = fetch_token(wechat)["access_token"]
    wechat.api.now = lambda: time.time() + 7000
    fresh = fetch_token(wechat)["access_token"]
    assert fresh != token and push(wechat, token) == 0 and push(wechat, fresh) == 0


def test_forced_token_ends_the_one_before_and_is_rationed(wechat: Any) -> None:
    wechat.text(WHO, "在吗")
    token = fetch_token(wechat)["access_token"]
    assert push(wechat, fetch_token(wechat, force=True)["access_token"]) == 0 and push(wechat, token) == 40001
    assert fetch_token(wechat, force=True)["errcode"] == 45009


def test_five_messages_after_a_message_and_three_after_a_tap(wechat: Any) -> None:
    token = fetch_token(wechat)["access_token"]
    assert push(wechat, token) == 40003, "never wrote"
    wechat.click(WHO, "查进度")
    assert [push(wechat, token) for _ in range(4)] == [0, 0, 0, 45047]
    wechat.text(WHO, "在吗")
    assert [push(wechat, token) for _ in range(6)] == [0] * 5 + [45047]
    wechat.api.now = lambda: time.time() + 70
    wechat.api.interact(WHO, "tap")
    wechat.api.now = lambda: time.time() + 140
    assert push(wechat, fetch_token(wechat)["access_token"]) == 45047, "the tap's minute is over"
    wechat.unsubscribe(WHO)
    assert push(wechat, token) == 45015


def test_nothing_outside_48_hours(wechat: Any) -> None:
    wechat.text(WHO, "在吗")
    wechat.api.now = lambda: time.time() + 48 * 3600 + 1
    assert push(wechat, fetch_token(wechat)["access_token"]) == 45015


def test_what_may_not_be_sent(wechat: Any) -> None:
    wechat.text(WHO, "在吗")
    token = fetch_token(wechat)["access_token"]
    assert push(wechat, token, "字" * 683) == 45002 and push(wechat, token, " ") == 44004
    assert push(wechat, token, msgtype="video") == 40008 and call(wechat, "/cgi-bin/message/custom/send", b"\xff{}", token) == 47001
    assert call(wechat, "/cgi-bin/menu/create", {}, token) == 40066
    wechat.api.permitted = False
    assert push(wechat, token) == 48001
    assert len(wechat.phones.violations) == 5


def test_escaped_characters_are_seen_as_they_are(wechat: Any) -> None:
    wechat.text(WHO, "在吗")
    token = fetch_token(wechat)["access_token"]
    body = json.dumps({"touser": WHO, "msgtype": "text", "text": {"content": "好"}}).encode()
    assert call(wechat, "/cgi-bin/message/custom/send", body, token) == 0
    assert wechat.phones.texts(WHO) == ["\\u597d"] and len(wechat.phones.violations) == 1


def test_menu_in_a_message_and_a_tap_on_it(wechat: Any) -> None:
    wechat.text(WHO, "在吗")
    token = fetch_token(wechat)["access_token"]
    menu = {"head_content": "办得怎么样？", "list": [{"id": "sat:1:5", "content": "满意"}], "tail_content": "谢谢"}
    assert push(wechat, token, msgtype="msgmenu", msgmenu=menu) == 0
    assert wechat.phones.of(WHO)[-1].text == "办得怎么样？\n谢谢" and wechat.phones.of(WHO)[-1].choices == (("sat:1:5", "满意"),)
    wechat.tap(WHO, "sat:1:5", "满意")
    assert [push(wechat, token) for _ in range(8)] == [0] * 7 + [45047], "the tap gave three more"
    wechat.text(WHO, "在吗")
    assert push(wechat, token, msgtype="msgmenu", msgmenu={**menu, "list": menu["list"] * 6}) == 45098
    assert push(wechat, token, msgtype="msgmenu", msgmenu={**menu, "list": [{"id": 5, "content": "满意"}]}) == 47001
    assert len(wechat.phones.violations) == 2


def test_typing_and_media(wechat: Any) -> None:
    wechat.picture(WHO, "image/png", b"png")
    token, (media_id,) = fetch_token(wechat)["access_token"], wechat.api.media
    assert call(wechat, "/cgi-bin/message/custom/typing", {"touser": WHO, "command": "Typing"}, token) == 0
    assert wechat.phones.of(WHO)[-1].way == "typing"
    address = wechat.url + "/cgi-bin/media/get"
    assert requests.get(address, params={"access_token": token, "media_id": media_id}, timeout=5).content == b"png"
    assert requests.get(address, params={"access_token": token, "media_id": "no"}, timeout=5).json()["errcode"] == 40007


def test_without_strictness_nothing_is_counted(wechat: Any) -> None:
    wechat.phones.strict = False
    assert call(wechat, "/cgi-bin/menu/create", {}) == 40066 and not wechat.phones.violations


# -- the service on it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [SECURE, COMPATIBLE, PLAIN])
def test_service_keeps_the_platforms_rules(make_channel: MakeChannel, serve: Serve, mode: str) -> None:
    platform = WeChatPlatform("", mode=mode, timing=QUICK)
    server = SimulatorServer(platform.api)
    server.start()
    changes = {"wechat_api_base": server.url, "wechat_app_secret": SECRET, **({"wechat_aes_key": ""} if mode == PLAIN else {})}
    channel = make_channel(seconds=0.42, hang_up=0.52, **changes)
    platform.service = serve(channel.http.application)
    assert platform.text(WHO, "路灯坏了").said == "收到：路灯坏了"
    channel.assistant.seconds = 0.8
    assert platform.text(WHO, "还没修好").said is None
    assert platform.phones.wait(WHO, lambda seen: seen[-1].way == "push", seconds=5)
    assert platform.phones.texts(WHO) == ["收到：路灯坏了", "收到：还没修好"] and not platform.phones.violations
    server.stop()


def test_page_sends_and_shows(make_channel: MakeChannel, serve: Serve) -> None:
    demo = Demo(WeChatPlatform("", timing=QUICK))
    demo.platform.service = serve(make_channel().http.application)
    server = SimulatorServer(demo.platform.api, demo.pages)
    server.start()
    who = next(iter(RESIDENTS))

    def act(**wanted: Any) -> dict[str, str]:
        return dict(requests.post(server.url + "/demo/act", data=json.dumps({"openid": who, **wanted}), timeout=5).json())

    assert "<script" in requests.get(server.url, timeout=5).text and "//" not in requests.get(server.url, timeout=5).text
    assert act(action="text", value="路灯坏了") == {}
    assert demo.platform.phones.wait(who, lambda seen: len(seen) > 1, seconds=5)
    seen = requests.get(f"{server.url}/demo/phone", params={"openid": who, "after": 1}, timeout=5).json()["seen"]
    assert [(line["way"], line["text"]) for line in seen] == [("passive", "收到：路灯坏了")]
    for action, value in (("text", ""), ("dance", "x"), ("picture", "data:text/html;base64,xx"), ("location", "hier"), ("text", None)):
        assert act(action=action, value=value)["error"]
    assert requests.post(server.url + "/demo/act", data=b"{", headers={"Origin": "http://elsewhere"}, timeout=5).status_code == 404
    server.stop()
