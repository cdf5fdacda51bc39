"""The residents' pages: endpoints with a plain client, and the whole conversation in a real browser at phone width."""
from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright
from sqlalchemy import func, select
from stub_app import SAID, create_stub_app, road_petition, serving, stub_services
from werkzeug.test import TestResponse

from bot.conversation import APOLOGY_STORAGE, TOO_FAST
from bot.schema import attachments, inbound_messages
from bot.services import Services
from bot.ticket import StatusEvent, Ticket
from bot.web.chat import BadPicture, clean_picture

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PHONE = {"width": 360, "height": 740}
OWN = {"Origin": "http://localhost", "X-Requested-With": "minsheng"}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    built = stub_services(tmp_path)
    yield built
    built.engine.dispose()


@pytest.fixture
def app(services: Services) -> Flask:
    return create_stub_app(services)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def say(client: FlaskClient, text: str, message_id: str = "m1", **more: Any) -> TestResponse:
    return client.post("/chat/messages", json={"text": text, "message_id": message_id, **more}, headers=OWN)


def items(client: FlaskClient, after: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/chat/messages?after={after}").get_json()["items"]
    return found


def picture(*, kind: str = "JPEG", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, "#7799aa").save(target, kind, **options)
    return target.getvalue()


def send_picture(client: FlaskClient, data: bytes, message_id: str = "p1") -> TestResponse:
    form = {"message_id": message_id, "picture": (io.BytesIO(data), "IMG_0001.jpg")}
    return client.post("/chat/pictures", data=form, headers=OWN, content_type="multipart/form-data")


def count(services: Services, table: Any) -> int:
    with services.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def rename(services: Services, table: str, name: str) -> None:
    """Takes a table away, which is a database that fails, and gives it back."""
    with services.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {name}")


# -- messages ---------------------------------------------------------------------------------------------------------


def test_cookie_is_hidden_from_scripts_and_other_sites(client: FlaskClient) -> None:
    cookie = client.get("/chat").headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Expires" in cookie


def test_page_carries_the_name_of_the_service(client: FlaskClient) -> None:
    assert "民声 · 淮安市12345" in client.get("/chat").text


def test_answer_has_the_shape_of_the_machine_api(client: FlaskClient) -> None:
    body = say(client, "你好").get_json()
    assert body["messages"] == [
        {"text": "您说的是：你好", "buttons": [{"title": "查进度", "payload": "查进度"}, {"title": "转人工", "payload": "转人工"}]}
    ]
    assert body["tickets"] == []
    assert [item["id"] for item in items(client)] == [body["user_item"]["id"], body["items"][0]["id"]]


def test_repeated_message_is_answered_again_and_kept_once(client: FlaskClient, services: Services) -> None:
    first, again = say(client, "确认提交").get_json(), say(client, "确认提交").get_json()
    assert first == again and len(first["tickets"]) == 1
    assert count(services, inbound_messages) == 1


def test_another_browser_sees_nothing(app: Flask, client: FlaskClient) -> None:
    say(client, "只有我知道")
    assert items(app.test_client()) == []


def test_poll_brings_what_is_new(client: FlaskClient, services: Services) -> None:
    number = say(client, "确认提交").get_json()["tickets"][0]["ticket_number"]
    newest = items(client)[-1]["id"]
    services.tickets.record_status(StatusEvent("w1", number, "accepted", services.now(), "市住建局", ""))
    assert "市住建局已签收" in items(client, newest)[-1]["text"]


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Origin": "http://localhost"}, "no header of ours"),
        ({"X-Requested-With": "minsheng"}, "no origin"),
        ({**OWN, "Origin": "http://evil.example"}, "foreign origin"),
        ({**OWN, "Origin": "null"}, "opaque origin"),
        ({**OWN, "Origin": "http://localhost.evil.example"}, "look-alike origin"),
    ],
)
def test_other_sites_cannot_speak_for_a_resident(client: FlaskClient, services: Services, headers: dict[str, str], why: str) -> None:
    assert client.post("/chat/messages", json={"text": "x", "message_id": "m1"}, headers=headers).status_code == 403, why
    assert client.post("/chat/pictures", data={"message_id": "m1"}, headers=headers).status_code == 403, why
    assert count(services, inbound_messages) == 0


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        {},
        {"text": "  ", "message_id": "m1"},
        {"text": "\u0000\u0007", "message_id": "m1"},
        {"text": 5, "message_id": "m1"},
        {"text": "x"},
        {"text": "x", "message_id": ""},
        {"text": "x", "message_id": "a b"},
        {"text": "x", "message_id": "m" * 101},
        {"text": "x", "message_id": 7},
        {"text": "x", "message_id": "m1", "kind": "scene"},
        {"text": "x", "message_id": "m1", "kind": "location"},
        {"text": "", "message_id": "m1", "location": {"lat": 91, "lng": 0}},
        {"text": "", "message_id": "m1", "location": {"lat": 0, "lng": -180.1}},
        {"text": "", "message_id": "m1", "location": {"lat": float("nan"), "lng": 0}},
        {"text": "", "message_id": "m1", "location": {"lat": "33", "lng": 0}},
        {"text": "", "message_id": "m1", "location": {"lat": True, "lng": 0}},
        {"text": "", "message_id": "m1", "location": {"lat": 1, "lng": 1, "label": 5}},
        {"text": "", "message_id": "m1", "location": []},
    ],
)
def test_bad_input_is_refused_with_a_sentence_and_keeps_nothing(client: FlaskClient, services: Services, body: Any) -> None:
    answer = client.post("/chat/messages", json=body, headers=OWN)
    assert answer.status_code == 400
    assert re.search(r"[\u4e00-\u9fff]", answer.get_json()["error"])
    assert count(services, inbound_messages) == 0


