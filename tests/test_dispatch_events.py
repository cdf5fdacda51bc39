"""Status events from dispatch, and the sandbox inbox that sends the same events: over HTTP, against a real database."""
from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from flask_wtf.csrf import CSRFProtect
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import func, select
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from bot.db import iso
from bot.outbox import Relay, build_transport
from bot.petition import Petition
from bot.schema import metadata, sandbox_deliveries, webhooks_seen
from bot.services import Services, build_services
from bot.settings import load_settings
from bot.signing import sign
from bot.ticket import STATUS_FROM_DISPATCH
from bot.web import STATIC, TEMPLATES, add_page_headers, web_config
from bot.web import dispatch as dispatch_pages
from bot.web import sandbox as sandbox_pages

NOW = datetime.fromisoformat("2026-11-21T02:00:00+00:00")


@dataclass
class Tally:
    value: int = 0

    def inc(self) -> None:
        self.value += 1


@dataclass
class Tallies:
    forged_signatures: Tally = field(default_factory=Tally)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    began = time.monotonic()

    def clock() -> datetime:
        return NOW + timedelta(seconds=time.monotonic() - began)

    built = build_services(load_settings({"MINSHENG_VAR_DIR": str(tmp_path / "var")}), now=clock)
    metadata.create_all(built.engine)
    yield built
    built.engine.dispose()


@pytest.fixture
def tallies() -> Tallies:
    return Tallies()


@pytest.fixture
def app(services: Services, tallies: Tallies) -> Flask:
    app = Flask(__name__, template_folder=str(TEMPLATES), static_folder=str(STATIC))
    app.config.update(web_config(services))
    app.after_request(add_page_headers)
    csrf = CSRFProtect(app)
    events = dispatch_pages.create_blueprint(services, tallies)
    csrf.exempt(events)
    app.register_blueprint(events)
    app.register_blueprint(sandbox_pages.create_blueprint(services))
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def number(services: Services) -> str:
    return file_ticket(services)


def file_ticket(services: Services, key: str = "k1", text: str = "桂花新村8号楼的路灯坏了", **fields: Any) -> str:
    petition = Petition(id=key, texts=(text,), category="010204", **fields)
    return services.tickets.open_ticket(petition, request_key=key, conversation_id=f"c-{key}").number


def event(number: str, status: str = "accepted", *, at: object = NOW, **data: Any) -> dict[str, Any]:
    at = iso(at) if isinstance(at, datetime) else at
    inner = {"ticket_number": number, "status": status, "department": "市城管局", "note": "已派人", "at": at, **data}
    return {"type": "ticket.status", "timestamp": iso(NOW), "data": inner}


def send(
    client: FlaskClient, services: Services, body: bytes | dict[str, Any], *, webhook_id: str = "evt_1", at: datetime = NOW
) -> TestResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    timestamp = int(at.timestamp())
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(services.settings.dispatch_secret, webhook_id, timestamp, raw),
    }
    return client.post("/dispatch/events", data=raw, headers=headers)


def remembered(services: Services) -> int:
    with services.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(webhooks_seen)).scalar_one())


# -- events -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUS_FROM_DISPATCH)
def test_event_moves_the_ticket_and_tells_the_resident(client: FlaskClient, services: Services, number: str, status: str) -> None:
    answer = send(client, services, event(number, status))
    assert (answer.status_code, answer.get_json()) == (200, {"status": "recorded"})
    ticket = services.tickets.get_ticket(number)
    assert (ticket.state, ticket.status_department) == (status, "市城管局")
    assert len(services.tickets.take_notices("c-k1")) == 1


def test_repeated_event_is_recorded_once(client: FlaskClient, services: Services, number: str) -> None:
    assert send(client, services, event(number)).get_json() == {"status": "recorded"}
    for _ in range(3):
        answer = send(client, services, event(number))
        assert (answer.status_code, answer.get_json()) == (200, {"status": "duplicate"})
    assert [entry.kind for entry in services.tickets.timeline(number)].count("accepted") == 1
    assert len(services.tickets.take_notices("c-k1")) == 1


