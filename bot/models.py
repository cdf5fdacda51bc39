"""Which trained model serves: archives in MODELS_DIR, their state and history in the database. Promotion is one row.

What each process really serves is told by the process itself (bot/serving.py); who compares and trains is bot/train_job.py.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row

from bot import db
from bot.gate import Failure, failures, load_floors
from bot.services import DATA_DIR, Services
from bot.staff_schema import model_events, models

CANDIDATE, PROMOTED, RETIRED = "candidate", "promoted", "retired"
# Kinds of model_event.
ROLLED_BACK, OVERRIDDEN = "rolled_back", "overridden"
SYSTEM = "system"
MIN_REASON = 10


class ModelError(Exception):
    """The model asked for does not exist or may not be promoted; the message says why, `sentence` says it to staff."""

    def __init__(self, message: str, sentence: str = "") -> None:
        super().__init__(message)
        self.sentence = sentence or message


class NotCompared(ModelError):
    """There is no comparison with the model that serves today."""


class GateRefused(ModelError):
    """The candidate's figures are too low."""

    def __init__(self, version: str, failed: list[Failure]) -> None:
        super().__init__(f"{version} 没有通过上线门槛：" + "；".join(failure.sentence for failure in failed))
        self.failures = failed


def archive_path(models_dir: Path, version: str) -> Path:
    return models_dir / f"{version}.tar.gz"


def find_archives(models_dir: Path) -> list[Path]:
    """Newest first."""
    return sorted(models_dir.glob("*.tar.gz"), key=lambda path: path.name, reverse=True)


def register_model(
    services: Services, path: Path, *, trained_at: datetime, metrics: Mapping[str, Any], **known: Any
) -> str:
    """An archive becomes a candidate, or stays what it is; the very first model of an installation is promoted at once.

    `known`: data_hash, trained_by, job_id.
    """
    version = path.name.removesuffix(".tar.gz")
    at = db.iso(trained_at)
    with db.transaction(services.engine) as connection:
        if _find(connection, version) is not None:
            if known:
                connection.execute(update(models).where(models.c.version == version).values(**known))
            return version
        first = _promoted(connection) is None
        state = {"state": PROMOTED if first else CANDIDATE, "trained_at": at, "promoted_at": at if first else None}
        row = {"version": version, **state, "metrics": json.dumps(metrics, ensure_ascii=False), **known}
        connection.execute(models.insert().values(**row))
        if first:
            _note(connection, services, PROMOTED, version, None, known.get("trained_by") or SYSTEM, "第一个模型")
    return version


def list_models(services: Services) -> list[dict[str, Any]]:
    """Newest first: version, state, trained_at, metrics."""
    with db.reading(services.engine) as connection:
        rows = connection.execute(select(models).order_by(models.c.trained_at.desc(), models.c.version.desc())).fetchall()
    return [{"version": r.version, "state": r.state, "trained_at": r.trained_at, "metrics": json.loads(r.metrics)} for r in rows]


def list_rows(services: Services) -> list[Row]:
    """The same for the page, whole rows without their reports."""
    columns = [column for column in models.c if column.name != "report"]
    with db.reading(services.engine) as connection:
        return connection.execute(select(*columns).order_by(models.c.trained_at.desc(), models.c.version.desc())).fetchall()


def list_events(services: Services, limit: int = 100) -> list[Row]:
    """Newest first: who promoted or rolled back what, when and why."""
    with db.reading(services.engine) as connection:
        return connection.execute(select(model_events).order_by(model_events.c.id.desc()).limit(limit)).fetchall()


def find_model(services: Services, version: str) -> Row | None:
    with db.reading(services.engine) as connection:
        return _find(connection, version)


def find_by_hash(services: Services, data_hash: str) -> str | None:
    """The newest model made of exactly this data and configuration, if its archive is still there."""
    with db.reading(services.engine) as connection:
        wanted = select(models.c.version).where(models.c.data_hash == data_hash).order_by(models.c.trained_at.desc())
        versions = connection.execute(wanted).scalars().all()
    return next((v for v in versions if archive_path(services.settings.models_dir, v).exists()), None)


def promoted_model(services: Services) -> str | None:
    with db.reading(services.engine) as connection:
        return _promoted(connection)


def keep_report(services: Services, version: str, report: Mapping[str, Any]) -> None:
    """The comparison with the model that serves today, and its most telling figures for lists."""
    figures = report["candidate"]
    metrics = {
        "macro_f1": figures["macro_f1"],
        "accuracy": figures["accuracy"],
        "emergency_recall": figures["emergency"]["recall"],
        "must_pass_wrong": figures["must_pass"]["total"] - figures["must_pass"]["passed"],
    }
    values = {"report": json.dumps(report, ensure_ascii=False), "metrics": json.dumps(metrics)}
    with db.transaction(services.engine) as connection:
        connection.execute(update(models).where(models.c.version == version).values(**values))


def report_of(row: Row) -> dict[str, Any] | None:
    return json.loads(row.report) if row.report else None


def gate_failures(row: Row) -> list[Failure]:
    """What keeps a compared model from serving."""
    report = report_of(row)
    return failures(report["candidate"], report["serving"], load_floors(DATA_DIR)) if report else []


