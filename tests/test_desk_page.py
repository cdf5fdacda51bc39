"""The call desk in a real browser: a call filed with the keyboard alone while it is going on, pasted calls, the model away, a phone."""
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from desk_calls import ModelSwitch, Telephone, as_turns, call_app, state_of, switched_model
from flask import Flask
from own_calls import ROAD, SECOND
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from sqlalchemy import select
from staff_pages import log_in, log_in_page
from stub_app import serving

from bot.schema import tickets
from bot.services import Services
from bot.staff_schema import calls, corrections

if TYPE_CHECKING:
    from bot.embedded import EmbeddedAssistant

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
CALL = "c-1"
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def app(services: Services, assistant: EmbeddedAssistant) -> Flask:
    return call_app(services, assistant)


@pytest.fixture
def site(app: Flask) -> Iterator[str]:
    with serving(app) as url:
        yield url


@pytest.fixture
def telephone(app: Flask) -> Telephone:
    return Telephone(app)


def open_page(browser: Browser, site: str, *, width: int = 1280, height: int = 800, username: str = "agent") -> Page:
    context = browser.new_context(viewport={"width": width, "height": height}, locale="zh-CN", timezone_id="Asia/Shanghai")
    page = context.new_page()
    page.set_default_timeout(30_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security Policy" in message.text else None)
    page.problems = problems  # type: ignore[attr-defined]
    log_in_page(page, site, username)
    return page


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    opened = open_page(browser, site)
    yield opened
    assert opened.problems == []  # type: ignore[attr-defined]
    opened.context.close()


def filed(services: Services) -> list[Any]:
    with services.engine.connect() as connection:
        return list(connection.execute(select(tickets).order_by(tickets.c.number)))


def field(page: Page, name: str) -> Any:
    return page.locator(f"#f-{name}")


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.dataset.value || document.activeElement.textContent"))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


# -- the keyboard alone ------------------------------------------------------------------------------------------------------


def test_live_call_is_filed_by_the_keyboard_alone(page: Page, telephone: Telephone, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD[:2]), caller="13900000077")
    expect(page.locator("[data-list=waiting] tbody tr")).to_have_count(1)
    press(page, "Alt+n")
    page.wait_for_url(re.compile(f"/desk/calls/{CALL}$"))
    expect(field(page, "title")).not_to_have_value("")
    assert focused(page) == "f-title"

    telephone.say(CALL, as_turns(ROAD[2:], 2), ended=True)
    expect(field(page, "place")).to_have_value(re.compile("水门桥小区"))
    expect(field(page, "phone")).to_have_value("13800000012")

    press(page, "Control+a")
    page.keyboard.type("小区北门道路塌陷")
    press(page, "ArrowDown")
    assert focused(page) == "f-summary"
    press(page, "Alt+c")
    page.keyboard.type("wyfw")
    expect(page.locator("#category-tree [aria-selected=true]")).to_contain_text("物业服务")
    press(page, "Enter")
    expect(field(page, "category")).to_have_value(re.compile("物业服务"))
    press(page, "ArrowDown")
    assert focused(page) in ("投诉", "求助")
    press(page, "Tab", "ArrowRight")
    expect(page.locator("[data-field=urgency] [aria-checked=true]")).to_have_text("特急")
    press(page, "Alt+z")
    expect(page.locator("[data-field=urgency] [aria-checked=true]")).to_have_text("紧急")

    press(page, "Control+Enter")
    expect(page.locator("#done")).to_be_visible()
    (ticket,) = filed(services)
    expect(page.locator("#done-list b")).to_have_text(ticket.number)
    assert focused(page) == "done-next"
    petition = services.tickets.get_ticket(ticket.number).petition
    assert (ticket.title, ticket.urgency, petition.phone) == ("小区北门道路塌陷", "紧急", "13800000012")
    assert services.catalogue.get_category(ticket.category_code).path[2] == "物业服务"
    with services.engine.connect() as connection:
        assert {row.field for row in connection.execute(select(corrections))} == {"title", "category"}


def test_file_and_take_the_next_call(page: Page, telephone: Telephone, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD), agent="agent")
    telephone.say("c-2", as_turns(SECOND))
    press(page, "Alt+n")
    expect(field(page, "phone")).to_have_value("13800000012")
    press(page, "Control+Shift+Enter")
    page.wait_for_url(re.compile("/desk/calls/c-2$"))
    assert len(filed(services)) == 1


def test_what_is_missing_is_asked_and_filed_only_when_insisted(page: Page, telephone: Telephone, services: Services, site: str) -> None:
    telephone.say(CALL, as_turns(ROAD[:2]))
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(page.locator("[data-now]")).to_contain_text("位置")
    press(page, "Alt+q")
    assert focused(page) == "f-place"
    press(page, "Alt+q")
    assert focused(page) == "f-phone"
    press(page, "Control+Enter")
    expect(page.locator("#remark")).to_contain_text("再按一次")
    assert focused(page) == "f-place" and filed(services) == []
    press(page, "Control+Enter")
    expect(page.locator("#done")).to_be_visible()
    assert len(filed(services)) == 1