def test_same_event_arriving_many_times_at_once_is_recorded_once(app: Flask, services: Services, number: str) -> None:
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(send(app.test_client(), services, event(number)).get_json()["status"]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == ["duplicate"] * 7 + ["recorded"]


def test_late_older_event_does_not_move_the_ticket_back(client: FlaskClient, services: Services, number: str) -> None:
    send(client, services, event(number, "closed", at=NOW), webhook_id="evt_2")
    answer = send(client, services, event(number, "in_progress", at=NOW - timedelta(hours=1)), webhook_id="evt_1")
    assert answer.get_json() == {"status": "recorded"}
    assert services.tickets.get_ticket(number).state == "closed"
    assert [entry.kind for entry in services.tickets.timeline(number) if entry.actor == "dispatch"] == ["in_progress", "closed"]


def test_order_is_by_moment_whatever_the_zone(client: FlaskClient, services: Services, number: str) -> None:
    send(client, services, event(number, "replied", at="2026-11-21T01:30:00Z"), webhook_id="evt_1")
    send(client, services, event(number, "accepted", at="2026-11-21T09:00:00+08:00"), webhook_id="evt_2")
    assert services.tickets.get_ticket(number).state == "replied"


def test_forged_event_changes_nothing_and_is_counted(client: FlaskClient, services: Services, tallies: Tallies, number: str) -> None:
    body = json.dumps(event(number)).encode()
    timestamp = str(int(NOW.timestamp()))
    forged = {"webhook-id": "evt_1", "webhook-timestamp": timestamp, "webhook-signature": "v1," + "A" * 43 + "="}
    answers = [client.post("/dispatch/events", data=body, headers=headers) for headers in (forged, {})]
    assert [(answer.status_code, answer.get_json()) for answer in answers] == [(403, {"error": "forbidden"})] * 2
    assert tallies.forged_signatures.value == 2
    assert services.tickets.get_ticket(number).state == "filed" and remembered(services) == 0


def test_changed_body_is_forged(client: FlaskClient, services: Services, number: str) -> None:
    timestamp, body = int(NOW.timestamp()), json.dumps(event(number)).encode()
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(services.settings.dispatch_secret, "evt_1", timestamp, body),
    }
    assert client.post("/dispatch/events", data=body.replace(b"accepted", b"rejected"), headers=headers).status_code == 403


@pytest.mark.parametrize("minutes", [-6, 6])
def test_replay_outside_the_tolerance_is_forbidden(
    client: FlaskClient, services: Services, tallies: Tallies, number: str, minutes: int
) -> None:
    answer = send(client, services, event(number), at=NOW + timedelta(minutes=minutes))
    assert (answer.status_code, answer.get_json()) == (403, {"error": "forbidden"})
    assert tallies.forged_signatures.value == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"status": "done"}, "data.status"),
        ({"status": None}, "data.status"),
        ({"status": ["accepted"]}, "data.status"),
        ({"status": "filed"}, "data.status"),
        ({"at": "2026-11-21T10:00:00"}, "data.at"),
        ({"at": "yesterday"}, "data.at"),
        ({"at": 1763690400}, "data.at"),
        ({"at": "2026-02-30T10:00:00Z"}, "data.at"),
        ({"at": "0001-01-01T00:00:00+23:59"}, "data.at"),
        ({"at": "9999-12-31T23:59:59-23:59"}, "data.at"),
        ({"at": None}, "data.at"),
        ({"ticket_number": None}, "data.ticket_number"),
        ({"ticket_number": 20261121}, "data.ticket_number"),
        ({"ticket_number": " "}, "data.ticket_number"),
        ({"department": {"name": "x"}}, "data.department"),
        ({"department": "局" * 81}, "data.department"),
        ({"department": "\ud800"}, "data.department"),
        ({"note": 5}, "data.note"),
        ({"note": "x" * 4001}, "data.note"),
        ({"note": "a\x00b"}, "data.note"),
    ],
)
def test_malformed_field_is_named(client: FlaskClient, services: Services, number: str, change: dict[str, Any], path: str) -> None:
    answer = send(client, services, json.dumps({**event(number), "data": {**event(number)["data"], **change}}).encode())
    assert (answer.status_code, answer.get_json()["field"]) == (422, path)
    assert answer.get_json()["error"].startswith(path)
    assert remembered(services) == 0 and services.tickets.get_ticket(number).state == "filed"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "body"),
        (b"\xff\xfe", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b"[" * 60_000, "body"),
        (b'{"type":"ticket.created","data":{}}', "type"),
        (b'{"type":"ticket.status"}', "data"),
        (b'{"type":"ticket.status","data":[]}', "data"),
        (b'{"type":"ticket.status","timestamp":"now","data":{}}', "timestamp"),
    ],
)
def test_malformed_body_is_refused(client: FlaskClient, services: Services, body: bytes, path: str) -> None:
    answer = send(client, services, body)
    assert (answer.status_code, answer.get_json()["field"]) == (422, path)


@pytest.mark.parametrize(
    "at", ["2026-11-21T10:00:00.1+0800", "2026-11-21T02:00:00.123456789Z", "2026-11-21T10:00+08", "2026-11-21t02:00:00z"]
)
def test_times_as_other_systems_write_them_are_read(client: FlaskClient, services: Services, number: str, at: str) -> None:
    assert send(client, services, event(number, at=at)).status_code == 200
    (recorded,) = [entry.at for entry in services.tickets.timeline(number) if entry.actor == "dispatch"]
    assert recorded.replace(microsecond=0) == NOW


