"""Work orders of a city become annotations: checked, staged in small writes, and switched on all at once.

A batch counts from the moment its state is `done` (bot/annotations.py looks at that), so an import that stops half-way has
changed nothing, and one that turns out to be wrong can be withdrawn. The command and the page share everything here.
"""
from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.engine import Connection

from bot import db
from bot.annotations import IMPORT, Labels, agree, effective_annotations, hidden_batches, new_annotation, text_digest
from bot.data_checks import COPIES
from bot.frozen import freeze_share
from bot.likeness import find_twins
from bot.orders import ORDER, Meanings, Order, Plan, Problem, read_orders, strict_plan
from bot.services import Services
from bot.staff_schema import annotation_rows, import_batches, import_mappings, test_items
from bot.tables import Row, open_table

LOOKING, READY, STAGING, DONE, WITHDRAWN, FAILED = "looking", "ready", "staging", "done", "withdrawn", "failed"
INSERT_ROWS = 500
MAX_ROWS = 100_000
COLUMNS, LABEL = "columns", "label"  # kinds of import_mapping

Tell = Callable[[float, str], None]
Rows = Iterable[tuple[int, Row]]


class ImportRefused(ValueError):
    """The file or the import cannot be taken; the text is what the person reads."""


@dataclass
class Outcome:
    """What became of the rows of a file."""

    imported: int = 0
    refused: int = 0
    repeated: int = 0  # the same words with the same labels, in the file or known before
    twins: int = 0  # nearly the same words with the same label, left out
    differing: int = 0  # nearly or exactly the words of another text that has another label: imported, and listed
    left_out: int = 0
    unplaced: int = 0
    frozen: int = 0
    notes: list[tuple[int, str]] = field(default_factory=list)  # of imported rows worth a look
    copies: Counter[int] = field(default_factory=Counter)  # imported row → rows of the file left out because they say nearly the same
    echoes: set[int] = field(default_factory=set)  # imported rows that all but repeat another text

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key not in ("notes", "copies", "echoes")}


# -- what is remembered ---------------------------------------------------------------------------------------------------


def load_meanings(connection: Connection, services: Services) -> Meanings:
    rows = connection.execute(select(import_mappings).where(import_mappings.c.kind == LABEL))
    told: dict[tuple[str, str], str] = {}
    for row in rows:
        value = json.loads(row.value)
        told[value["field"], value["label"]] = value["meaning"]
    return Meanings(services.catalogue, told)


def remember_labels(connection: Connection, told: Mapping[tuple[str, str], str], *, username: str, at: str) -> None:
    """Asked once: the next file with such a label is read with this meaning."""
    for (name, label), meaning in told.items():
        value = {"field": name, "label": label, "meaning": meaning}
        _remember(connection, LABEL, hashlib.sha256(f"{name}\x1f{label}".encode()).hexdigest(), value, username, at)


def remember_columns(connection: Connection, headings: Iterable[str], columns: Mapping[str, str], *, username: str, at: str) -> None:
    _remember(connection, COLUMNS, _header_key(headings), dict(columns), username, at)


def find_columns(connection: Connection, headings: Iterable[str]) -> dict[str, str] | None:
    """What the columns of a file with this heading were said to be."""
    wanted = select(import_mappings.c.value).where(import_mappings.c.kind == COLUMNS, import_mappings.c.key == _header_key(headings))
    value = connection.execute(wanted).scalar()
    return json.loads(value) if value else None


def _header_key(headings: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(headings).encode()).hexdigest()


def _remember(connection: Connection, kind: str, key: str, value: Any, username: str, at: str) -> None:
    one = import_mappings.c.kind == kind, import_mappings.c.key == key
    values = {"value": json.dumps(value, ensure_ascii=False), "username": username, "at": at}
    if connection.execute(update(import_mappings).where(*one).values(**values)).rowcount == 0:
        connection.execute(import_mappings.insert().values(kind=kind, key=key, **values))


# -- batches --------------------------------------------------------------------------------------------------------------


def open_batch(services: Services, file_name: str, *, username: str, **values: Any) -> int:
    now = db.iso(services.now())
    row = {"at": now, "updated_at": now, "username": username, "file_name": file_name[-120:], "kind": "labelled", "state": LOOKING}
    with db.transaction(services.engine) as connection:
        return int(connection.execute(import_batches.insert().values(**{**row, **values})).inserted_primary_key[0])


def change_batch(services: Services, batch_id: int, **values: Any) -> None:
    with db.transaction(services.engine) as connection:
        changed = {**values, "updated_at": db.iso(services.now())}
        connection.execute(update(import_batches).where(import_batches.c.id == batch_id).values(**changed))


