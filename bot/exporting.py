"""What people taught the service, to take along: labels, review items, corrections and the whole history, masked, as a stream.

Rasa YAML for training elsewhere, CSV for people, JSONL for programs. Nothing is held in memory but ids; whoever calls writes the audit.
"""
from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import select

from bot import db
from bot.annotations import CATEGORY, INTENT, effective_annotations
from bot.petition import mask
from bot.review_labels import CORRECTED, MAIN_PLACE, PARTS, PLACES, labels_of
from bot.review_queue import label_of
from bot.services import Services
from bot.staff_schema import annotation_rows, corrections, review_items
from bot.tables import cell_text, harmless

LABELS, ITEMS, CORRECTIONS, HISTORY = "labels", "items", "corrections", "history"
WHAT = {LABELS: "标注（每段文字一组，去掉撤销和分歧）", ITEMS: "审核条目", CORRECTIONS: "坐席更正", HISTORY: "标注全部历史"}
YAML, CSV, JSONL = "yaml", "csv", "jsonl"
FORMATS = {YAML: "Rasa YAML", CSV: "CSV", JSONL: "JSONL"}
BITE_ROWS = 500
PAUSE_SECONDS = 0.01  # between bites: turns of residents go on meanwhile

Record = dict[str, Any]


def may_export(what: str, form: str) -> bool:
    """Examples need a text with labels: corrections and history are rows about one."""
    return what in WHAT and form in FORMATS and (form != YAML or what in (LABELS, ITEMS))


def export(services: Services, what: str, form: str) -> Iterator[str]:
    """The file, piece by piece. The rows are those that are there when it begins; each is opened, masked again and let go."""
    source = _SOURCES[what](services)
    if form == YAML:
        yield from _write_yaml(source)
    elif form == CSV:
        yield from _write_csv(source.columns, source.records())
    else:
        yield from (json.dumps(record, ensure_ascii=False) + "\n" for record in source.records())


