"""Tables, engine and transactions. Knows SQL and nothing of tickets or chat.

SQLite (WAL) and PostgreSQL are both first-class. Everything that changes together is written inside one `transaction()`;
a nested call joins the transaction already open in this context, which is how a whole chat turn (reply, conversation,
ticket, outbox) becomes one commit.
"""
from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from bot.settings import PROJECT_ROOT, Settings

metadata = MetaData()

# Times are UTC ISO-8601 text with microseconds: they sort as text and mean the same in both databases.
conversations = Table(
    "conversation",
    metadata,
    Column("id", String(64), primary_key=True),  # keyed hash of channel, account and sender: safe to log
    Column("channel", String(16), nullable=False),
    Column("sender", LargeBinary, nullable=False),  # encrypted openid or browser id, needed to push messages
    Column("state", LargeBinary),  # encrypted slots of the dialogue
    Column("version", Integer, nullable=False, default=0),
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
)

inbound_messages = Table(
    "inbound_message",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False),
    Column("message_id", String(200), nullable=False),
    Column("body", LargeBinary, nullable=False),  # encrypted InboundMessage
    Column("reply", LargeBinary),  # encrypted Reply; NULL = not answered yet
    Column("delivery", String(16)),  # WeChat: passive | pushing | pushed | pending
    Column("received_at", String(32), nullable=False),
    Column("answered_at", String(32)),
    Column("delivery_at", String(32)),
    Column("delivered_with", Integer),  # the message whose HTTP answer carried this reply
    UniqueConstraint("conversation_id", "message_id", name="uq_inbound_message"),
    Index("ix_inbound_unanswered", "answered_at", "received_at"),
)

