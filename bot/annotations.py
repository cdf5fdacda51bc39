"""Labels given by people: append-only rows, and the one label set that each text has after undos and disputes.

Knows rows and votes; knows no page, no file and no model. Training reads effective_annotations() and nothing else.
"""
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection, Row

from bot.db import iso
from bot.staff_schema import annotation_rows, import_batches
from bot.text import fold
from bot.vault import Vault

# Where a row comes from. Of an import the number of its batch follows, of a bulk acceptance a number that all its rows share.
REVIEW, FINAL, BULK, SKIP, SUSPECT, IMPORT, UNDO = "review", "final", "bulk:", "skip", "label_error", "import:", "undo"
INTENT, CATEGORY, REQUEST_TYPE, URGENCY = "intent", "category", "request_type", "urgency"
# Two reviewers who differ here need a third; spans and parts are never the same to the character, there the later one counts.
DISPUTABLE = (INTENT, CATEGORY, REQUEST_TYPE, URGENCY)

Labels = dict[str, Any]


@dataclass(frozen=True)
class Judgement:
    """One row that counts: neither taken back nor of an import that is under way or withdrawn."""

    id: int
    digest: str
    labels: Labels
    author: str
    source: str
    at: str
    weight: float
    model: str | None
    item_id: int | None

    @property
    def by_import(self) -> bool:
        return self.source.startswith(IMPORT)


@dataclass(frozen=True)
class Settled:
    """What some judgements of one text come to; fields in dispute have no label."""

    labels: Labels
    disputed: tuple[str, ...]


@dataclass(frozen=True)
class Effective:
    """The one label set of a text. `text` is sealed and masked; places, parts and their offsets are code points into it."""

    digest: str
    text: bytes
    labels: Labels
    weight: float
    source: str  # of the newest judgement
    author: str
    at: str
    disputed: tuple[str, ...]


def text_digest(vault: Vault, text: str) -> str:
    """The same for the same words, however they are written; nobody can turn it back."""
    return vault.pseudonym("text", fold(text.strip()))


def new_annotation(
    vault: Vault, text: str, labels: Mapping[str, Any], *, author: str, source: str, at: datetime, **more: Any
) -> dict[str, Any]:
    """A row for annotation_rows; `text` is masked already. `more`: item_id, model, digest, undoes."""
    row = {"text": vault.seal(text), "labels": json.dumps(labels, ensure_ascii=False), "author": author, "source": source[:40]}
    return {"digest": text_digest(vault, text), **row, "at": iso(at), "weight": 1.0, "item_id": None, "model": None, "undoes": None, **more}


def undo_annotation(connection: Connection, annotation_id: int, *, author: str, at: datetime) -> None:
    """Append the row that takes another one back."""
    row = connection.execute(select(annotation_rows).where(annotation_rows.c.id == annotation_id)).one()
    kept = {name: getattr(row, name) for name in ("text", "item_id", "model", "digest")}
    values = {**kept, "labels": "{}", "author": author, "source": UNDO, "at": iso(at), "weight": 1.0, "undoes": annotation_id}
    connection.execute(annotation_rows.insert().values(**values))


def settle(judgements: Sequence[Judgement]) -> Settled:
    """Oldest first. People outrank imports, the last word of a person replaces their earlier ones, a final word ends a dispute.

    Among people the majority decides each field; a tie is a dispute. A higher level of the category tree agrees with every class
    below it.
    """
    labels: Labels = {}
    latest: dict[str, Labels] = {}
    final: Labels = {}
    for judgement in judgements:
        if judgement.by_import:
            labels.update(judgement.labels)
        elif judgement.labels:
            latest.pop(judgement.author, None)  # the newest word stands last
            latest[judgement.author] = judgement.labels
            final = judgement.labels if judgement.source == FINAL else final
    disputed = []
    for name in dict.fromkeys(name for given in (*latest.values(), final) for name in given):
        opinions = [given[name] for given in latest.values() if name in given]
        labels.pop(name, None)
        if name in final:
            labels[name] = final[name]
        elif name not in DISPUTABLE:
            labels[name] = opinions[-1]
        elif (winner := _majority(opinions)) is not None:
            labels[name] = winner
        else:
            disputed.append(name)
    return Settled(labels, tuple(disputed))


