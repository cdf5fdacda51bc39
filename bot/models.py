"""Which trained model serves: archives in MODELS_DIR, their state in the database. Promotion is one row."""
from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from bot import db
from bot.services import Services
from bot.staff_schema import models

CANDIDATE, PROMOTED, RETIRED = "candidate", "promoted", "retired"


class ModelError(Exception):
    """The model asked for does not exist or may not be promoted; the message says why."""


def archive_path(models_dir: Path, version: str) -> Path:
    return models_dir / f"{version}.tar.gz"


def find_archives(models_dir: Path) -> list[Path]:
    """Newest first."""
    return sorted(models_dir.glob("*.tar.gz"), key=lambda path: path.name, reverse=True)


def register_model(services: Services, path: Path, *, trained_at: datetime, metrics: dict[str, Any]) -> str:
    """A fresh archive becomes a candidate; the very first model of an installation is promoted at once."""
    version = path.name.removesuffix(".tar.gz")
    with db.transaction(services.engine) as connection:
        if connection.execute(select(models).where(models.c.version == version)).first() is None:
            first = connection.execute(select(models).where(models.c.state == PROMOTED)).first() is None
            connection.execute(
                models.insert().values(
                    version=version,
                    state=PROMOTED if first else CANDIDATE,
                    trained_at=db.iso(trained_at),
                    promoted_at=db.iso(trained_at) if first else None,
                    metrics=json.dumps(metrics, ensure_ascii=False),
                )
            )
    return version


def list_models(services: Services) -> list[dict[str, Any]]:
    """Newest first: version, state, trained_at, metrics."""
    with db.reading(services.engine) as connection:
        rows = connection.execute(select(models).order_by(models.c.trained_at.desc())).fetchall()
    return [{"version": r.version, "state": r.state, "trained_at": r.trained_at, "metrics": json.loads(r.metrics)} for r in rows]


def promoted_model(services: Services) -> str | None:
    with db.reading(services.engine) as connection:
        row = connection.execute(select(models.c.version).where(models.c.state == PROMOTED)).first()
    return str(row.version) if row else None


def promote_model(services: Services, version: str) -> None:
    """The gate: the archive exists and its evaluation, where there is one, lost no emergency. Raises ModelError."""
    if not archive_path(services.settings.models_dir, version).exists():
        raise ModelError(f"no archive for model {version}")
    with db.transaction(services.engine) as connection:
        row = connection.execute(select(models).where(models.c.version == version)).first()
        if row is None:
            raise ModelError(f"model {version} is not registered")
        recall = json.loads(row.metrics).get("emergency_recall")
        if recall is not None and recall < 1.0:
            raise ModelError(f"model {version} misses emergencies (recall {recall})")
        _make_promoted(connection, version, services.now())


def rollback_model(services: Services) -> str:
    """Back to the model that served before; returns its version. Raises ModelError when there is none."""
    with db.transaction(services.engine) as connection:
        row = connection.execute(
            select(models).where(models.c.state == RETIRED).order_by(models.c.promoted_at.desc()).limit(1)
        ).first()
        if row is None or not archive_path(services.settings.models_dir, row.version).exists():
            raise ModelError("there is no earlier model to go back to")
        _make_promoted(connection, row.version, services.now())
        return str(row.version)


def _make_promoted(connection: Connection, version: str, now: datetime) -> None:
    connection.execute(update(models).where(models.c.state == PROMOTED).values(state=RETIRED))
    connection.execute(update(models).where(models.c.version == version).values(state=PROMOTED, promoted_at=db.iso(now)))


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
