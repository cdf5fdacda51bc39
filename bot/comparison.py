"""Examines a candidate and the serving model on the same frozen items, one after the other in this process."""
from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bot import db
from bot.assistant import Assistant, AssistantError
from bot.city_rules import RulesFollower
from bot.frozen import FrozenItem, list_frozen, seed_shipped
from bot.models import ModelError, archive_path, keep_report, promoted_model
from bot.parse import parse_text
from bot.report import Answer, build_report
from bot.services import Services

logger = logging.getLogger(__name__)

Tell = Callable[[float, str], None]
WARM_UP = 20


def compare_model(
    services: Services, version: str, tell: Tell = lambda share, step: None, *, leave_out: Sequence[str] = (), **more: Any
) -> dict[str, Any]:
    """The report on this model beside the one that serves today, kept with the model; `more` goes into it.

    `leave_out`: sources whose labels are not to be trusted, and so are no test items either. Takes about 10 s to load each model and
    10 ms for each item. Raises ModelError, AssistantError.
    """
    RulesFollower(services).follow()  # a model may read categories that the city has added
    seed_shipped(services)
    items, serving = [item for item in list_frozen(services) if item.source not in leave_out], promoted_model(services)
    if not items:
        raise ModelError("没有考题，不能对比")
    path = archive_path(services.settings.models_dir, version)
    if not path.exists():
        raise ModelError(f"no archive for model {version}")
    candidate = examine(services, path, items, lambda share: tell(share * 0.5, "新模型答考题"))
    known: list[Answer] | None = None
    unreadable = False
    if serving == version:
        known = candidate
    elif serving is not None:
        earlier = archive_path(services.settings.models_dir, serving)
        try:
            known = examine(services, earlier, items, lambda share: tell(0.5 + share * 0.5, "正在使用的模型答同样的考题"))
        except AssistantError as error:
            # Lost, damaged, or of a version that reads another way: the floors alone decide, or nothing could ever replace it.
            logger.warning("the serving model is not compared with: %s", error)
            unreadable = True
    report = {
        **build_report(items, candidate, known, first_level_names(services)),
        "model": version,
        "serving_model": serving,
        "serving_unreadable": unreadable,
        "left_out": list(leave_out),
        "at": db.iso(services.now()),
        "size_mb": round(path.stat().st_size / 2**20, 1),
        **more,
    }
    keep_report(services, version, report)
    return report


def examine(services: Services, path: Path, items: Sequence[FrozenItem], tell: Callable[[float], None]) -> list[Answer]:
    """What the model in this archive reads of every item. Its memory is free again afterwards."""
    from bot.embedded import EmbeddedAssistant  # takes seconds and 400 MB, so only where it is used

    tell(0.0)
    assistant = EmbeddedAssistant(path)
    for item in items[:WARM_UP]:
        assistant.parse(item.text)
    answers = []
    for number, item in enumerate(items):
        if number % 50 == 0:
            tell(number / len(items))
        answers.append(_answer(services, assistant, item))
    del assistant
    gc.collect()
    return answers


def _answer(services: Services, assistant: Assistant, item: FrozenItem) -> Answer:
    started = time.perf_counter()
    parse = parse_text(item.text, assistant, services.catalogue, services.gazetteer)
    best, urgency = parse["categories"][0], parse["urgency"]
    spent = (time.perf_counter() - started) * 1000
    return Answer(
        category=best["code"],
        confidence=float(best["confidence"]),
        request_type=parse["request_type"]["name"],
        urgency=urgency["level"],
        emergency=bool(urgency["emergency"]),
        intent=parse["intent"]["name"],
        milliseconds=spent,
    )


def first_level_names(services: Services) -> dict[str, str]:
    return {code[:2]: category.path[0] for code, category in services.catalogue.categories.items()}
