"""Pages inside WeChat: a login that finds the person who writes to the account, and the JS-SDK; all over HTTP with the simulated platform."""
from __future__ import annotations

import hashlib
import html
import io
import itertools
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from sqlalchemy import select

from bot import background
from bot.assistant import PreparedTurn, Turn
from bot.db import inbound_messages, reading, wechat_accounts
from bot.services import Services, current_services, install_services
from bot.settings import load_settings
from bot.web.login import NOT_BEGUN, SNAPSHOT, SPENT, UNREACHABLE
from bot.web.tracking import FOREIGN, LOG_IN_FIRST
from bot.wechat_pages import WeChatPages, signature_of
from tests.servers import free_port
from tests.stub_app import EchoTurn, serving
from tests.wechat_channel import MakeChannel
from tests.wechat_sim.platform import SECRET, WeChatPlatform
from tests.wechat_sim.server import SimulatorServer
from tests.wechat_sim.web import SCRIPT, USER_AGENT, Web
from webhook import create_app

pytest_plugins = ("tests.wechat_channel",)

_residents = itertools.count(1)
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OWN = {"X-Requested-With": "minsheng"}


class EchoingAssistant:
    """In Rasa's place; 确认提交 files a ticket."""

    concurrency: ClassVar[int] = 8

    def prepare(self, turn: Turn) -> PreparedTurn:
        return EchoTurn(current_services(), turn)

    def parse(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def serving_model(self) -> str:
        return "echo"


class Phone(requests.Session):
    """A resident's WeChat, or another browser: cookies of its own, goes where it is sent."""

    def __init__(self, url: str, agent: str = USER_AGENT) -> None:
        super().__init__()
        self.url, self.headers["User-Agent"] = url, agent

    def open(self, path: str, *, follow: bool = True) -> requests.Response:
        return self.get(path if path.startswith("http") else self.url + path, allow_redirects=follow, timeout=10)

    def press(self, path: str, action: str, **form: str) -> requests.Response:
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.open(path).text)
        data = {"csrf_token": token.group(1) if token else "", **form}
        return self.post(f"{self.url}{path}/{action}", data=data, timeout=10)


@dataclass
class World:
    platform: WeChatPlatform
    simulator: SimulatorServer
    services: Services
    url: str
    who: str = field(default_factory=lambda: f"oResident-{next(_residents):04d}")
    neighbour: str = field(default_factory=lambda: f"oNeighbour-{next(_residents):04d}")

    def phone(self, openid: str = "", *, agent: str = USER_AGENT) -> Phone:
        """Who looks at pages from now on is this resident."""
        self.platform.web.holder = openid or self.who
        return Phone(self.url, agent)

    def file(self, openid: str = "") -> tuple[str, str]:
        """Number and path of a ticket that this resident files by writing to the account."""
        said = self.platform.text(openid or self.who, "确认提交").said or ""
        found = re.search(r"编号 ([\d-]+)。.*?(/t/[\w-]+)", said, re.DOTALL)
        assert found, said
        return found[1], found[2]

    def asked(self, path: str) -> list[int]:
        """The errcodes that calls of this path got."""
        return [code for called, code in self.platform.api.calls if called == path]


LOGIN_CALL, TICKET_CALL = "/sns/oauth2/access_token", "/cgi-bin/ticket/getticket"


@contextmanager
def running_world(directory: Path) -> Iterator[World]:
    """The whole service and the platform."""
    platform = WeChatPlatform(f"http://127.0.0.1:{(port := free_port())}")
    simulator = SimulatorServer(platform.api, platform.web.pages)
    settings = {
        "VAR_DIR": str(directory / "var"),
        "RATE_LIMIT": "0",
        "PUBLIC_URL": platform.service,
        "WECHAT_APP_ID": platform.account.app_id,
        "WECHAT_APP_SECRET": SECRET,
        "WECHAT_TOKEN": platform.account.token,
        "WECHAT_AES_KEY": platform.account.aes_key,
        "WECHAT_API_BASE": simulator.start(),
        "WECHAT_OPEN_BASE": simulator.url,
        "WECHAT_JSSDK_URL": simulator.url + SCRIPT,
    }
    app = create_app(load_settings({f"MINSHENG_{name}": value for name, value in settings.items()}), assistant=EchoingAssistant())
    with serving(app, port) as url:
        yield World(platform, simulator, replace(current_services()), url)
    app.extensions["background"].stop()
    simulator.stop()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "FETCH_MEDIA_EVERY", 0.1)
        with running_world(tmp_path_factory.mktemp("town")) as running:
            yield running


