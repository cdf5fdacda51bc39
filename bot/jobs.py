"""Long work (training, imports, batches) as rows: claimed with a lease, run in a process of its own, watched, cancelled, taken up again.

Every web process may run jobs; a row is run by one at a time. The work is done by `python -m bot job ID`, so that memory comes back,
a crash hurts nobody, and a cancelled job can be killed. What a job has told survives in its row. A job whose process died is
run again from the start, at most MAX_ATTEMPTS times: a job function must be able to go on from what it left behind.
"""
from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.engine import Row

from bot.db import StorageError, iso, reading, transaction
from bot.services import Services
from bot.settings import child_environment
from bot.staff_schema import jobs

logger = logging.getLogger(__name__)

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
ENDED = frozenset({DONE, FAILED, CANCELLED})
LEASE, POLL_SECONDS = timedelta(seconds=20), 1.0
MAX_ATTEMPTS = 3
MAX_LOG = 200_000


class JobError(Exception):
    """The job cannot be done; the text is one sentence for the person who started it."""


class JobCancelled(Exception):
    """Somebody asked the job to stop."""


@dataclass(frozen=True)
class Job:
    id: int
    kind: str
    state: str
    params: Mapping[str, Any]
    result: Mapping[str, Any] | None
    problem: str | None
    step: str
    progress: float  # 0 … 1
    log: str
    username: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_asked: bool

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class JobRun:
    """What a job function works with. tell() and log() write through at most twice a second, and at the end."""

    def __init__(self, services: Services, job: Job) -> None:
        self.services, self.params, self.username, self.id = services, job.params, job.username, job.id
        self._step, self._progress, self._log = job.step, job.progress, job.log
        self._written = 0.0

    def tell(self, progress: float, step: str) -> None:
        """Also looks whether somebody asked to stop. Raises JobCancelled."""
        changed = step != self._step
        self._progress, self._step = min(max(progress, 0.0), 1.0), step
        if changed:
            self.log(step)
        elif time.monotonic() - self._written > 0.5:
            self._write()
        self.check_cancelled()

    def log(self, line: str) -> None:
        """For the person who watches: no personal data."""
        stamp = self.services.now().astimezone().strftime("%H:%M:%S")
        self._log = f"{self._log}{stamp} {line}\n"[-MAX_LOG:]
        self._write()

    def check_cancelled(self) -> None:
        with reading(self.services.engine) as connection:
            asked = connection.execute(select(jobs.c.cancel_asked).where(jobs.c.id == self.id)).scalar_one()
        if asked:
            raise JobCancelled

    def _write(self) -> None:
        self._written = time.monotonic()
        _change(self.services, self.id, step=self._step[:200], progress=self._progress, log=self._log)


def submit_job(services: Services, kind: str, params: Mapping[str, Any], *, username: str) -> int:
    """The id of a new waiting job; some process takes it within a second or two."""
    row = {"kind": kind, "state": WAITING, "params": json.dumps(params, ensure_ascii=False), "username": username}
    with transaction(services.engine) as connection:
        result = connection.execute(jobs.insert().values(**row, created_at=iso(services.now())))
        return int(result.inserted_primary_key[0])


def find_job(services: Services, job_id: int) -> Job | None:
    with reading(services.engine) as connection:
        row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
    return _job(row) if row else None


def list_jobs(services: Services, *kinds: str, limit: int = 50) -> list[Job]:
    """Newest first."""
    wanted = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
    with reading(services.engine) as connection:
        return [_job(row) for row in connection.execute(wanted.where(jobs.c.kind.in_(kinds)) if kinds else wanted)]


def cancel_job(services: Services, job_id: int) -> None:
    """A waiting job ends at once; a running one when it next looks, or is killed a moment later."""
    with transaction(services.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.state.notin_(ENDED)).values(cancel_asked=True))
        waiting = jobs.c.id == job_id, jobs.c.state == WAITING
        connection.execute(update(jobs).where(*waiting).values(state=CANCELLED, finished_at=iso(services.now())))


