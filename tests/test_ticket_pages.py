"""The desk's pages of tickets with plain clients: what they show, what changes leave behind, and who may not come near."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Clock
from flask import Flask
from sqlalchemy import select, update
from staff_pages import StaffClient, log_in, staff_app
from stub_app import stub_services

from bot.petition import Petition
from bot.schema import attachments, outbox, outbox_attempts, tickets
from bot.services import Services
from bot.staff import Staff
from bot.staff_schema import audit_log, corrections
from bot.ticket import StatusEvent
from bot.web import desk_tickets as ticket_pages

WORDS = "清江浦区淮海东路路灯坏了三天，打电话给我13800000001，我姓李"
PICTURE = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def services(tmp_path: Path, clock: Clock) -> Iterator[Services]:
    built = stub_services(tmp_path, now=clock)
    yield built
    built.engine.dispose()


@pytest.fixture
def app(services: Services) -> Flask:
    return staff_app(services, ticket_pages.create_blueprint(services))


@pytest.fixture
def agent(app: Flask) -> StaffClient:
    return log_in(app, "agent")


def file(services: Services, key: str = "k1", district: str | None = "清江浦区", **changes: Any) -> str:
    place = {"text": f"{district}淮海东路", "district": district, "road": "淮海东路"} if district else None
    given: dict[str, Any] = {
        "id": key, "texts": (WORDS,), "place": place, "category": "010213", "phone": "13800000001", "name": "李女士", "model": "m1",
        "category_confidence": 0.5, "evidence": ({"text": "路灯", "start": 8, "end": 10, "weight": 0.5},), **changes,
    }  # fmt: skip
    return services.tickets.open_ticket(Petition(**given), request_key=key, conversation_id=None).number


def give_back(services: Services, number: str) -> None:
    services.tickets.record_status(StatusEvent(f"r-{number}", number, "returned", services.now(), "市供电公司", "路灯归城管管"))


def park(services: Services, number: str) -> str:
    with services.engine.begin() as connection:
        row = connection.execute(select(outbox.c.id).where(outbox.c.ticket_number == number)).first()
        assert row is not None
        connection.execute(update(outbox).where(outbox.c.id == row.id).values(state="parked", last_error="派单系统拒收（HTTP 422）"))
        connection.execute(outbox_attempts.insert().values(outbox_id=row.id, at="2026-11-20T01:00:00.000000+00:00", outcome="派单系统拒收"))
    return str(row.id)


def audited(services: Services) -> list[tuple[str, str, str]]:
    with services.engine.connect() as connection:
        chosen = select(audit_log.c.username, audit_log.c.action, audit_log.c.subject).where(audit_log.c.action != "login")
        return [tuple(row) for row in connection.execute(chosen.order_by(audit_log.c.id))]


def labels(services: Services) -> list[tuple[str, str, Any, Any, str]]:
    with services.engine.connect() as connection:
        rows = connection.execute(select(corrections).order_by(corrections.c.id)).fetchall()
    opened = services.vault.open
    return [(row.source, row.field, opened(row.old), opened(row.new), opened(row.evidence)) for row in rows]


# -- reading ----------------------------------------------------------------------------------------------------------


def test_list_keeps_filters_in_its_address(services: Services, agent: StaffClient) -> None:
    number = file(services)
    page = agent.get("/desk/tickets?q=路灯&state=filed").text
    assert number in page and 'value="路灯"' in page and "共 1 件" in page
    assert number not in agent.get("/desk/tickets?state=closed").text
    assert "没有找到包含“井盖”的工单" in agent.get("/desk/tickets?q=井盖").text


def test_search_is_audited_without_the_number_searched(services: Services, agent: StaffClient) -> None:
    agent.get("/desk/tickets?q=13800000001")
    with services.engine.connect() as connection:
        row = connection.execute(select(audit_log).where(audit_log.c.action == "search")).one()
    assert row.detail == "138****0001"


def test_detail_masks_who_spoke_until_asked(services: Services, agent: StaffClient) -> None:
    number = file(services)
    page = agent.get(f"/desk/tickets/{number}").text
    assert "13800000001" not in page and "138****0001" in page and "李女士" not in page
    assert '<mark class="mark">路灯</mark>' in page
    assert agent.post(f"/desk/tickets/{number}/reveal").get_json()["phone"] == "13800000001"
    assert audited(services) == [("agent", "read_ticket", number), ("agent", "reveal_person", number)]


def test_words_of_residents_are_no_markup(services: Services, agent: StaffClient) -> None:
    number = file(services, texts=("<script>alert(1)</script>路灯<b>坏了",), evidence=({"text": "<b>坏", "start": 0, "end": 1, "weight": 1.0},))
    page = agent.get(f"/desk/tickets/{number}").text
    assert "<script>alert" not in page and "<b>坏" not in page


def test_pictures_are_shown_and_audited(services: Services, agent: StaffClient) -> None:
    number = file(services, attachments=(PICTURE,))
    with services.engine.begin() as connection:
        kept = {"media_type": "image/jpeg", "size": 3, "sha256": "0", "created_at": "2026", "conversation_id": "c", "ticket_number": number}
        connection.execute(attachments.insert().values(id=PICTURE, **kept))
    services.settings.attachments_dir.mkdir(parents=True, exist_ok=True)
    (services.settings.attachments_dir / f"{PICTURE}.jpg").write_bytes(b"jpg")
    assert agent.get(f"/desk/tickets/{number}/pictures/{PICTURE}").data == b"jpg"
    assert ("agent", "read_picture", number) in audited(services)
    assert agent.get(f"/desk/tickets/{file(services, 'k2')}/pictures/{PICTURE}").status_code == 404


# -- changes ----------------------------------------------------------------------------------------------------------


def test_correction_moves_the_ticket_and_becomes_a_label(services: Services, agent: StaffClient) -> None:
    number = file(services)
    answer = agent.post(f"/desk/tickets/{number}/correct", json={"category": "010202", "urgency": "紧急", "note": "来电核实"})
    assert answer.get_json()["gone"] is False
    ticket = services.tickets.get_ticket(number)
    assert (ticket.petition.category, ticket.petition.urgency, ticket.lead_department) == ("010202", "紧急", "市城市管理局")
    assert services.tickets.timeline(number)[-1].actor == "agent"
    assert [label[:4] for label in labels(services)] == [("ticket", "category", "010213", "010202"), ("ticket", "urgency", "一般", "紧急")]
    assert labels(services)[0][4] == "路灯"


def test_dispatch_hears_every_changed_field_whole(services: Services, agent: StaffClient) -> None:
    number = file(services, category="010211")
    agent.post(f"/desk/tickets/{number}/correct", json={"category": "010202", "request_type": "投诉", "title": "路灯不亮没人修"})
    with services.engine.connect() as connection:
        body = connection.execute(select(outbox.c.body).where(outbox.c.type == "ticket.updated")).scalar_one()
    data = services.vault.open(body)["data"]
    assert data["change"] == "corrected" and data["category"]["code"] == "010202" and data["request_type"] == "投诉"
    assert data["title"] == "路灯不亮没人修" and data["department"]["lead"] == "市城市管理局" and data["due_at"] > "2026-12"


def test_corrected_place_of_another_district_takes_the_ticket_away(services: Services, agent: StaffClient) -> None:
    number = file(services)
    assert agent.post(f"/desk/tickets/{number}/correct", json={"place": "涟水县红日大道"}).get_json()["gone"] is True
    assert agent.get(f"/desk/tickets/{number}").status_code == 404
    assert services.tickets.get_ticket(number).district == "涟水县"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"category": "999999"}, "类别"),
        ({"urgency": "很急"}, "紧急程度"),
        ({"phone": "12"}, "电话号码不对"),
        ({"title": "短"[:1]}, "标题"),
        ({"title": "长" * 21}, "标题"),
        ({"lead": "火星局"}, "主办部门"),
        ({"state": "closed"}, "不认识"),
        ({"place": 3}, "地点"),
        ({"category": "010202", "note": "字" * 501}, "说明"),
        ([], "JSON"),
    ],
)
def test_form_that_does_not_fit_changes_nothing(services: Services, agent: StaffClient, body: Any, says: str) -> None:
    number = file(services)
    before = services.tickets.get_ticket(number)
    answer = agent.post(f"/desk/tickets/{number}/correct", json=body)
    assert answer.status_code == 400 and says in answer.get_json()["error"]
    assert services.tickets.get_ticket(number) == before and labels(services) == []


def test_two_people_do_not_overwrite_each_other(services: Services, app: Flask, agent: StaffClient, clock: Clock) -> None:
    number = file(services)
    seen = services.tickets.get_ticket(number).updated_at.isoformat()
    clock.forward(seconds=5)
    assert log_in(app, "supervisor").post(f"/desk/tickets/{number}/correct", json={"urgency": "紧急", "seen": seen}).status_code == 200
    answer = agent.post(f"/desk/tickets/{number}/correct", json={"urgency": "特急", "seen": seen})
    assert answer.status_code == 409 and "刷新" in answer.get_json()["error"]


def test_returned_ticket_is_routed_anew_and_its_reason_kept(services: Services, agent: StaffClient) -> None:
    number = file(services, category="010214")
    give_back(services, number)
    assert "路灯归城管管" in agent.get(f"/desk/tickets/{number}").text
    assert agent.post(f"/desk/tickets/{number}/reroute", json={"category": "010202", "lead": "", "reason": ""}).status_code == 400
    answer = agent.post(f"/desk/tickets/{number}/reroute", json={"category": "010202", "lead": "", "reason": "路灯归城管"})
    assert answer.status_code == 200
    ticket = services.tickets.get_ticket(number)
    assert (ticket.state, ticket.lead_department, ticket.status_department) == ("filed", "市城市管理局", None)
    source, field, old, new, evidence = labels(services)[0]
    assert (source, field, old, new) == ("returned", "category", "010214", "010202") and "路灯归城管管" in evidence
    assert services.tickets.timeline(number)[-1].label == "重新派单"
    again = agent.post(f"/desk/tickets/{number}/reroute", json={"category": "010202", "lead": "", "reason": "再来"})
    assert again.status_code == 409


def test_rerouted_to_a_chosen_department(services: Services, agent: StaffClient) -> None:
    number = file(services)
    give_back(services, number)
    agent.post(f"/desk/tickets/{number}/reroute", json={"lead": "市交通运输局", "reason": "国道上的灯"})
    assert services.tickets.get_ticket(number).lead_department == "市交通运输局"
    assert [label[:2] for label in labels(services)] == [("returned", "lead")]


def test_ended_ticket_is_not_changed(services: Services, agent: StaffClient) -> None:
    number = file(services)
    services.tickets.withdraw(number)
    assert agent.post(f"/desk/tickets/{number}/correct", json={"urgency": "紧急"}).status_code == 409
    assert agent.post(f"/desk/tickets/{number}/supplement", json={"note": "又坏了"}).status_code == 409


def test_resend_keeps_history(services: Services, agent: StaffClient) -> None:
    number = file(services)
    parked = park(services, number)
    assert "派单系统拒收" in agent.get("/desk/deliveries").text
    agent.post("/desk/deliveries/resend", data={"id": parked, "back": "//evil.example"})
    with services.engine.connect() as connection:
        row = connection.execute(select(outbox).where(outbox.c.id == parked)).one()
        outcomes = connection.execute(select(outbox_attempts.c.outcome).order_by(outbox_attempts.c.id)).scalars().all()
    assert row.state == "pending" and outcomes == ["派单系统拒收", "工作人员要求重发"]
    assert "没有搁置的投递" in agent.get("/desk/deliveries").text


# -- nobody else's ----------------------------------------------------------------------------------------------------


def test_no_route_and_no_guess_leads_to_another_districts_ticket(services: Services, app: Flask) -> None:
    """Every rule of the desk that takes a number, and every list, tried by somebody of another district."""
    number = file(services, attachments=(PICTURE,))
    give_back(services, number)
    parked = park(services, number)
    before, outsider = services.tickets.get_ticket(number), log_in(app, "outsider")
    values = {"number": number, "picture_id": PICTURE}
    with app.test_request_context():
        routes = [
            (method, app.url_for(rule.endpoint, **{name: values[name] for name in rule.arguments}))
            for rule in app.url_map.iter_rules()
            for method in sorted((rule.methods or set()) & {"GET", "POST"})
            if "number" in rule.arguments
        ]
    assert len(routes) == 6
    for method, path in routes:
        body = {"category": "010202", "reason": "x", "note": "x"}
        answer = outsider.get(path) if method == "GET" else outsider.post(path, json=body)
        assert answer.status_code == 404 and not any(word in answer.text for word in ("路灯", "138", "李")), (method, path)
    for path in ("/desk/tickets", f"/desk/tickets?q={number}", "/desk/tickets?q=路灯", "/desk/tickets?district=清江浦区", "/desk/tickets?returned=1", "/desk/deliveries"):
        assert f"/desk/tickets/{number}" not in outsider.get(path).text, path
    outsider.post("/desk/deliveries/resend", data={"id": parked})
    with services.engine.connect() as connection:
        assert connection.execute(select(outbox.c.state).where(outbox.c.id == parked)).scalar_one() == "parked"
    assert services.tickets.get_ticket(number) == before


def test_guessed_numbers_answer_like_numbers_that_do_not_exist(services: Services, app: Flask) -> None:
    number, outsider = file(services), log_in(app, "outsider")
    foreign, nothing = outsider.get(f"/desk/tickets/{number}"), outsider.get("/desk/tickets/20261120-9999")
    assert (foreign.status_code, foreign.text) == (nothing.status_code, nothing.text) == (404, foreign.text)
    for odd in ("x", "20261120-0001'", "20261120-0001%00", "..%2f..%2fetc"):
        assert outsider.get(f"/desk/tickets/{odd}").status_code == 404


def test_confidential_ticket_is_for_the_cleared(services: Services, app: Flask, agent: StaffClient) -> None:
    number = file(services, confidential=True)
    assert agent.get(f"/desk/tickets/{number}").status_code == 404
    assert log_in(app, "supervisor").get(f"/desk/tickets/{number}").status_code == 200


def test_ticket_of_no_district_is_everybodys(services: Services, app: Flask) -> None:
    number = file(services, district=None)
    assert [log_in(app, name).get(f"/desk/tickets/{number}").status_code for name in ("agent", "outsider")] == [200, 200]


@pytest.mark.parametrize(
    ("request_type", "words", "hidden"),
    [
        ("举报", "举报有人偷倒垃圾", True),  # any report, whomever it is about
        ("投诉", "城管队员收了小贩的东西不给钱", True),
        ("投诉", "市城市管理局的人态度差", True),
        ("投诉", "楼上漏水没人管", False),
        ("咨询", "城管几点上班", False),
    ],
)
def test_department_reported_on_never_sees_who_reported(services: Services, app: Flask, request_type: str, words: str, hidden: bool) -> None:
    Staff(services.engine, services.now).add("works", "一个足够长的口令", "agent", department="市城市管理局", cleared=True)
    number = file(services, request_type=request_type, texts=(f"{words}，我电话13800000001",))
    works = log_in(app, "works")
    page = works.get(f"/desk/tickets/{number}").text
    answer = works.post(f"/desk/tickets/{number}/reveal")
    assert (answer.status_code == 403) is hidden and ("13800000001" in answer.text) is not hidden
    assert "13800000001" not in page and ("不开放" in page) is hidden
    refused = works.post(f"/desk/tickets/{number}/correct", json={"phone": "13900000002"})
    assert (refused.status_code == 400) is hidden


def test_anonymous_appellant_is_shown_to_the_cleared_only(services: Services, app: Flask, agent: StaffClient) -> None:
    number = file(services, anonymous=True)
    assert agent.post(f"/desk/tickets/{number}/reveal").status_code == 403
    assert log_in(app, "supervisor").post(f"/desk/tickets/{number}/reveal").status_code == 200
    with services.engine.connect() as connection:
        assert connection.execute(select(tickets.c.person_key)).scalar_one() is None


def test_nobody_reads_without_logging_in(services: Services, app: Flask) -> None:
    number = file(services)
    client = app.test_client()
    assert client.get(f"/desk/tickets/{number}").status_code == 302
    assert client.post(f"/desk/tickets/{number}/reveal", headers={"Accept": "application/json"}).status_code in (400, 401)
