"""The list of models: first, promoted, refused, overridden, rolled back, deleted, with a history of who and why."""
from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from bot import db
from bot.models import (
    CANDIDATE,
    PROMOTED,
    RETIRED,
    GateRefused,
    ModelError,
    NotCompared,
    archive_path,
    delete_model,
    earlier_model,
    find_by_hash,
    keep_report,
    list_events,
    list_models,
    models_to_serve,
    promote_model,
    promoted_model,
    register_model,
    rollback_model,
)
from bot.services import Services
from bot.serving import Heartbeat, list_serving
from bot.settings import PROJECT_ROOT, child_environment
from bot.staff_schema import models

OLD, NEW, NEWER = "20260101-000000", "20260102-000000", "20260103-000000"


@pytest.fixture
def shelf(services: Services, tmp_path: Path) -> Services:
    """Services with three models, of which the first one serves; archives are empty files."""
    (tmp_path / "models").mkdir()
    shelf = replace(services, settings=replace(services.settings, models_dir=tmp_path / "models"))
    for version in (OLD, NEW, NEWER):
        path = archive_path(shelf.settings.models_dir, version)
        path.touch()
        register_model(shelf, path, trained_at=shelf.now(), metrics={}, data_hash=f"hash of {version}")
        shelf.now.forward(minutes=1)  # type: ignore[attr-defined]
    return shelf


def figures(macro: float = 0.9, passed: int = 60) -> dict[str, Any]:
    return {
        "macro_f1": macro, "accuracy": macro, "per_class": {}, "emergency": {"recall": 0.95}, "must_pass": {"total": 60, "passed": passed},
    }  # fmt: skip


def compare(shelf: Services, version: str, **changes: Any) -> None:
    """A report on `version` beside the model that serves now."""
    keep_report(shelf, version, {"candidate": figures(**changes), "serving": figures(), "serving_model": promoted_model(shelf)})


def states(shelf: Services) -> dict[str, str]:
    return {model["version"]: model["state"] for model in list_models(shelf)}


def history(shelf: Services) -> list[tuple[str, str, str | None, str]]:
    return [(event.action, event.version, event.previous, event.username) for event in reversed(list_events(shelf))]


def test_first_model_of_an_installation_serves_at_once(shelf: Services) -> None:
    assert states(shelf) == {OLD: PROMOTED, NEW: CANDIDATE, NEWER: CANDIDATE}
    assert history(shelf) == [("promoted", OLD, None, "system")]
    assert earlier_model(shelf) is None


def test_model_is_compared_with_the_one_that_serves_before_it_may(shelf: Services) -> None:
    with pytest.raises(NotCompared):
        promote_model(shelf, NEW)
    compare(shelf, NEW)
    compare(shelf, NEWER)
    promote_model(shelf, NEWER, username="supervisor", reason="更准")
    with pytest.raises(NotCompared):  # its report speaks of a model that serves no more
        promote_model(shelf, NEW)
    assert states(shelf) == {OLD: RETIRED, NEW: CANDIDATE, NEWER: PROMOTED}
    assert [model["metrics"].get("macro_f1") for model in list_models(shelf)] == [0.9, 0.9, None]


KILLED = """
import os, signal, sys
from sqlalchemy import event
from bot.models import promote_model, rollback_model
from bot.services import build_services
from bot.settings import settings_from_environment
services = build_services(settings_from_environment())
seen = []
@event.listens_for(services.engine, "after_cursor_execute")
def die(connection, cursor, statement, *rest):
    seen.append(statement)
    if sum(one.startswith(("UPDATE model ", "INSERT INTO model_event")) for one in seen) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
rollback_model(services) if sys.argv[2] == "back" else promote_model(services, sys.argv[2])
"""


@pytest.mark.parametrize(("what", "statements"), [pytest.param(NEWER, 1, id="nothing serves any more"), pytest.param("back", 3, id="not committed")])
def test_promotion_and_roll_back_that_are_killed_leave_the_serving_model(shelf: Services, what: str, statements: int) -> None:
    compare(shelf, NEW)
    promote_model(shelf, NEW)
    compare(shelf, NEWER)
    before = states(shelf), history(shelf)
    environment = {**child_environment(shelf.settings), "PYTHONPATH": str(PROJECT_ROOT)}
    died = subprocess.run([sys.executable, "-c", KILLED, str(statements), what], env=environment, capture_output=True)
    assert died.returncode == -9, died.stderr.decode()
    assert (states(shelf), history(shelf)) == before
    promote_model(shelf, NEWER)  # no lock is left behind
    assert promoted_model(shelf) == NEWER


