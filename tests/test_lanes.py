"""The three lanes of the category's confidence: filed as read, other classes offered, or left for a person to check."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot import db
from bot.conversation import Conversations, InboundMessage, Reply
from bot.embedded import EmbeddedAssistant
from bot.petition import FILE, PERSON, SUGGEST, Lanes, Petition
from bot.services import build_services, install_services
from bot.settings import SettingsError, load_settings

Say = Callable[[str], Reply]
MATTER, PLACE = "小区门口的路灯坏了三天了，晚上黑漆漆的", "经开区山阳小区"
UNSURE_MATTER = "村口的厂子天天夜里拉货，路都压坏了，灰还大"


@pytest.fixture
def open_chat(assistant: EmbeddedAssistant, tmp_path: Path) -> Iterator[Callable[[str, str], Say]]:
    engines = []

    def open_one(file: str, suggest: str) -> Say:
        """A resident's conversation with a service that has these thresholds."""
        settings = load_settings({"MINSHENG_VAR_DIR": str(tmp_path), "MINSHENG_LANE_FILE": file, "MINSHENG_LANE_SUGGEST": suggest})
        db.migrate(settings)
        services = build_services(settings)
        install_services(services)
        engines.append(services.engine)
        conversations, count = Conversations(services, assistant), iter(range(100))
        return lambda text: conversations.respond(InboundMessage("api", "resident", f"{file}-{next(count)}", text=text))

    yield open_one
    for engine in engines:
        engine.dispose()


def titles(reply: Reply) -> list[str]:
    return [button.title for bubble in reply.messages for button in bubble.buttons]


def words(reply: Reply) -> str:
    return "\n".join(bubble.text for bubble in reply.messages)


def test_lane_follows_the_confidence() -> None:
    lanes = Lanes(0.6, 0.35)
    read = [lanes.of(Petition(id="p", category_confidence=confidence)) for confidence in (0.9, 0.6, 0.59, 0.35, 0.34)]
    assert read == [FILE, FILE, SUGGEST, SUGGEST, PERSON]
    assert lanes.of(Petition(id="p", category_confidence=0.1, fixed=("category",))) == FILE


@pytest.mark.parametrize(("file", "suggest"), [("0.3", "0.4"), ("1.2", "0.3"), ("0.6", "-0.1"), ("sure", "0.3")])
def test_thresholds_that_cannot_work_are_refused(tmp_path: Path, file: str, suggest: str) -> None:
    with pytest.raises(SettingsError, match="LANE_"):
        load_settings({"MINSHENG_VAR_DIR": str(tmp_path), "MINSHENG_LANE_FILE": file, "MINSHENG_LANE_SUGGEST": suggest})


def test_sure_reading_is_filed_without_a_question(open_chat: Callable[[str, str], Say]) -> None:
    say = open_chat("0", "0")
    say(MATTER)
    assert not [title for title in titles(say(PLACE)) if title.startswith("类别是")]
    assert "核对一遍" not in words(say("确认提交"))


def test_unsure_reading_offers_other_classes_and_a_tap_settles_it(open_chat: Callable[[str, str], Say]) -> None:
    say = open_chat("1", "0")
    say(UNSURE_MATTER)
    offered = [title for title in titles(say(PLACE)) if title.startswith("类别是")]
    assert 1 <= len(offered) <= 2
    changed = say(offered[0])
    assert offered[0].removeprefix("类别是") in words(changed)
    assert not [title for title in titles(changed) if title.startswith("类别是")]
    assert "核对一遍" not in words(say("确认提交"))


def test_reading_nobody_should_trust_goes_to_a_person_and_is_filed_all_the_same(open_chat: Callable[[str, str], Say]) -> None:
    say = open_chat("1", "1")
    say(MATTER)
    say(PLACE)
    filed = say("确认提交")
    assert len(filed.tickets) == 1
    assert "核对一遍" in words(filed)