@pytest.fixture
def world(town: World) -> Iterator[World]:
    """The same for everybody, with residents of one's own."""
    install_services(town.services)
    town.platform.api.calls.clear()
    town.platform.phones.violations.clear()
    vars(town.platform.web).update(vars(Web(town.platform.api, lambda: urlsplit(town.url).netloc)))
    yield replace(town, who=f"oResident-{next(_residents):04d}", neighbour=f"oNeighbour-{next(_residents):04d}")
    town.platform.api.now = time.time


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[World]:
    """Nobody has ever written to the account, and its platform may go away."""
    with running_world(tmp_path) as running:
        yield running


# -- one's own tickets ------------------------------------------------------------------------------------------------


def test_who_logs_in_sees_what_they_told_the_account(world: World) -> None:
    (mine, path), (neighbours, _) = world.file(), world.file(world.neighbour)
    page = world.phone().open("/my")
    assert page.status_code == 200 and urlsplit(page.url).path == "/my" and "code=" not in page.url
    assert mine in page.text and f'href="{path}"' in page.text and neighbours not in page.text
    assert page.headers["Cache-Control"] == "no-store" and page.headers["Referrer-Policy"] == "no-referrer"
    assert world.phone(world.neighbour).open("/my").text.count(neighbours) == 1
    assert not world.platform.phones.violations


def test_login_is_kept_a_while_and_then_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, _ = world.file()
    phone = world.phone()
    assert mine in phone.open("/my").text and mine in phone.open("/my").text
    assert world.asked(LOGIN_CALL) == [0]
    monkeypatch.setattr("bot.web.my.FRESH", timedelta(0))
    assert phone.open("/my", follow=False).status_code == 302


def test_nothing_filed_is_said_in_words(new_world: World) -> None:
    page = new_world.phone().open("/my").text
    assert "这里还没有您的诉求单" in page and 'href="/chat"' in page


def test_who_unsubscribed_and_came_back_is_the_same_person(world: World) -> None:
    mine, _ = world.file()
    world.platform.unsubscribe(world.who)
    assert mine in world.phone().open("/my").text


def test_other_browsers_list_what_was_told_in_them(world: World) -> None:
    mine, _ = world.file()
    browser = world.phone(agent="Mozilla/5.0 Firefox/140.0")
    page = browser.open("/my", follow=False)
    assert page.status_code == 200 and mine not in page.text and "请在微信里打开" in page.text
    browser.open("/chat")
    said = {"text": "确认提交", "message_id": "m1"}
    (told,) = browser.post(world.url + "/chat/messages", json=said, headers={**OWN, "Origin": world.url}, timeout=10).json()["tickets"]
    assert told["ticket_number"] in browser.open("/my").text
    assert told["ticket_number"] not in world.phone(agent="Mozilla/5.0 Firefox/140.0").open("/my").text


# -- a login that is none ---------------------------------------------------------------------------------------------


def test_cookies_that_are_not_kept_end_in_words_and_not_in_a_circle(world: World) -> None:
    phone = world.phone()
    page = phone.open("/my", follow=False)
    for _ in range(2):
        phone.cookies.clear()
        page = phone.open(page.headers["Location"].partition("#")[0], follow=False)
    assert page.status_code == 400 and sentence(page) == NOT_BEGUN


def begun(phone: Phone, path: str = "/my") -> dict[str, str]:
    """The state and a code of a login that has come back from WeChat and not reached us yet."""
    there = phone.open(path, follow=False).headers["Location"]
    back = phone.open(there.partition("#")[0], follow=False).headers["Location"]
    return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}


def come_back(phone: Phone, **query: str) -> requests.Response:
    return phone.get(phone.url + "/wechat/login", params=query, allow_redirects=False, timeout=10)


def sentence(page: requests.Response) -> str:
    found = re.search(r"<h1>(.*?)</h1>", page.text)
    return html.unescape(found[1]) if found else ""


def test_authorise_address_is_the_documented_one(world: World) -> None:
    there = world.phone().open("/my", follow=False).headers["Location"]
    assert there.startswith(f"{world.simulator.url}/connect/oauth2/authorize?appid=") and there.endswith("#wechat_redirect")
    wanted = parse_qs(urlsplit(there).query)
    assert wanted["redirect_uri"] == [world.url + "/wechat/login"] and wanted["scope"] == ["snsapi_base"]
    assert re.fullmatch(r"[A-Za-z0-9]{32}", wanted["state"][0])


