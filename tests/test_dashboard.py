"""The dashboard over real tickets: volumes, rates and what they count, live accuracy, drift, the files, and whose numbers they are."""
from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from openpyxl import load_workbook

from bot.db import transaction
from bot.drift import risen_words, stability_index
from bot.jobs import JobRunner, run_job
from bot.petition import Petition
from bot.schema import ticket_events, tickets
from bot.services import Services
from bot.staff_schema import corrections
from bot.statistics import Scope, count_tickets, live_accuracy, numbers_behind
from bot.web import studio_dashboard
from tests.conftest import Clock
from tests.staff_pages import log_in, staff_app


@pytest.fixture
def app(services: Services) -> Flask:
    return staff_app(services, studio_dashboard.create_blueprint(services))


def file_ticket(services: Services, key: str, *, category: str = "010301", district: str = "清江浦区", source: str = "web", **columns: Any) -> str:
    petition = Petition(id=key, texts=(f"{key}路灯不亮，晚上看不见",), category=category, source=source, place={"text": "淮海南路", "district": district})
    number = services.tickets.open_ticket(petition, request_key=key, conversation_id=None).number
    with transaction(services.engine) as connection:
        connection.execute(tickets.update().where(tickets.c.number == number).values(district=district, **columns))
    return number


def scope_of(clock: Clock, *districts: str) -> Scope:
    return Scope(clock.now - timedelta(days=3), clock.now + timedelta(days=1), districts)


def rate(services: Services, scope: Scope, key: str) -> tuple[int, int]:
    found = next(rate for rate in count_tickets(services, scope)[1] if rate.key == key)
    return found.count, found.total


def at(clock: Clock, **span: float) -> str:
    return (clock.now + timedelta(**span)).isoformat(timespec="microseconds")


def test_volumes_are_counted_by_everything_people_ask_for(services: Services, clock: Clock) -> None:
    file_ticket(services, "a")
    file_ticket(services, "b", category="050101", district="涟水县", source="hotline")
    volumes, _ = count_tickets(services, scope_of(clock))
    assert (volumes.total, volumes.by_category, volumes.by_district) == (2, {"01": 1, "05": 1}, {"清江浦区": 1, "涟水县": 1})
    assert volumes.by_channel == {"web": 1, "hotline": 1} and volumes.by_hour == {9: 2} and volumes.by_day == {"2026-11-20": 2}


def test_districts_of_others_are_not_counted(services: Services, clock: Clock) -> None:
    file_ticket(services, "a")
    file_ticket(services, "b", district="涟水县")
    assert count_tickets(services, scope_of(clock, "涟水县"))[0].total == 1


def test_response_counts_only_what_is_due(services: Services, clock: Clock) -> None:
    file_ticket(services, "in time", responded_at=at(clock, hours=2))
    file_ticket(services, "late", responded_at=at(clock, hours=30))
    file_ticket(services, "never")
    file_ticket(services, "withdrawn", state="withdrawn")
    assert rate(services, scope_of(clock), "responded") == (1, 2)  # a day has not passed yet for the third
    clock.forward(hours=25)
    assert rate(services, scope_of(clock), "responded") == (1, 3)


def test_in_time_counts_closed_and_overdue(services: Services, clock: Clock) -> None:
    good = file_ticket(services, "good", due_at=at(clock, days=2), closed_at=at(clock, days=1), state="closed")
    late = file_ticket(services, "late", due_at=at(clock, hours=1), closed_at=at(clock, hours=5), state="closed")
    file_ticket(services, "not due", due_at=at(clock, days=5))
    overdue = file_ticket(services, "overdue", due_at=at(clock, hours=-1))
    assert rate(services, scope_of(clock), "in_time") == (1, 3)
    assert numbers_behind(services, scope_of(clock), "in_time", missed=False) == [good]
    assert numbers_behind(services, scope_of(clock), "in_time", missed=True) == [late, overdue]


def test_satisfied_and_solved_count_who_answered(services: Services, clock: Clock) -> None:
    file_ticket(services, "fine", score=5)
    unhappy = file_ticket(services, "unhappy", score=2)
    file_ticket(services, "silent")
    with transaction(services.engine) as connection:
        row = {"ticket_number": unhappy, "kind": "feedback", "at": at(clock), "actor": "resident"}
        connection.execute(ticket_events.insert().values(**row))
    assert rate(services, scope_of(clock), "satisfied") == (1, 2) and rate(services, scope_of(clock), "solved") == (1, 2)


