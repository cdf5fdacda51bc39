"""The frozen test set: messages with their right answers that no training ever sees, so that two models can be compared on them.

Three sources: the project's own (nlu_data/evaluation, renewed with every version of the software), a share of every import,
and what people add. Texts are masked and sealed.
"""
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.engine import Connection, Row

from bot import db
from bot.annotations import hidden_batches, text_digest
from bot.services import DATA_DIR, Services
from bot.staff_schema import test_items

TEST, MUST_PASS = "test", "must_pass"
SHIPPED = "shipped"
# Of every import: enough to tell two models apart, little enough to miss in training.
SHARE, MOST = 0.2, 2000
# What a line of nlu_data/evaluation says beside its text, and what it may note for people.
LABELS, NOTES = frozenset({"category", "request_type", "urgency", "emergency", "intent"}), ("id", "trap")
_INSERT_ROWS = 1000


class EvaluationError(ValueError):
    """A file of nlu_data/evaluation cannot be read; the message names file and line."""


@dataclass(frozen=True)
class FrozenItem:
    id: int
    kind: str
    text: str
    labels: Mapping[str, Any]
    source: str


def freeze_share(services: Services, rows: Sequence[tuple[str, Mapping[str, Any]]], *, source: str, author: str) -> set[int]:
    """Freeze a stratified share of an import: the numbers of the rows that are test items from now on, be it as new ones or again.

    `rows` are masked texts and their labels. Call it in the transaction that switches the import on. The draw depends on the texts
    and the installation only: the same file imported again freezes the same rows.
    """
    digests = [text_digest(services.vault, text) for text, _ in rows]
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(rows)), key=digests.__getitem__):
        groups[str(rows[number][1].get("category", ""))[:2]].append(number)
    share = min(SHARE, MOST / max(1, len(rows)))
    drawn = [number for members in groups.values() for number in members[: round(share * len(members))]]
    items = {digests[n]: (rows[n][0], _labels(rows[n][1])) for n in drawn}
    items = {digest: item for digest, item in items.items() if item[1]}
    with db.transaction(services.engine) as connection:
        _release_withdrawn(connection, digests)
        known = _known(connection)
        new = {digest: item for digest, item in items.items() if digest not in known}
        _insert(connection, services, [(TEST, digest, *item) for digest, item in new.items()], source=source, author=author)
        frozen = _known(connection, retired=False)
    return {number for number, digest in enumerate(digests) if digest in frozen}


def seed_shipped(services: Services, data_dir: Path = DATA_DIR) -> None:
    """The project's own items as this version of the software ships them. Raises EvaluationError."""
    wanted = {text_digest(services.vault, text): (kind, text, labels) for kind, text, labels in read_evaluation(data_dir)}
    with db.transaction(services.engine) as connection:
        rows = connection.execute(select(test_items).where(test_items.c.source == SHIPPED)).fetchall()
        same = {row.digest for row in rows if row.digest in wanted and _is_same(row, wanted[row.digest])}
        gone = [row.id for row in rows if row.digest not in same]
        connection.execute(test_items.delete().where(test_items.c.id.in_(gone)))
        known = _known(connection)
        new = [(kind, digest, text, labels) for digest, (kind, text, labels) in wanted.items() if digest not in known]
        _insert(connection, services, new, source=SHIPPED, author="minsheng")


