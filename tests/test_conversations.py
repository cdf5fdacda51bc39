"""Residents' stories (tests/conversations/*.yml) driven over HTTP against one real server with a dispatch stand-in on loopback."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conversation_runner import Runner, read_scenarios

pytest_plugins = ["tests.conversation_runner"]

FILES = sorted((Path(__file__).parent / "conversations").glob("*.yml"))
STORIES = {scenario["id"]: scenario for path in FILES for scenario in read_scenarios(path)}
# The systems of the domain's table whose stories are told; each must be among them.
SYSTEMS = {1, 3, 4, 5, 8, 11, 14, 16, 17, 19, 21, 22, 24, 25}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_story_ends_as_it_should(live: Runner, story: dict[str, Any]) -> None:
    outcome = live.run(story)
    if outcome.faults:
        pytest.fail(outcome.report(), pytrace=False)


def test_every_system_has_a_story() -> None:
    assert {story["system"] for story in STORIES.values() if "system" in story} == SYSTEMS
