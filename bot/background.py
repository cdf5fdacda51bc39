"""The service's own threads: relay to dispatch, recovery of unanswered messages, pushed news, watching for a promoted model."""
from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from bot.assistant import Assistant, AssistantError, ReloadableAssistant
from bot.conversation import Conversations, InboundMessage, Receipt, Reply
from bot.db import StorageError
from bot.jobs import JobRunner
from bot.models import archive_path, promoted_model
from bot.outbox import Relay
from bot.services import Services
from bot.serving import Heartbeat

logger = logging.getLogger(__name__)

RECOVER_EVERY, RECOVER_AGE = 5.0, timedelta(seconds=15)
WATCH_MODELS_EVERY, FOLLOW_RULES_EVERY = 1.0, 3.0
REVIEW_EVERY = 5.0
FETCH_MEDIA_EVERY = 2.0
RELEASE_EVERY, INDEX_EVERY = 10.0, 3600.0


class Background:
    """Daemon threads that end with stop(). A failure in one round is logged and the next round tries again."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def run_relay(self, relay: Relay) -> None:
        self._start("relay", lambda: relay.run_forever(self._stop))

    def run_jobs(self, runner: JobRunner) -> None:
        self._start("jobs", lambda: runner.run_forever(self._stop))

    def repeat(self, name: str, every: float, task: Callable[[], object]) -> None:
        def loop() -> None:
            while not self._stop.is_set():
                try:
                    task()
                except Exception:  # a thread that dies silently would stop recovery for good
                    logger.exception("%s failed, trying again", name)
                self._stop.wait(every)

        self._start(name, loop)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def recovery(conversations: Conversations, deliver: Callable[[Receipt, InboundMessage, Reply], None]) -> Callable[[], None]:
    """First round: everything a crash left behind; later rounds: what has waited longer than any turn takes."""
    first = True

    def task() -> None:
        nonlocal first
        for receipt, message, reply in conversations.recover(older_than=timedelta(0) if first else RECOVER_AGE):
            deliver(receipt, message, reply)
        first = False

    return task


def pushing(deliver: Callable[..., None]) -> Callable[[], None]:
    """First round: every answer that was given and never said; later rounds: what whoever owed it has plainly forgotten."""
    first = True

    def task() -> None:
        nonlocal first
        deliver(**({"unsaid_for": timedelta(0)} if first else {}))
        first = False

    return task


def release_idle(services: Services) -> Callable[[], None]:
    """Gives residents back to the bot whose agent does not answer."""
    patience = timedelta(minutes=services.settings.handover_minutes)

    def task() -> None:
        for conversation_id in services.handovers.release_idle(patience):
            logger.warning("nobody answered, the bot goes on", extra={"conversation": conversation_id})

    return task


def index_missing(services: Services) -> Callable[[], None]:
    """Brings tickets of an earlier version into the search index, a few in each transaction; after that it finds none."""

    def task() -> None:
        count = 0
        while found := services.tickets.index_missing():
            count += found
        if count:
            logger.info("%d tickets indexed", count)

    return task


def model_watch(services: Services, assistant: Assistant) -> Callable[[], None]:
    """Loads the promoted model when it is not the serving one, and tells what this process serves.

    A model that cannot be loaded leaves the old one serving; it is tried again when its archive has changed.
    """
    heart = Heartbeat(services)
    refused: dict[tuple[str, float], str] = {}

    def task() -> None:
        problem: str | None = None
        try:
            if isinstance(assistant, ReloadableAssistant):
                serving, version = assistant.serving_model(), promoted_model(services)
                if not serving:
                    return  # its first model is still loading
                if version not in (None, serving):
                    problem = _load(assistant, archive_path(services.settings.models_dir, str(version)), refused)
            heart.beat(assistant.serving_model(), problem)
        except StorageError:
            return  # the next round tells
        except AssistantError as error:  # a Rasa server of its own that does not answer
            heart.beat("", str(error))

    return task


def _load(assistant: ReloadableAssistant, path: Path, refused: dict[tuple[str, float], str]) -> str | None:
    """The problem, if it cannot be loaded."""
    if not path.exists():
        return f"找不到模型文件 {path.name}"
    key = path.name, path.stat().st_mtime
    if key in refused:
        return refused[key]
    serving = assistant.serving_model()
    try:
        assistant.load(path)
    except AssistantError as error:
        logger.exception("promoted model %s cannot be loaded; %s goes on serving", path.name, serving)
        refused[key] = f"{path.name} 不能载入，继续使用 {serving}：{error}"
        return refused[key]
    logger.info("model %s now serves", assistant.serving_model())
    settle_memory()
    return None


def settle_memory() -> None:
    """What was loaded stays for good: leaving it out of every full collection saves pauses of a third of a second. What has been
    replaced since the last time is looked for first."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
