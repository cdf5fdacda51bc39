"""What each process really serves, told by itself every few seconds; the promoted model is only what all of them should serve."""
from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select, update

from bot import db
from bot.services import Services
from bot.staff_schema import serving_processes

BEAT = timedelta(seconds=3)
# A process that has been silent so long is gone, or cannot reach the database; after a day nobody needs to know that it was there.
SILENT, FORGOTTEN = timedelta(seconds=15), timedelta(days=1)
MAX_PROBLEM = 500


@dataclass(frozen=True)
class ServingProcess:
    """`problem`: why the promoted model could not be loaded there."""

    id: str
    model: str
    since: datetime
    seen_at: datetime
    problem: str | None


@dataclass
class Heartbeat:
    """Writes this process's row. Not thread-safe: one thread beats."""

    services: Services
    now: Callable[[], datetime] = field(init=False)
    _id: str = field(init=False)
    _told: tuple[str, str | None] | None = None
    _beat_at: datetime | None = None

    def __post_init__(self) -> None:
        self.now = self.services.now
        self._id = f"{socket.gethostname()[:40]}:{os.getpid()}:{self.now():%Y%m%d%H%M%S}"

    def beat(self, model: str, problem: str | None) -> None:
        """At once when something has changed, else every BEAT. Raises StorageError."""
        now, told = self.now(), (model, problem)
        if told == self._told and self._beat_at is not None and now - self._beat_at < BEAT:
            return
        row = {"model": model, "seen_at": db.iso(now), "problem": problem[:MAX_PROBLEM] if problem else None}
        if self._told is None or self._told[0] != model:
            row["since"] = db.iso(now)
        with db.transaction(self.services.engine, durable=False) as connection:
            mine = serving_processes.c.id == self._id
            if connection.execute(update(serving_processes).where(mine).values(**row)).rowcount == 0:
                connection.execute(serving_processes.insert().values(id=self._id, **{"since": db.iso(now), **row}))
                gone = serving_processes.c.seen_at < db.iso(now - FORGOTTEN)
                connection.execute(serving_processes.delete().where(gone))
        self._told, self._beat_at = told, now


def list_serving(services: Services) -> list[ServingProcess]:
    """The processes that are there now, in the order of their names."""
    alive = serving_processes.c.seen_at >= db.iso(services.now() - SILENT)
    with db.reading(services.engine) as connection:
        rows = connection.execute(select(serving_processes).where(alive).order_by(serving_processes.c.id)).fetchall()
    return [ServingProcess(row.id, row.model, db.parse_iso(row.since), db.parse_iso(row.seen_at), row.problem) for row in rows]