def find_same_file(connection: Connection, batch_id: int, digest: str) -> Any:
    """The finished batch of the very same file, or None."""
    same = import_batches.c.digest == digest, import_batches.c.state == DONE, import_batches.c.id != batch_id
    return connection.execute(select(import_batches).where(*same).order_by(import_batches.c.id.desc())).first()


def withdraw_batch(services: Services, batch_id: int) -> bool:
    """The annotations of a finished import stop counting, all at once; False when it is not finished."""
    one = import_batches.c.id == batch_id, import_batches.c.state == DONE
    with db.transaction(services.engine) as connection:
        changed = update(import_batches).where(*one).values(state=WITHDRAWN, updated_at=db.iso(services.now()))
        return bool(connection.execute(changed).rowcount)


def discard_staged(services: Services, batch_id: int) -> None:
    """Rows of an import that did not come to its end; they never counted."""
    with db.transaction(services.engine) as connection:
        connection.execute(delete(annotation_rows).where(annotation_rows.c.source == f"{IMPORT}{batch_id}"))


def digest_of_file(path: Path, services: Services) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return services.vault.pseudonym("file", sha.hexdigest())


# -- importing ------------------------------------------------------------------------------------------------------------


def import_file(path: Path, services: Services, *, username: str = "import") -> tuple[int, list[str]]:
    """The command: columns called as the roles are; (rows imported, one line for each refused row).

    Raises ValueError when the file cannot be read; nothing is imported then.
    """
    table = open_table(path)
    try:
        plan = strict_plan(table)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    batch_id = open_batch(services, path.name, username=username, digest=digest_of_file(path, services))
    outcome, problems = import_rows(services, table.open_rows(), plan, batch_id=batch_id, username=username)
    lines = [f"{path.name} row {problem.row}: {problem.sentence}" for problem in problems]
    return outcome.imported, lines


def import_rows(
    services: Services, rows: Rows, plan: Plan, *, batch_id: int, username: str, tell: Tell = lambda share, step: None
) -> tuple[Outcome, list[Problem]]:
    """All good rows or nothing. Raises ImportRefused, StorageError, and what `tell` raises to stop it."""
    discard_staged(services, batch_id)
    change_batch(services, batch_id, state=STAGING)
    try:
        tell(0.0, "读取各行")
        orders, problems, outcome = _read(services, rows, plan)
        tell(0.2, "与已有标注比对")
        orders = _without_repeats(services, orders, plan, outcome, problems)
        _stage(services, orders, batch_id, username, tell)
        tell(0.95, "启用")
        _switch_on(services, orders, batch_id, username, outcome, problems)
    except BaseException:
        discard_staged(services, batch_id)
        change_batch(services, batch_id, state=FAILED)
        raise
    return outcome, problems


def _read(services: Services, rows: Rows, plan: Plan) -> tuple[list[Order], list[Problem], Outcome]:
    with db.reading(services.engine) as connection:
        meanings = load_meanings(connection, services)
    orders: list[Order] = []
    problems: list[Problem] = []
    outcome = Outcome()
    for number, read in enumerate(read_orders(rows, plan, meanings)):
        if number >= MAX_ROWS:
            raise ImportRefused(f"一次最多导入 {MAX_ROWS} 行，请把文件分成几份")
        if isinstance(read, Problem):
            problems.append(replace(read, text=""))
        elif read.left_out:
            outcome.left_out += 1
        else:
            orders.append(read)
            outcome.unplaced += read.unplaced
    return orders, problems, outcome


def same_labels(first: Labels, second: Labels) -> bool:
    """Whether no field that both have differs; what is known of the order itself is no label."""
    return all(_same_value(name, first[name], second[name]) for name in first.keys() & second.keys() - {ORDER})


def _same_value(name: str, one: Any, other: Any) -> bool:
    return agree(one, other) if isinstance(one, str) and isinstance(other, str) else name == "places" or one == other