def read_evaluation(data_dir: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(kind, text, labels) of nlu_data/evaluation/{test,must_pass}*.jsonl."""
    for kind in (MUST_PASS, TEST):
        for path in sorted((data_dir / "evaluation").glob(f"{kind}*.jsonl")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if line.strip():
                    yield (kind, *_read_line(line, f"{path.name}:{number}"))


def _read_line(line: str, where: str) -> tuple[str, dict[str, Any]]:
    try:
        labels = json.loads(line)
        text = str(labels.pop("text"))
    except (ValueError, KeyError) as error:
        raise EvaluationError(f"{where}: not a JSON object with a text: {error}") from None
    for note in NOTES:
        labels.pop(note, None)
    if not labels or not labels.keys() <= LABELS:
        raise EvaluationError(f"{where}: labels are {', '.join(sorted(LABELS))}, not {', '.join(labels) or 'none at all'}")
    return text, labels


def list_frozen(services: Services) -> list[FrozenItem]:
    """All that count, in the order in which they came; those of an import that was withdrawn do not."""
    with db.reading(services.engine) as connection:
        hidden = hidden_batches(connection)
        rows = connection.execute(select(test_items).where(test_items.c.retired_at.is_(None)).order_by(test_items.c.id)).fetchall()
    return [_item(services, row) for row in rows if row.source not in hidden]


def find_frozen(services: Services, ids: Sequence[int]) -> dict[int, FrozenItem]:
    with db.reading(services.engine) as connection:
        rows = connection.execute(select(test_items).where(test_items.c.id.in_(ids))).fetchall()
    return {row.id: _item(services, row) for row in rows}


def count_frozen(services: Services) -> list[dict[str, Any]]:
    """source, kind and count, the shipped ones first."""
    columns = test_items.c.source, test_items.c.kind
    wanted = select(*columns, func.count().label("count")).where(test_items.c.retired_at.is_(None)).group_by(*columns)
    with db.reading(services.engine) as connection:
        hidden, rows = hidden_batches(connection), connection.execute(wanted).fetchall()
    found = [{"source": row.source, "kind": row.kind, "count": row.count} for row in rows if row.source not in hidden]
    return sorted(found, key=lambda row: (row["source"] != SHIPPED, row["source"], row["kind"]))


def retire_source(services: Services, source: str) -> int:
    """An import whose labels were wrong no longer counts; how many items that were. Its texts may be learned from again."""
    wanted = test_items.c.source == source, test_items.c.source != SHIPPED, test_items.c.retired_at.is_(None)
    with db.transaction(services.engine) as connection:
        return int(connection.execute(update(test_items).where(*wanted).values(retired_at=db.iso(services.now()))).rowcount)


def retire_item(services: Services, item_id: int) -> bool:
    """One item whose label is wrong no longer counts; the project's own stay. Whether there was one."""
    wanted = test_items.c.id == item_id, test_items.c.source != SHIPPED, test_items.c.retired_at.is_(None)
    with db.transaction(services.engine) as connection:
        return bool(connection.execute(update(test_items).where(*wanted).values(retired_at=db.iso(services.now()))).rowcount)


def _labels(given: Mapping[str, Any]) -> dict[str, Any]:
    """The labels that a model is examined on."""
    return {name: given[name] for name in sorted(LABELS & given.keys())}


def _known(connection: Connection, *, retired: bool = True) -> set[str]:
    wanted = select(test_items.c.digest)
    return {row.digest for row in connection.execute(wanted if retired else wanted.where(test_items.c.retired_at.is_(None)))}


def _release_withdrawn(connection: Connection, digests: Sequence[str]) -> None:
    """Items of an import that was withdrawn, or never ended, count no more; what comes in again is drawn as if it came first."""
    hidden, coming = sorted(hidden_batches(connection)), set(digests)
    rows = connection.execute(select(test_items.c.id, test_items.c.digest).where(test_items.c.source.in_(hidden)))
    released = [row.id for row in rows if row.digest in coming]
    for start in range(0, len(released), _INSERT_ROWS):
        connection.execute(test_items.delete().where(test_items.c.id.in_(released[start : start + _INSERT_ROWS])))


def _insert(
    connection: Connection, services: Services, items: Sequence[tuple[str, str, str, Mapping[str, Any]]], *, source: str, author: str
) -> None:
    at = db.iso(services.now())
    rows = [
        {
            "kind": kind,
            "digest": digest,
            "text": services.vault.seal(text),
            "labels": json.dumps(labels, ensure_ascii=False, sort_keys=True),
            "author": author,
            "at": at,
            "source": source[:40],
        }
        for kind, digest, text, labels in items
    ]
    for start in range(0, len(rows), _INSERT_ROWS):
        connection.execute(test_items.insert(), rows[start : start + _INSERT_ROWS])


def _is_same(row: Row, wanted: tuple[str, str, Mapping[str, Any]]) -> bool:
    kind, _, labels = wanted
    return row.kind == kind and json.loads(row.labels) == dict(labels)


def _item(services: Services, row: Row) -> FrozenItem:
    return FrozenItem(row.id, row.kind, str(services.vault.open(row.text)), json.loads(row.labels), row.source)
