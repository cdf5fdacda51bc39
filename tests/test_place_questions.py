"""Places that need a question: names of several districts are asked back, map points are named after what is near."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot import db
from bot.conversation import Conversations, InboundMessage, Reply
from bot.embedded import EmbeddedAssistant
from bot.gazetteer import Division, Gazetteer, LocalPlace
from bot.services import Services, build_services, install_services
from bot.settings import load_settings
from bot.ticket import created_payload

Say = Callable[..., Reply]
MATTER = "路灯坏了三天了，晚上黑漆漆的"


@pytest.fixture
def twin_city(tmp_path: Path) -> Iterator[Services]:
    """The example city with one road that two of its districts have, and one estate with a point on the map."""
    settings = load_settings({"MINSHENG_VAR_DIR": str(tmp_path)})
    db.migrate(settings)
    services = build_services(settings)
    divisions = [Division("32", "江苏省"), Division("3208", "淮安市"), Division("320803", "淮安区"), Division("320812", "清江浦区")]
    local = [LocalPlace("丰收路", "道路", district, "", None, None) for district in ("淮安区", "清江浦区")]
    local.append(LocalPlace("山阳小区", "小区", "清江浦区", "", 33.6, 119.0))
    home = {"code": "3208", "name": "淮安市"}
    services = replace(services, gazetteer=Gazetteer(divisions, [(place.name, place) for place in local], home))
    install_services(services)
    yield services
    services.engine.dispose()


@pytest.fixture
def say(twin_city: Services, assistant: EmbeddedAssistant) -> Say:
    conversations, count = Conversations(twin_city, assistant), iter(range(100))

    def say(text: str = "", **more: object) -> Reply:
        return conversations.respond(InboundMessage("api", "resident", str(next(count)), text=text, **more))  # type: ignore[arg-type]

    return say


def words(reply: Reply) -> str:
    return "\n".join(bubble.text for bubble in reply.messages)


def titles(reply: Reply) -> list[str]:
    return [button.title for bubble in reply.messages for button in bubble.buttons]


def location_of(services: Services, reply: Reply) -> dict[str, object]:
    ticket = services.tickets.get_ticket(reply.tickets[0]["ticket_number"])
    location: dict[str, object] = created_payload(ticket, services.catalogue, services.tickets.lanes)["location"]
    return location


def test_name_of_two_districts_is_asked_back_and_a_tap_answers(say: Say, twin_city: Services) -> None:
    say(MATTER)
    asked = say("丰收路12号门口")
    assert "不止一处" in words(asked) and titles(asked) == ["淮安区", "清江浦区"]
    assert "清江浦区丰收路12号" in words(say("清江浦区"))
    location = location_of(twin_city, say("确认提交"))
    assert location["district"] == "清江浦区"
    assert set(location) == {
        "text", "province", "city", "district", "street", "community", "road", "poi", "building", "adcode", "lat", "lng",
    }  # fmt: skip


def test_district_told_with_the_name_is_not_asked(say: Say) -> None:
    say(MATTER)
    assert "确认提交" in titles(say("淮安区丰收路12号门口"))


def test_who_cannot_say_which_district_is_not_held_up(say: Say) -> None:
    say(MATTER)
    say("丰收路12号门口")
    for _ in range(3):
        reply = say("我也说不清楚是哪个")
        if "确认提交" in titles(reply):
            break
    assert len(say("确认提交").tickets) == 1


def test_map_point_without_a_label_is_named_after_what_is_near(say: Say, twin_city: Services) -> None:
    say(MATTER)
    card = words(say(kind="location", location={"lat": 33.6001, "lng": 119.0001, "label": ""}))
    assert "山阳小区附近" in card
    assert location_of(twin_city, say("确认提交"))["district"] == "清江浦区"
