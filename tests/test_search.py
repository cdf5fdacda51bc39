"""Finding tickets: the blind index, filters, paging and jurisdiction, on SQLite and on PostgreSQL."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Clock
from sqlalchemy import select, text
from stub_app import stub_services

from bot.access import Access
from bot.petition import Petition
from bot.schema import metadata, tickets
from bot.search import query_words
from bot.services import Services
from bot.staff import StaffMember
from bot.ticket import StatusEvent
from bot.ticket_list import Filters, TicketList, read_filters

LAMP = "清江浦区淮海东路路灯坏了三天，晚上黑得看不见，联系我13800000001"
NOISE = "楼下烧烤店油烟大，吵到半夜"
ROAD = "涟水县红日大道路面塌了一块，路灯也歪了"


@pytest.fixture(params=["sqlite", "postgresql"])
def services(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Services]:
    chosen = {"MINSHENG_DATABASE_URL": request.getfixturevalue("postgres_url")} if request.param == "postgresql" else {}
    built = stub_services(tmp_path, now=clock, **chosen)
    yield built
    metadata.drop_all(built.engine)
    built.engine.dispose()


def file(services: Services, words: str, district: str | None = "清江浦区", **changes: Any) -> str:
    place = {"text": f"{district}某处", "district": district} if district else None
    given: dict[str, Any] = {"id": words[:8], "texts": (words,), "place": place, "category": "010202", "phone": "13800000001", **changes}
    return services.tickets.open_ticket(Petition(**given), request_key=f"{words}{len(changes)}", conversation_id=None).number


def member(*districts: str, **changes: Any) -> StaffMember:
    return replace(StaffMember("1024", "李女士", "agent", districts, cleared=False, department=None, epoch=0), **changes)


def listed(services: Services, who: StaffMember | None = None, **filters: Any) -> list[str]:
    return [ticket.number for ticket in TicketList(Access(services, who or member())).page(Filters(**filters)).tickets]


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("路灯", ["road", "lamp"]),
        ("路灯 塌", ["road"]),
        ("路燈", ["road", "lamp"]),  # traditional characters
        ("淮海东路路灯", ["lamp"]),
        ("灯路", []),  # the same characters, another order
        ("路灯坏了一年", []),
        ("涟水县红日大道路灯", []),  # every pair is there, the words are not
        ("烧烤", ["noise"]),
        ("13800000001", ["road", "noise", "lamp"]),
        ("5678", []),
        ("灯", []),
        ("%' OR 1=1 --", []),
        ('"路灯" AND NOT', []),
    ],
)
def test_words_find_tickets(services: Services, query: str, found: list[str]) -> None:
    names = {file(services, LAMP): "lamp", file(services, NOISE): "noise", file(services, ROAD, "涟水县"): "road"}
    assert [names[number] for number in listed(services, q=query)] == found


def test_number_finds_its_ticket(services: Services) -> None:
    first, _second = file(services, LAMP), file(services, NOISE)
    assert listed(services, q=first) == [first]


def test_what_is_added_later_is_found_and_the_ticket_comes_once(services: Services) -> None:
    number = file(services, LAMP)
    services.tickets.supplement(number, "电线也掉下来了")
    services.tickets.urge(number)
    assert listed(services, q="电线") == listed(services, q="路灯") == [number]


def test_words_that_were_taken_back_are_not_found(services: Services) -> None:
    number = file(services, LAMP)
    petition = services.tickets.get_ticket(number).petition
    services.tickets.correct(number, replace(petition, place={"text": "清江浦区水门桥", "district": "清江浦区"}))
    assert listed(services, q="水门桥") == [number] and listed(services, q="某处") == []


def test_index_holds_no_words_and_no_numbers(services: Services) -> None:
    file(services, LAMP)
    query = "SELECT CAST(terms AS text) FROM ticket_search" if services.engine.dialect.name == "postgresql" else "SELECT hex(block) FROM ticket_search_data"
    with services.engine.connect() as connection:
        stored = "".join(str(row[0]) for row in connection.execute(text(query)))
    seen = bytes.fromhex(stored) if services.engine.dialect.name == "sqlite" else stored.encode()
    assert stored and not any(word.encode() in seen for word in ("路灯", "13800000001", "2026"))


def test_tickets_of_an_older_version_are_indexed_later(services: Services) -> None:
    number = file(services, LAMP)
    with services.engine.begin() as connection:
        connection.execute(text("DELETE FROM ticket_search") if connection.dialect.name == "postgresql" else text("INSERT INTO ticket_search(ticket_search) VALUES('delete-all')"))
        connection.execute(tickets.update().values(search_revision=0, district=None, person_key=None))
    assert listed(services, q="路灯") == []
    assert services.tickets.index_missing() == 1 and services.tickets.index_missing() == 0
    assert listed(services, q="路灯") == [number] == listed(services, district="清江浦区") == listed(services, q="13800000001")


def test_long_and_many_words_are_cut() -> None:
    assert len(query_words("字" * 5000)[0]) == 200 and len(query_words(" ".join(map(str, range(50))))) == 12


# -- filters ----------------------------------------------------------------------------------------------------------


def test_filters_narrow(services: Services, clock: Clock) -> None:
    lamp = file(services, LAMP, request_type="求助", model="m", category_confidence=0.2)
    clock.forward(days=1)
    noise = file(services, NOISE, None, request_type="投诉", category="130101", urgency="紧急", emergency=True, source="wechat", model="m", category_confidence=0.9)
    services.tickets.record_status(StatusEvent("w1", lamp, "returned", clock(), "市城市管理局", "不归我们管"))
    lead = services.tickets.get_ticket(lamp).lead_department
    for filters in (
        {"state": "returned"}, {"district": "清江浦区"}, {"category": "01"}, {"category": "010202"}, {"type": "求助"}, {"urgency": "一般"},
        {"source": "web"}, {"department": lead}, {"until": "2026-11-20"}, {"returned": True}, {"low": True},
    ):  # fmt: skip
        assert listed(services, **filters) == [lamp], filters
    for filters in ({"district": "none"}, {"category": "13"}, {"emergency": True}, {"since": "2026-11-21"}):
        assert listed(services, **filters) == [noise], filters
    clock.forward(days=60)
    assert listed(services, overdue=True) == [noise, lamp] and listed(services, mine=True) == []


def test_mine_is_what_i_filed_or_changed(services: Services) -> None:
    file(services, LAMP)
    own = services.tickets.open_ticket(Petition(id="p", texts=(NOISE,)), request_key="own", conversation_id=None, actor="1024").number
    assert listed(services, mine=True) == [own]


def test_counts_are_those_of_the_lists(services: Services, clock: Clock) -> None:
    file(services, LAMP, model="m", category_confidence=0.2)
    file(services, NOISE, emergency=True)
    file(services, ROAD, "涟水县")
    found = TicketList(Access(services, member("清江浦区")))
    assert found.counts(Filters()) == {"all": 2, "emergency": 1, "overdue": 0, "returned": 0, "low": 1, "mine": 0}
    assert found.count(Filters()) == 2 and found.count(Filters(q="路灯")) == 1 and found.count(Filters(low=True)) == 1


def test_pages_follow_each_other_without_gap_or_repetition(services: Services) -> None:
    numbers = [file(services, f"{LAMP}{'又' * n}") for n in range(7)]
    services.tickets.supplement(numbers[3], "还是没修")
    for filters in (Filters(), Filters(q="路灯")):
        seen, before = list[str](), None
        while True:
            page = TicketList(Access(services, member())).page(filters, before=before, size=3)
            seen += [ticket.number for ticket in page.tickets]
            if page.older is None:
                break
            before = page.older
        assert seen == numbers[::-1]


def test_address_that_makes_no_sense_is_an_open_list(services: Services) -> None:
    odd = {"state": "x", "category": "999999", "since": "gestern", "type": "<", "district": "火星区", "overdue": "", "q": " 路灯 "}
    assert read_filters(odd, services) == Filters(q="路灯")


# -- jurisdiction -----------------------------------------------------------------------------------------------------


def test_another_districts_tickets_are_not_found_by_any_filter(services: Services) -> None:
    own, foreign, nobodys = file(services, LAMP), file(services, ROAD, "涟水县"), file(services, NOISE, None)
    agent = member("清江浦区")
    assert listed(services, agent) == [nobodys, own]
    for filters in ({"q": "路灯"}, {"q": foreign}, {"district": "涟水县"}, {"q": "13800000001"}, {"q": "红日大道"}):
        assert foreign not in listed(services, agent, **filters), filters


def test_confidential_tickets_are_found_by_the_cleared_only(services: Services) -> None:
    secret = file(services, LAMP, confidential=True)
    assert listed(services, q="路灯") == [] and listed(services, member(cleared=True), q="路灯") == [secret]
    assert TicketList(Access(services, member())).count(Filters(q="13800000001")) == 0


def test_number_of_a_reporter_finds_nothing_for_the_department_reported_on(services: Services) -> None:
    report = file(services, "举报城管队长收小贩的钱", request_type="举报", category="160101")
    works_there = member(department="市城市管理局")
    assert listed(services, works_there) == [report] and listed(services, works_there, q="13800000001") == []
    assert TicketList(Access(services, works_there)).count(Filters(q="13800000001")) == 0
    assert listed(services, q="13800000001") == [report]


def test_positions_follow_the_numbers(services: Services, clock: Clock) -> None:
    first = file(services, LAMP)
    clock.now += timedelta(days=1)
    second = file(services, NOISE)
    with services.engine.connect() as connection:
        rows = connection.execute(select(tickets.c.number).order_by(tickets.c.position)).scalars().all()
    assert rows == [first, second]
