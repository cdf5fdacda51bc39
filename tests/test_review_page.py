"""/studio/review over HTTP, and in a real browser with the keyboard alone."""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from sqlalchemy import select

from bot import db
from bot.annotations import effective_annotations
from bot.review_index import ReviewIndex
from bot.services import Services
from bot.staff import Staff
from bot.staff_schema import review_items
from bot.web import studio_review
from tests.review_samples import SAMPLES, keep_samples
from tests.staff_pages import StaffClient, log_in, log_in_page, staff_app
from tests.stub_app import serving
from tests.test_chat_page import CHROMIUM, FLAGS


@pytest.fixture
def app(services: Services) -> Flask:
    index = ReviewIndex(services)
    keep_samples(services, index)
    return staff_app(services, studio_review.create_blueprint(services, index))


@pytest.fixture
def supervisor(app: Flask) -> StaffClient:
    return log_in(app, "supervisor")


def rows(client: StaffClient, **filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/studio/review/items", query_string=filters).get_json()["items"]
    return found


def states(services: Services) -> list[str]:
    with db.reading(services.engine) as connection:
        return list(connection.execute(select(review_items.c.state).order_by(review_items.c.id)).scalars())


# -- over HTTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/items", "/items/1", "/items/1/similar", "/facets", "/clusters", "/clusters/1", "/categories"])
def test_the_studio_is_for_supervisors(app: Flask, path: str) -> None:
    assert app.test_client().get(f"/studio/review{path}").status_code in (302, 401)
    assert log_in(app, "agent").get(f"/studio/review{path}").status_code == 403
    assert log_in(app, "supervisor").get(f"/studio/review{path}").status_code == 200


@pytest.mark.parametrize("path", ["/items/1", "/items/1/skip", "/undo", "/clusters/1"])
def test_nothing_is_decided_by_agents_or_without_the_form_token(app: Flask, services: Services, path: str) -> None:
    assert log_in(app, "agent").post(f"/studio/review{path}", json={}).status_code == 403
    assert log_in(app, "supervisor").client.post(f"/studio/review{path}", json={}).status_code == 400
    assert set(states(services)) == {"open"}


def test_who_works_for_a_department_does_not_review(app: Flask, services: Services) -> None:
    Staff(services.engine, services.now).change("supervisor", department="市城管局")
    assert log_in(app, "supervisor").get("/studio/review/items").status_code == 403


def test_a_refused_decision_says_why_in_a_sentence(supervisor: StaffClient) -> None:
    item = supervisor.get("/studio/review/items/1").get_json()
    bad = supervisor.post("/studio/review/items/1", json={"labels": {"category": "999999"}, "version": item["version"]})
    assert bad.status_code == 422 and "类别" in bad.get_json()["error"]
    late = supervisor.post("/studio/review/items/1", json={"labels": {"category": "01"}, "version": "2020"})
    assert late.status_code == 409 and "变化" in late.get_json()["error"]
    assert supervisor.post("/studio/review/items/999", json={"labels": {"category": "01"}, "version": ""}).status_code == 404
    assert supervisor.post("/studio/review/items/1", data="[]").status_code == 400


@pytest.mark.parametrize("query", [{"after": "x"}, {"after": "0.5"}])
def test_a_wrong_page_is_a_bad_request(supervisor: StaffClient, query: dict[str, str]) -> None:
    assert supervisor.get("/studio/review/items", query_string=query).status_code == 400


@pytest.mark.parametrize("query", [{"category": "'; DROP TABLE"}, {"reason": "%"}, {"words": "%_'\""}, {"since": "gestern"}, {"state": "x"}])
def test_strange_filters_are_no_error(supervisor: StaffClient, query: dict[str, str]) -> None:
    assert supervisor.get("/studio/review/items", query_string=query).status_code == 200


# -- in a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"NOT TESTED: the review page needs {CHROMIUM}")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, app: Flask) -> Iterator[Page]:
    with serving(app) as url, browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        opened = context.new_page()
        problems: list[str] = []
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
        log_in_page(opened, url, "supervisor")
        opened.goto(f"{url}/studio/review")
        expect(opened.locator("#item")).to_be_visible()
        yield opened
        assert problems == []


def count_tab(page: Page, state: str, count: int) -> None:
    expect(page.locator(f"[data-state={state}]")).to_contain_text(str(count))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def next_item(page: Page, *keys: str) -> None:
    """Press, and wait until another text is in hand."""
    before = page.locator("#text").inner_text()
    press(page, *keys)
    expect(page.locator("#text")).not_to_have_text(before)


def test_ten_items_are_reviewed_with_the_keyboard_alone(page: Page, services: Services) -> None:
    expect(page.locator("#text")).to_contain_text("山阳小区")  # the least certain first
    for number in range(10):
        if number == 1:
            press(page, "r", "3")  # 投诉
            expect(page.locator("#accept")).to_contain_text("保存修改")
        if number == 2:
            press(page, "2")  # the second candidate
        if number == 3:
            press(page, "u", "2")  # 紧急
        next_item(page, "Enter")
    count_tab(page, "done", 10)
    expect(page.locator(".review-row")).to_have_count(len(SAMPLES) - 10)
    found = states(services)
    assert (found.count("accepted"), found.count("fixed"), found.count("open")) == (7, 3, 2)


def hold_items(page: Page) -> list[Route]:
    """Texts asked for from now on arrive when the test lets them."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "GET":
            held.append(route)
        else:
            route.continue_()

    page.route(re.compile(r"/studio/review/items/\d+$"), hold)
    return held


def test_keys_pressed_before_the_next_text_has_come_decide_nothing(page: Page, services: Services) -> None:
    held, before = hold_items(page), page.locator("#text").inner_text()
    press(page, "Enter")
    expect(page.locator("#item")).to_have_attribute("inert", "")
    count_tab(page, "done", 1)
    press(page, "Enter", "2", "r", "3", "c", "s")
    expect(page.locator("#text")).to_have_text(before)
    held.pop().continue_()
    expect(page.locator("#text")).not_to_have_text(before)
    expect(page.locator("#accept")).to_contain_text("采纳")
    expect(page.locator("#toasts")).to_be_empty()
    assert sorted(states(services))[:2] == ["accepted", "open"]
    page.unroute_all()
    next_item(page, "Enter")
    count_tab(page, "done", 2)


def test_a_text_that_cannot_be_read_is_not_decided_and_comes_when_asked_again(page: Page, services: Services) -> None:
    held = hold_items(page)
    press(page, "Enter")
    expect(page.locator("#item")).to_have_attribute("inert", "")
    count_tab(page, "done", 1)
    held.pop().abort()
    expect(page.locator("#nothing")).to_contain_text("再点一次")
    press(page, "Enter")
    page.unroute_all()
    page.locator(".review-row button").first.click()
    expect(page.locator("#text")).to_be_visible()
    assert states(services).count("open") == len(SAMPLES) - 1


def test_class_and_intent_are_found_by_pinyin_initials(page: Page, services: Services) -> None:
    press(page, "c")
    page.keyboard.type("ld")
    press(page, "Enter")
    expect(page.locator(".review-category")).to_have_text("劳动和社会保障")
    press(page, "i")
    page.keyboard.type("ytjy")
    press(page, "Enter")
    expect(page.locator("#fields")).to_contain_text("议题建议")
    next_item(page, "Enter")
    with db.reading(services.engine) as connection:
        (one,) = effective_annotations(connection)
    assert one.labels["category"] == "04" and one.labels["intent"] == "report_topic"


def test_undo_brings_the_item_back_also_after_skipping(page: Page, services: Services) -> None:
    first = page.locator("#text").inner_text()
    next_item(page, "s")
    second = page.locator("#text").inner_text()
    next_item(page, "Enter")
    count_tab(page, "skipped", 1)
    press(page, "z")
    expect(page.locator("#text")).to_have_text(second)
    press(page, "z")
    expect(page.locator("#text")).to_have_text(first)
    assert set(states(services)) == {"open"}


def test_selected_words_become_the_place_counted_in_code_points(page: Page, services: Services) -> None:
    """The text holds an emoji before the selection: the browser counts it as two."""
    text = page.locator("#text").inner_text()
    page.evaluate(
        """([from, to]) => {
          const ends = [from, to].map((at) => {
            const pieces = [...document.querySelectorAll("#text [data-start]")].filter((one) => Number(one.dataset.start) < Math.max(at, 1));
            const node = pieces.at(-1).firstChild;
            return [node, Array.from(node.data).slice(0, at - pieces.at(-1).dataset.start).join("").length];
          });
          document.getSelection().setBaseAndExtent(...ends[0], ...ends[1]);
        }""",
        [text.index("3号楼"), text.index("3号楼") + 3],
    )
    expect(page.locator("#selection")).to_be_visible()
    press(page, "l")
    expect(page.locator(".review-place")).to_have_count(2)
    next_item(page, "Enter")
    with db.reading(services.engine) as connection:
        (one,) = effective_annotations(connection)
    assert [text[start:end] for start, end in one.labels["places"]] == ["山阳小区", "3号楼"]


def test_a_letter_with_two_matters_is_split(page: Page, services: Services) -> None:
    text = page.locator("#text").inner_text()
    press(page, "p", "1")
    expect(page.locator("#fields")).to_contain_text("2 件")
    press(page, "p")
    next_item(page, "Enter")
    with db.reading(services.engine) as connection:
        (one,) = effective_annotations(connection)
    assert [text[start:end] for start, end in one.labels["parts"]] == ["山阳小区😀3号楼电梯老是停。", "楼下烧烤店油烟呛人！"]


def test_a_group_is_accepted_at_once_and_taken_back_at_once(page: Page, services: Services) -> None:
    page.click("[data-state=groups]")
    expect(page.locator("#group")).to_contain_text("3 条读起来相似")
    press(page, "Enter")
    expect(page.locator("#nothing")).to_be_visible()
    count_tab(page, "done", 3)
    assert states(services)[:3] == ["accepted"] * 3
    press(page, "z")
    expect(page.locator("#group")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("已撤销 3 条")
    assert set(states(services)) == {"open"}


def test_two_reviewers_differ_and_a_third_sees_both(page: Page, app: Flask, services: Services) -> None:
    for username, category in (("admin", "0102"), ("supervisor", "0602")):
        client = log_in(app, username)
        item = client.get("/studio/review/items/1").get_json()
        client.post("/studio/review/items/1", json={"labels": {"category": category}, "version": item["version"]})
    assert states(services)[0] == "disputed"
    page.click("[data-state=disputed]")
    expect(page.locator("#opinions")).to_contain_text("城乡建设")
    expect(page.locator("#opinions")).to_contain_text("教育文体")
    page.click("#final")
    expect(page.locator("#toasts")).to_contain_text("意见不同的一方")


def test_search_filters_and_an_empty_list_say_what_is_there(page: Page) -> None:
    page.fill("#words", "路灯 晚上")
    expect(page.locator(".review-row")).to_have_count(3)
    page.fill("#words", "没有这样的话")
    expect(page.locator("#nothing")).to_contain_text("没有符合条件的")
    page.click("[data-state=done]")
    page.fill("#words", "")
    expect(page.locator("#nothing")).to_contain_text("还没有审过的")


def test_typing_a_search_word_decides_nothing(page: Page, services: Services) -> None:
    page.click("#words")
    page.keyboard.type("szcru")
    page.keyboard.press("Enter")
    assert set(states(services)) == {"open"}