def test_unknown_extra_fields_and_missing_optional_ones_are_fine(client: FlaskClient, services: Services, number: str) -> None:
    sent = event(number, extra={"a": [1]})
    del sent["data"]["department"], sent["data"]["note"]
    assert send(client, services, {**sent, "version": 3}).status_code == 200


@pytest.mark.parametrize("unknown", ["20200101-0001", "no such", "' OR 1=1 --", "\x00", "\ud800"])
def test_unknown_ticket_is_404_and_may_be_sent_again(client: FlaskClient, services: Services, unknown: str) -> None:
    answer = send(client, services, json.dumps(event(unknown)).encode())
    assert answer.status_code == 404 and answer.get_json()["field"] == "data.ticket_number"
    assert remembered(services) == 0


def test_body_over_the_cap_is_refused(client: FlaskClient, services: Services, number: str) -> None:
    assert send(client, services, event(number, padding="x" * 65_536)).status_code == 413


def test_very_long_webhook_id_is_still_idempotent(client: FlaskClient, services: Services, number: str) -> None:
    answers = [send(client, services, event(number), webhook_id="e" * 250).get_json()["status"] for _ in range(2)]
    assert answers == ["recorded", "duplicate"]


def test_storage_failure_is_503_and_the_event_may_be_sent_again(client: FlaskClient, services: Services, number: str) -> None:
    with services.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE webhook_seen RENAME TO gone")
    assert send(client, services, event(number)).status_code == 503
    with services.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO webhook_seen")
    assert send(client, services, event(number)).get_json() == {"status": "recorded"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
times = st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?[+-]\d\d:\d\d", fullmatch=True)
near_data = {
    "ticket_number": st.just("20260101-0001") | json_values,
    "status": st.sampled_from(STATUS_FROM_DISPATCH) | json_values,
    "at": st.just("2026-11-21T10:00:00+08:00") | times | json_values,
    "department": json_values,
    "note": json_values,
}
near_misses = st.fixed_dictionaries(
    {"type": st.just("ticket.status") | json_values, "data": st.fixed_dictionaries({}, optional=near_data) | json_values},
    optional={"timestamp": json_values},
)
header_names = st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"])
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80)


@given(body=st.binary(max_size=200) | (near_misses | json_values).map(lambda value: json.dumps(value).encode()))
@example(body=b'{"type":"ticket.status","data":{"ticket_number":"20260101-0001","status":"closed","at":"0000-00-00T00:00Z"}}')
@example(body=b"1" * 5000)
@hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_signed_body_gives_a_clear_4xx(client: FlaskClient, services: Services, body: bytes) -> None:
    answer = send(client, services, body)
    assert answer.status_code in (404, 422) and answer.get_json()["error"]