def promote_model(services: Services, version: str, *, username: str = SYSTEM, reason: str = "", override: bool = False) -> None:
    """One row; every process follows within seconds. Raises NotCompared, GateRefused, ModelError.

    `override`: an admin takes the responsibility, with a written reason.
    """
    if not archive_path(services.settings.models_dir, version).exists():
        raise ModelError(f"no archive for model {version}", "模型文件不在了，不能上线")
    if override and len(reason.strip()) < MIN_REASON:
        raise ModelError(f"强制上线要写明理由（至少 {MIN_REASON} 个字）")
    with db.transaction(services.engine) as connection:
        row = _find(connection, version)
        if row is None:
            raise ModelError(f"model {version} is not registered", "没有这个模型")
        serving = _promoted(connection, lock=True)
        if serving == version:
            raise ModelError(f"model {version} serves already", "它正在使用，不用再上线")
        failed = _judge(row, serving)
        if failed and not override:
            raise GateRefused(version, failed)
        _make_promoted(connection, version, services.now())
        _note(connection, services, OVERRIDDEN if failed else PROMOTED, version, serving, username, reason)


def _judge(row: Row, serving: str | None) -> list[Failure]:
    report = report_of(row)
    if serving is not None and (report is None or report["serving_model"] != serving):
        sentence = f"还没有和正在使用的 {serving} 对比过，请先对比"
        raise NotCompared(f"model {row.version} has not been compared with {serving}, which serves now", sentence)
    return gate_failures(row)


def rollback_model(services: Services, *, username: str = SYSTEM, reason: str = "") -> str:
    """Back to the model that the serving one replaced; returns its version. No gate: it has served. Raises ModelError."""
    with db.transaction(services.engine) as connection:
        serving = _promoted(connection, lock=True)
        earlier = _replaced_by(connection, serving) if serving else None
        if earlier is None or not archive_path(services.settings.models_dir, earlier).exists():
            raise ModelError("there is no earlier model to go back to", "没有可以退回的模型")
        _make_promoted(connection, earlier, services.now())
        _note(connection, services, ROLLED_BACK, earlier, serving, username, reason)
    return earlier


def earlier_model(services: Services) -> str | None:
    """What a roll-back would go back to."""
    with db.reading(services.engine) as connection:
        serving = _promoted(connection)
        earlier = _replaced_by(connection, serving) if serving else None
    return earlier if earlier and archive_path(services.settings.models_dir, earlier).exists() else None


def delete_model(services: Services, version: str) -> None:
    """A candidate or retired model and its archive, for good. Its history stays. Raises ModelError."""
    row = find_model(services, version)
    if row is None:
        raise ModelError(f"model {version} is not registered", "没有这个模型")
    with db.transaction(services.engine) as connection:
        deleted = connection.execute(models.delete().where(models.c.version == version, models.c.state != PROMOTED))
        if not deleted.rowcount:
            raise ModelError("正在使用的模型不能删除")
        archive_path(services.settings.models_dir, version).unlink(missing_ok=True)


def models_to_serve(services: Services) -> list[Path]:
    """The promoted archive, then the others, newest first, for when it cannot be loaded. Raises ModelError when there is none.

    Archives found here for the first time are registered, the newest first, so a fresh installation promotes the newest.
    """
    found = find_archives(services.settings.models_dir)
    if not found:
        raise ModelError(f"no model in {services.settings.models_dir}: run `python -m bot train`")
    for path in found:
        register_model(services, path, trained_at=services.now(), metrics={})
    promoted = archive_path(services.settings.models_dir, promoted_model(services) or "")
    return sorted(found, key=lambda path: path != promoted)


def _find(connection: Connection, version: str) -> Row | None:
    return connection.execute(select(models).where(models.c.version == version)).first()


def _promoted(connection: Connection, *, lock: bool = False) -> str | None:
    """`lock`: two people who promote at the same moment do so one after the other."""
    wanted = select(models.c.version).where(models.c.state == PROMOTED)
    return connection.execute(wanted.with_for_update() if lock else wanted).scalar()


def _replaced_by(connection: Connection, version: str) -> str | None:
    """The model that served before `version` was last promoted, so that going back twice goes back two; deleted ones are passed."""
    if connection.execute(select(model_events.c.id).where(model_events.c.version == version)).first() is None:
        retired = select(models.c.version).where(models.c.state == RETIRED).order_by(models.c.promoted_at.desc()).limit(1)
        return connection.execute(retired).scalar()  # promoted before there was a history
    seen = {version}
    while True:
        up = model_events.c.version == version, model_events.c.action.in_((PROMOTED, OVERRIDDEN))
        previous = connection.execute(select(model_events.c.previous).where(*up).order_by(model_events.c.id.desc()).limit(1)).scalar()
        if previous is None or previous in seen or _find(connection, previous) is not None:
            return None if previous in seen else previous
        seen.add(previous)
        version = previous


def _make_promoted(connection: Connection, version: str, now: datetime) -> None:
    connection.execute(update(models).where(models.c.state == PROMOTED).values(state=RETIRED))
    connection.execute(update(models).where(models.c.version == version).values(state=PROMOTED, promoted_at=db.iso(now)))


def _note(
    connection: Connection, services: Services, action: str, version: str, previous: str | None, username: str, reason: str
) -> None:
    row = {"at": db.iso(services.now()), "version": version, "previous": previous, "action": action}
    connection.execute(model_events.insert().values(**row, username=username, reason=reason.strip()))