def test_archive_whose_training_was_killed_before_it_was_registered_is_only_a_candidate(shelf: Services) -> None:
    saved = archive_path(shelf.settings.models_dir, "20260104-000000")
    saved.touch()
    assert models_to_serve(shelf)[0] == archive_path(shelf.settings.models_dir, OLD)
    assert promoted_model(shelf) == OLD and states(shelf)["20260104-000000"] == CANDIDATE


def test_candidate_that_fell_is_refused_and_the_figure_named(shelf: Services) -> None:
    compare(shelf, NEW, macro=0.8)
    with pytest.raises(GateRefused, match=r"80\.0%.*90\.0%"):
        promote_model(shelf, NEW, username="supervisor")
    assert promoted_model(shelf) == OLD


def test_admin_overrides_with_a_written_reason(shelf: Services) -> None:
    compare(shelf, NEW, passed=59)
    with pytest.raises(ModelError, match="理由"):
        promote_model(shelf, NEW, username="admin", reason="  急用 ", override=True)
    promote_model(shelf, NEW, username="admin", reason="必答题里那一条标错了，已登记改正", override=True)
    assert history(shelf)[-1] == ("overridden", NEW, OLD, "admin")
    assert "标错" in list_events(shelf)[0].reason


def test_going_back_twice_goes_back_two(shelf: Services) -> None:
    for version in (NEW, NEWER):
        compare(shelf, version)
        promote_model(shelf, version)
    assert rollback_model(shelf, username="supervisor", reason="坐席反映不准") == NEW
    assert states(shelf) == {OLD: RETIRED, NEW: PROMOTED, NEWER: RETIRED}
    assert earlier_model(shelf) == OLD and rollback_model(shelf) == OLD
    with pytest.raises(ModelError, match="no earlier model"):
        rollback_model(shelf)
    assert history(shelf)[-2:] == [("rolled_back", NEW, NEWER, "supervisor"), ("rolled_back", OLD, NEW, "system")]


def test_going_back_passes_a_deleted_model(shelf: Services) -> None:
    for version in (NEW, NEWER):
        compare(shelf, version)
        promote_model(shelf, version)
    delete_model(shelf, NEW)
    assert not archive_path(shelf.settings.models_dir, NEW).exists()
    assert rollback_model(shelf) == OLD


def test_model_promoted_before_there_was_a_history_can_be_rolled_back(shelf: Services) -> None:
    with db.transaction(shelf.engine) as connection:
        connection.execute(update(models).where(models.c.version == OLD).values(state=RETIRED))
        connection.execute(update(models).where(models.c.version == NEW).values(state=PROMOTED, promoted_at=db.iso(shelf.now())))
    assert rollback_model(shelf) == OLD


def test_serving_model_cannot_be_deleted_nor_promoted_again(shelf: Services) -> None:
    with pytest.raises(ModelError, match="正在使用"):
        delete_model(shelf, OLD)
    with pytest.raises(ModelError, match="already"):
        promote_model(shelf, OLD)
    with pytest.raises(ModelError, match="no archive"):
        promote_model(shelf, "20990101-000000")
    assert archive_path(shelf.settings.models_dir, OLD).exists()


def test_same_data_names_the_model_that_is_there(shelf: Services) -> None:
    assert find_by_hash(shelf, f"hash of {NEW}") == NEW
    archive_path(shelf.settings.models_dir, NEW).unlink()
    assert find_by_hash(shelf, f"hash of {NEW}") is None


def test_metrics_are_the_telling_figures(shelf: Services) -> None:
    compare(shelf, NEW, macro=0.91, passed=58)
    row = next(model for model in list_models(shelf) if model["version"] == NEW)
    assert row["metrics"] == {"macro_f1": 0.91, "accuracy": 0.91, "emergency_recall": 0.95, "must_pass_wrong": 2}
    assert json.dumps(row)


def test_processes_that_went_silent_are_not_shown(shelf: Services) -> None:
    heart = Heartbeat(shelf)
    heart.beat(OLD, None)
    heart.beat(NEW, "载入失败")
    (seen,) = list_serving(shelf)
    assert (seen.model, seen.problem) == (NEW, "载入失败")
    shelf.now.forward(seconds=60)  # type: ignore[attr-defined]
    assert list_serving(shelf) == []
    heart.beat(NEW, None)
    assert list_serving(shelf)[0].problem is None
