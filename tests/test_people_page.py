"""Accounts and the audit over HTTP on the whole service: from the administrator's form to what the person may then open, and back."""
from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from argon2 import PasswordHasher
from sqlalchemy import func, select
from staff_pages import PASSWORD, add_people, form_token
from stub_app import road_petition, serving

import webhook
from bot.services import Services, current_services
from bot.settings import load_settings
from bot.staff import MAX_FAILURES, Staff, audit
from bot.staff_schema import audit_log
from bot.web.studio_people import PAGE

FIRST, SECOND = "第一个足够长的口令", "第二个足够长的口令"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("people")
    shutil.copyfile(migrated, directory / migrated.name)
    # Nobody talks here, so a Rasa server that is never asked stands in for loading the model.
    settings = {"MINSHENG_VAR_DIR": str(directory), "MINSHENG_RASA_URL": "http://127.0.0.1:9"}
    app = webhook.create_app(load_settings(settings), threads=False)
    add_people(current_services())
    with serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def services(site: str) -> Services:
    return current_services()


class Person:
    """Somebody at a browser: cookies, and forms with the token that the login page gave them."""

    def __init__(self, site: str) -> None:
        self.site, self.browser = site, requests.Session()
        self.token = form_token(self.get("/login").text)

    def get(self, path: str, **query: str) -> requests.Response:
        return self.browser.get(f"{self.site}{path}", params=query, timeout=30)

    def post(self, path: str, **fields: object) -> requests.Response:
        return self.browser.post(f"{self.site}{path}", data={**fields, "csrf_token": self.token}, timeout=30)

    def log_in(self, username: str, password: str = PASSWORD) -> requests.Response:
        return self.post("/login", username=username, password=password)

    def may_open(self, path: str) -> bool:
        answer = self.get(path)
        assert answer.status_code in (200, 403, 404), answer.text
        return answer.status_code == 200 and not answer.url.endswith("/login") and "/login?" not in answer.url


@pytest.fixture
def person(site: str) -> Callable[..., Person]:
    def enter(username: str, password: str = PASSWORD) -> Person:
        entered = Person(site)
        answer = entered.log_in(username, password)
        assert answer.status_code == 200 and "/login" not in answer.url, answer.text
        return entered

    return enter


@pytest.fixture
def admin(person: Callable[..., Person]) -> Person:
    return person("admin")


def add(admin: Person, username: str, **more: object) -> requests.Response:
    given: dict[str, object] = {"username": username, "password": FIRST, "role": "agent", "districts": "清江浦区", **more}
    return admin.post("/studio/people/add", **given)


def hire(services: Services, username: str) -> None:
    """An account whose password is cheap to check: what Argon2 costs is not what is tested here."""
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    Staff(services.engine, services.now, cheap).add(username, FIRST, "agent", districts=["清江浦区"])


def ticket_of(services: Services, district: str) -> str:
    petition = road_petition(id=district, place={"text": f"{district}淮海东路", "district": district}, phone="13812345678")
    return services.tickets.open_ticket(petition, request_key=f"people:{district}", conversation_id=None).number


def looks_of(services: Services, username: str) -> list[tuple[str, str]]:
    with services.engine.connect() as connection:
        chosen = select(audit_log.c.action, audit_log.c.subject).where(audit_log.c.username == username).order_by(audit_log.c.id)
        return [tuple(row) for row in connection.execute(chosen)]


