"""What reviewers decide: one label set, one group at once, a skip, a final word, and each of them taken back.

Every decision is appended as an annotation; the state of an item is what the annotations that stand come to.
"""
from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row

from bot import db
from bot.annotations import (
    BULK,
    CATEGORY,
    FINAL,
    REQUEST_TYPE,
    REVIEW,
    SKIP,
    Labels,
    judgements_of,
    new_annotation,
    settle,
    undo_annotation,
)
from bot.catalogue import REQUEST_TYPES
from bot.review_labels import LabelRefused, is_as_predicted, read_category, read_labels
from bot.review_queue import ItemNotFound, readable
from bot.reviews import ACCEPTED, DISPUTED, FIXED, OPEN, SKIPPED
from bot.services import Services
from bot.staff import StaffMember
from bot.staff_schema import annotation_rows, review_items

OWN_SOURCES = (REVIEW, FINAL, SKIP)
# How far back a reviewer can take decisions back one after the other.
UNDO_ROWS = 500


class JudgementRefused(Exception):
    """The decision does not fit what has happened meanwhile; the text is what the reviewer reads."""


@dataclass(frozen=True)
class Judging:
    services: Services

    def judge(self, member: StaffMember, item_id: int, given: Any, *, version: str, final: bool = False) -> str:
        """The new state of the item. Raises ItemNotFound, LabelRefused, JudgementRefused."""
        with db.transaction(self.services.engine) as connection:
            row = self._lock(connection, member, item_id, version)
            text = str(self.services.vault.open(row.text))
            labels = read_labels(given, text, self.services.catalogue)
            if final:
                self._check_final(connection, row, member)
            self._append(connection, row, text, labels, member, FINAL if final else REVIEW)
            return self._settle(connection, row)

    def skip(self, member: StaffMember, item_id: int, *, version: str) -> str:
        """Nobody has to decide this one now. Raises ItemNotFound, JudgementRefused."""
        with db.transaction(self.services.engine) as connection:
            row = self._lock(connection, member, item_id, version)
            self._append(connection, row, str(self.services.vault.open(row.text)), {}, member, SKIP)
            return self._settle(connection, row)

    def judge_all(self, member: StaffMember, item_ids: Sequence[int], given: Mapping[str, Any]) -> int:
        """One class, and perhaps one request type, for items that read alike; how many were still open. Raises LabelRefused.

        Only what the reviewer decided is kept: spans and parts of texts that were glanced at are not."""
        labels: Labels = {CATEGORY: read_category(given.get(CATEGORY), self.services.catalogue)}
        if given.get(REQUEST_TYPE):
            if given[REQUEST_TYPE] not in REQUEST_TYPES:
                raise LabelRefused("没有这种诉求类型，请从列表里选")
            labels[REQUEST_TYPE] = given[REQUEST_TYPE]
        source = f"{BULK}{secrets.token_hex(8)}"
        with db.transaction(self.services.engine) as connection:
            chosen = review_items.c.id.in_(list(item_ids)), review_items.c.state == OPEN, *readable(member)
            rows = connection.execute(select(review_items).where(*chosen).order_by(review_items.c.id).with_for_update()).fetchall()
            for row in rows:
                self._append(connection, row, str(self.services.vault.open(row.text)), labels, member, source)
                self._settle(connection, row)
        return len(rows)

    def undo(self, member: StaffMember) -> list[int]:
        """Take back this person's newest decision, the whole of it; the items concerned, none where there is nothing left."""
        with db.transaction(self.services.engine) as connection:
            rows = self._newest(connection, member)
            for row in rows:
                undo_annotation(connection, row.id, author=member.username, at=self.services.now())
            items = [row.item_id for row in rows]
            for item in connection.execute(select(review_items).where(review_items.c.id.in_(items)).with_for_update()).fetchall():
                self._settle(connection, item)
        return items

    def _newest(self, connection: Connection, member: StaffMember) -> list[Row]:
        """The rows of the newest decision that stands."""
        own = annotation_rows.c.author == member.username, annotation_rows.c.item_id.isnot(None)
        rows = connection.execute(select(annotation_rows).where(*own).order_by(annotation_rows.c.id.desc()).limit(UNDO_ROWS)).fetchall()
        undone = {row.undoes for row in rows if row.undoes is not None}
        decisions = (row for row in rows if row.undoes is None and (row.source in OWN_SOURCES or row.source.startswith(BULK)))
        newest = next((row for row in decisions if row.id not in undone), None)
        if newest is None:
            return []
        if not newest.source.startswith(BULK):
            return [newest]
        return list(connection.execute(select(annotation_rows).where(annotation_rows.c.source == newest.source, *own)))

    # -- rows -----------------------------------------------------------------------------------------------------

    def _lock(self, connection: Connection, member: StaffMember, item_id: int, version: str) -> Row:
        row = connection.execute(select(review_items).where(review_items.c.id == item_id, *readable(member)).with_for_update()).first()
        if row is None:
            raise ItemNotFound
        if row.updated_at != version:
            raise JudgementRefused("这一条刚刚有变化（别人审过，或来了新情况），已重新载入，请再看一眼")
        return row

    def _check_final(self, connection: Connection, row: Row, member: StaffMember) -> None:
        if row.state != DISPUTED:
            raise JudgementRefused("这一条没有分歧，不需要定夺")
        parties = {one.author for one in judgements_of(connection, [row.digest])[row.digest] if one.labels and not one.by_import}
        if member.username in parties and not member.is_at_least("admin"):
            raise JudgementRefused("您是意见不同的一方，请另一位审核人来定夺")

    def _append(self, connection: Connection, row: Row, text: str, labels: Labels, member: StaffMember, source: str) -> None:
        values = new_annotation(
            self.services.vault, text, labels, author=member.username, source=source, at=self.services.now(),
            item_id=row.id, model=row.model, digest=row.digest,
        )  # fmt: skip
        connection.execute(annotation_rows.insert().values(**values))

    def _settle(self, connection: Connection, row: Row) -> str:
        state = state_of(connection, row)
        values = {"state": state, "updated_at": db.iso(self.services.now())}
        connection.execute(update(review_items).where(review_items.c.id == row.id).values(**values))
        return state


def state_of(connection: Connection, row: Row) -> str:
    """What the annotations of an item's text that stand come to."""
    judged = [one for one in judgements_of(connection, [row.digest])[row.digest] if not one.by_import]
    settled = settle(judged)
    if settled.disputed:
        return DISPUTED
    if settled.labels:
        return ACCEPTED if is_as_predicted(settled.labels, json.loads(row.prediction)) else FIXED
    return SKIPPED if any(one.source == SKIP for one in judged) else OPEN
