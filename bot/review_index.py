"""Words of review items and annotations in this process's memory, for search, similar examples and groups.

Sealed texts cannot be searched where they lie. Each process opens them once, in small bites, and follows what is added.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select

from bot import db
from bot.annotations import IMPORT, UNDO
from bot.importing import STAGING
from bot.likeness import Index
from bot.services import Services
from bot.staff_schema import annotation_rows, import_batches, review_items
from bot.vault import VaultError

BITE_ROWS = 500
PAUSE_SECONDS = 0.02  # between bites: turns of residents go on meanwhile
ALIKE = 0.35  # of one group: on 6,812 petitions nearly all pairs from here on tell of the same matter
FAINT = 0.12  # worth showing as similar
NEAR_ITEMS = 5


@dataclass
class ReviewIndex:
    """Keys: the id of an item, or minus the id of an annotation row."""

    services: Services
    _index: Index = field(default_factory=Index)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _loading: threading.Lock = field(default_factory=threading.Lock)
    _last_item: int = 0
    _last_annotation: int = 0
    ready: bool = False

    def refresh(self) -> None:
        """Take in what has been added since; the first time everything. One thread at a time, others go on with what there is."""
        if not self._loading.acquire(blocking=False):
            return
        try:
            while self._take_items() | self._take_annotations():
                time.sleep(PAUSE_SECONDS)
            self.ready = True
        finally:
            self._loading.release()

    def _take_items(self) -> bool:
        wanted = select(review_items.c.id, review_items.c.text).where(review_items.c.id > self._last_item)
        with db.reading(self.services.engine) as connection:
            rows = connection.execute(wanted.order_by(review_items.c.id).limit(BITE_ROWS)).fetchall()
        self._add([(row.id, row.text) for row in rows])
        self._last_item = rows[-1].id if rows else self._last_item
        return len(rows) == BITE_ROWS

    def _take_annotations(self) -> bool:
        """Only of texts that are no items: those are there under their item."""
        new = annotation_rows.c.id > self._last_annotation, annotation_rows.c.item_id.is_(None), annotation_rows.c.source != UNDO
        wanted = select(annotation_rows.c.id, annotation_rows.c.text).where(*new)
        with db.reading(self.services.engine) as connection:
            # Rows of an import under way may still be thrown away, and their numbers given again.
            staging = connection.execute(select(import_batches.c.id).where(import_batches.c.state == STAGING)).scalars()
            if sources := [f"{IMPORT}{number}" for number in staging]:
                first = select(func.min(annotation_rows.c.id)).where(annotation_rows.c.source.in_(sources)).scalar_subquery()
                wanted = wanted.where(annotation_rows.c.id < func.coalesce(first, annotation_rows.c.id + 1))
            rows = connection.execute(wanted.order_by(annotation_rows.c.id).limit(BITE_ROWS)).fetchall()
        self._add([(-row.id, row.text) for row in rows])
        self._last_annotation = rows[-1].id if rows else self._last_annotation
        return len(rows) == BITE_ROWS

    def _add(self, rows: Sequence[tuple[int, bytes]]) -> None:
        opened = [(key, text) for key, sealed in rows if (text := self._open(sealed)) is not None]
        with self._lock:
            self._index.add([key for key, _ in opened], [text for _, text in opened])

    def _open(self, sealed: bytes) -> str | None:
        try:
            return str(self.services.vault.open(sealed))
        except VaultError:
            return None

    def add_item(self, key: int, text: str) -> None:
        with self._lock:
            self._index.add([key], [text])

    def discard_items(self, keys: Sequence[int]) -> None:
        with self._lock:
            self._index.discard(keys)

    def nearest(self, text: str, count: int) -> list[tuple[int, float]]:
        with self._lock:
            return self._index.nearest(text, count, at_least=FAINT)

    def near_items(self, text: str) -> list[int]:
        """Items that read so much alike that one decision may do for all, likest first."""
        with self._lock:
            return [key for key, _ in self._index.nearest(text, NEAR_ITEMS, at_least=ALIKE) if key > 0]

    def items_containing(self, words: Sequence[str]) -> list[int]:
        """Newest first."""
        with self._lock:
            return [key for key in self._index.containing(words) if key > 0]