def test_empty_form_says_what_it_needs(page: Page, services: Services) -> None:
    press(page, "Alt+b")
    page.wait_for_url(re.compile("/desk/calls/blank"))
    expect(page.locator("#turns")).to_have_class(re.compile("silent"))
    press(page, "Control+Enter")
    expect(page.locator("#remark")).to_contain_text("还没有标题")
    assert focused(page) == "f-title" and filed(services) == []


def test_shortcuts_are_shown(page: Page, telephone: Telephone, site: str) -> None:
    telephone.say(CALL, as_turns(ROAD))
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(field(page, "title")).not_to_have_value("")
    press(page, "F1")
    expect(page.locator("#help")).to_be_visible()
    press(page, "Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.locator("#turns").focus()
    page.keyboard.type("?")
    expect(page.locator("#help")).to_be_visible()


def test_category_is_found_in_the_tree(page: Page, telephone: Telephone, site: str) -> None:
    telephone.say(CALL, as_turns(ROAD))
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(page.locator("#candidates li")).to_have_count(5)
    press(page, "Alt+c")
    expect(page.locator("#category-tree [role=treeitem]").first).to_be_visible()
    page.keyboard.type("cwgk")
    expect(page.locator("#category-tree [role=treeitem]").first).to_contain_text("公开")
    press(page, "Escape", "Enter", *["ArrowDown"] * 6, "ArrowRight", "ArrowDown", "ArrowRight", "ArrowDown", "Enter")
    expect(field(page, "category")).to_have_value(re.compile("^农村农业"))
    field(page, "category").focus()
    press(page, "Alt+1")
    expect(page.locator("#candidates [aria-pressed=true] kbd")).to_have_text("1")


# -- words, questions, asides --------------------------------------------------------------------------------------------------


def test_words_of_a_field_are_marked_in_the_talk(page: Page, telephone: Telephone, site: str) -> None:
    telephone.say(CALL, as_turns(ROAD))
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(field(page, "phone")).to_have_value("13800000012")
    page.locator("[data-meta=phone] [data-words] button").click()
    expect(page.locator("#turns mark")).to_have_text("幺三八 零零零零 零零幺二")
    expect(page.locator("#turns .called")).to_be_visible()
    field(page, "place").focus()
    expect(page.locator("#turns mark").first).to_contain_text("水门桥小区")


def test_suggestions_move_nothing_and_never_what_is_typed(page: Page, telephone: Telephone, site: str) -> None:
    telephone.say(CALL, as_turns(ROAD[:2]))
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(field(page, "title")).not_to_have_value("")
    places = "[...document.querySelectorAll('[data-field]')].map((e) => Math.round(e.getBoundingClientRect().top))"
    before = page.evaluate(places)
    field(page, "summary").fill("正在打字")
    telephone.say(CALL, as_turns(ROAD[2:], 2))
    expect(field(page, "phone")).to_have_value("13800000012")
    assert page.evaluate(places) == before
    expect(field(page, "summary")).to_have_value("正在打字")
    expect(page.locator("[data-meta=summary] [data-touched]")).to_be_visible()
    page.reload()
    expect(field(page, "summary")).to_have_value("正在打字")


def test_same_trouble_is_offered_and_undone(page: Page, telephone: Telephone, app: Flask, site: str, services: Services) -> None:
    telephone.say("c-0", as_turns([(who, text.replace("零零幺二", "零零九九")) for who, text in ROAD]))
    state_of(log_in(app, "agent"), "c-0")
    page.goto(f"{site}/desk/calls/c-0")
    expect(field(page, "phone")).to_have_value("13800000099")
    press(page, "Control+Enter")
    expect(page.locator("#done")).to_be_visible()
    telephone.say(CALL, as_turns(ROAD))
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(page.locator("#similar")).to_contain_text("登记时算同诉")
    press(page, "Alt+s")
    page.get_by_role("button", name=re.compile("^并入此单")).press("Enter")
    expect(page.locator("#similar")).to_contain_text("登记时并入此单")
    page.get_by_role("button", name=re.compile("^撤销")).press("Enter")
    expect(page.locator("#similar")).to_contain_text("登记时算同诉")
    press(page, "Control+Enter")
    expect(page.locator("#done-list")).to_contain_text("同诉，共 2 人")
    page.get_by_role("button", name="撤销，单独登记").press("Enter")
    expect(page.locator("#done-list")).not_to_contain_text("同诉")
    assert len({ticket.cluster for ticket in filed(services)}) == 2


def test_two_appeals_are_two_tabs_and_two_tickets(page: Page, telephone: Telephone, site: str, services: Services) -> None:
    telephone.say(CALL, as_turns((*ROAD, *SECOND)))
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(page.get_by_role("tab")).to_have_count(2)
    first = field(page, "title").input_value()
    press(page, "Alt+2")
    expect(field(page, "title")).not_to_have_value(first)
    field(page, "title").fill("烧烤店油烟扰民")
    press(page, "Control+Enter")
    expect(page.locator("#done-list li")).to_have_count(2)
    assert [ticket.title for ticket in filed(services)] == [first, "烧烤店油烟扰民"]


def test_emergency_and_care_are_said_without_moving_the_form(page: Page, telephone: Telephone, site: str) -> None:
    telephone.say(CALL, [("agent", "您好")])
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(page.locator("[data-quiet]")).to_be_visible()
    top = page.locator("#sheet").bounding_box()
    telephone.say(CALL, [("citizen", "水门桥小区五号楼着火了 冒好大的烟 快来人啊")])
    expect(page.locator("[data-emergency]")).to_contain_text("119")
    assert page.locator("#sheet").bounding_box() == top


# -- brought by hand, without the model, small ------------------------------------------------------------------------------


def test_pasted_call_opens_with_its_form(page: Page) -> None:
    press(page, "Alt+v")
    page.keyboard.insert_text("坐席：您好\n市民：清江浦区水门桥小区的路灯坏了三天了 晚上看不见")
    press(page, "Control+Enter")
    page.wait_for_url(re.compile("/desk/calls/pasted"))
    expect(field(page, "place")).to_have_value(re.compile("水门桥小区"))
    press(page, "Alt+l")
    page.keyboard.type("我的电话是13800000012")
    press(page, "Enter")
    expect(field(page, "phone")).to_have_value("13800000012")


def test_uploaded_file_opens_with_its_form(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "call.txt"
    path.write_text("坐席：您好\n市民：清江浦区水门桥小区的路灯坏了三天了", encoding="gb18030")
    page.set_input_files("#file", path)
    page.wait_for_url(re.compile("/desk/calls/uploaded"))
    expect(field(page, "place")).to_have_value(re.compile("水门桥小区"))
    page.goto(page.url.split("/desk")[0] + "/desk")
    bad = tmp_path / "call.docx"
    bad.write_bytes(b"PK")
    page.set_input_files("#file", bad)
    expect(page.locator(".toast-note.problem")).to_contain_text("粘贴")


@pytest.fixture
def switch(assistant: EmbeddedAssistant) -> Iterator[ModelSwitch]:
    with switched_model(assistant) as running:
        yield running


def test_without_the_model_the_form_works_by_hand(browser: Browser, services: Services, switch: ModelSwitch) -> None:
    switch.up = False
    app = call_app(services, switch.client(services))
    with serving(app) as site:
        page = open_page(browser, site)
        Telephone(app).say(CALL, as_turns(ROAD))
        page.goto(f"{site}/desk/calls/{CALL}")
        expect(page.locator("#reading")).to_contain_text("暂时不可用")
        field(page, "title").fill("北门道路塌陷")
        press(page, "Alt+c")
        page.keyboard.type("csggss")
        press(page, "Enter")
        page.locator("[data-field=request_type] [data-value=投诉]").click()
        switch.up = True
        expect(field(page, "place")).to_have_value(re.compile("水门桥小区"))
        expect(page.locator("#reading")).to_have_text("识别完成")
        expect(field(page, "title")).to_have_value("北门道路塌陷")
        switch.up = False
        press(page, "Control+Enter")
        expect(page.locator("#done")).to_be_visible()
        assert filed(services)[0].title == "北门道路塌陷"
        page.context.close()


def test_blank_form_pressed_twice_is_one_and_a_slow_server_is_told(page: Page, site: str, services: Services) -> None:
    page.goto(f"{site}/desk")
    held: list[Route] = []
    page.route("**/desk/calls", lambda route: held.append(route))
    page.dblclick("#blank")
    expect(page.locator("#toasts")).to_contain_text("正在处理，请稍等")
    assert len(held) == 1
    held[0].continue_()
    page.wait_for_url("**/desk/calls/*")
    with services.engine.connect() as connection:
        assert len(connection.execute(select(calls.c.id)).all()) == 1


def test_call_is_usable_on_a_phone(browser: Browser, telephone: Telephone, site: str, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD))
    page = open_page(browser, site, width=390, height=844)
    expect(page.locator("[data-list=waiting] tbody tr")).to_have_count(1)
    page.locator("[data-list=waiting] a").click()
    expect(field(page, "phone")).to_have_value("13800000012")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#file").click()
    expect(page.locator("#done")).to_be_visible()
    assert len(filed(services)) == 1
    page.context.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_nothing_is_cut_off_at_the_side(browser: Browser, telephone: Telephone, site: str, width: int, height: int) -> None:
    telephone.say(CALL, as_turns((*ROAD, *SECOND)))
    page = open_page(browser, site, width=width, height=height)
    page.goto(f"{site}/desk/calls/{CALL}")
    expect(page.get_by_role("tab")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = "[...document.querySelectorAll('#sheet .segments, #sheet .actions, #tabs')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(cut) == 0
    page.context.close()