def rows_of(page: str) -> list[list[str]]:
    """The cells of each row of the audit, as text."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)] for row in rows]


# -- accounts ---------------------------------------------------------------------------------------------------------


def test_new_colleague_logs_in_and_reads_their_district_only(admin: Person, person: Callable[..., Person], services: Services) -> None:
    near, far = ticket_of(services, "清江浦区"), ticket_of(services, "涟水县")
    page = add(admin, "王芳", display_name="王老师").text
    assert "已添加 王芳。" in page and "王老师" in page
    colleague = person("王芳", FIRST)
    assert "王老师" in colleague.get("/desk").text
    assert colleague.may_open(f"/desk/tickets/{near}") and not colleague.may_open(f"/desk/tickets/{far}")
    assert not colleague.may_open("/studio/review") and not colleague.may_open("/studio/people")


def test_changed_role_and_districts_count_from_the_next_login(admin: Person, person: Callable[..., Person], services: Services) -> None:
    far = ticket_of(services, "涟水县")
    hire(services, "li.gang")
    colleague = person("li.gang", FIRST)
    rights = {"role": "supervisor", "districts": ["涟水县", "淮安区"], "display_name": "李刚", "cleared": "1"}
    assert "已修改 li.gang" in admin.post("/studio/people/li.gang", **rights).text
    assert not colleague.may_open("/desk"), "what was open with the old rights is closed"
    colleague = person("li.gang", FIRST)
    assert colleague.may_open(f"/desk/tickets/{far}") and colleague.may_open("/studio/review")
    member = Staff(services.engine, services.now).find("li.gang")
    assert member is not None and (member.role, set(member.districts)) == ("supervisor", {"涟水县", "淮安区"})
    assert (member.cleared, member.display_name) == (True, "李刚")


def test_locked_out_colleague_is_shown_and_let_in_again(admin: Person, person: Callable[..., Person], services: Services, site: str) -> None:
    hire(services, "zhao")
    for _ in range(MAX_FAILURES):
        assert Person(site).log_in("zhao", "记错了的口令").status_code == 401
    assert "锁定" in Person(site).log_in("zhao", FIRST).text
    assert "已锁定" in admin.get("/studio/people").text
    page = admin.post("/studio/people/zhao/unlock").text
    assert "zhao 已解锁" in page and "已锁定" not in page
    person("zhao", FIRST)


def test_reset_password_ends_what_was_open_and_unlocks(admin: Person, person: Callable[..., Person], services: Services, site: str) -> None:
    hire(services, "qian")
    colleague = person("qian", FIRST)
    for _ in range(MAX_FAILURES):
        Person(site).log_in("qian", "记错了的口令")
    assert "qian 的密码已重置" in admin.post("/studio/people/qian/password", password=SECOND).text
    assert not colleague.may_open("/desk")
    assert Person(site).log_in("qian", FIRST).status_code == 401
    person("qian", SECOND)


def test_disabled_account_is_out_at_once_and_comes_back(admin: Person, person: Callable[..., Person], services: Services, site: str) -> None:
    hire(services, "sun")
    colleague = person("sun", FIRST)
    assert "sun 已停用" in admin.post("/studio/people/sun/disabled", disabled="1").text
    assert not colleague.may_open("/desk") and Person(site).log_in("sun", FIRST).status_code == 401
    assert "sun 已启用" in admin.post("/studio/people/sun/disabled", disabled="0").text
    person("sun", FIRST)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"username": "a b"}, "用户名用 2 到 40 个"),
        ({"username": "agent"}, "已经有用户 agent"),
        ({"password": "short"}, "密码至少要 8 个字符"),
        ({"role": "boss"}, "角色只能是"),
        ({"districts": "鼓楼区"}, "区县或部门不在目录里"),
        ({"department": "市魔法局"}, "区县或部门不在目录里"),
    ],
)
def test_account_that_cannot_be_is_refused_with_a_reason(admin: Person, services: Services, fields: dict[str, str], why: str) -> None:
    before = Staff(services.engine, services.now).list_members()
    answer = add(admin, **{"username": "newcomer", "display_name": "新来的", **fields})
    assert answer.status_code == 400 and why in answer.text
    assert 'value="新来的"' in answer.text and fields.get("password", FIRST) not in answer.text, "what was typed is kept, the password is not"
    assert Staff(services.engine, services.now).list_members() == before


@pytest.mark.parametrize(
    ("path", "fields", "why"),
    [
        ("/studio/people/admin", {"role": "agent"}, "不能取消自己的管理员身份"),
        ("/studio/people/admin/disabled", {"disabled": "1"}, "不能停用自己的账号"),
        ("/studio/people/agent/password", {"password": "short"}, "密码至少要 8 个字符"),
        ("/studio/people/nobody", {"role": "agent"}, "没有用户 nobody"),
        ("/studio/people/nobody/password", {"password": SECOND}, "没有用户 nobody"),
        ("/studio/people/nobody/unlock", {}, "没有用户 nobody"),
        ("/studio/people/nobody/disabled", {"disabled": "1"}, "没有用户 nobody"),
    ],
)
def test_change_that_cannot_be_leaves_everybody_as_they_were(
    admin: Person, services: Services, path: str, fields: dict[str, str], why: str
) -> None:
    before = Staff(services.engine, services.now).list_members()
    answer = admin.post(path, **fields)
    assert answer.status_code == 400 and why in answer.text
    assert Staff(services.engine, services.now).list_members() == before


def test_only_administrators_come_near(site: str, person: Callable[..., Person], services: Services) -> None:
    before = Staff(services.engine, services.now).list_members()
    stranger = Person(site)
    assert not stranger.may_open("/studio/people") and not stranger.may_open("/studio/audit")
    for username in ("agent", "supervisor"):
        someone = person(username)
        assert not someone.may_open("/studio/people") and not someone.may_open("/studio/audit")
        assert add(someone, "helper").status_code == 403
        for path in ("agent", "admin/password", "admin/disabled", "admin/unlock"):
            assert someone.post(f"/studio/people/{path}", role="admin", password=SECOND, disabled="1").status_code == 403
    without_token = person("admin").browser.post(f"{site}/studio/people/admin/password", data={"password": SECOND}, timeout=30)
    assert without_token.status_code == 400
    assert Staff(services.engine, services.now).list_members() == before


def test_changes_of_accounts_are_written_down_without_passwords(admin: Person, services: Services) -> None:
    add(admin, "zhou", cleared="1", department="市城市管理局")
    admin.post("/studio/people/zhou/password", password=SECOND)
    admin.post("/studio/people/zhou/disabled", disabled="1")
    page = admin.get("/studio/audit", subject="zhou").text
    assert [row[2] for row in rows_of(page)] == ["停用账号", "重置密码", "添加人员"]
    assert rows_of(page)[-1][4] == "坐席，清江浦区，市城市管理局，可看保密件"
    assert FIRST not in page and SECOND not in page


# -- the audit --------------------------------------------------------------------------------------------------------


def test_who_looked_at_a_person_is_found_by_ticket_person_action_and_day(admin: Person, person: Callable[..., Person], services: Services) -> None:
    number = ticket_of(services, "清江浦区")
    agent = person("agent")
    agent.get(f"/desk/tickets/{number}")
    agent.post(f"/desk/tickets/{number}/reveal")
    agent.get("/desk/tickets", q="13812345678")
    page = admin.get("/studio/audit", subject=number, username="agent").text
    assert [row[1:4] for row in rows_of(page)][:2] == [["agent", "显示反映人", number], ["agent", "查看工单", number]]
    assert f'href="/desk/tickets/{number}"' in page
    revealed = rows_of(admin.get("/studio/audit", action="reveal_person").text)
    assert revealed and {row[2] for row in revealed} == {"显示反映人"}
    searched = rows_of(admin.get("/studio/audit", action="search").text)
    assert searched[0][3:5] == ["工单", "138****5678"], "whom they looked for is masked here as well"
    assert rows_of(admin.get("/studio/audit", subject=number, since="2000-01-01").text)
    assert rows_of(admin.get("/studio/audit", subject=number, since="2999-01-01").text) == []
    assert "没有符合条件的记录" in admin.get("/studio/audit", subject=number, until="2000-01-01").text


def test_looking_into_the_audit_is_written_down_with_what_was_asked(admin: Person, services: Services) -> None:
    admin.get("/studio/audit", username="agent", action="read_ticket")
    newest = rows_of(admin.get("/studio/audit", action="read_audit").text)
    assert newest[1][2:5] == ["查看审计", "审计", "人员 agent，动作 查看工单"]
    assert looks_of(services, "admin")[-1] == ("read_audit", "audit")


def test_wildcards_in_a_subject_are_letters(admin: Person) -> None:
    assert rows_of(admin.get("/studio/audit", subject="%").text) == [] == rows_of(admin.get("/studio/audit", subject="_").text)


def test_older_rows_are_a_page_further_and_none_is_left_out(admin: Person, services: Services) -> None:
    for number in range(PAGE + 5):
        audit(services, "agent", "read_call", f"call-{number}", address="10.0.0.1")
    first = admin.get("/studio/audit", subject="call-")
    second = admin.get(re.search(r'rel="next" href="([^"]+)"', first.text)[1].replace("&amp;", "&"))  # type: ignore[index]
    rows = [*rows_of(first.text), *rows_of(second.text)]
    assert [row[3] for row in rows] == [f"call-{number}" for number in reversed(range(PAGE + 5))]
    assert rows[0][2] == "查看通话" and 'href="/desk/calls/call-104"' in first.text and 'rel="next"' not in second.text


def test_nothing_can_be_taken_out_of_the_audit(admin: Person, services: Services) -> None:
    with services.engine.connect() as connection:
        before = connection.execute(select(func.count()).select_from(audit_log)).scalar_one()
    for method in ("post", "put", "delete", "patch"):
        assert admin.browser.request(method, f"{admin.site}/studio/audit", timeout=30).status_code in (400, 405)
    with services.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(audit_log)).scalar_one() == before


def test_sandbox_tells_an_account_of_one_district_why_it_stays_closed(person: Callable[..., Person]) -> None:
    answer = person("agent").get("/sandbox")
    assert answer.status_code == 403 and "要不限区县、可看保密件" in answer.text
