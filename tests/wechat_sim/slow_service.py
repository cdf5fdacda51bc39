"""The whole service as a process of its own with slow turns: only Rasa is replaced, by something that repeats what it hears.

`…（想N秒）…` in a message makes its turn take that long.
"""
from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from bot.assistant import Bubble, Done, PreparedTurn, Turn, TurnResult
from bot.logs import set_up_logging
from bot.settings import settings_from_environment
from webhook import create_app, listen

_THINKING = re.compile(r"想([0-9.]+)秒")


class SlowAssistant:
    """Answers `答：` and the resident's words after the time they ask for."""

    concurrency: ClassVar[int] = 64

    def prepare(self, turn: Turn) -> PreparedTurn:
        found = _THINKING.search(turn.text)
        time.sleep(float(found[1]) if found else 0.0)
        return Done(TurnResult((Bubble(f"答：{turn.text}"),), (), {}))

    def parse(self, text: str) -> Mapping[str, Any]:
        return {"text": text}

    def serving_model(self) -> str:
        return "slow"


if __name__ == "__main__":
    set_up_logging()
    settings = settings_from_environment()
    listen(create_app(settings, assistant=SlowAssistant()), settings)