@dataclass(frozen=True)
class _Source:
    """`keys`: (intent, key) of every row; `open_rows` gives the records of some keys, in their order."""

    columns: Sequence[str]
    keys: Sequence[tuple[str, Any]]
    open_rows: Callable[[Sequence[Any]], list[Record]]

    def records(self) -> Iterator[Record]:
        yield from self._opened([key for _, key in self.keys])

    def by_intent(self) -> Iterator[tuple[str, Iterator[Record]]]:
        for intent, group in groupby(sorted(self.keys, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
            if intent:
                yield intent, self._opened([key for _, key in group])

    def _opened(self, keys: Sequence[Any]) -> Iterator[Record]:
        for start in range(0, len(keys), BITE_ROWS):
            yield from self.open_rows(keys[start : start + BITE_ROWS])
            time.sleep(PAUSE_SECONDS)


# -- formats --------------------------------------------------------------------------------------------------------------


def _write_csv(columns: Sequence[str], records: Iterable[Record]) -> Iterator[str]:
    """With a byte order mark, without which Excel takes Chinese for another encoding; no cell is taken for a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    yield "\ufeff"
    writer.writerow(columns)
    for number, record in enumerate(records):
        writer.writerow([harmless(cell_text(record.get(name))) for name in columns])
        if number % 100 == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _write_yaml(source: _Source) -> Iterator[str]:
    """Rasa 3's NLU format: examples by intent, places as entities, everything else as metadata."""
    yield 'version: "3.1"\nnlu:\n'
    for intent, records in source.by_intent():
        yield f"- intent: {intent}\n  examples:\n"
        for record in records:
            yield f"  - text: {_quoted(mark_entities(record['text'], record.get(PLACES) or ()))}\n"
            told = {name: value for name, value in record.items() if name not in _NOT_METADATA and value not in (None, "", [])}
            yield f"    metadata: {json.dumps(told, ensure_ascii=False)}\n" if told else ""


_NOT_METADATA = frozenset({"text", INTENT, PLACES, MAIN_PLACE})


def _quoted(text: str) -> str:
    """A JSON string is a YAML double-quoted scalar."""
    return json.dumps(text, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x7f", "\\x7f")


def mark_entities(text: str, places: Iterable[Sequence[int]]) -> str:
    """`[山阳小区](location)门口`; brackets of the text itself become full-width, so that nothing else is read as an entity."""
    plain = text.replace("[", "［").replace("]", "］")
    marked, at = [], 0
    for start, end in sorted((int(span[0]), int(span[1])) for span in places):
        if at <= start < end <= len(plain):
            marked += [plain[at:start], f"[{plain[start:end]}](location)"]
            at = end
    return "".join([*marked, plain[at:]])


# -- what there is --------------------------------------------------------------------------------------------------------

_LABEL_COLUMNS = (INTENT, CATEGORY, "category_name", "request_type", "urgency", PLACES, MAIN_PLACE, PARTS)


def _labelled(services: Services, text: str, labels: Mapping[str, Any]) -> Record:
    order = labels.get("order") or {}
    own = {"number": order.get("number"), "order_at": order.get("at")}
    own["category_name"] = label_of(str(labels.get(CATEGORY) or ""), services.catalogue)
    return {"text": mask(text), **{name: labels.get(name) for name in _LABEL_COLUMNS}, **own}


def _label_source(services: Services) -> _Source:
    with db.reading(services.engine) as connection:
        found = effective_annotations(connection)

    def opened(numbers: Sequence[int]) -> list[Record]:
        records = []
        for one in (found[number] for number in numbers):
            about = {"source": one.source, "author": one.author, "at": one.at, "disputed": list(one.disputed)}
            records.append({**_labelled(services, str(services.vault.open(one.text)), one.labels), **about})
        return records

    keys = [(str(one.labels.get(INTENT) or _default_intent(one.labels)), number) for number, one in enumerate(found)]
    return _Source(("text", *_LABEL_COLUMNS, "number", "order_at", "source", "author", "at", "disputed"), keys, opened)


def _default_intent(labels: Mapping[str, Any]) -> str:
    """A work order is an appeal, also where nobody said so."""
    return "report_problem" if CATEGORY in labels else ""


def _item_source(services: Services) -> _Source:
    with db.reading(services.engine) as connection:
        ids = list(connection.execute(select(review_items.c.id, review_items.c.prediction).order_by(review_items.c.id)))
    keys = [(str(json.loads(row.prediction)["intent"]["name"]), row.id) for row in ids]
    about = ("id", "state", "reasons", "confidence", "priority", "channel", "district", "model", "at")

    def opened(wanted: Sequence[int]) -> list[Record]:
        records = []
        for row in _rows(services, review_items, wanted):
            prediction = json.loads(row.prediction)
            read = _labelled(services, str(services.vault.open(row.text)), labels_of(prediction))
            records.append({**{name: getattr(row, name) for name in about}, **read, CORRECTED: prediction.get(CORRECTED) or None})
        return records

    return _Source((*about, "text", *_LABEL_COLUMNS, CORRECTED), keys, opened)


def _correction_source(services: Services) -> _Source:
    with db.reading(services.engine) as connection:
        keys = [("", key) for key in connection.execute(select(corrections.c.id).order_by(corrections.c.id)).scalars()]
    columns = ("id", "at", "username", "source", "subject", "field", "old", "new", "evidence", "model")

    def opened(wanted: Sequence[int]) -> list[Record]:
        records = []
        for row in _rows(services, corrections, wanted):
            record: Record = {name: getattr(row, name) for name in columns if name not in ("old", "new", "evidence")}
            values = {name: masked_value(row.field, services.vault.open(getattr(row, name))) for name in ("old", "new", "evidence")}
            records.append({**record, **values})
        return records

    return _Source(columns, keys, opened)


def masked_value(field: str, value: Any) -> str:
    """A corrected value without what identifies a person."""
    text = cell_text(value)
    if field == "name":
        return text[:1] + "**" if text else ""
    if field in ("phone", "caller"):
        return text[:3] + "****" + text[-4:] if len(text) >= 11 else "****" if text else ""
    return mask(text)


def _history_source(services: Services) -> _Source:
    with db.reading(services.engine) as connection:
        keys = [("", key) for key in connection.execute(select(annotation_rows.c.id).order_by(annotation_rows.c.id)).scalars()]
    about = ("id", "at", "author", "source", "item_id", "model", "undoes", "weight")

    def opened(wanted: Sequence[int]) -> list[Record]:
        records = []
        for row in _rows(services, annotation_rows, wanted):
            given = _labelled(services, str(services.vault.open(row.text)), json.loads(row.labels))
            records.append({**{name: getattr(row, name) for name in about}, **given})
        return records

    return _Source((*about, "text", *_LABEL_COLUMNS, "number", "order_at"), keys, opened)


def _rows(services: Services, table: Any, ids: Sequence[int]) -> list[Any]:
    with db.reading(services.engine) as connection:
        return connection.execute(select(table).where(table.c.id.in_(list(ids))).order_by(table.c.id)).fetchall()


_SOURCES: dict[str, Callable[[Services], _Source]] = {
    LABELS: _label_source,
    ITEMS: _item_source,
    CORRECTIONS: _correction_source,
    HISTORY: _history_source,
}