def run_job(services: Services, job_id: int) -> None:
    """Do the work of a claimed job in this process, and write down how it ended."""
    from bot.job_kinds import get_kind  # the kinds import what they work with, which imports this module

    job = find_job(services, job_id)
    if job is None or job.state != RUNNING:
        raise JobError(f"job {job_id} is not running")
    run = JobRun(services, job)
    try:
        result = get_kind(job.kind)(run)
    except JobCancelled:
        _end(services, job_id, CANCELLED)
    except JobError as error:
        run.log(str(error))
        _end(services, job_id, FAILED, problem=str(error))
    except StorageError:
        raise  # the row cannot be written either: the runner tries again
    except Exception as error:
        logger.exception("job failed", extra={"job": job_id, "kind": job.kind})
        run.log(f"出错了：{type(error).__name__}")
        _end(services, job_id, FAILED, problem="这项工作出了意外，没有完成；详情在服务日志里。")
    else:
        _end(services, job_id, DONE, result=json.dumps(result, ensure_ascii=False), progress=1.0)


class JobRunner:
    """Runs jobs for one process, one at a time: training and serving share the same two cores."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._owner = f"{socket.gethostname()}:{os.getpid()}"

    def run_forever(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                job_id = self._claim()
                if job_id is not None:
                    self._run(job_id, stop)
            except StorageError:
                logger.warning("the job table cannot be read or written, trying again")
            stop.wait(POLL_SECONDS)

    def _claim(self) -> int | None:
        now = self._services.now()
        free = or_(jobs.c.state == WAITING, (jobs.c.state == RUNNING) & (jobs.c.lease_until <= iso(now)))
        with reading(self._services.engine) as connection:
            row = connection.execute(select(jobs).where(free).order_by(jobs.c.id).limit(1)).first()
        if row is None:
            return None
        if row.attempts >= MAX_ATTEMPTS or row.cancel_asked:
            problem = None if row.cancel_asked else "处理它的进程几次中途退出，可能是内存不够。"
            _end(self._services, row.id, CANCELLED if row.cancel_asked else FAILED, problem=problem)
            return None
        with transaction(self._services.engine) as connection:
            taken = update(jobs).where(jobs.c.id == row.id, jobs.c.attempts == row.attempts, free)
            lease = {"lease_owner": self._owner, "lease_until": iso(now + LEASE)}
            values = {"state": RUNNING, "attempts": row.attempts + 1, "started_at": row.started_at or iso(now), **lease}
            return int(row.id) if connection.execute(taken.values(**values)).rowcount else None

    def _run(self, job_id: int, stop: threading.Event) -> None:
        command = [sys.executable, "-m", "bot", "job", str(job_id)]
        # The serving process goes first: residents wait for seconds, nobody waits for training.
        process = subprocess.Popen(["nice", "-n", "10", *command], env=child_environment(self._services.settings), start_new_session=True)
        asked_at: float | None = None
        while process.poll() is None:
            stop.wait(POLL_SECONDS)
            asked_at = self._keep(job_id, asked_at)
            if stop.is_set() or (asked_at is not None and time.monotonic() - asked_at > 5):
                _kill_all(process.pid)
                process.wait()
        _kill_all(process.pid)  # whatever it started itself
        job = find_job(self._services, job_id)
        if job is not None and not job.ended:
            if job.cancel_asked:
                _end(self._services, job_id, CANCELLED)
            else:  # it died: free for the next claim, by whoever comes first
                _change(self._services, job_id, lease_until=iso(self._services.now()))

    def _keep(self, job_id: int, asked_at: float | None) -> float | None:
        """Renew the lease; when cancelling was first seen to be asked."""
        try:
            _change(self._services, job_id, lease_until=iso(self._services.now() + LEASE))
            job = find_job(self._services, job_id)
        except StorageError:
            return asked_at
        return (asked_at or time.monotonic()) if job is not None and job.cancel_asked else None


def _kill_all(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _end(services: Services, job_id: int, state: str, **values: Any) -> None:
    _change(services, job_id, state=state, finished_at=iso(services.now()), lease_until=None, **values)


def _change(services: Services, job_id: int, **values: Any) -> None:
    with transaction(services.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.state.notin_(ENDED)).values(**values))


def _job(row: Row) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        state=row.state,
        params=json.loads(row.params),
        result=json.loads(row.result) if row.result else None,
        problem=row.problem,
        step=row.step,
        progress=row.progress,
        log=row.log,
        username=row.username,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        cancel_asked=bool(row.cancel_asked),
    )
