"""Place and photos of the chat page by way of WeChat's JS-SDK: signatures, one ticket for all, pictures, and a real browser."""
from __future__ import annotations

import hashlib
import io
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import select

from bot.db import reading
from bot.schema import inbound_messages, wechat_accounts
from bot.wechat_pages import WeChatPages, signature_of
from tests.wechat_channel import MakeChannel
from tests.wechat_sim.platform import SECRET, WeChatPlatform
from tests.wechat_sim.server import SimulatorServer
from tests.wechat_sim.web import USER_AGENT
from tests.wechat_world import OWN, TICKET_CALL, Phone, World

pytest_plugins = ("tests.wechat_world", "tests.wechat_channel")


# -- JS-SDK -----------------------------------------------------------------------------------------------------------


def test_documented_signature() -> None:
    ticket = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
    address = "http://mp.weixin.qq.com?params=value"
    for url in (address, address + "#later"):
        assert signature_of(ticket, "Wm3WZYTPz0wzccnW", "1414587457", url) == "0f9de62fce790f9a083d5c99e95740ceb90c27ed"


def test_chat_page_gets_a_signature_for_its_own_address_only(world: World) -> None:
    phone, url = world.phone(), f"{world.url}/chat?scene=c:shanyang"
    told = phone.get(f"{world.url}/chat/wechat", params={"url": url}, timeout=10).json()
    signed = f"jsapi_ticket={world.platform.api.ticket}&noncestr={told['nonceStr']}&timestamp={told['timestamp']}&url={url}"
    assert told["signature"] == hashlib.sha1(signed.encode()).hexdigest() and told["appId"] == world.platform.account.app_id
    for foreign in ("https://elsewhere.example/chat", f"{world.url}/my", f"{world.url}.elsewhere.example/chat", "http://[", "", f"{url}{'x' * 2048}"):
        assert phone.get(f"{world.url}/chat/wechat", params={"url": foreign}, timeout=10).status_code == 400


def test_scripts_from_wechat_are_let_in_inside_wechat_only(world: World) -> None:
    inside, outside = world.phone().open("/chat"), world.phone(agent="Mozilla/5.0 Firefox/140.0").open("/chat")
    wecom = world.phone(agent=USER_AGENT + " wxwork/4.1").open("/chat")
    assert f"script-src 'self' {world.simulator.url};" in inside.headers["Content-Security-Policy"] and "data-jssdk" in inside.text
    for page in (outside, wecom):
        assert world.simulator.url not in page.headers["Content-Security-Policy"] + page.text


def test_any_number_of_threads_and_processes_fetch_one_ticket(make_channel: MakeChannel) -> None:
    platform = WeChatPlatform("http://127.0.0.1:9")
    simulator = SimulatorServer(platform.api)
    platform.api.latency = lambda: 0.05
    changes = {"wechat_api_base": simulator.start(), "wechat_app_secret": SECRET}
    channels = [make_channel(**changes) for _ in range(3)]
    pages = [WeChatPages(channel.services, channel.client) for channel in channels]
    with ThreadPoolExecutor(24) as pool:
        signed = list(pool.map(lambda n: pages[n % 3].sign("https://minsheng.example/chat"), range(48)))
    assert Counter(path for path, _ in platform.api.calls) == {"/cgi-bin/stable_token": 1, TICKET_CALL: 1}
    assert len({told["nonceStr"] for told in signed}) == 48
    platform.api.revoke_tokens()
    assert pages[0].sign("https://minsheng.example/chat"), "a ticket outlives the token it was fetched with"
    for row in channels[0].table(wechat_accounts):
        assert row.token is None or platform.api.ticket.encode() not in row.token
    simulator.stop()


def test_ticket_that_is_about_to_expire_is_replaced(make_channel: MakeChannel) -> None:
    platform = WeChatPlatform("http://127.0.0.1:9")
    simulator = SimulatorServer(platform.api)
    channel = make_channel(wechat_api_base=simulator.start(), wechat_app_secret=SECRET)
    first = channel.client.jsapi_ticket()
    later = replace(channel.services, now=lambda: channel.services.now() + timedelta(seconds=7000))
    platform.api.now = lambda: time.time() + 7200
    assert WeChatPages(later, type(channel.client)(later)).sign("https://minsheng.example/chat")
    assert platform.api.ticket != first and channel.services.vault.open(channel.table(wechat_accounts)[0].token)
    simulator.stop()


def test_without_a_ticket_the_page_goes_on(new_world: World) -> None:
    new_world.simulator.stop()
    answer = new_world.phone().get(f"{new_world.url}/chat/wechat", params={"url": new_world.url + "/chat"}, timeout=20)
    assert answer.status_code == 503 and set(answer.json()) == {"error"}


def picture() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (40, 30), "#7799aa").save(target, "JPEG", comment=b"SECRETNOTE")
    return target.getvalue()


def send_picture(phone: Phone, message_id: str, media_id: Any, **headers: str) -> requests.Response:
    body = {"message_id": message_id, "media_id": media_id}
    return phone.post(f"{phone.url}/chat/wechat/pictures", json=body, headers={**OWN, "Origin": phone.url, **headers}, timeout=10)


