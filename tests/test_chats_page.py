"""Residents and staff in real browsers at once, on the whole service with the trained model: taking over and giving back, and who sees what."""
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import select
from staff_pages import add_people, log_in_page
from stub_app import serving

import webhook
from bot.handover import TAKEN
from bot.petition import Petition
from bot.schema import conversations, outbox, tickets
from bot.services import Services, current_services
from bot.settings import load_settings
from bot.staff_schema import audit_log
from bot.ticket import StatusEvent

if TYPE_CHECKING:
    from bot.embedded import EmbeddedAssistant

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, assistant: EmbeddedAssistant) -> Flask:
    directory = str(tmp_path_factory.mktemp("chats"))
    app = webhook.create_app(load_settings({"MINSHENG_VAR_DIR": directory, "MINSHENG_RATE_LIMIT": "0"}), assistant=assistant, threads=False)
    add_people(current_services())
    return app


@pytest.fixture(scope="module")
def services(app: Flask) -> Services:
    return current_services()


@pytest.fixture(scope="module")
def site(app: Flask) -> Iterator[str]:
    with serving(app) as url:
        yield url


class Window:
    """A browser of one person's own."""

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 800) -> None:
        context = browser.new_context(viewport={"width": width, "height": height}, locale="zh-CN", timezone_id="Asia/Shanghai")
        self.page: Page = context.new_page()
        self.page.set_default_timeout(30_000)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.problems.append(message.text) if "Content Security Policy" in message.text else None)

    def close(self) -> None:
        self.page.context.close()
        assert self.problems == []


@pytest.fixture
def windows(browser: Browser) -> Iterator[Any]:
    opened: list[Window] = []

    def window(**size: int) -> Window:
        opened.append(Window(browser, **size))
        return opened[-1]

    yield window
    for one in opened:
        one.close()


def resident(window: Window, site: str) -> Page:
    window.page.goto(f"{site}/chat")
    expect(window.page.locator("#log")).to_have_attribute("aria-busy", "false")
    return window.page


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def on_desk(window: Window, site: str, username: str, path: str) -> Page:
    log_in_page(window.page, site, username)
    window.page.goto(f"{site}{path}")
    return window.page


def test_agent_takes_a_chat_over_and_gives_it_back(windows: Any, site: str, services: Services) -> None:
    citizen = resident(windows(width=390, height=760), site)
    say(citizen, "路灯坏了好几天，晚上走路看不见")
    expect(citizen.locator(".item.bot").last).to_contain_text("位置")
    say(citizen, "转人工")
    expect(citizen.locator(".item.bot").last).to_contain_text("人工")

    agent = on_desk(windows(), site, "agent", "/desk/chats")
    agent.locator(".queue-row").first.click()
    expect(agent.locator("#d-description")).to_have_value("路灯坏了好几天，晚上走路看不见")
    agent.keyboard.press("t")
    expect(citizen.locator("#person-here")).to_contain_text("agent")
    expect(citizen.locator(".item.staff").last).to_contain_text(TAKEN)
    agent.fill("#text", "请问是哪条路？")
    agent.press("#text", "Enter")
    expect(citizen.locator(".item.staff").last).to_have_text("工作人员说：[agent] 请问是哪条路？")

    said = citizen.locator(".item.bot:not(.staff)").count()
    say(citizen, "淮海东路，靠近桂花新村")
    expect(agent.locator(".item.resident").last).to_contain_text("靠近桂花新村")
    assert citizen.locator(".item.bot:not(.staff)").count() == said  # the bot kept silent

    colleague = on_desk(windows(), site, "supervisor", "/desk/chats")
    expect(colleague.locator(".queue-row").first).to_contain_text("agent 在接")

    agent.fill("#d-place", "清江浦区淮海东路桂花新村门口")
    agent.press("#d-place", "Tab")
    expect(agent.locator("#saved")).to_have_text("已保存")
    agent.locator("#text").evaluate("node => node.blur()")
    agent.click("#give-back")
    expect(citizen.locator(".item.bot:not(.staff)").last).to_contain_text("淮海东路桂花新村门口")
    expect(citizen.locator("#person-here")).to_be_hidden()

    say(citizen, "确认提交")
    expect(citizen.locator(".item.bot", has_text=re.compile(r"\d{8}-\d{4}")).first).to_be_visible()
    with services.engine.connect() as connection:
        row = connection.execute(select(tickets)).one()
    petition = services.tickets.get_ticket(row.number).petition
    assert row.district == "清江浦区" and petition.texts[0] == "路灯坏了好几天，晚上走路看不见"


