"""An assistant that opens in a thread of its own: a service that starts again takes messages in and keeps them while its model loads."""
from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

from bot.assistant import Assistant, AssistantError, PreparedTurn, ReloadableAssistant, Turn

logger = logging.getLogger(__name__)

# Longer than any model takes to load; a message that has waited so long is told so, and answered later.
PATIENCE = 120.0


class LateAssistant:
    """Implements bot.assistant.ReloadableAssistant. Whoever needs the model before it is there waits for it.

    `opened` is called once it is there. A model that cannot be opened ends the process: nothing it took in is lost, and whatever
    started it sees that it failed.
    """

    concurrency = 1  # as of the embedded one

    def __init__(self, open_assistant: Callable[[], Assistant], *, opened: Callable[[], None]) -> None:
        self._assistant: Future[Assistant] = Future()
        self._open, self._opened = open_assistant, opened
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def _run(self) -> None:
        try:
            self._assistant.set_result(self._open())
            self._opened()
        except BaseException as error:
            logger.critical("no model could be opened: %s", error, exc_info=not isinstance(error, AssistantError))
            logging.shutdown()
            os._exit(1)

    def _get(self) -> Assistant:
        try:
            return self._assistant.result(PATIENCE)
        except NotYet:
            raise AssistantError("the model is still loading") from None

    def serving_model(self) -> str:
        """"" while it loads."""
        return self._assistant.result().serving_model() if self._assistant.done() else ""

    def parse(self, text: str) -> Mapping[str, Any]:
        return self._get().parse(text)

    def prepare(self, turn: Turn) -> PreparedTurn:
        return self._get().prepare(turn)

    def load(self, model_path: Path) -> None:
        assistant = self._get()
        assert isinstance(assistant, ReloadableAssistant)
        assistant.load(model_path)
