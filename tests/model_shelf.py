"""A shelf of models with a history and a comparison, for tests of pages: `python -m tests.model_shelf [PORT]` shows it.

The archives are empty and the answers are drawn: what is real is the database, the report made of the answers, and the pages.
"""
from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot import db
from bot.comparison import first_level_names
from bot.frozen import FrozenItem, freeze_share, list_frozen, seed_shipped
from bot.models import archive_path, keep_report, promote_model, promoted_model, register_model
from bot.report import Answer, build_report
from bot.services import Services
from bot.serving import Heartbeat
from bot.staff_schema import jobs

FIRST, SECOND, BETTER, WORSE = "20261101-010000", "20261110-010000", "20261119-083000", "20261120-003000"
PLACES = ("东门街", "西关里", "南园路", "北塘村", "老车站", "中心花园")
MATTERS = {"01": "路灯坏了没人来修", "04": "老板拖着工资不发", "13": "工厂半夜往河里排黑水", "05": "医院收费收得不明白", "10": "班车总是不按点来"}


def shelf_of(services: Services, directory: Path) -> Services:
    """The same services with archives in a directory of their own."""
    directory.mkdir(exist_ok=True)
    return replace(services, settings=replace(services.settings, models_dir=directory))


def fill_shelf(shelf: Services) -> None:
    """Two models that served, a better candidate and one that falls below the gate."""
    seed_shipped(shelf)
    rows = [(f"{PLACES[n % 6]}{n}号，{matter}，这个月第{n % 9 + 1}次", {"category": code}) for code, matter in MATTERS.items() for n in range(60)]
    freeze_share(shelf, rows, source="import:1", author="supervisor")
    items = list_frozen(shelf)
    for version, right, danger in ((FIRST, 0.78, 0.99), (SECOND, 0.83, 0.99), (BETTER, 0.91, 1.0), (WORSE, 0.74, 0.9)):
        path = archive_path(shelf.settings.models_dir, version)
        path.write_bytes(b"\0" * 3_000_000)
        register_model(shelf, path, trained_at=db.parse_iso(f"{version[:4]}-{version[4:6]}-{version[6:8]}T01:00:00Z"), metrics={}, trained_by="supervisor")
        if version == FIRST:
            continue
        report = build_report(items, drawn(items, right, danger), drawn(items, 0.83, 0.99), first_level_names(shelf))
        counts = {"annotated": 2964, "used": 2310, "frozen": 592, "repeats": 62, "beyond": 0, "unusable": 0}
        about = {"model": version, "at": db.iso(shelf.now()), "size_mb": 24.3, "dataset": {"counts": counts, "by_class": {}, "rules_version": 0}}
        keep_report(shelf, version, {**report, "serving_model": promoted_model(shelf), **about})
        if version == SECOND:
            promote_model(shelf, SECOND, username="supervisor", reason="城建类少错很多，民政退步的两条是考题标错", override=True)
    Heartbeat(shelf).beat(SECOND, None)


def drawn(items: Sequence[FrozenItem], right: float, danger: float) -> list[Answer]:
    """Answers of a model that is right so often; must-pass items always, but for a model that overlooks danger."""
    chance = random.Random(int(right * 100))
    codes = sorted(MATTERS) + ["06", "11", "08"]
    answers = []
    for item in items:
        truth = str(item.labels.get("category", "010203"))
        sure = chance.random() < right or item.kind == "must_pass"
        emergency = bool(item.labels.get("emergency")) and chance.random() < danger
        answers.append(Answer(
            category=truth if sure else chance.choice(codes), confidence=min(0.99, chance.betavariate(6, 1.5) if sure else chance.betavariate(3, 3)),
            request_type=str(item.labels.get("request_type", "投诉")), urgency=str(item.labels.get("urgency", "一般")), emergency=emergency,
            intent=str(item.labels.get("intent", "report_problem")), milliseconds=chance.gammavariate(4, 1.5),
        ))  # fmt: skip
    return answers


def add_job(shelf: Services, **values: Any) -> int:
    """A row as a job leaves it."""
    now = db.iso(shelf.now())
    row = {"kind": "train", "state": "done", "params": "{}", "username": "supervisor", "created_at": now, "started_at": now, **values}
    row = {name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value for name, value in row.items()}
    with db.transaction(shelf.engine) as connection:
        return int(connection.execute(jobs.insert().values(**row)).inserted_primary_key[0])


def main() -> None:
    from bot.web import studio_models
    from tests.staff_pages import staff_app
    from tests.stub_app import serving, stub_services

    with tempfile.TemporaryDirectory() as scratch:
        shelf = shelf_of(stub_services(Path(scratch) / "var"), Path(scratch) / "models")
        fill_shelf(shelf)
        with serving(staff_app(shelf, studio_models.create_blueprint(shelf)), int(sys.argv[1]) if len(sys.argv) > 1 else 0) as url:
            print(f"{url}/studio/models", flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main()