def test_agent_files_from_the_chat(windows: Any, site: str, services: Services) -> None:
    citizen = resident(windows(width=390, height=760), site)
    say(citizen, "你好")
    expect(citizen.locator(".item.bot").last).to_be_visible()
    say(citizen, "转人工")
    expect(citizen.locator(".item.bot").last).to_contain_text("人工")
    agent = on_desk(windows(), site, "supervisor", "/desk/chats")
    agent.locator(".queue-row").first.click()
    agent.click("#take")
    expect(citizen.locator(".item.staff").last).to_contain_text(TAKEN)
    say(citizen, "我在清江浦区水渡口大道8号，楼下烧烤店油烟太大")
    agent.locator(".item.resident", has_text="油烟").hover()
    agent.locator(".item.resident", has_text="油烟").locator(".quote").click()
    expect(agent.locator("#d-description")).to_have_value("我在清江浦区水渡口大道8号，楼下烧烤店油烟太大")
    expect(agent.locator("#d-place")).to_have_value("清江浦区水渡口大道8号")
    agent.click("#file")
    expect(citizen.locator(".item.staff").last).to_contain_text("编号")
    expect(agent.locator("#filed li")).to_have_count(1)
    agent.click("#close")
    say(citizen, "查进度")
    expect(citizen.locator(".item.bot:not(.staff)").last).to_contain_text("已登记")
    with services.engine.connect() as connection:
        numbers = connection.execute(select(tickets.c.number).order_by(tickets.c.position)).scalars().all()
    assert services.tickets.timeline(numbers[-1])[0].actor == "supervisor"