@pytest.mark.parametrize("text", ["路" * 4000, "😀" * 4000])
def test_longest_text_is_taken(client: FlaskClient, text: str) -> None:
    assert say(client, text).status_code == 200


@pytest.mark.parametrize("text", ["路" * 4001, "路" * 400_000])
def test_too_long_text_is_refused(client: FlaskClient, text: str) -> None:
    answer = say(client, text)
    assert answer.status_code == 413 and answer.get_json()["error"]


def test_half_an_emoji_does_not_break_storage(client: FlaskClient) -> None:
    body = b'{"text": "a\\ud83d b", "message_id": "m1"}'
    assert client.post("/chat/messages", data=body, content_type="application/json", headers=OWN).status_code == 200
    assert items(client)[0]["text"] == "a b"


def test_location_is_shown_in_history(client: FlaskClient) -> None:
    answer = say(client, "", location={"lat": 33.5, "lng": 119.01, "label": ""})
    assert answer.get_json()["messages"][0]["text"] == "位置收到了。"
    assert items(client)[0]["text"] == "位置：北纬 33.50000，东经 119.01000"


def test_fast_sender_is_slowed_down_kindly(services: Services) -> None:
    client = create_stub_app(services, limiter_check=lambda _sender: False).test_client()
    answers = [say(client, "喂"), send_picture(client, picture())]
    assert [answer.status_code for answer in answers] == [429, 429]
    assert answers[0].get_json()["messages"] == [{"text": TOO_FAST, "buttons": []}]


def test_each_message_and_picture_counts_once(services: Services) -> None:
    counted: list[str] = []
    client = create_stub_app(services, limiter_check=lambda sender: not counted.append(sender)).test_client()  # type: ignore[func-returns-value]
    say(client, "喂")
    send_picture(client, picture())
    assert len(counted) == 2 and len(set(counted)) == 1


def test_failing_storage_is_admitted_and_the_retry_succeeds(client: FlaskClient, services: Services) -> None:
    rename(services, "inbound_message", "away")
    answer = say(client, "路灯坏了")
    assert answer.status_code == 503 and answer.get_json()["messages"][0]["text"] == APOLOGY_STORAGE
    rename(services, "away", "inbound_message")
    assert say(client, "路灯坏了").status_code == 200


