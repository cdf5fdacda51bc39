"""Engine and transactions. Knows SQL and nothing of tickets or chat; the tables are in schema.py and staff_schema.py.

SQLite (WAL) and PostgreSQL are both first-class. Everything that changes together is written inside one `transaction()`;
a nested call joins the transaction already open in this context, which is how a whole chat turn (reply, conversation,
ticket, outbox) becomes one commit.
"""
from __future__ import annotations

import contextlib
import contextvars
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from bot.schema import webhooks_seen
from bot.settings import PROJECT_ROOT, Settings


class StorageError(Exception):
    """The database cannot take a write right now (disk full, locked, unreachable). Nothing was half written."""


def iso(moment: datetime) -> str:
    """UTC ISO-8601 with microseconds, the only form in which times are stored."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


def parse_iso(text: str) -> datetime:
    """The inverse of iso(); also reads a trailing Z and offsets. Raises ValueError; a time without a zone is refused."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {text}")
    return moment.astimezone(timezone.utc)


def open_engine(settings: Settings) -> Engine:
    """An engine for the configured database. Does not create tables: see migrate()."""
    url = settings.sqlalchemy_url
    if url.startswith("sqlite"):
        waiting = {"timeout": 3, "check_same_thread": False}
        engine = create_engine(url, connect_args=waiting, poolclass=QueuePool, pool_size=20, max_overflow=80)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=30)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    # synchronous=NORMAL: a commit itself does not wait for the disk, flush() does, for everybody who waits at that moment.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=3000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads first and writes later must not fail half-way with SQLITE_BUSY.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("read_only") else "BEGIN IMMEDIATE")


_current: contextvars.ContextVar[Connection | None] = contextvars.ContextVar("minsheng_transaction", default=None)
# SQLite lets one writer in; waiting on a lock in this process is fair and instant, its busy handler sleeps instead.
_sqlite_writer = threading.Lock()
_WRITER_SECONDS = 3.0  # as long as SQLite's own wait: a queue behind a locked database must not add up
_TURN_SECONDS, _TURN_POLL = 2.0, 0.002


@contextlib.contextmanager
def transaction(engine: Engine, *, durable: bool = True) -> Iterator[Connection]:
    """One atomic write. Joins the transaction already open in this context. Raises StorageError when storage fails.

    Not `durable`: survives the death of the process at once, of the machine only with the next flush(); for what nobody was
    told about yet.
    """
    joined = _current.get()
    if joined is not None:
        with _storage_errors():  # here too: an action inside a turn must see what it is, not some failure of its own
            yield joined
        return
    with _storage_errors(), _writing(engine), engine.connect() as connection, connection.begin():
        token = _current.set(connection)
        try:
            yield connection
        finally:
            _current.reset(token)
    if durable:
        flush(engine)


def flush(engine: Engine) -> None:
    """Return when everything committed before this call survives a power cut. Raises StorageError when the disk refuses.

    PostgreSQL flushes with every commit and groups those of many sessions by itself. With SQLite the write-ahead log is
    flushed here, outside the one writer's lock: 20 turns that end together wait for one flush instead of one after another.
    """
    if engine.dialect.name == "sqlite" and engine.url.database:
        _flushes.setdefault(engine.url.database, _GroupFlush(f"{engine.url.database}-wal")).run()


class _GroupFlush:
    """fsync of one file for all who ask at the same time: whoever comes while one runs needs the next one, once."""

    def __init__(self, path: str) -> None:
        self._path, self._begun, self._done = path, 0, 0
        self._counting, self._flushing = threading.Lock(), threading.Lock()

    def run(self) -> None:
        with self._counting:
            wanted = self._begun + 1  # one that begins after this moment
        with self._flushing:
            if self._done >= wanted:
                return
            with self._counting:
                self._begun += 1
                number = self._begun
            try:
                descriptor = os.open(self._path, os.O_RDWR)
            except FileNotFoundError:  # the last connection closed and moved everything into the database, flushed
                return
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise StorageError(f"the disk did not take the write-ahead log: {error.strerror}") from error
            finally:
                os.close(descriptor)
            self._done = number


_flushes: dict[str, _GroupFlush] = {}


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        # str(error) would carry the statement's parameters, which hold personal data.
        raise StorageError(str(error.orig)) from error


@contextlib.contextmanager
def _writing(engine: Engine) -> Iterator[None]:
    """The one writer of this process on SQLite. Raises StorageError when the others take too long."""
    if engine.dialect.name != "sqlite":
        yield
        return
    if not _sqlite_writer.acquire(timeout=_WRITER_SECONDS):
        raise StorageError("other writers are waiting for the database")
    try:
        with _in_turn(engine.url.database):
            yield
    finally:
        _sqlite_writer.release()


@contextlib.contextmanager
def _in_turn(database: str | None) -> Iterator[None]:
    """The processes of one SQLite file write in turn. SQLite itself looks only every tenth of a second whether another process has
    finished: beside one that writes all the time a second one would wait for seconds, and fail.

    Whoever writes next holds the first lock until it has the second, so whoever has just written comes after it. A courtesy:
    who has waited long goes on, and SQLite decides.
    """
    locks = _turn_locks(database) if database else None
    if locks is None:
        yield
        return
    following, writing = locks
    deadline = time.monotonic() + _TURN_SECONDS
    try:
        _take(following, deadline)
        _take(writing, deadline)
        fcntl.flock(following, fcntl.LOCK_UN)
        yield
    finally:
        fcntl.flock(following, fcntl.LOCK_UN)
        fcntl.flock(writing, fcntl.LOCK_UN)


def _take(lock: int, deadline: float) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.monotonic() > deadline:
            return None
        time.sleep(_TURN_POLL)


def _turn_locks(database: str) -> tuple[int, int] | None:
    """Opened once in each process: a lock belongs to what was opened, which a forked child would share."""
    key = database, os.getpid()
    if key not in _turns:
        try:
            following, writing = (os.open(f"{database}-{name}", os.O_RDWR | os.O_CREAT, 0o600) for name in ("next", "turn"))
        except OSError:  # the disk is full, or may not be written: the write itself will tell
            return None
        _turns[key] = following, writing
    return _turns[key]


_turns: dict[tuple[str, int], tuple[int, int]] = {}


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A consistent read that takes no write lock; sees the open transaction's own writes when there is one."""
    joined = _current.get()
    if joined is not None:
        with _storage_errors():
            yield joined
        return
    with _storage_errors(), engine.connect().execution_options(read_only=True) as connection:
        yield connection


def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema; safe to run from several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT_ROOT / "bot" / "migrations"))
    config.set_main_option("sqlalchemy.url", settings.sqlalchemy_url.replace("%", "%%"))
    command.upgrade(config, "head")


def is_writable(engine: Engine) -> bool:
    """Really writes: a transaction that changes nothing succeeds on a full disk."""
    try:
        with transaction(engine, durable=False) as connection:
            probe = {"at": iso(datetime.now(timezone.utc))}
            if connection.execute(webhooks_seen.update().where(webhooks_seen.c.id == "").values(**probe)).rowcount == 0:
                connection.execute(webhooks_seen.insert().values(id="", **probe))
        return True
    except IntegrityError:  # another replica wrote its probe at this moment
        return True
    except (StorageError, SQLAlchemyError):
        return False
