"""Promotion as each process sees it: the promoted model is loaded, a broken one is told, and residents notice nothing."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.assistant import AssistantError, PreparedTurn, Turn
from bot.background import model_watch
from bot.models import archive_path, keep_report, promote_model, register_model
from bot.services import Services
from bot.serving import ServingProcess, list_serving
from tests.promote_soak import GOOD, SHORT, run

OLD, NEW = "20260101-000000", "20260102-000000"


class Loading:
    """An assistant that only loads; an archive whose content is "broken" it refuses."""

    concurrency = 1

    def __init__(self, version: str) -> None:
        self.version, self.tried = version, 0

    def load(self, model_path: Path) -> None:
        self.tried += 1
        if model_path.read_text() == "broken":
            raise AssistantError("no model in there")
        self.version = model_path.name.removesuffix(".tar.gz")

    def serving_model(self) -> str:
        return self.version

    def prepare(self, turn: Turn) -> PreparedTurn:
        raise NotImplementedError

    def parse(self, text: str) -> Mapping[str, Any]:
        raise NotImplementedError


@pytest.fixture
def shelf(services: Services, tmp_path: Path) -> Services:
    """The first model serves, the second has been promoted."""
    (tmp_path / "models").mkdir()
    shelf = replace(services, settings=replace(services.settings, models_dir=tmp_path / "models"))
    for version in (OLD, NEW):
        path = archive_path(shelf.settings.models_dir, version)
        path.write_text("fine")
        register_model(shelf, path, trained_at=shelf.now(), metrics={})
    keep_report(shelf, NEW, {"candidate": GOOD, "serving": GOOD, "serving_model": OLD})
    promote_model(shelf, NEW)
    return shelf


def seen(shelf: Services) -> ServingProcess:
    (process,) = list_serving(shelf)
    return process


def test_process_loads_what_was_promoted_and_says_so(shelf: Services) -> None:
    assistant = Loading(OLD)
    watch = model_watch(shelf, assistant)
    watch()
    assert assistant.version == seen(shelf).model == NEW and seen(shelf).problem is None


def test_broken_archive_leaves_the_old_model_serving_until_it_is_mended(shelf: Services) -> None:
    path, assistant = archive_path(shelf.settings.models_dir, NEW), Loading(OLD)
    path.write_text("broken")
    watch = model_watch(shelf, assistant)
    watch()
    watch()
    assert assistant.tried == 1, "not again and again"
    assert seen(shelf).model == OLD and "no model in there" in str(seen(shelf).problem)
    path.write_text("mended")
    watch()
    assert seen(shelf).model == NEW and seen(shelf).problem is None


def test_missing_archive_is_told(shelf: Services) -> None:
    archive_path(shelf.settings.models_dir, NEW).unlink()
    model_watch(shelf, Loading(OLD))()
    assert seen(shelf).model == OLD and f"{NEW}.tar.gz" in str(seen(shelf).problem)


def test_residents_notice_nothing_of_promotion_and_rollback(tmp_path: Path) -> None:
    faults, took = run(SHORT, tmp_path, say=lambda line: None)
    assert faults == [] and len(took) == SHORT.swaps