def test_agent_of_one_district_reads_nothing_of_another_by_any_route_or_id(windows: Any, site: str, app: Flask, services: Services) -> None:
    """Everything under this address that takes an id, tried with ids that exist, from the browser of somebody of another district."""
    citizen = resident(windows(width=390, height=760), site)
    say(citizen, "清江浦区淮海东路88号的窨井盖丢了，很危险，我电话13800000001")
    expect(citizen.locator(".item.bot").last).to_contain_text("淮海东路88号")
    say(citizen, "转人工")
    expect(citizen.locator(".item.bot").last).to_contain_text("人工")
    filed = services.tickets.open_ticket(
        Petition(id="w", texts=("清江浦区窨井盖丢了，电话13800000001",), place={"text": "清江浦区淮海东路88号", "district": "清江浦区"}, phone="13800000001"),
        request_key="w", conversation_id=None,
    )  # fmt: skip
    services.tickets.record_status(StatusEvent("w", filed.number, "returned", services.now(), "市城市管理局", "不归我们管"))
    with services.engine.connect() as connection:
        newest = connection.execute(select(conversations.c.id).order_by(conversations.c.created_at.desc()).limit(1)).scalar_one()
        delivery = connection.execute(select(outbox.c.id).where(outbox.c.ticket_number == filed.number).limit(1)).scalar_one()

    page = on_desk(windows(), site, "outsider", "/desk/tickets")
    ids = {"number": filed.number, "conversation_id": newest, "picture_id": "0", "ticket_number": filed.number}
    with app.test_request_context():
        routes = [
            (method, app.url_for(rule.endpoint, **{name: ids[name] for name in rule.arguments}))
            for rule in app.url_map.iter_rules()
            for method in sorted((rule.methods or set()) & {"GET", "POST"})
            if rule.arguments & {"number", "conversation_id", "ticket_number"} and rule.arguments <= set(ids)
        ]
    assert len(routes) > 18
    for path in ("/desk/tickets", "/desk/chats", "/desk/chats/waiting", "/desk/deliveries", f"/desk/tickets?q={filed.number}", "/desk/tickets?q=13800000001", "/desk/tickets?district=清江浦区&q=窨井盖", "/sandbox"):
        routes.append(("GET", path))
    asked = """async ([method, path]) => {
        const token = document.querySelector('meta[name="csrf-token"]').content;
        const body = method === "POST" ? JSON.stringify({text: "x", id: "x", category: "010202", reason: "x", note: "x"}) : undefined;
        const answer = await fetch(path, {method, body, headers: {"X-CSRFToken": token, "Content-Type": "application/json"}});
        return [answer.status, await answer.text()];
    }"""
    for method, path in routes:
        status, text = page.evaluate(asked, [method, path])
        whole = path.split("?")[0] in ("/desk/tickets", "/desk/chats", "/desk/chats/waiting", "/desk/deliveries")
        assert status == 200 if whole else status in (403, 404), (method, path, status)
        told = text.replace('value="窨井盖"', "").replace("“窨井盖”", "").replace("13800000001", "" if "q=138" in path else "13800000001")
        told = told.replace(filed.number, "") if filed.number in path else told
        assert not any(word in told for word in ("窨井盖", "淮海东路88", "138****0001", "13800000001", newest)), (method, path)
    page.evaluate(asked, ["POST", f"/desk/deliveries/resend?id={delivery}"])
    ticket = services.tickets.get_ticket(filed.number)
    assert ticket.state == "returned" and len(services.tickets.timeline(filed.number)) == 2
    assert services.handovers.find(newest) is not None and services.handovers.find(newest).username is None  # type: ignore[union-attr]
    with services.engine.connect() as connection:
        seen = connection.execute(select(audit_log.c.action).where(audit_log.c.username == "outsider", audit_log.c.subject == filed.number)).all()
    assert seen == []


def test_tickets_are_worked_with_the_keyboard(windows: Any, site: str, services: Services) -> None:
    for number in range(3):
        place = {"text": f"清江浦区北京北路{number + 1}号", "district": "清江浦区"}
        services.tickets.open_ticket(
            Petition(id=f"kb{number}", texts=(f"路牌倒了{number}，电话13900000002",), place=place, phone="13900000002", category="010202"),
            request_key=f"kb{number}", conversation_id=None,
        )  # fmt: skip
    page = on_desk(windows(), site, "agent", "/desk/tickets")
    page.keyboard.press("/")
    page.keyboard.type("路牌")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=%E8%B7%AF%E7%89%8C**")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("tr.chosen .title")).to_contain_text("路牌倒了1")
    page.keyboard.press("Enter")
    expect(page.locator("#p-phone")).to_have_text("139****0002")
    page.wait_for_load_state()  # buttons answer once their scripts are there
    page.click("#reveal")
    expect(page.locator("#p-phone")).to_have_text("13900000002")
    expect(page.locator("#description")).to_contain_text("13900000002")
    page.click("#reveal")
    expect(page.locator("#p-phone")).to_have_text("139****0002")
    page.keyboard.press("e")
    page.fill("#e-title", "路牌倒在人行道上")
    page.select_option("#e-urgency", "紧急")
    page.press("#e-title", "Enter")
    expect(page.locator("h1")).to_have_text("路牌倒在人行道上")
    expect(page.locator(".timeline")).to_contain_text("更正信息")
    page.keyboard.press("u")
    page.wait_for_url("**/desk/tickets**")