def test_turn_that_could_not_be_kept_is_no_success(client: FlaskClient, services: Services) -> None:
    rename(services, "ticket", "away")
    answer = say(client, "确认提交")
    assert answer.status_code == 503 and answer.get_json()["messages"][0]["text"] == APOLOGY_STORAGE
    rename(services, "away", "ticket")
    assert len(say(client, "确认提交").get_json()["tickets"]) == 1


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_picture_is_stored_small_and_without_metadata(client: FlaskClient, services: Services, kind: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SECRETPHONE"
    exif[0x0112] = 6  # lies on its side
    extra = {"comment": b"SECRETNOTE"} if kind == "JPEG" else {}
    body = send_picture(client, picture(kind=kind, size=(3000, 2000), exif=exif, **extra)).get_json()
    assert body["messages"][0]["text"] == "照片收到了。"
    stored = list(services.settings.attachments_dir.iterdir())
    assert [file.suffix for file in stored] == [".jpg"]
    data = stored[0].read_bytes()
    assert b"SECRET" not in data and b"Exif" not in data
    assert Image.open(io.BytesIO(data)).size == (1067, 1600)
    assert stored[0].stat().st_mode & 0o077 == 0


def test_picture_is_for_the_same_browser_only(app: Flask, client: FlaskClient) -> None:
    send_picture(client, picture())
    address = f"/chat/pictures/{items(client)[0]['attachment']}"
    assert client.get(address).mimetype == "image/jpeg"
    assert app.test_client().get(address).status_code == 404
    assert client.get("/chat/pictures/../secret_key").status_code == 404


def test_repeated_picture_is_kept_once(client: FlaskClient, services: Services) -> None:
    assert send_picture(client, picture()).get_json() == send_picture(client, picture()).get_json()
    assert count(services, attachments) == 1 and count(services, inbound_messages) == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400),
        (picture(kind="GIF"), 400),
        (picture(size=(400, 400))[:300], 400),
        (b"\xff\xd8\xff" + b"0" * (10 * 1024 * 1024), 413),
        (b"\xff\xd8\xff" + b"0" * (12 * 1024 * 1024), 413),
    ],
)
def test_what_is_no_picture_is_refused(client: FlaskClient, services: Services, data: bytes, status: int) -> None:
    answer = send_picture(client, data)
    assert answer.status_code == status and answer.get_json()["error"]
    assert count(services, attachments) == 0 and count(services, inbound_messages) == 0


def test_picture_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadPicture):
        clean_picture(picture(kind="PNG", size=(8000, 8000)))


# -- tracking page ----------------------------------------------------------------------------------------------------


def filed(services: Services, key: str = "k1", **changes: Any) -> tuple[Ticket, str]:
    ticket = services.tickets.open_ticket(road_petition(**changes), request_key=key, conversation_id=None)
    return ticket, services.tickets.link(ticket.number, "")


def press(client: FlaskClient, path: str, action: str, **form: str) -> TestResponse:
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    return client.post(f"{path}/{action}", data={"csrf_token": token.group(1) if token else "", **form}, follow_redirects=True)


def test_tracking_page_shows_the_ticket_and_masks_the_phone(client: FlaskClient, services: Services) -> None:
    ticket, path = filed(services)
    at = services.now() + timedelta(minutes=1)
    services.tickets.record_status(StatusEvent("w1", ticket.number, "in_progress", at, "市住建局", "请找13912345678"))
    answer = client.get(path)
    for shown in (ticket.number, "办理中", "市住建局", "138****5678", "139****5678", "王先生", "经开区山阳小区南门内", "承诺时间"):
        assert shown in answer.text
    assert "13812345678" not in answer.text and "13912345678" not in answer.text
    assert answer.text.index("请找") < answer.text.index("您反映的情况")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "noindex" in answer.headers["X-Robots-Tag"]


def test_unknown_link_is_a_friendly_page(client: FlaskClient) -> None:
    answer = client.get("/t/AAAAAAAAAAAAAAAAAAAAAAAA")
    assert answer.status_code == 404 and "没有找到这张诉求单" in answer.text
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_urging_twice_in_a_row_reminds_once(client: FlaskClient, services: Services) -> None:
    ticket, path = filed(services)
    assert "已经替您催办" in press(client, path, "urge").text
    assert "刚刚已经催过了" in press(client, path, "urge").text
    assert [entry.kind for entry in services.tickets.timeline(ticket.number)] == ["filed", "urged"]


def test_supplement_is_added_once(client: FlaskClient, services: Services) -> None:
    ticket, path = filed(services)
    assert "已补充" in press(client, path, "supplement", note="今天又塌了一块").text
    press(client, path, "supplement", note="今天又塌了一块")
    assert services.tickets.get_ticket(ticket.number).petition.texts == (SAID, "今天又塌了一块")


def test_supplement_needs_words_and_keeps_too_many(client: FlaskClient, services: Services) -> None:
    _, path = filed(services)
    assert press(client, path, "supplement", note=" ").status_code == 400
    answer = press(client, path, "supplement", note="长" * 4001)
    assert answer.status_code == 413 and "长" * 4001 in answer.text