def test_snapshot_users_are_refused(world: World) -> None:
    world.file()
    phone, world.platform.web.snapshot = world.phone(), True
    page = phone.open("/my")
    assert page.status_code == 403 and sentence(page) == SNAPSHOT and 'href="/my"' in page.text
    world.platform.web.snapshot = False
    assert "登记" in phone.open("/my").text, "once they use the whole page"


def test_code_is_good_once(world: World) -> None:
    mine, _ = world.file()
    phone = world.phone()
    query, before = begun(phone), phone.cookies.copy()
    assert come_back(phone, **query).headers["Location"] == "/my"
    replayed = Phone(world.url)
    replayed.cookies.update(before)
    page = come_back(replayed, **query)
    assert page.status_code == 400 and sentence(page) == SPENT and world.asked(LOGIN_CALL) == [0, 40163]
    assert mine not in replayed.open("/my", follow=False).text


def test_state_is_good_once(world: World) -> None:
    phone = world.phone()
    query = begun(phone)
    assert come_back(phone, **query).status_code == 303
    again = come_back(phone, state=query["state"], code=world.platform.api.give_code(world.neighbour))
    assert again.status_code == 400 and sentence(again) == NOT_BEGUN and world.asked(LOGIN_CALL) == [0]


@pytest.mark.parametrize("wrong", [{"code": "0" * 32}, {"code": "old"}])
def test_codes_that_are_none_are_refused(world: World, wrong: dict[str, str]) -> None:
    phone = world.phone()
    query = begun(phone)
    if wrong["code"] == "old":
        wrong, world.platform.api.now = {}, lambda: time.time() + 301
    page = come_back(phone, **{**query, **wrong})
    assert page.status_code == 400 and sentence(page) == SPENT and world.asked(LOGIN_CALL)[0] in (40029, 42003)


@pytest.mark.parametrize("missing", ["state", "code"])
def test_login_that_did_not_begin_here_asks_the_platform_nothing(world: World, missing: str) -> None:
    phone = world.phone()
    query = {name: value for name, value in begun(phone).items() if name != missing}
    page = come_back(phone, **query)
    assert page.status_code == 400 and sentence(page) == NOT_BEGUN and world.asked(LOGIN_CALL) == []


def test_login_of_somebody_else_cannot_be_slipped_in(world: World) -> None:
    """A link with another one's code and state would make the resident act as them."""
    attacker, victim = world.phone(world.neighbour), Phone(world.url)
    slipped = begun(attacker)
    victim.open("/my", follow=False)
    page = come_back(victim, **slipped)
    assert page.status_code == 400 and sentence(page) == NOT_BEGUN and world.asked(LOGIN_CALL) == []


def test_login_begun_long_ago_is_begun_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = world.phone()
    query = begun(phone)
    monkeypatch.setattr("bot.web.login._BEGUN_FOR", timedelta(0))
    assert sentence(come_back(phone, **query)) == NOT_BEGUN


def test_pages_opened_side_by_side_both_log_in(world: World) -> None:
    phone = world.phone()
    first, second = begun(phone), begun(phone)
    assert [come_back(phone, **query).status_code for query in (first, second)] == [303, 303]


def test_nobody_is_sent_elsewhere(world: World) -> None:
    phone = world.phone()
    for name in ("next", "redirect_uri", "url", "path"):
        query = begun(phone, f"/my?{name}=https://elsewhere.example/")
        assert come_back(phone, **query, **{name: "https://elsewhere.example/"}).headers["Location"] == "/my"
        phone = world.phone()
    assert not world.platform.phones.violations


def test_platform_out_of_reach_is_told(new_world: World) -> None:
    phone = new_world.phone()
    query = begun(phone)
    new_world.simulator.stop()
    page = come_back(phone, **query)
    assert page.status_code == 503 and sentence(page) == UNREACHABLE


