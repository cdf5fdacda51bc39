"""What of a ticket stands in columns of its own: whose staff may read it, who it is of, and when it got how far."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Clock
from sqlalchemy import select
from stub_app import road_petition, stub_services

from bot.db import iso
from bot.schema import tickets
from bot.services import Services
from bot.ticket import StatusEvent


@pytest.fixture
def services(tmp_path: Path, clock: Clock) -> Iterator[Services]:
    built = stub_services(tmp_path, now=clock)
    yield built
    built.engine.dispose()


def file(services: Services, key: str = "k1", **changes: Any) -> str:
    return services.tickets.open_ticket(road_petition(**changes), request_key=key, conversation_id=None).number


def row(services: Services, number: str) -> Any:
    with services.engine.connect() as connection:
        return connection.execute(select(tickets).where(tickets.c.number == number)).one()


def event(services: Services, number: str, status: str, at: datetime) -> None:
    services.tickets.record_status(StatusEvent(f"w-{status}-{iso(at)}", number, status, at, "市住建局", "说明"))


def test_filing_notes_whose_ticket_it_is_and_how_it_was_read(services: Services) -> None:
    kept = row(services, file(services, model="m1", category_confidence=0.42))
    assert (kept.district, kept.confidential, kept.model, kept.confidence) == ("淮安经济技术开发区", False, "m1", 0.42)
    assert kept.person_key == services.vault.person_key("13812345678") and "138" not in kept.person_key


@pytest.mark.parametrize("place", [None, {"text": "南京市鼓楼区", "district": "鼓楼区"}])
def test_ticket_of_no_district_of_this_city_belongs_to_all(services: Services, place: dict[str, str] | None) -> None:
    assert row(services, file(services, place=place)).district is None


@pytest.mark.parametrize("changes", [{"confidential": True}, {"matter": "minor_protection", "kind": "minor"}])
def test_who_asks_for_secrecy_or_needs_it_is_confidential(services: Services, changes: dict[str, Any]) -> None:
    assert row(services, file(services, **changes)).confidential


def test_changes_of_place_and_secrecy_move_the_ticket(services: Services) -> None:
    number = file(services)
    petition = services.tickets.get_ticket(number).petition
    moved = replace(petition, place={"text": "涟水县红日大道", "district": "涟水县", "road": "红日大道"}, confidential=True, phone=None)
    services.tickets.correct(number, moved)
    kept = row(services, number)
    assert (kept.district, kept.confidential, kept.person_key) == ("涟水县", True, None)


def test_milestones_are_kept_whatever_the_order_of_events(services: Services, clock: Clock) -> None:
    number, filed = file(services), clock()
    clock.forward(hours=5)
    replied = clock()
    event(services, number, "replied", replied)
    event(services, number, "accepted", filed)  # late
    clock.forward(hours=1)
    event(services, number, "closed", clock())
    kept = row(services, number)
    assert (kept.state, kept.responded_at, kept.replied_at, kept.closed_at) == ("closed", iso(filed), iso(replied), iso(clock()))


def test_reopened_ticket_is_not_closed(services: Services, clock: Clock) -> None:
    number = file(services)
    event(services, number, "closed", clock())
    clock.forward(hours=1)
    event(services, number, "in_progress", clock())
    assert row(services, number).closed_at is None


def test_verdict_is_kept_once(services: Services) -> None:
    number = file(services)
    services.tickets.rate(number, satisfied=False, note="", score=1)
    services.tickets.rate(number, satisfied=True, note="", score=5)
    assert row(services, number).score == 1


def test_agent_who_files_stands_on_the_timeline(services: Services) -> None:
    number = services.tickets.open_ticket(road_petition(), request_key="k", conversation_id=None, actor="1024").number
    assert services.tickets.timeline(number)[0].actor == "1024"