def test_accuracy_of_a_class_is_what_agents_left_as_it_was(services: Services, clock: Clock) -> None:
    file_ticket(services, "kept", source="hotline")
    file_ticket(services, "changed to", source="hotline")
    with transaction(services.engine) as connection:
        sealed = {name: services.vault.seal(value) for name, value in (("old", "050101"), ("new", "010301"), ("evidence", ""))}
        row = {"at": at(clock), "username": "agent", "source": "call", "subject": "c1", "field": "category", "model": "m"}
        connection.execute(corrections.insert().values(**row, **sealed))
    found = {item.category: (item.kept, item.corrected) for item in live_accuracy(services, scope_of(clock))}
    assert found == {"01": (1, 0), "05": (0, 1)}


def test_page_shows_rates_and_leads_to_their_tickets(app: Flask, services: Services, clock: Clock) -> None:
    number = file_ticket(services, "overdue", due_at=at(clock, hours=-1))
    person = log_in(app, "supervisor")
    page = person.get("/studio/dashboard?days=7").text
    assert "按时办结率" in page and "差 1 件" in page and "清江浦区" in page
    behind = person.get("/studio/dashboard/tickets?rate=in_time&missed=1&days=7").text
    assert number in behind and "没有做到的 1 件" in behind


def test_empty_period_says_so(app: Flask) -> None:
    assert "这段时间没有诉求" in log_in(app, "supervisor").get("/studio/dashboard?from=2020-01-01&to=2020-01-31").text


@pytest.mark.parametrize("query", ["from=2026-02-01&to=2026-01-01", "from=2020-01-01&to=2026-01-01"])
def test_period_that_makes_no_sense_is_refused(app: Flask, query: str) -> None:
    assert log_in(app, "supervisor").get(f"/studio/dashboard?{query}").status_code == 400


def test_agents_have_no_dashboard(app: Flask) -> None:
    assert log_in(app, "agent").get("/studio/dashboard").status_code == 403


def test_workbook_and_pdf_hold_the_same_numbers(app: Flask, services: Services, clock: Clock) -> None:
    file_ticket(services, "a", score=5)
    person = log_in(app, "supervisor")
    book = load_workbook(io.BytesIO(person.get("/studio/dashboard/export.xlsx?days=7").data))
    assert [cell.value for cell in book["指标"][3]][:4] == ["满意率", 1, 1, 1] or ["满意率", 1, 1, 1] in [
        [cell.value for cell in row][:4] for row in book["指标"].iter_rows()
    ]
    assert person.get("/studio/dashboard/export.pdf?days=7").data.startswith(b"%PDF-")
    assert person.get("/studio/dashboard/export.exe").status_code == 404


def test_stability_index_tells_same_from_changed() -> None:
    before = {"01": 400, "05": 300, "09": 300}
    assert stability_index({"01": 40, "05": 31, "09": 29}, before) < 0.02  # type: ignore[operator]
    assert stability_index({"01": 10, "05": 10, "09": 80}, before) > 0.2  # type: ignore[operator]
    assert stability_index({"01": 3}, before) is None


def test_a_word_rises_when_its_share_does_and_not_by_chance() -> None:
    before = [["路灯", "不亮"]] * 200 + [["停水"]] * 4
    now = [["路灯", "不亮"]] * 40 + [["停水", "小区"]] * 15
    assert [word.word for word in risen_words(now, before)] == ["小区", "停水"]
    assert risen_words([["路灯"]] * 10, before) == [] and risen_words([], before) == []


def test_hot_spots_of_the_period_are_looked_for_and_lead_to_their_tickets(app: Flask, services: Services, clock: Clock) -> None:
    said = ["望湖花园停水三天了没人管", "我们望湖花园又停水了，做不了饭", "望湖花园停水，老人没水喝", "望湖花园小区连着停水"]
    numbers = []
    for number, text in enumerate(said):
        petition = Petition(id=text, texts=(text,), place={"text": "望湖花园", "poi": "望湖花园", "district": "清江浦区"})
        numbers.append(services.tickets.open_ticket(petition, request_key=text, conversation_id=f"c{number}").number)
    secret = Petition(id="s", texts=("望湖花园停水",), confidential=True, place={"text": "望湖花园", "poi": "望湖花园", "district": "清江浦区"})
    services.tickets.open_ticket(secret, request_key="s", conversation_id="c9")
    person = log_in(app, "supervisor")
    assert "还没有查过" in person.get("/studio/dashboard?days=7").text
    assert person.post("/studio/dashboard/hotspots?days=7").status_code == 302
    assert person.get("/studio/dashboard/hotspots?days=7").get_json()["ended"] is False
    assert JobRunner(services)._claim() == 1
    run_job(services, 1)
    page = person.get("/studio/dashboard?days=7").text
    assert "望湖花园" in page and "4 件，4 人" in page and all(number in page for number in numbers)
