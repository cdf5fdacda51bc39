"""Login of staff: lockout, sessions that end, who may open what, and that every attempt is written down."""
from __future__ import annotations

import time
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import select

from bot.services import Services
from bot.staff import MAX_FAILURES, LoginRefused, Staff, StaffError, StaffMember
from bot.staff_schema import audit_log
from bot.web.staff import current_member, staff_blueprint, staff_required
from tests.conftest import Clock
from tests.staff_pages import PASSWORD, form_token, log_in, staff_app


@pytest.fixture
def app(services: Services) -> Flask:
    pages = staff_blueprint("example", __name__)

    @pages.get("/desk")
    @staff_required("agent")
    def desk() -> str:
        return current_member().username

    @pages.post("/desk/change")
    @staff_required("agent")
    def change() -> str:
        return "changed"

    @pages.get("/studio/people")
    @staff_required("admin")
    def people() -> str:
        return "people"

    return staff_app(services, pages)


def enter(app: Flask, username: str, password: str, path: str = "/login") -> Any:
    client = app.test_client()
    token = form_token(client.get("/login").text)
    return client.post(path, data={"username": username, "password": password, "csrf_token": token})


def test_who_is_not_logged_in_is_sent_to_the_login_page_and_back(app: Flask) -> None:
    answer = app.test_client().get("/desk?state=filed")
    assert answer.status_code == 302 and answer.location == "/login?next=/desk?state%3Dfiled"
    assert enter(app, "agent", PASSWORD, "/login?next=/desk%3Fstate%3Dfiled").location == "/desk?state=filed"


@pytest.mark.parametrize("elsewhere", ["//evil.example/x", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_login_leads_nowhere_else(app: Flask, elsewhere: str) -> None:
    assert enter(app, "agent", PASSWORD, f"/login?next={elsewhere}").location == "/desk"


def test_a_script_without_login_reads_one_sentence(app: Flask) -> None:
    answer = app.test_client().get("/desk", headers={"Accept": "application/json"})
    assert answer.status_code == 401 and answer.get_json()["error"]


def test_unknown_name_and_wrong_password_read_the_same(app: Flask) -> None:
    wrong, unknown = enter(app, "agent", "不是这个口令"), enter(app, "nobody", PASSWORD)
    assert wrong.status_code == unknown.status_code == 401
    assert "用户名或密码不对" in wrong.text and "用户名或密码不对" in unknown.text


def test_account_is_locked_after_five_wrong_passwords_and_opens_again(services: Services, clock: Clock) -> None:
    staff = Staff(services.engine, services.now, PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))  # six checks
    staff.add("agent", PASSWORD, "agent")
    for _ in range(MAX_FAILURES):
        with pytest.raises(LoginRefused):
            staff.authenticate("agent", "wrong wrong")
    with pytest.raises(LoginRefused, match="锁定"):
        staff.authenticate("agent", PASSWORD)
    clock.forward(minutes=16)
    assert staff.authenticate("agent", PASSWORD).username == "agent"


def test_changed_password_ends_every_session(app: Flask, services: Services) -> None:
    person = log_in(app, "agent")
    assert person.get("/desk").text == "agent"
    Staff(services.engine, services.now).set_password("agent", "另一个足够长的口令")
    assert person.get("/desk").status_code == 302


def test_disabled_person_is_out_at_once_and_cannot_return(app: Flask, services: Services) -> None:
    person = log_in(app, "agent")
    Staff(services.engine, services.now).set_disabled("agent", True)
    assert person.get("/desk").status_code == 302
    assert enter(app, "agent", PASSWORD).status_code == 401


def test_page_of_a_higher_role_is_refused_in_words(app: Flask) -> None:
    answer = log_in(app, "agent").get("/studio/people")
    assert answer.status_code == 403 and "没有这一页的权限" in answer.text
    assert log_in(app, "admin").get("/studio/people").text == "people"


def test_staff_find_back_to_their_work_from_an_error(app: Flask) -> None:
    person = log_in(app, "agent")
    refused = person.get("/studio/people", headers={"Referer": "http://localhost/desk?state=filed"}).text
    assert 'href="/desk/tickets"' in refused and 'href="http://localhost/desk?state=filed"' in refused, "the menu, and where they were"
    missing = person.get("/desk/nothing", headers={"Referer": "https://evil.example/"})
    assert missing.status_code == 404 and "回到来电" in missing.text and "evil.example" not in missing.text
    assert "去对话" not in missing.text
    assert 'href="/login"' in app.test_client().get("/desk/nothing").text


def test_storage_that_is_away_is_told_to_staff_in_words(app: Flask, services: Services) -> None:
    person = log_in(app, "agent")
    with services.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE staff_user RENAME TO away")
    answer = person.get("/desk")
    assert answer.status_code == 503 and "Error" not in answer.text and "请" in answer.text


def test_form_left_open_for_hours_still_counts(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    person, real = log_in(app, "agent"), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3.5 * 3600)
    assert person.post("/desk/change").text == "changed"


def test_post_without_the_form_token_changes_nothing(app: Flask) -> None:
    person = log_in(app, "agent")
    assert person.client.post("/desk/change").status_code == 400
    assert person.post("/desk/change").text == "changed"


def test_idle_session_ends(app: Flask) -> None:
    person = log_in(app, "agent")
    with person.client.session_transaction() as session:
        session["staff_at"] -= 5 * 3600
    assert person.get("/desk").status_code == 302
    assert "登录已过期" in person.get("/login").text
    assert "登录已过期" not in app.test_client().get("/login").text


def test_logins_and_refusals_are_written_down(app: Flask, services: Services) -> None:
    log_in(app, "agent")
    enter(app, "agent", "wrong wrong")
    with services.engine.connect() as connection:
        rows = connection.execute(select(audit_log.c.username, audit_log.c.action).order_by(audit_log.c.id)).fetchall()
    assert [tuple(row) for row in rows] == [("agent", "login"), ("agent", "login_refused")]


@pytest.mark.parametrize(
    ("districts", "cleared", "district", "confidential", "may"),
    [
        (("清江浦区",), False, "清江浦区", False, True),
        (("清江浦区",), False, "涟水县", False, False),
        (("清江浦区",), False, None, False, True),
        ((), False, "涟水县", False, True),
        ((), False, "涟水县", True, False),
        (("清江浦区",), True, "清江浦区", True, True),
        (("清江浦区",), True, "涟水县", True, False),
    ],
)
def test_nobody_reads_beyond_their_districts_and_clearance(
    districts: tuple[str, ...], cleared: bool, district: str | None, confidential: bool, may: bool
) -> None:
    member = StaffMember("a", "a", "agent", districts, cleared, None, 0)
    assert member.may_read(district=district, confidential=confidential) is may


@pytest.mark.parametrize(("username", "password", "role"), [("", PASSWORD, "agent"), ("a", "short", "agent"), ("a", PASSWORD, "boss")])
def test_account_that_cannot_work_is_refused(services: Services, username: str, password: str, role: str) -> None:
    with pytest.raises(StaffError):
        Staff(services.engine, services.now).add(username, password, role)
