"""Work orders in a table: what its columns and labels are meant to be, and each row as an order or as a problem. Pure.

Texts are masked here, before anything else sees them; a problem names the row and never quotes its text.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from bot.annotations import CATEGORY, REQUEST_TYPE, URGENCY, Labels
from bot.catalogue import REQUEST_TYPES, URGENCIES, Catalogue
from bot.db import iso
from bot.petition import mask
from bot.tables import Row, Table, cell_text, encodable
from bot.ticket import CHINA

TEXT, CODE, LOCATION, TIME, NUMBER = "text", "category_code", "location", "time", "number"
ROLES = {
    TEXT: "诉求内容",
    CATEGORY: "类别名称",
    CODE: "类别编码",
    REQUEST_TYPE: "诉求类型",
    URGENCY: "紧急程度",
    LOCATION: "地点",
    TIME: "时间",
    NUMBER: "工单编号",
}
LABELLED = (CATEGORY, CODE, REQUEST_TYPE, URGENCY)  # roles whose cells are labels
FIELD_NAMES = {CATEGORY: "类别", REQUEST_TYPE: "诉求类型", URGENCY: "紧急程度"}
LEAVE_OUT = ""  # what a foreign label means that is not to be learned
ORDER = "order"  # key of labels for what is known of the order itself: number and time
MAX_TEXT = 20_000


@dataclass(frozen=True)
class Plan:
    """`columns`: key in a row of the table → role; several columns of one role are read together, in their order."""

    columns: Mapping[str, str]
    keep_twins: bool = False  # also import what all but repeats another text with the same label

    def keys(self, role: str) -> list[str]:
        return [key for key, meant in self.columns.items() if meant == role]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Order:
    row: int
    text: str  # masked
    labels: Labels
    number: str
    at: datetime | None
    unplaced: bool = False  # the place is not written in the text, so no span is known
    left_out: bool = False  # every label it has is one that is not to be learned


@dataclass(frozen=True)
class Problem:
    row: int
    sentence: str
    unknown: tuple[str, str] | None = None  # field and label that nobody has explained
    text: str = ""  # masked, beside an unknown label only: what the label is about


class _UnknownLabel(ValueError):
    def __init__(self, name: str, label: str, text: str) -> None:
        super().__init__(f"{FIELD_NAMES[name]}“{mask(label)[:40]}”不认识，请先对应到本系统的名称")
        self.unknown, self.text = (name, label), text


@dataclass(frozen=True)
class Meanings:
    """What a city's own labels mean: the catalogue's names and codes, and what people said of the others."""

    catalogue: Catalogue
    told: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (field, label) → meaning or LEAVE_OUT
    names: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", category_names(self.catalogue))

    def find(self, name: str, label: str) -> str | None:
        """The meaning of a label of this field, LEAVE_OUT, or None when nobody knows."""
        if name == CATEGORY:
            known = self.names.get(_path(label))
        else:
            known = label if label in (REQUEST_TYPES if name == REQUEST_TYPE else URGENCIES) else None
        return known if known is not None else self.told.get((name, label))


def strict_plan(table: Table) -> Plan:
    """Columns called exactly as the roles are. Raises ValueError without a text or without any label."""
    columns = {key: role for role in (TEXT, CODE, CATEGORY, REQUEST_TYPE, URGENCY, LOCATION) if (key := table.key(role)) is not None}
    roles = set(columns.values())
    if TEXT not in roles:
        raise ValueError("there is no column or key called text")
    if len(roles) == 1:
        raise ValueError(f"there is no label: expected a column of {', '.join((CODE, CATEGORY, REQUEST_TYPE, URGENCY, LOCATION))}")
    return Plan(columns)


def read_orders(
    rows: Iterable[tuple[int, Row]], plan: Plan, meanings: Meanings, *, labelled: bool = True
) -> Iterator[Order | Problem]:
    """In the order of the rows. Not `labelled`: labels are neither read nor missed."""
    for number, row in rows:
        cells = {role: _cell(row, plan, role) for role in ROLES}
        try:
            yield _order(number, cells, meanings, labelled=labelled)
        except _UnknownLabel as error:
            yield Problem(number, str(error), error.unknown, error.text)
        except ValueError as error:
            yield Problem(number, str(error))


def _cell(row: Mapping[str, Any], plan: Plan, role: str) -> str:
    parts = (encodable(cell_text(row.get(key))).strip() for key in plan.keys(role))
    return (">" if role == CATEGORY else "\n").join(filter(None, parts))


def _order(number: int, cells: Mapping[str, str], meanings: Meanings, *, labelled: bool) -> Order:
    text = cells[TEXT]
    if not text:
        raise ValueError("没有诉求内容")
    if len(text) > MAX_TEXT:
        raise ValueError(f"诉求内容超过 {MAX_TEXT} 字")
    labels: Labels = {}
    text, left_out = mask(text), False
    for name, label in _given(cells) if labelled else ():
        meaning = meanings.find(name, label)
        if meaning is None:
            raise _UnknownLabel(name, label, text)
        left_out |= meaning == LEAVE_OUT
        if meaning != LEAVE_OUT:
            labels[name] = meaning
    place = mask(cells[LOCATION])
    start = text.find(place) if place else -1
    if start >= 0 and labelled:
        labels["places"] = [[start, start + len(place)]]
    if labelled and not labels and not left_out:
        raise ValueError("地点没有写在诉求内容里，也没有别的标签" if place else "没有任何标签")
    at = parse_time(cells[TIME])
    if known := {key: value for key, value in (("number", cells[NUMBER][:60]), ("at", at and iso(at))) if value}:
        labels[ORDER] = known
    learned = labels.keys() - {ORDER}
    return Order(number, text, labels, cells[NUMBER][:60], at, bool(place) and start < 0, labelled and not learned)


def _given(cells: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(field, label as written); a code is surer than a name."""
    if category := cells[CODE] or cells[CATEGORY]:
        yield CATEGORY, category
    for name in (REQUEST_TYPE, URGENCY):
        if cells[name]:
            yield name, cells[name]


def category_names(catalogue: Catalogue) -> dict[str, str]:
    """Codes, their prefixes, `一级>二级>三级` cut after any level, and names that only one class has → code or prefix."""
    codes: dict[str, str] = {}
    alone: dict[str, set[str]] = {}
    for category in catalogue.categories.values():
        for level in (1, 2, 3):
            code, name = category.code[: 2 * level], category.path[level - 1]
            codes[code] = code
            codes.setdefault(">".join(category.path[:level]), code)
            alone.setdefault(name, set()).add(code)
    for name, named in alone.items():
        shortest = min(named, key=len)
        if all(code.startswith(shortest) for code in named):
            codes.setdefault(name, shortest)
    return codes


def _path(label: str) -> str:
    """As the catalogue writes it: levels divided by >, a code with the leading zero that spreadsheets drop."""
    if label.isascii() and label.isdigit():
        return label.zfill(len(label) + len(label) % 2)
    return ">".join(part.strip() for part in re.split(r"[>＞/／]|-{2,}|—", label) if part.strip())


_TIMES = re.compile(r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?(?:[T\s]*(\d{1,2})[:：时](\d{1,2})(?:[:：分](\d{1,2}))?)?")


def parse_time(text: str) -> datetime | None:
    """The moment a cell names, China's time where no zone is written; None when it names none."""
    match = _TIMES.search(text)
    if not match:
        return None
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=CHINA)
    except ValueError:
        return None