tickets = Table(
    "ticket",
    metadata,
    Column("number", String(20), primary_key=True),
    Column("request_key", String(120), nullable=False, unique=True),
    Column("conversation_id", String(64), index=True),
    Column("token_digest", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("source", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("request_type", String(8), nullable=False),
    Column("category_code", String(12), nullable=False),
    Column("urgency", String(8), nullable=False),
    Column("emergency", Boolean, nullable=False),
    Column("title", Text, nullable=False),
    Column("petition", LargeBinary, nullable=False),  # encrypted Petition: description, place, reporter
    Column("place_key", String(200)),
    Column("cluster", String(20), index=True),  # number of the first ticket on the same matter at the same place
    Column("lead_department", String(80), nullable=False),
    Column("co_departments", Text, nullable=False),
    Column("due_at", String(32)),
    Column("filed_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("status_at", String(32)),  # `at` of the newest status event, to ignore late older ones
    Column("status_department", String(80)),
    Column("service_request_id", String(120)),
    Index("ix_ticket_filed", "filed_at"),
    Index("ix_ticket_place", "place_key", "number"),
)

ticket_events = Table(
    "ticket_event",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("ticket_number", String(20), ForeignKey("ticket.number"), nullable=False, index=True),
    Column("kind", String(24), nullable=False),
    Column("at", String(32), nullable=False),
    Column("actor", String(40), nullable=False),
    Column("department", String(80)),
    Column("note", LargeBinary),  # encrypted: residents write phone numbers into notes
)

ticket_days = Table(
    "ticket_day",
    metadata,
    Column("day", String(8), primary_key=True),
    Column("last", Integer, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", String(40), primary_key=True),  # the webhook-id and idempotency key
    Column("position", Integer, nullable=False),  # order within the ticket
    Column("ticket_number", String(20), ForeignKey("ticket.number"), nullable=False, index=True),
    Column("type", String(24), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", String(12), nullable=False),  # pending | delivered | parked
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", String(32), nullable=False),
    Column("lease_until", String(32)),
    Column("lease_owner", String(40)),
    Column("last_error", Text),
    Column("created_at", String(32), nullable=False),
    Column("delivered_at", String(32)),
    Index("ix_outbox_due", "state", "next_attempt_at"),
    UniqueConstraint("ticket_number", "position", name="uq_outbox_position"),
)

outbox_attempts = Table(
    "outbox_attempt",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("outbox_id", String(40), ForeignKey("outbox.id"), nullable=False, index=True),
    Column("at", String(32), nullable=False),
    Column("outcome", Text, nullable=False),
)

webhooks_seen = Table(
    "webhook_seen",
    metadata,
    Column("id", String(120), primary_key=True),
    Column("at", String(32), nullable=False, index=True),
)

notices = Table(
    "notice",  # what the resident is to hear at the next opportunity
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("ticket_number", String(20)),
    Column("text", LargeBinary, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("delivered_at", String(32)),
    Column("status", String(24)),  # of the ticket, where the notice tells one
    Column("asks", Boolean),  # ends with the question how it went
    Column("notified_at", String(32)),  # a template message or subscription notification was tried, once
)

surveys = Table(
    "survey",  # the question how it went, asked once for each closed ticket
    metadata,
    Column("ticket_number", String(20), ForeignKey("ticket.number"), primary_key=True),
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("notice_id", Integer, nullable=False),
    Column("score", Integer),  # 5 = very satisfied … 1
    Column("answered_at", String(32)),
)

attachments = Table(
    "attachment",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("ticket_number", String(20), index=True),
    Column("media_type", String(60), nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
)

sandbox_deliveries = Table(
    "sandbox_delivery",  # the stand-in dispatch system's inbox, used while DISPATCH_URL is empty
    metadata,
    Column("id", String(40), primary_key=True),
    Column("ticket_number", String(20), nullable=False, index=True),
    Column("type", String(24), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("received_at", String(32), nullable=False),
)

handovers = Table(
    "handover",  # conversations waiting for, or held by, a person
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("reason", String(40), nullable=False),
    Column("opened_at", String(32), nullable=False),
    Column("closed_at", String(32)),
)

diversions = Table(
    "diversion",  # what the service may not take, told the right way to go; counted, never lost
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False),
    Column("reason_code", String(40), nullable=False),
    Column("at", String(32), nullable=False),
)

users = Table(
    "staff_user",
    metadata,
    Column("username", String(40), primary_key=True),
    Column("password_hash", String(200), nullable=False),
    Column("role", String(12), nullable=False),
    Column("districts", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)

models = Table(
    "model",
    metadata,
    Column("version", String(60), primary_key=True),
    Column("state", String(12), nullable=False),  # candidate | promoted | retired
    Column("trained_at", String(32), nullable=False),
    Column("promoted_at", String(32)),
    Column("metrics", Text, nullable=False),
)

annotation_rows = Table(
    "annotation",  # append-only: labels given by people, with their source
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("text", LargeBinary, nullable=False),
    Column("labels", Text, nullable=False),
    Column("author", String(40), nullable=False),
    Column("source", String(40), nullable=False),
    Column("at", String(32), nullable=False),
    Column("weight", Float, nullable=False, default=1.0),
)

wechat_accounts = Table(
    "wechat_account",  # what all processes share about the official account: its access token, and whether it may push
    metadata,
    Column("app_id", String(64), primary_key=True),  # with /jsapi behind it: the row of the ticket of its pages
    Column("name", String(64)),  # gh_…, which is how messages name the account
    Column("token", LargeBinary),  # encrypted
    Column("token_expires_at", String(32)),
    Column("lease_until", String(32)),  # until then somebody is fetching a token
    Column("forced_at", String(32)),
    Column("push_refused_at", String(32)),  # when the platform last said that customer-service messages are not permitted
)

wechat_contacts = Table(
    "wechat_contact",  # how often the platform still lets us write to a follower, and the point the app reported last
    metadata,
    Column("conversation_id", String(64), primary_key=True),
    Column("messages_left", Integer, nullable=False),
    Column("messages_until", String(32), nullable=False),
    Column("taps_left", Integer, nullable=False),
    Column("taps_until", String(32), nullable=False),
    Column("point", LargeBinary),  # encrypted
    Column("point_at", String(32)),
    Column("unlinked_at", String(32)),  # unsubscribed: no openid is kept
)

wechat_media = Table(
    "wechat_media",  # pictures, videos and voice to be fetched from the platform within three days
    metadata,
    Column("id", String(40), primary_key=True),  # of pictures and videos also the attachment's
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("kind", String(12), nullable=False),  # picture | video | voice
    Column("body", LargeBinary, nullable=False),  # encrypted media id; for voice the message that its words will be
    Column("state", String(12), nullable=False),  # waiting | kept | failed
    Column("reason", String(120)),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", String(32), nullable=False),  # while one fetches: when another one may
    Column("created_at", String(32), nullable=False),
    Index("ix_wechat_media_due", "state", "next_attempt_at"),
)

wechat_subscriptions = Table(
    "wechat_subscription",  # whether a resident wants a kind of subscription notification
    metadata,
    Column("conversation_id", String(64), primary_key=True),
    Column("template_id", String(120), primary_key=True),
    Column("state", String(12), nullable=False),  # accept | reject
    Column("at", String(32), nullable=False),
)

wechat_notifications = Table(
    "wechat_notification",  # template messages and subscription notifications, and what the platform said became of them
    metadata,
    Column("message_id", String(40), primary_key=True),
    Column("conversation_id", String(64), nullable=False),
    Column("notice_id", Integer),
    Column("result", String(60)),
    Column("at", String(32), nullable=False),
    Index("ix_wechat_notification_foreign", "notice_id", "at"),
)


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
        yield
    finally:
        _sqlite_writer.release()


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
