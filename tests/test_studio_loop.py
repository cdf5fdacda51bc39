"""The whole loop in a browser, without a shell: an agent corrects a call, a supervisor accepts it, trains, promotes, and it serves.

The real service on a model of its own; training is the real one, so `make studio-loop` runs it, not `make test`.
"""
from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright
from staff_pages import PASSWORD, log_in_page

from bot.db import migrate
from bot.models import find_archives
from bot.services import build_services
from bot.settings import Settings, load_settings
from bot.staff import Staff
from tests.servers import Server

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
TRAINING = 20 * 60_000
# A matter of this city that no shipped text knows: cabinets in which riders swap batteries. Here the property manager looks after them.
CALLS = (
    "市民：喂 我们楼下那个骑手换电柜 一天到晚嗡嗡响 电池拿来拿去 能不能叫人看看",
    "市民：你好 我说一下换电柜的事 就装在单元门口 出来进去都要绕着走 换电柜也没人看着",
    "市民：那个换电柜啊 装在我们小区车棚里 线拖得到处都是 换电柜找谁管呢",
)
ASKED_LATER = "单元门口新装的骑手换电柜没人管，换电柜的门都敞着"
WANTED = "物业服务"

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="NOT TESTED: the loop needs chromium"),
    pytest.mark.timeout(3000),
    pytest.mark.loop,
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(find_archives(Settings().models_dir)[0], models)
    settings = load_settings({"MINSHENG_VAR_DIR": str(tmp_path / "var")})
    migrate(settings)
    services = build_services(settings)
    staff = Staff(services.engine, services.now)
    staff.add("agent", PASSWORD, "agent")
    staff.add("supervisor", PASSWORD, "supervisor", cleared=True)
    services.engine.dispose()
    with Server(tmp_path / "var", models_dir=str(models)) as running:
        assert isinstance(running, Server)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


def as_person(browser: Browser, server: Server, username: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 900}, locale="zh-CN").new_page()
    page.set_default_timeout(60_000)
    log_in_page(page, server.url, username)
    return page


def leaf_of(server: Server, text: str) -> tuple[str, str]:
    parse: dict[str, Any] = requests.post(f"{server.url}/api/parse", json={"text": text}, timeout=30).json()
    return parse["categories"][0]["path"][2], parse["model"]


def correct_a_call(page: Page, server: Server, said: str) -> None:
    page.goto(f"{server.url}/desk")
    page.click("#paste")
    page.fill("#paste-text", said)
    page.click("#paste-send")
    page.wait_for_url(re.compile("/desk/calls/"))
    expect(page.locator("#f-title")).not_to_have_value("")
    page.keyboard.press("Alt+c")
    page.keyboard.type("wyfw")
    expect(page.locator("#category-tree [aria-selected=true]")).to_contain_text(WANTED)
    page.keyboard.press("Enter")
    expect(page.locator("#f-category")).to_have_value(re.compile(WANTED))
    for field, value in (("place", "水门桥小区"), ("phone", "13800000012")):
        if not page.input_value(f"#f-{field}"):
            page.fill(f"#f-{field}", value)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#done")).to_be_visible()


def accept_all_reviews(page: Page, server: Server, count: int) -> None:
    for _ in range(30):  # what was filed a moment ago comes into the queue with the next round
        page.goto(f"{server.url}/studio/review")
        page.wait_for_load_state("networkidle")
        if page.locator("#rows > li").count() == count:
            break
        page.wait_for_timeout(2000)
    for left in range(count, 0, -1):
        expect(page.locator("#rows > li")).to_have_count(left)
        expect(page.locator("#fields")).to_contain_text(WANTED)
        said = page.locator("#text").inner_text()
        page.keyboard.press("Enter")
        if left > 1:
            expect(page.locator("#text")).not_to_have_text(said)
    expect(page.locator("#nothing")).to_be_visible()


def test_a_correction_on_the_desk_comes_to_serve_in_production(server: Server, browser: Browser) -> None:
    before, first_model = leaf_of(server, ASKED_LATER)
    assert before != WANTED
    agent = as_person(browser, server, "agent")
    for said in CALLS:
        correct_a_call(agent, server, said)

    supervisor = as_person(browser, server, "supervisor")
    accept_all_reviews(supervisor, server, len(CALLS))

    supervisor.goto(f"{server.url}/studio/models")
    supervisor.click("#train")
    expect(supervisor.locator("#job-state")).to_have_text("进行中")
    expect(supervisor.locator("#job-result a")).to_be_visible(timeout=TRAINING)
    expect(supervisor.locator("#job-result")).to_contain_text("达到上线门槛")
    supervisor.click("#job-result a")
    supervisor.click("#promote")
    supervisor.locator("#ask button.btn-primary").click()
    supervisor.wait_for_url(f"{server.url}/studio/models")
    expect(supervisor.locator("#promoted")).not_to_have_text(first_model)
    expect(supervisor.locator("#serving-badge")).to_have_text("1 个进程都在用它")

    after, model = leaf_of(server, ASKED_LATER)
    assert (after, model != first_model) == (WANTED, True)
    supervisor.click("#rollback")
    supervisor.locator("#ask button.btn-primary").click()
    expect(supervisor.locator("#promoted")).to_have_text(first_model)
    expect(supervisor.locator("#serving-badge")).to_have_text("1 个进程都在用它")
    assert leaf_of(server, ASKED_LATER) == (before, first_model)