def test_login_leaves_no_secret_in_log_or_cookie(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    world.file()
    phone = world.phone()
    query = begun(phone)
    come_back(phone, **query)
    phone.open("/my")
    come_back(phone, **query)
    phone.get(f"{world.url}/chat/wechat", params={"url": world.url + "/chat"}, timeout=10)
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name != "werkzeug" and "/wechat/login" not in record.getMessage())
    for private in (query["code"], SECRET, world.who, world.platform.api.ticket, "web-"):
        assert private not in ours
        assert private not in str(phone.cookies.get_dict())
    assert "code=***" in ours and "secret=***" in ours


# -- a ticket's page --------------------------------------------------------------------------------------------------


def test_inside_wechat_the_page_asks_who_looks(world: World) -> None:
    number, path = world.file()
    phone = world.phone()
    shown = phone.open(path).text
    assert number in shown and "已登记" in shown and f'href="{path}/login"' in shown
    for hidden in ("王先生", "138****5678", "经开区山阳小区南门内", "您反映的情况", "<form"):
        assert hidden not in shown
    own = phone.open(f"{path}/login")
    assert urlsplit(own.url).path == path
    for visible in ("王先生", "138****5678", "经开区山阳小区南门内", "催办"):
        assert visible in own.text
    assert "已经替您催办" in phone.press(path, "urge").text


def test_somebody_else_sees_how_far_it_is_and_cannot_act(world: World) -> None:
    number, path = world.file()
    phone = world.phone(world.neighbour)
    shown = phone.open(f"{path}/login").text
    assert number in shown and "这是别人登记的诉求单" in shown and "王先生" not in shown and "csrf_token" not in shown
    _, own = world.file(world.neighbour)
    token = re.search(r'name="csrf_token" value="([^"]+)"', phone.open(own).text)
    assert token
    for action in ("urge", "supplement", "withdraw"):
        form = {"csrf_token": token[1], "note": "今天又塌了一块", "confirm": "yes"}
        page = phone.post(f"{world.url}{path}/{action}", data=form, timeout=10)
        assert page.status_code == 403 and sentence(page) == FOREIGN
    assert [entry.kind for entry in world.services.tickets.timeline(number)] == ["filed"]


def test_who_has_not_logged_in_is_asked_to_before_anything_changes(world: World) -> None:
    number, path = world.file()
    browser = world.phone(agent="Mozilla/5.0 Firefox/140.0")
    token = re.search(r'name="csrf_token" value="([^"]+)"', browser.open(path).text)
    assert token
    browser.headers["User-Agent"] = USER_AGENT  # the same cookies, now inside WeChat
    page = browser.post(f"{world.url}{path}/urge", data={"csrf_token": token[1]}, timeout=10)
    assert LOG_IN_FIRST in page.text and [entry.kind for entry in world.services.tickets.timeline(number)] == ["filed"]


def test_outside_wechat_the_link_is_the_key(world: World) -> None:
    number, path = world.file()
    browser = world.phone(agent="Mozilla/5.0 Firefox/140.0")
    assert "王先生" in browser.open(path).text and "已经替您催办" in browser.press(path, "urge").text
    assert urlsplit(browser.open(f"{path}/login").url).path == path, "there is no login to begin"
    assert world.asked(LOGIN_CALL) == []


def test_anonymous_matters_show_a_visitor_no_title(world: World) -> None:
    number, path = world.file()
    ticket = world.services.tickets.get_ticket(number)
    world.services.tickets.correct(number, replace(ticket.petition, anonymous=True))
    shown = world.phone().open(path).text
    assert "居民反映的事项" in shown and "塌陷" not in shown


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def wechat(browser: Browser, world: World) -> Iterator[BrowserContext]:
    world.platform.web.holder = world.who
    fresh = browser.new_context(viewport={"width": 360, "height": 740}, locale="zh-CN", base_url=world.url, user_agent=USER_AGENT)
    fresh.set_default_timeout(8000)
    yield fresh
    fresh.close()


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


def test_own_tickets_open_from_the_list(world: World, wechat: BrowserContext) -> None:
    number, path = world.file()
    page = wechat.new_page()
    page.goto("/my")
    expect(page.locator("h1")).to_have_text("我的诉求单")
    assert urlsplit(page.url).query == ""
    page.click(f"a.ticket:has-text('{number}')")
    expect(page.locator(".ticket-number")).to_contain_text(number)
    assert urlsplit(page.url).path == path
    page.click("button:has-text('催办')")
    expect(page.get_by_role("status")).to_contain_text("已经替您催办")


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
    page.wait_for_function("[...document.querySelectorAll('.resident .bubble img')].every((image) => image.naturalWidth > 0)")
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