def test_withdrawing_asks_first(client: FlaskClient, services: Services) -> None:
    ticket, path = filed(services)
    assert "确定要撤回" in press(client, path, "withdraw").text
    assert services.tickets.get_ticket(ticket.number).state == "filed"
    assert "已撤回" in press(client, path, "withdraw", confirm="yes").text
    assert services.tickets.get_ticket(ticket.number).state == "withdrawn"
    assert "催办" not in client.get(path).text


def test_form_without_its_token_changes_nothing(client: FlaskClient, services: Services) -> None:
    ticket, path = filed(services)
    answer = client.post(f"{path}/withdraw", data={"confirm": "yes"})
    assert answer.status_code == 400 and "刷新" in answer.text
    assert services.tickets.get_ticket(ticket.number).state == "filed"


def test_forms_work_under_tls_although_the_page_sends_no_referrer(tmp_path: Path) -> None:
    services = stub_services(tmp_path, MINSHENG_PUBLIC_URL="https://minsheng.example")
    client, (_, path) = create_stub_app(services).test_client(), filed(services)
    base = "https://minsheng.example"
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path, base_url=base).text)
    assert token
    assert client.post(f"{path}/urge", data={"csrf_token": token.group(1)}, base_url=base).status_code == 303


@pytest.mark.parametrize("flag", ["anonymous", "confidential"])
def test_hidden_reporters_are_not_named(client: FlaskClient, services: Services, flag: str) -> None:
    changes: dict[str, Any] = {flag: True}
    _, path = filed(services, **changes)
    page = client.get(path).text
    assert "王先生" not in page and "反映人" not in page and "<dt>电话</dt>" not in page


def test_case_about_a_minor_shows_no_words(client: FlaskClient, services: Services) -> None:
    said = "邻居家孩子身上有淤青，经常挨打"
    ticket, path = filed(services, kind="minor", matter="minor_protection", texts=(said,), confidential=True)
    services.tickets.supplement(ticket.number, "昨晚又打了")
    page = client.get(path).text
    for hidden in ("淤青", "挨打", "昨晚又打了", "山阳小区"):
        assert hidden not in page


def test_neighbours_with_the_same_trouble_are_counted(client: FlaskClient, services: Services) -> None:
    _, path = filed(services, "k1")
    filed(services, "k2")
    assert "同一处共有 2 位居民反映" in client.get(path).text


# -- errors and home --------------------------------------------------------------------------------------------------


def test_sandbox_is_offered_only_while_there_is_one(client: FlaskClient, tmp_path: Path) -> None:
    assert "/sandbox" in client.get("/").text
    real = stub_services(tmp_path / "real", MINSHENG_DISPATCH_URL="http://127.0.0.1:9/")
    assert "/sandbox" not in create_stub_app(real).test_client().get("/").text