def test_picture_that_wechat_took_is_fetched_and_shown(world: World) -> None:
    phone = world.phone()
    phone.open("/chat")
    media_id = world.platform.api.keep_media("image/jpeg", picture())
    first, again = (send_picture(phone, "p1", media_id) for _ in range(2))
    assert first.status_code == 200 and first.json() == again.json() and first.json()["messages"][0]["text"] == "照片收到了。"
    (item,) = [item for item in phone.open("/chat/messages").json()["items"] if item["attachment"]]
    address = f"/chat/pictures/{item['attachment']}"
    end = time.monotonic() + 5
    while phone.open(address).status_code != 200 and time.monotonic() < end:
        time.sleep(0.05)
    shown = phone.open(address)
    assert shown.headers["Content-Type"] == "image/jpeg" and b"SECRETNOTE" not in shown.content
    assert world.phone().open(address).status_code == 404, "another one's picture"


@pytest.mark.parametrize("media_id", [None, 5, "", "a b", "长", "x" * 301, ["a"]])
def test_what_names_no_picture_is_refused(world: World, media_id: Any) -> None:
    phone = world.phone()
    assert send_picture(phone, "p1", media_id).status_code == 400
    assert phone.open("/chat/messages").json()["items"] == []


def test_other_sites_cannot_send_pictures(world: World) -> None:
    assert send_picture(world.phone(), "p1", "m1", Origin="https://elsewhere.example").status_code == 403


# -- in a real browser ------------------------------------------------------------------------------------------------


def open_chat(wechat: BrowserContext, path: str = "/chat") -> tuple[Page, list[str]]:
    page, troubles = wechat.new_page(), list[str]()
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if "Content Security Policy" in message.text else None)
    page.goto(path)
    expect(page.locator(".bot .bubble").first).to_be_visible()
    return page, troubles


def wait_for_call(world: World, name: str) -> None:
    end = time.monotonic() + 8
    while name not in world.platform.web.calls and time.monotonic() < end:
        time.sleep(0.05)
    assert name in world.platform.web.calls


def test_place_and_photos_come_by_way_of_wechat(world: World, wechat: BrowserContext) -> None:
    world.platform.web.album = [("image/jpeg", picture()), ("image/jpeg", picture())]
    page, troubles = open_chat(wechat, "/chat?scene=c:shanyang")
    expect(page.locator(".bot .bubble").last).to_contain_text("这里是您扫的地方")
    wait_for_call(world, "config")
    page.wait_for_url("**/chat")
    page.click("#plus")
    page.click("#place")
    expect(page.locator(".bot .bubble").last).to_have_text("位置收到了。")
    page.click("#plus")
    page.click("#photo")
    expect(page.locator(".resident .bubble img")).to_have_count(2)
    expect(page.locator(".bot .bubble").last).to_have_text("照片收到了。")
    expect(page.locator(".sending")).to_have_count(0)
    page.wait_for_timeout(500)
    page.reload()
    expect(page.locator(".resident .bubble img")).to_have_count(2)
    for image in page.locator(".resident .bubble img").all():
        expect(image).not_to_have_js_property("naturalWidth", 0)
    with reading(world.services.engine) as connection:
        rows = connection.execute(select(inbound_messages).order_by(inbound_messages.c.id.desc()).limit(4)).all()
    stored = [world.services.vault.open(row.body) for row in reversed(rows)]
    assert [message["kind"] for message in stored] == ["scene", "location", "picture", "picture"]
    assert stored[1]["location"] == {"lat": 33.5907, "lng": 119.0214, "label": ""}
    assert not world.platform.phones.violations and troubles == []


def test_place_that_is_not_given_is_asked_for_in_words(world: World, wechat: BrowserContext) -> None:
    world.platform.web.refuses = {"getLocation"}
    page, troubles = open_chat(wechat)
    wait_for_call(world, "config")
    page.wait_for_timeout(300)
    page.click("#plus")
    page.click("#place")
    expect(page.locator(".bot .bubble").last).to_contain_text("没有得到使用位置的许可")
    assert troubles == []


def test_photo_that_does_not_get_to_wechat_can_be_sent_again(world: World, wechat: BrowserContext) -> None:
    world.platform.web.album, world.platform.web.refuses = [("image/jpeg", picture())], {"uploadImage", "getLocalImgData"}
    page, _ = open_chat(wechat)
    wait_for_call(world, "config")
    page.wait_for_timeout(300)
    page.click("#plus")
    page.click("#photo")
    expect(page.locator(".failed-mark")).to_be_visible()
    world.platform.web.refuses = set()
    page.click(".failure button")
    expect(page.locator(".bot .bubble").last).to_have_text("照片收到了。")
    expect(page.locator(".failed-mark")).to_have_count(0)


def test_page_that_wechat_does_not_accept_uses_the_browsers_own_ways(world: World, wechat: BrowserContext) -> None:
    world.platform.web.domain = lambda: "other.example"  # the console knows another domain
    page, troubles = open_chat(wechat)
    wait_for_call(world, "config")
    page.wait_for_timeout(300)
    page.click("#plus")
    with page.expect_file_chooser():
        page.click("#photo")
    assert list(world.platform.phones.violations) == ["JS-SDK: invalid url domain"] and troubles == []