@given(headers=st.dictionaries(header_names, header_values))
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_unsigned_headers_are_forbidden(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.post("/dispatch/events", data=b"{}", headers=headers).status_code == 403


# -- sandbox ------------------------------------------------------------------------------------------------------


def deliver(services: Services) -> None:
    Relay(services, build_transport(services, requests.Session())).run_once()


def token_in(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found.group(1)


def press(client: FlaskClient, number: str, status: str, note: str = "") -> TestResponse:
    token = token_in(client.get("/sandbox").text)
    return client.post(f"/sandbox/{number}/status", data={"csrf_token": token, "status": status, "note": note})


def test_empty_sandbox_says_what_to_do(client: FlaskClient) -> None:
    assert "还没有工单。去" in client.get("/sandbox").text


def test_sandbox_shows_a_ticket_with_its_changes(client: FlaskClient, services: Services) -> None:
    number = file_ticket(services, name="王女士", phone="13800000000", urgency="紧急", text="<b>路灯</b>坏了三天")
    services.tickets.supplement(number, "第四天也没亮")
    deliver(services)
    page = client.get("/sandbox").text
    for shown in (number, "王女士 13800000000", "紧急", "第四天也没亮", "补充情况", "已登记", "&lt;b&gt;"):
        assert shown in page
    assert "<b>路灯" not in page and page.count("<article") == 1


def test_sandbox_never_names_who_wants_to_stay_hidden(client: FlaskClient, services: Services) -> None:
    file_ticket(services, name="王女士", phone="13800000000", confidential=True)
    deliver(services)
    page = client.get("/sandbox").text
    assert "要求保密" in page and "13800000000" not in page


def test_sandbox_lists_the_newest_hundred(client: FlaskClient, services: Services) -> None:
    with services.engine.begin() as connection:
        for index in range(103):
            payload = {"type": "ticket.created", "data": {"title": f"第{index}件"}}
            connection.execute(
                sandbox_deliveries.insert().values(
                    id=f"m{index}",
                    ticket_number=f"20261121-{index:04d}",
                    type="ticket.created",
                    body=services.vault.seal(payload),
                    received_at=iso(NOW + timedelta(seconds=index)),
                )
            )
    page = client.get("/sandbox").text
    assert page.count("<article") == 100 and "第102件" in page and "第2件" not in page


def test_pressing_a_button_moves_the_ticket_like_a_real_event(client: FlaskClient, services: Services, number: str) -> None:
    deliver(services)
    answer = press(client, number, "accepted")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/sandbox#ticket-{number}")
    assert services.tickets.get_ticket(number).state == "accepted" and remembered(services) == 1
    assert "已签收" in client.get("/sandbox").text


def test_answer_reaches_the_resident_word_for_word(client: FlaskClient, services: Services, number: str) -> None:
    deliver(services)
    assert press(client, number, "replied", "灯已换好。\r\n谢谢提醒").status_code == 303
    (notice,) = services.tickets.take_notices("c-k1")
    assert "灯已换好。\n谢谢提醒" in notice


@pytest.mark.parametrize(("status", "note"), [("replied", " "), ("closed", "字" * 4001), ("filed", ""), ("", "")])
def test_incomplete_action_is_explained(client: FlaskClient, services: Services, number: str, status: str, note: str) -> None:
    deliver(services)
    answer = press(client, number, status, note)
    assert answer.status_code == 422 and 'role="alert"' in answer.text and (not note.strip() or note in answer.text)
    assert services.tickets.get_ticket(number).state == "filed"


def test_unknown_ticket_in_the_sandbox_is_404(client: FlaskClient, services: Services, number: str) -> None:
    deliver(services)
    assert press(client, "20200101-0001", "accepted").status_code == 404


def test_form_without_token_is_refused(client: FlaskClient, services: Services, number: str) -> None:
    assert client.post(f"/sandbox/{number}/status", data={"status": "accepted"}).status_code == 400
    assert services.tickets.get_ticket(number).state == "filed"


@pytest.mark.parametrize("visitor", [{"REMOTE_ADDR": "203.0.113.9"}, {"HTTP_X_FORWARDED_FOR": "203.0.113.9"}])
def test_only_this_machine_sees_residents_data(client: FlaskClient, services: Services, number: str, visitor: dict[str, str]) -> None:
    deliver(services)
    answer = client.get("/sandbox", environ_overrides=visitor)
    assert answer.status_code == 403 and "桂花新村" not in answer.text and "只能" in answer.text


def test_withdrawn_ticket_offers_no_action(client: FlaskClient, services: Services, number: str) -> None:
    services.tickets.withdraw(number)
    deliver(services)
    page = client.get("/sandbox").text
    assert "居民已撤回" in page and "<form" not in page


# -- sandbox in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(params=[(360, 740), (1280, 800)], ids=["phone", "desktop"])
def page(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height}, base_url=address)
    yield opened
    opened.close()


def test_page_fits_its_screen(page: Page, services: Services) -> None:
    file_ticket(services, text="x" * 300 + "路灯坏了", name="王女士", phone="13800000000")
    deliver(services)
    page.goto("/sandbox")
    page.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_new_ticket_appears_by_itself_and_typed_text_stays(page: Page, services: Services, number: str) -> None:
    deliver(services)
    page.goto("/sandbox")
    page.locator("summary").first.click()
    page.get_by_label("给居民的话").fill("正在查")
    second = file_ticket(services, "k2", "三里村的井盖丢了")
    deliver(services)
    expect(page.locator("#sandbox-news")).to_be_visible(timeout=8000)
    expect(page.get_by_label("给居民的话")).to_have_value("正在查")
    page.get_by_label("给居民的话").fill("")
    expect(page.locator(f"#ticket-{second}")).to_be_visible(timeout=8000)
    expect(page.locator("details[open]")).to_have_count(1)


def test_a_ticket_can_be_answered_with_the_keyboard(page: Page, services: Services, number: str) -> None:
    deliver(services)
    page.goto("/sandbox")
    page.locator(f"#accepted-{number}").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".badge", has_text="已签收")).to_be_visible()
    page.get_by_label("给居民的话").focus()
    page.keyboard.type("灯已换好")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator(".badge", has_text="已办结")).to_be_visible()
    assert any("灯已换好" in notice for notice in services.tickets.take_notices("c-k1"))