def test_errors_are_pages_for_people_and_json_for_programs(app: Flask, client: FlaskClient) -> None:
    @app.get("/api/broken", endpoint="api_broken")
    @app.get("/broken", endpoint="broken")
    def broken() -> str:
        raise RuntimeError("13812345678")

    assert client.get("/nowhere").mimetype == "text/html"
    assert set(client.get("/api/nowhere").get_json()) == {"error"}
    assert client.put("/chat/messages").status_code == 405 and client.put("/chat/messages").headers["Allow"]
    for path in ("/api/broken", "/broken"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "RuntimeError" not in answer.text and "13812345678" not in answer.text


def test_crash_is_logged_without_what_the_resident_said(app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    @app.post("/t/<token>/broken")
    def broken(token: str) -> str:
        raise RuntimeError(f"no such words: {request.form['note']}")

    app.config["WTF_CSRF_ENABLED"] = False
    client.post("/t/SECRETTOKEN/broken", data={"note": "13812345678"})
    assert "RuntimeError" in caplog.text and "in broken" in caplog.text
    assert "13812345678" not in caplog.text and "SECRETTOKEN" not in caplog.text


def test_failing_storage_under_a_page_is_a_503(client: FlaskClient, services: Services) -> None:
    _, path = filed(services)
    rename(services, "ticket", "away")
    assert client.get(path).status_code == 503


# -- in a real browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"NOT TESTED: the chat page needs {CHROMIUM}; run: apt-get install -y chromium fonts-noto-cjk fonts-noto-color-emoji")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def site(app: Flask) -> Iterator[str]:
    with serving(app) as url:
        yield url


@pytest.fixture
def context(browser: Browser, site: str) -> Iterator[BrowserContext]:
    fresh = browser.new_context(viewport=PHONE, locale="zh-CN", base_url=site)  # type: ignore[arg-type]
    fresh.set_default_timeout(8000)
    yield fresh
    fresh.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """The opened chat; any script error or refused resource fails the test."""
    tab = context.new_page()
    troubles: list[str] = []
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda message: troubles.append(message.text) if "Content Security Policy" in message.text else None)
    tab.goto("/chat")
    expect(tab.locator(".bot .bubble")).to_be_visible()
    yield tab
    assert troubles == []


def type_and_send(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def bubbles(page: Page, side: str) -> list[str]:
    return page.locator(f".item.{side}:not(.typing) .bubble").all_inner_texts()


def test_number_to_ring_is_tapped_and_a_sum_is_not(page: Page) -> None:
    greeting = page.locator(".bot .bubble").first
    assert [link.get_attribute("href") for link in greeting.locator("a").all()] == ["tel:120", "tel:119", "tel:110"]
    type_and_send(page, "补贴 120 元，3打 12 个，请拨打12345 或 110，单号 20261120-0110")
    answer = page.locator(".bot .bubble").last
    expect(answer).to_contain_text("补贴 120 元，3打 12 个，请拨打12345 或 110，单号 20261120-0110")
    assert [link.get_attribute("href") for link in answer.locator("a").all()] == ["tel:12345", "tel:110"]


def test_words_typed_before_the_script_is_there_stay_and_are_sent_by_it(context: BrowserContext, site: str) -> None:
    slow: list[Route] = []
    context.route("**/chat/main.js", lambda route: slow.append(route))  # a poor network: the page stands, its script is still on the way
    page = context.new_page()
    page.goto("/chat", wait_until="commit")
    page.fill("#text", "楼道里的灯坏了")
    page.click(".send")
    page.press("#text", "Tab")
    assert page.url == f"{site}/chat" and page.input_value("#text") == "楼道里的灯坏了"
    slow[0].continue_()
    expect(page.locator(".bot .bubble")).to_be_visible()
    page.click(".send")
    expect(page.locator(".bot .bubble").last).to_contain_text("您说的是：楼道里的灯坏了")


def test_first_visit_greets_and_an_example_starts_the_talk(page: Page) -> None:
    assert page.locator(".chip").all_inner_texts() == ["路灯坏了", "查进度", "怎么办老年优待证", "我要提建议"]
    page.click("text=路灯坏了")
    expect(page.locator(".bot .bubble").last).to_contain_text("您说的是：路灯坏了")
    assert bubbles(page, "resident") == ["路灯坏了"]


def test_conversation_to_the_ticket_and_its_page(page: Page) -> None:
    type_and_send(page, SAID)
    expect(page.locator(".chip")).to_have_text(["确认提交", "修改", "匿名提交"])
    page.click("text=确认提交")
    expect(page.locator(".chip")).to_have_count(0)
    page.click("text=打开诉求单")
    expect(page.locator("h1")).to_contain_text("山阳小区南门里面的路面空鼓塌陷了")
    page.click("button:has-text('催办')")
    expect(page.get_by_role("status")).to_contain_text("已经替您催办")
    page.click("text=去对话")
    expect(page.locator(".bot .bubble").last).to_contain_text("已经登记")


def test_reload_keeps_the_talk_and_its_open_question(page: Page) -> None:
    type_and_send(page, "你好")
    expect(page.locator(".chip")).to_have_text(["查进度", "转人工"])
    page.reload()
    expect(page.locator(".chip")).to_have_text(["查进度", "转人工"])
    assert bubbles(page, "resident") == ["你好"]


def test_shift_enter_breaks_the_line_and_an_input_method_does_not_send(page: Page) -> None:
    page.type("#text", "第一行")
    page.press("#text", "Shift+Enter")
    page.dispatch_event("#text", "keydown", {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True})
    page.dispatch_event("#text", "keydown", {"key": "Enter", "keyCode": 229, "bubbles": True, "cancelable": True})
    page.type("#text", "第二行")
    assert bubbles(page, "resident") == []
    page.press("#text", "Enter")
    expect(page.locator(".resident .bubble")).to_have_text("第一行第二行")


def test_words_never_become_markup_or_unsafe_links(page: Page) -> None:
    type_and_send(page, '<img src=x onerror="window.hurt=1"> javascript:alert(1) http://evil.example/ https://www.gov.cn/a?b=1。')
    expect(page.locator(".bot .bubble")).to_have_count(2)
    assert page.evaluate("window.hurt") is None
    assert page.locator(".bubble img").count() == 0
    links = page.locator(".resident .bubble a")
    assert [link.get_attribute("href") for link in links.all()] == ["https://www.gov.cn/a?b=1"]


def test_failed_message_is_marked_and_resent_without_filing_twice(page: Page, context: BrowserContext, services: Services) -> None:
    context.set_offline(True)
    type_and_send(page, "确认提交")
    expect(page.locator(".failed-mark")).to_be_visible()
    expect(page.locator("#offline")).to_be_visible()
    context.set_offline(False)
    page.click(".failure button")
    expect(page.locator(".bot .bubble").last).to_contain_text("已经登记")
    expect(page.locator(".failed-mark")).to_have_count(0)
    assert count(services, inbound_messages) == 1 and bubbles(page, "resident") == ["确认提交"]


def test_answer_lost_on_the_way_is_fetched_again_with_the_same_message(page: Page, services: Services) -> None:
    page.route("**/chat/messages", lambda route: (route.fetch(), route.abort())[1], times=1)  # the server hears it, the page does not
    type_and_send(page, "确认提交")
    expect(page.locator(".bot .bubble").last).to_contain_text("已经登记")
    expect(page.locator(".failed-mark")).to_have_count(0)
    assert bubbles(page, "resident") == ["确认提交"]
    assert count(services, inbound_messages) == 1


def test_message_under_way_survives_a_reload(page: Page, services: Services) -> None:
    page.route("**/chat/messages", lambda route: route.abort(), times=2)
    type_and_send(page, "别丢了我")
    expect(page.locator(".failed-mark")).to_be_visible()
    page.reload()
    expect(page.locator(".bot .bubble").last).to_contain_text("您说的是：别丢了我")
    assert bubbles(page, "resident") == ["别丢了我"] and count(services, inbound_messages) == 1


def test_storage_failure_is_told_and_can_be_resent(page: Page, services: Services) -> None:
    rename(services, "inbound_message", "away")
    type_and_send(page, "路灯坏了")
    expect(page.locator(".bot .bubble").last).to_have_text(APOLOGY_STORAGE)
    rename(services, "away", "inbound_message")
    page.click(".failure button")
    expect(page.locator(".bot .bubble").last).to_contain_text("您说的是")


def test_news_arrives_by_itself_and_leaves_the_open_question(page: Page, services: Services) -> None:
    type_and_send(page, "确认提交")
    expect(page.locator(".bot .bubble").last).to_contain_text("已经登记")
    type_and_send(page, "你好")
    expect(page.locator(".chip")).to_have_count(2)
    ticket = services.tickets.get_by_token((page.locator(".own-link").get_attribute("href") or "").removeprefix("/t/"))
    services.tickets.record_status(StatusEvent("w1", ticket.number, "accepted", services.now(), "市住建局", ""))
    expect(page.locator(".bot .bubble").last).to_contain_text("市住建局已签收")
    expect(page.locator(".chip")).to_have_count(2)
    page.wait_for_timeout(4500)  # one more poll repeats the recent past
    assert sum("市住建局已签收" in text for text in bubbles(page, "bot")) == 1


def test_typing_is_shown_while_the_answer_takes_time(page: Page) -> None:
    type_and_send(page, "慢一点")
    expect(page.locator(".typing")).to_be_visible()
    expect(page.locator(".bot .bubble").last).to_contain_text("您说的是：慢一点")
    expect(page.locator(".typing")).to_have_count(0)


def test_large_type_is_remembered_and_can_be_asked_for(page: Page) -> None:
    normal = page.evaluate("getComputedStyle(document.querySelector('.bubble')).fontSize")
    page.click(".chat-header [data-big-toggle]")
    page.reload()
    expect(page.locator("html.big")).to_have_count(1)
    large = page.evaluate("getComputedStyle(document.querySelector('#text')).fontSize")
    assert float(large[:-2]) >= 1.3 * float(normal[:-2])
    page.goto("/chat?big=0")
    expect(page.locator("html.big")).to_have_count(0)
    page.goto("/chat?big=1")
    expect(page.locator("html.big")).to_have_count(1)


def test_place_is_sent_when_allowed(page: Page, context: BrowserContext) -> None:
    context.grant_permissions(["geolocation"])
    context.set_geolocation({"latitude": 33.51, "longitude": 119.02})
    page.click("#plus")
    page.click("#place")
    expect(page.locator(".bot .bubble").last).to_have_text("位置收到了。")
    assert bubbles(page, "resident") == ["位置：北纬 33.51000，东经 119.02000"]


def test_denied_place_is_taken_kindly(page: Page) -> None:
    page.click("#plus")
    page.click("#place")
    expect(page.locator(".bot .bubble").last).to_contain_text("没有得到使用位置的许可。不要紧")
    expect(page.locator("#text")).to_be_focused()


def test_photo_is_made_small_before_it_travels_and_shown_after_reload(page: Page) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SECRETPHONE"
    sent: list[bytes] = []
    page.on("request", lambda request: sent.append(request.post_data_buffer or b"") if request.url.endswith("/pictures") else None)
    page.click("#plus")
    with page.expect_file_chooser() as chooser:
        page.click("#photo")
    original = picture(size=(3000, 2000), exif=exif)
    chooser.value.set_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": original})
    expect(page.locator(".bot .bubble").last).to_have_text("照片收到了。")
    assert len(sent) == 1 and b"SECRETPHONE" not in sent[0]
    page.reload()
    expect(page.locator(".picture img")).to_have_js_property("naturalWidth", 1600)


def test_person_is_one_tap_away(page: Page) -> None:
    page.click("#plus")
    page.click("#person")
    expect(page.locator(".resident .bubble")).to_have_text("转人工")


def test_everything_is_reached_with_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip-link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#place")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#plus")).to_be_focused()
    expect(page.locator("#panel")).to_be_hidden()


@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_runs_over_the_edge(page: Page, width: int, big: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.goto(f"/chat?big={big}")
    type_and_send(page, "A" * 500 + "😀" * 200 + " https://example.com/" + "x" * 300)
    expect(page.locator(".chip")).to_have_count(2)
    for selector in ("html", "#log"):
        assert page.eval_on_selector(selector, "node => node.scrollWidth <= node.clientWidth"), selector
    assert page.eval_on_selector(".send", "node => node.getBoundingClientRect().right <= innerWidth")


def test_input_grows_to_five_lines_and_no_further(page: Page) -> None:
    def height(lines: int) -> float:
        page.fill("#text", "\n".join("行" * lines))
        return float(page.eval_on_selector("#text", "node => node.offsetHeight"))

    heights = [height(lines) for lines in (1, 3, 5, 9)]
    assert heights[0] < heights[1] < heights[2] == pytest.approx(heights[3], abs=6)


def test_too_long_text_stays_in_the_box(page: Page) -> None:
    page.fill("#text", "长" * 4001)
    page.press("#text", "Enter")
    expect(page.locator("#counter")).to_have_text("超出 1 个字，请分成几条发送")
    assert bubbles(page, "resident") == []


def test_slow_server_is_told_and_a_second_press_changes_nothing(context: BrowserContext, app: Flask, services: Services) -> None:
    ticket, path = filed(services)
    asked: list[str] = []

    @app.before_request
    def take_time() -> None:
        if request.method == "POST":
            asked.append(request.path)
            time.sleep(1)

    page = context.new_page()
    page.goto(path)
    # While a page is being left nothing outside can look into it, so it keeps what it showed.
    page.evaluate("""() => new MutationObserver(() => {
        const note = document.querySelector("[aria-busy] .busy-note");
        if (note?.textContent) sessionStorage.setItem("seen", note.textContent);
    }).observe(document.body, { childList: true, subtree: true })""")
    page.fill("#note", "今天又塌了一块")
    page.evaluate("""() => {
        const buttons = [...document.querySelectorAll("form button")];
        for (const name of ["催办", "催办", "补充"]) buttons.find((one) => one.textContent === name).click();
    }""")
    expect(page.get_by_role("status")).to_contain_text("已经替您催办")
    assert asked == [f"{path}/urge"]
    assert page.evaluate("sessionStorage.getItem('seen')") == "正在处理，请稍等……"
    assert [entry.kind for entry in services.tickets.timeline(ticket.number)] == ["filed", "urged"]