def _majority(opinions: Sequence[str]) -> str | None:
    support = {one: sum(agree(one, other) for other in opinions) for one in opinions}
    most = max(support.values())
    leading = [one for one, count in support.items() if count == most]
    if not all(agree(one, other) for one in leading for other in leading):
        return None
    return max(leading, key=len)  # the most specific class of those that agree


def agree(first: str, second: str) -> bool:
    """Whether two values of a field are the same, or one is a class above the other."""
    digits = first.isdigit() and second.isdigit()
    return first == second or digits and (first.startswith(second) or second.startswith(first))


# -- rows -----------------------------------------------------------------------------------------------------------------

_COUNTING = (
    annotation_rows.c.id, annotation_rows.c.digest, annotation_rows.c.labels, annotation_rows.c.author, annotation_rows.c.source,
    annotation_rows.c.at, annotation_rows.c.weight, annotation_rows.c.model, annotation_rows.c.item_id,
)  # fmt: skip


def judgements_of(connection: Connection, digests: Iterable[str]) -> dict[str, list[Judgement]]:
    """The judgements that count, of each of these texts, oldest first."""
    wanted = list(digests)
    rows: list[Row] = []
    for start in range(0, len(wanted), 500):
        chosen = annotation_rows.c.digest.in_(wanted[start : start + 500])
        rows += connection.execute(select(annotation_rows).where(chosen).order_by(annotation_rows.c.id)).fetchall()
    undone, hidden = {row.undoes for row in rows if row.undoes is not None}, hidden_batches(connection)
    found: dict[str, list[Judgement]] = {digest: [] for digest in wanted}
    for row in rows:
        if _counts(row, undone, hidden):
            found[row.digest].append(_judgement(row))
    return found


def effective_annotations(connection: Connection) -> list[Effective]:
    """One label set for each annotated text, in order of its first annotation; texts without any label left are not there."""
    undone = set(connection.execute(select(annotation_rows.c.undoes).where(annotation_rows.c.undoes.isnot(None))).scalars())
    hidden = hidden_batches(connection)
    texts: dict[str, bytes] = {}
    judged: defaultdict[str, list[Judgement]] = defaultdict(list)
    for row in connection.execute(select(*_COUNTING, annotation_rows.c.text, annotation_rows.c.undoes).order_by(annotation_rows.c.id)):
        if _counts(row, undone, hidden):
            judgement = _judgement(row)
            texts.setdefault(judgement.digest, row.text)
            judged[judgement.digest].append(judgement)
    found = (_effective(texts[digest], judgements) for digest, judgements in judged.items())
    return [effective for effective in found if effective.labels]


def _effective(text: bytes, judgements: Sequence[Judgement]) -> Effective:
    settled, last = settle(judgements), judgements[-1]
    return Effective(last.digest, text, settled.labels, last.weight, last.source, last.author, last.at, settled.disputed)


def hidden_batches(connection: Connection) -> set[str]:
    """Sources of imports that are not finished, or were withdrawn."""
    hidden = select(import_batches.c.id).where(import_batches.c.state != "done")
    return {f"{IMPORT}{number}" for number in connection.execute(hidden).scalars()}


def _counts(row: Row, undone: set[int], hidden: set[str]) -> bool:
    return row.undoes is None and row.id not in undone and row.source not in hidden


def _judgement(row: Row) -> Judgement:
    digest = row.digest or f"row {row.id}"  # rows of before digests were kept
    return Judgement(
        row.id, digest, json.loads(row.labels), row.author, row.source, row.at, row.weight, row.model, row.item_id
    )
