"""Pages inside WeChat know who looks: a login that finds the person who writes to the account, over HTTP with the simulated platform."""
from __future__ import annotations

import html
import logging
import re
import time
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from playwright.sync_api import BrowserContext, expect

from bot.web.tracking import FOREIGN, LOG_IN_FIRST
from bot.web.wechat_login import NOT_BEGUN, SNAPSHOT, SPENT, UNREACHABLE
from tests.wechat_sim.platform import SECRET
from tests.wechat_sim.web import USER_AGENT
from tests.wechat_world import LOGIN_CALL, OWN, Phone, World

pytest_plugins = ("tests.wechat_world", "tests.wechat_channel")


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
    monkeypatch.setattr("bot.web.wechat_login._BEGUN_FOR", timedelta(0))
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


# -- in a real browser ------------------------------------------------------------------------------------------------


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
