"""Who works here: accounts, passwords and lockout, what each may read, and the audit of what they read. Knows no Flask.

Jurisdiction is the rule of the 12345 hotlines: nobody reads beyond the districts assigned to them. A ticket whose district is not
known yet is everybody's, so that it is not nobody's.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import select, update
from sqlalchemy.engine import Engine, Row
from sqlalchemy.exc import IntegrityError

from bot.db import iso, parse_iso, reading, transaction
from bot.services import Services
from bot.staff_schema import audit_log, users

ROLES = ("agent", "supervisor", "admin")  # each may do what those before it may
ROLE_NAMES = {"agent": "坐席", "supervisor": "班长", "admin": "管理员"}
MIN_PASSWORD = 8
# Five wrong passwords in a row close an account for a quarter of an hour: guessing stops paying, and a colleague who only
# mistyped is back after a break.
MAX_FAILURES, LOCKED = 5, timedelta(minutes=15)

WRONG = "用户名或密码不对，请再试一次。"


class LoginRefused(Exception):
    """The text is what the person at the login page reads."""


class StaffError(ValueError):
    """An account cannot be made or changed like this; the text says why."""


@dataclass(frozen=True)
class StaffMember:
    username: str
    display_name: str
    role: str
    districts: tuple[str, ...]  # full names; empty = the whole city
    cleared: bool  # may read confidential reports
    department: str | None  # works for this department: never sees who reported on it
    epoch: int
    disabled: bool = False
    locked_until: datetime | None = None  # wrong passwords in a row; over once this has passed

    def is_at_least(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    def may_read(self, *, district: str | None, confidential: bool) -> bool:
        if confidential and not self.cleared:
            return False
        return not self.districts or district is None or district in self.districts

    @property
    def role_name(self) -> str:
        return ROLE_NAMES[self.role]


@dataclass(frozen=True)
class Staff:
    engine: Engine
    now: Callable[[], datetime]
    hasher: PasswordHasher = PasswordHasher()

    def find(self, username: str) -> StaffMember | None:
        with reading(self.engine) as connection:
            row = connection.execute(select(users).where(users.c.username == username)).first()
        return _member(row) if row else None

    def list_members(self) -> list[StaffMember]:
        with reading(self.engine) as connection:
            return [_member(row) for row in connection.execute(select(users).order_by(users.c.username))]

    def authenticate(self, username: str, password: str) -> StaffMember:
        """Raises LoginRefused, with the same words for an unknown name and a wrong password. Raises StorageError."""
        with reading(self.engine) as connection:
            row = connection.execute(select(users).where(users.c.username == username)).first()
        if row is None:
            self.hasher.hash(password)  # as long as a check takes: the clock must not tell which names exist
            raise LoginRefused(WRONG)
        if row.locked_until and parse_iso(row.locked_until) > self.now():
            raise LoginRefused("连续输错次数太多，账号暂时锁定，请 15 分钟后再试，或找管理员解锁。")
        if not self._fits(row.password_hash, password) or row.disabled_at:
            self._count_failure(row)
            raise LoginRefused(WRONG)
        self._change(username, failures=0, locked_until=None)
        return _member(row)

    def add(self, username: str, password: str, role: str, *, districts: Sequence[str] = (), **more: Any) -> StaffMember:
        """`more`: display_name, cleared, department. Raises StaffError."""
        username = username.strip()
        if not username or len(username) > 40:
            raise StaffError("用户名要有 1 到 40 个字符")
        if role not in ROLES:
            raise StaffError(f"角色只能是 {'、'.join(ROLES)}")
        row = {
            "username": username,
            "password_hash": self._hash(password),
            "role": role,
            "districts": json.dumps(list(districts), ensure_ascii=False),
            "created_at": iso(self.now()),
            **more,
        }
        try:
            with transaction(self.engine) as connection:
                connection.execute(users.insert().values(**row))
        except IntegrityError:
            raise StaffError(f"已经有用户 {username}") from None
        member = self.find(username)
        assert member is not None
        return member

    def change(self, username: str, *, districts: Sequence[str] | None = None, **values: Any) -> None:
        """`values`: display_name, role, cleared, department. Ends the person's sessions. Raises StaffError."""
        if values.get("role", ROLES[0]) not in ROLES:
            raise StaffError(f"角色只能是 {'、'.join(ROLES)}")
        if districts is not None:
            values["districts"] = json.dumps(list(districts), ensure_ascii=False)
        self._change(username, epoch=users.c.epoch + 1, **values)

    def set_password(self, username: str, password: str) -> None:
        """Also unlocks. Ends the person's sessions. Raises StaffError."""
        self._change(username, password_hash=self._hash(password), failures=0, locked_until=None, epoch=users.c.epoch + 1)

    def unlock(self, username: str) -> None:
        """Whoever mistyped too often may try again at once, with the password they have. Raises StaffError."""
        self._change(username, failures=0, locked_until=None)

    def set_disabled(self, username: str, disabled: bool) -> None:
        self._change(username, disabled_at=iso(self.now()) if disabled else None, epoch=users.c.epoch + 1)

    def _change(self, username: str, **values: Any) -> None:
        with transaction(self.engine) as connection:
            if connection.execute(update(users).where(users.c.username == username).values(**values)).rowcount == 0:
                raise StaffError(f"没有用户 {username}")

    def _count_failure(self, row: Row) -> None:
        lock = row.failures + 1 >= MAX_FAILURES
        self._change(
            row.username, failures=0 if lock else users.c.failures + 1, locked_until=iso(self.now() + LOCKED) if lock else None
        )

    def _hash(self, password: str) -> str:
        if len(password) < MIN_PASSWORD:
            raise StaffError(f"密码至少要 {MIN_PASSWORD} 个字符")
        return self.hasher.hash(password)

    def _fits(self, stored: str, password: str) -> bool:
        try:
            return self.hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False


def audit(services: Services, username: str, action: str, subject: str, *, address: str = "", detail: str = "") -> None:
    """One row, written before what it tells of is shown: who cannot be written down may not read. Raises StorageError."""
    row = {"at": iso(services.now()), "username": username, "action": action, "subject": subject[:120], "address": address[:64]}
    with transaction(services.engine) as connection:
        connection.execute(audit_log.insert().values(**row, detail=detail))


def _member(row: Row) -> StaffMember:
    return StaffMember(
        username=row.username,
        display_name=row.display_name or row.username,
        role=row.role,
        districts=tuple(json.loads(row.districts)),
        cleared=bool(row.cleared),
        department=row.department,
        epoch=row.epoch,
        disabled=row.disabled_at is not None,
        locked_until=parse_iso(row.locked_until) if row.locked_until else None,
    )
