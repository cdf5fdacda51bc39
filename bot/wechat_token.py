"""What the platform lends the account for two hours, its access token or the ticket of its pages: one for any number of threads
and processes, kept encrypted in the database.

Whoever finds it missing or refused takes a short lease on the row and fetches the next one; the others wait for that one.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeGuard

from sqlalchemy import bindparam, or_, select, text, update
from sqlalchemy.engine import Row

from bot.db import iso, reading, transaction
from bot.schema import wechat_accounts
from bot.services import Services
from bot.vault import VaultError

_LEASE = timedelta(seconds=10)  # longer than one fetch may take
_WAIT_SECONDS, _POLL_SECONDS = 8.0, 0.1
_FAILED_SECONDS = 3.0  # after a failed fetch everybody who waited fails with it, instead of trying one after another
# For its last five minutes the platform hands out the next token beside the old one.
_OVERLAP_SECONDS, _SHORTEST_SECONDS = 300, 60
_FORCE_SPACING = timedelta(seconds=86400 / 20)  # force_refresh is allowed 20 times a day

_OPEN_ROW = text("INSERT INTO wechat_account (app_id) VALUES (:app) ON CONFLICT DO NOTHING")
_ROW = select(wechat_accounts).where(wechat_accounts.c.app_id == bindparam("app"))
_TAKE_LEASE = (
    update(wechat_accounts)
    .where(wechat_accounts.c.app_id == bindparam("app"))
    .where(or_(wechat_accounts.c.lease_until.is_(None), wechat_accounts.c.lease_until < bindparam("now")))
    .values(lease_until=bindparam("until"))
)


class TokenRefused(Exception):
    """There is no usable token. Never carries the secret or a token."""

    def __init__(self, reason: str, *, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class _Held:
    value: str
    expires_at: str


class SharedTokens:
    """`fetch(force)` asks the platform for a token and its lifetime in seconds, or raises TokenRefused; `row_id` is where it stands."""

    def __init__(self, services: Services, row_id: str, fetch: Callable[[bool], tuple[str, int]]) -> None:
        self._services, self._row_id, self._fetch = services, row_id, fetch
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._failed_at, self._failure = -_FAILED_SECONDS, TokenRefused("no token yet")

    def get(self, *, refused: str | None = None) -> str:
        """A token other than `refused`, which the platform did not take. Raises TokenRefused, StorageError."""
        held = self._held
        if self._fits(held, refused):
            return held.value
        if not self._services.settings.wechat_app_secret:
            raise TokenRefused("no WECHAT_APP_SECRET configured")
        with self._lock:
            if self._fits(self._held, refused):
                return self._held.value
            if time.monotonic() - self._failed_at < _FAILED_SECONDS:
                raise TokenRefused(str(self._failure), code=self._failure.code)
            try:
                self._held = self._shared(refused)
            except TokenRefused as error:
                self._failed_at, self._failure = time.monotonic(), error
                raise
            return self._held.value

    def _fits(self, held: _Held | None, refused: str | None) -> TypeGuard[_Held]:
        return held is not None and held.value != refused and held.expires_at > iso(self._services.now())

    def _shared(self, refused: str | None) -> _Held:
        """The token that the database holds, after waiting for, or being, the one process that fetches it."""
        end = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < end:
            row = self._row()
            held = self._token_of(row)
            if self._fits(held, refused):
                return held
            if self._take_lease():
                # Between our look and our lease another one may have fetched.
                row = self._row()
                held = self._token_of(row)
                if not self._fits(held, refused):
                    return self._renew(row, refused)
                self._write(lease_until=None)
                return held
            time.sleep(_POLL_SECONDS)
        raise TokenRefused("another process is fetching the token and does not finish")

    def _renew(self, row: Row, refused: str | None) -> _Held:
        forced_at = row.forced_at
        try:
            value, lifetime = self._fetch(False)
            if refused is not None and value == refused and (forced_at or "") < iso(self._services.now() - _FORCE_SPACING):
                forced_at = iso(self._services.now())
                value, lifetime = self._fetch(True)
        except BaseException:
            self._write(forced_at=forced_at, lease_until=None)
            raise
        seconds = max(lifetime - _OVERLAP_SECONDS, _SHORTEST_SECONDS)
        held = _Held(value, iso(self._services.now() + timedelta(seconds=seconds)))
        sealed = self._services.vault.seal(value)
        self._write(token=sealed, token_expires_at=held.expires_at, forced_at=forced_at, lease_until=None)
        return held

    def _row(self) -> Row:
        with reading(self._services.engine) as connection:
            row = connection.execute(_ROW, {"app": self._row_id}).first()
        if row is not None:
            return row
        with transaction(self._services.engine, durable=False) as connection:
            connection.execute(_OPEN_ROW, {"app": self._row_id})
            return connection.execute(_ROW, {"app": self._row_id}).one()

    def _token_of(self, row: Row) -> _Held | None:
        try:
            return _Held(self._services.vault.open(row.token), row.token_expires_at) if row.token else None
        except VaultError:  # SECRET_KEY was changed
            return None

    def _take_lease(self) -> bool:
        now = self._services.now()
        with transaction(self._services.engine, durable=False) as connection:
            taken = connection.execute(_TAKE_LEASE, {"app": self._row_id, "now": iso(now), "until": iso(now + _LEASE)})
        return bool(taken.rowcount == 1)

    def _write(self, **values: object) -> None:
        with transaction(self._services.engine, durable=False) as connection:
            connection.execute(update(wechat_accounts).where(wechat_accounts.c.app_id == self._row_id).values(**values))