def _without_repeats(services: Services, orders: Sequence[Order], plan: Plan, outcome: Outcome, problems: list[Problem]) -> list[Order]:
    """What is new in these orders. Same words with other labels within the file: neither can be right by itself, the later is refused."""
    first: dict[str, Order] = {}
    for order in orders:
        digest = text_digest(services.vault, order.text)
        earlier = first.setdefault(digest, order)
        if earlier is order:
            continue
        if same_labels(earlier.labels, order.labels):
            outcome.repeated += 1
            outcome.copies[earlier.row] += 1
        else:
            problems.append(Problem(order.row, f"与第 {earlier.row} 行文字相同而标签不同，请核对后保留一行"))
    with db.reading(services.engine) as connection:
        effective = effective_annotations(connection)
        counting = test_items.c.retired_at.is_(None), test_items.c.source.notin_(sorted(hidden_batches(connection)))
        frozen = connection.execute(select(test_items.c.text, test_items.c.labels).where(*counting)).fetchall()
    known = {one.digest: one.labels for one in effective}
    fresh: list[Order] = []
    for digest, order in first.items():
        if digest in known and order.labels.keys() - {ORDER} <= known[digest].keys() and same_labels(known[digest], order.labels):
            outcome.repeated += 1
            continue
        if digest in known and not same_labels(known[digest], order.labels):
            _note(outcome, order, "文字与已有标注相同而标签不同")
        fresh.append(order)
    before = [(services.vault.open(one.text), one.labels) for one in effective]
    before += [(services.vault.open(row.text), json.loads(row.labels)) for row in frozen]
    return _without_twins(before, fresh, plan, outcome)


def _without_twins(before: Sequence[tuple[str, Labels]], orders: Sequence[Order], plan: Plan, outcome: Outcome) -> list[Order]:
    """Near-repeats with the same label teach nothing and weigh too much; with another label one of both is probably wrong."""
    leaders = find_twins([*(text for text, _ in before), *(order.text for order in orders)])
    kept: list[Order] = []
    for number, order in enumerate(orders, len(before)):
        leader = int(leaders[number])
        if leader == number:
            kept.append(order)
            continue
        labels = before[leader][1] if leader < len(before) else orders[leader - len(before)].labels
        other = "已有标注" if leader < len(before) else f"第 {orders[leader - len(before)].row} 行"
        if not same_labels(labels, order.labels):
            _note(outcome, order, f"与{other}几乎相同而标签不同")
        elif not plan.keep_twins:
            outcome.twins += 1
            if leader >= len(before):
                outcome.copies[orders[leader - len(before)].row] += 1 + outcome.copies.pop(order.row, 0)
            continue
        outcome.echoes.add(order.row)
        kept.append(order)
    _note_copies(outcome, {order.row for order in kept})
    return kept


def _note_copies(outcome: Outcome, imported: Set[int]) -> None:
    """One sentence said again and again is a fault of the file that whoever imports it should know of, though it does no harm."""
    for row, more in sorted(outcome.copies.items()):
        if more + 1 >= COPIES and row in imported:
            outcome.notes.append((row, f"已导入：这句话（连同几乎一字不差的）在文件里出现 {more + 1} 次，只算一次"))


def _note(outcome: Outcome, order: Order, sentence: str) -> None:
    outcome.differing += 1
    outcome.notes.append((order.row, f"已导入：{sentence}"))


def _stage(services: Services, orders: Sequence[Order], batch_id: int, username: str, tell: Tell) -> None:
    """Small writes, so that nobody's turn waits for them."""
    source, now, waiting = f"{IMPORT}{batch_id}", services.now(), iter(orders)
    for number in range(0, len(orders), INSERT_ROWS):
        tell(0.3 + 0.65 * number / len(orders), f"写入 {number // 10_000} 万行以上，共 {len(orders)} 行" if number >= 10_000 else "写入")
        rows = [
            new_annotation(services.vault, order.text, order.labels, author=username, source=source, at=now)
            for order in islice(waiting, INSERT_ROWS)
        ]
        with db.transaction(services.engine, durable=False) as connection:
            connection.execute(annotation_rows.insert(), rows)


def _switch_on(
    services: Services, orders: Sequence[Order], batch_id: int, username: str, outcome: Outcome, problems: list[Problem]
) -> None:
    outcome.imported, outcome.refused = len(orders), len(problems)
    problems.sort(key=lambda problem: problem.row)
    told = sorted([*((problem.row, problem.sentence) for problem in problems), *outcome.notes])
    with db.transaction(services.engine) as connection:
        # A text that was frozen again and again would outweigh the rest of the test, whoever's mistake its label is.
        rows = [(order.text, order.labels) for order in orders if order.row not in outcome.echoes]
        outcome.frozen = len(freeze_share(services, rows, source=f"{IMPORT}{batch_id}", author=username))
        kept = {"outcome": json.dumps(outcome.as_dict()), "problems": json.dumps(told, ensure_ascii=False), "preview": None}
        values = {"state": DONE, "updated_at": db.iso(services.now()), **kept}
        connection.execute(update(import_batches).where(import_batches.c.id == batch_id).values(**values))
