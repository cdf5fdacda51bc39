"""`hotspots`: hot spots of a file of messages, written as a workbook, csv or JSON with the appeals behind each."""
from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from openpyxl import Workbook

from bot.catalogue import URGENCIES
from bot.gazetteer import Gazetteer, Place
from bot.hotspot_matters import load_wording
from bot.hotspot_places import HEAD
from bot.hotspots import Appeal, HotSpot, find_hot_spots
from bot.nlu.place_finder import PlaceFinder, load_place_finder
from bot.petition import mask
from bot.processes import spread
from bot.services import DATA_DIR, Services
from bot.tables import Row, Table, cell_text, encodable, harmless, open_table, replacing, xlsx_cell
from bot.ticket import CHINA

# What a column may be called; the first that is there is taken.
COLUMNS: Mapping[str, Sequence[str]] = {
    "text": ("text", "内容", "留言详情", "诉求内容", "诉求描述"),
    "at": ("received_at", "filed_at", "created_at", "at", "time", "时间", "留言时间", "受理时间", "来电时间", "诉求时间"),
    "id": ("id", "number", "ticket_number", "编号", "留言编号", "工单编号", "工单号"),
    "sender": ("sender", "user", "phone", "留言用户", "诉求人", "来电号码", "联系电话", "电话"),
    "urgency": ("urgency", "紧急程度"),
}
SPOT_HEADINGS = ("热度排名", "热度指数", "时间范围", "地点人群", "问题描述", "诉求件数", "不重复件数", "人数")
APPEAL_HEADINGS = ("热度排名", "编号", "时间", "诉求内容")
MOST_NAMED = 10  # rows named in one message

_TIME = re.compile(
    r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?(?:[T\s]*(\d{1,2})[:：时点](\d{1,2})分?(?:[:：]?(\d{1,2})(?:\.\d+)?秒?)?)?\s*(Z|[+-]\d\d:?\d\d)?"
)


class BadTime(ValueError):
    """A cell is no point in time."""


@dataclass(frozen=True)
class Report:
    """`appeals` that were compared; `problem`: one sentence about rows that were left out, or empty."""

    spots: list[HotSpot]
    appeals: int
    problem: str


def write_hot_spots(input: Path, output: Path, archive: Path, services: Services, *, top: int, processes: int) -> Report:
    """Raises ValueError with one sentence; `output` then stays as it was. Texts are written masked."""
    if output.suffix.lower() not in WRITERS:
        raise ValueError(f"{output.name}: write to .xlsx, .csv or .json")
    drafts, problem = _drafts(open_table(input), input.name)
    read = partial(_read_places, load_place_finder(archive), services.gazetteer)
    placed = spread(read, drafts, lambda draft: draft.text, processes=processes)
    appeals = [replace(draft, places=places) for draft, places in placed]
    spots = find_hot_spots(appeals, load_wording(DATA_DIR), top=top)
    with replacing(output) as part:
        WRITERS[output.suffix.lower()](part, spots)
    return Report(spots, len(appeals), problem)


# -- reading ----------------------------------------------------------------------------------------------------------------


def _drafts(table: Table, name: str) -> tuple[list[Appeal], str]:
    """The appeals of a file without their places, and a sentence on rows whose time cannot be read: they are left out."""
    keys = {part: next(filter(None, map(table.key, names)), None) for part, names in COLUMNS.items()}
    for part, meant in (("text", "text"), ("at", "received_at")):
        if keys[part] is None:
            raise ValueError(f"{name} has no column called {meant} (or {'、'.join(COLUMNS[part][1:])})")
    drafts: list[Appeal] = []
    bad: list[int] = []
    for number, row in table.open_rows():
        cells = {part: encodable(cell_text(row.get(key))).strip() for part, key in keys.items() if key is not None}
        if not cells["text"]:
            continue
        try:
            drafts.append(_draft(cells, read_time(row.get(keys["at"] or "")), number))
        except BadTime:
            bad.append(number)
    if not bad:
        return drafts, ""
    named = ", ".join(map(str, bad[:MOST_NAMED])) + (f" and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else "")
    problem = f"{name} row {named}: the time cannot be read (write it as 2026-11-20 09:30)"
    if not drafts:
        raise ValueError(problem)
    return drafts, f"{problem}; left out"


def _draft(cells: Mapping[str, str], at: datetime, number: int) -> Appeal:
    urgency = cells.get("urgency", "")
    return Appeal(
        id=cells.get("id") or str(number),
        at=at,
        text=cells["text"],
        sender=cells.get("sender") or None,
        urgency=urgency if urgency in URGENCIES else URGENCIES[0],
    )


def read_time(value: Any) -> datetime:
    """A cell of a table; without a time zone it is meant in China. Raises BadTime."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=CHINA)
    if isinstance(value, date):
        return datetime.combine(value, time(), CHINA)
    match = _TIME.fullmatch(cell_text(value).strip())
    if match is None:
        raise BadTime
    *numbers, zone = match.groups()
    try:
        return datetime(*(int(number or 0) for number in numbers), tzinfo=_zone(zone))  # type: ignore[misc,arg-type]
    except ValueError:
        raise BadTime from None


def _zone(written: str | None) -> timezone:
    if written is None:
        return CHINA
    if written == "Z":
        return timezone.utc
    hours, minutes = int(written[1:3]), int(written[-2:])
    return timezone((-1 if written[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes))


def _read_places(finder: PlaceFinder, gazetteer: Gazetteer, texts: list[str]) -> list[tuple[Place, ...]]:
    """The places that the opening of each text names, the scene first."""
    found = (sorted(finder.find(text[:HEAD]), key=lambda span: -float(span["weight"])) for text in texts)
    return [tuple(gazetteer.resolve(str(span["text"])) for span in spans) for spans in found]


# -- writing ----------------------------------------------------------------------------------------------------------------


def _cells(spot: HotSpot) -> list[Any]:
    return [spot.rank, spot.heat, _range(spot), spot.concerned, spot.description, len(spot.appeals), spot.distinct, spot.persons]


def _range(spot: HotSpot) -> str:
    first, last = _day(spot.first_at), _day(spot.last_at)
    return first if first == last else f"{first} 至 {last}"


def _day(at: datetime) -> str:
    return at.astimezone(CHINA).strftime("%Y-%m-%d")


def _appeal_rows(spot: HotSpot) -> Iterator[list[Any]]:
    for appeal in spot.appeals:
        yield [spot.rank, appeal.id, appeal.at.astimezone(CHINA).strftime("%Y-%m-%d %H:%M"), mask(appeal.text)]


def write_workbook(target: Any, spots: Sequence[HotSpot]) -> None:
    """Two sheets: the hot spots, and the appeals behind each. `target`: a path or an open binary file."""
    book = Workbook(write_only=True)
    rows = [row for spot in spots for row in _appeal_rows(spot)]
    _sheet(book, "热点", SPOT_HEADINGS, [_cells(spot) for spot in spots], widths=(10, 10, 26, 36, 60))
    _sheet(book, "诉求", APPEAL_HEADINGS, rows, widths=(10, 18, 18, 120))
    book.save(target)


def _sheet(book: Any, title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]], *, widths: Sequence[int]) -> None:
    sheet = book.create_sheet(title)
    sheet.freeze_panes = "A2"
    for column, width in zip("ABCDE", widths):
        sheet.column_dimensions[column].width = width
    for row in (headings, *rows):
        sheet.append([xlsx_cell(sheet, cell) for cell in row])


def _write_csv(path: Path, spots: Sequence[HotSpot]) -> None:
    """One line for each appeal, with its hot spot before it."""
    with open(path, "w", encoding="utf-8-sig", errors="replace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*SPOT_HEADINGS, *APPEAL_HEADINGS[1:]])
        for spot in spots:
            for row in _appeal_rows(spot):
                writer.writerow([harmless(cell_text(cell)) for cell in (*_cells(spot), *row[1:])])


def _write_json(path: Path, spots: Sequence[HotSpot]) -> None:
    path.write_text(json.dumps([as_dict(spot) for spot in spots], ensure_ascii=False, indent=1), encoding="utf-8", errors="replace")


def as_dict(spot: HotSpot) -> Row:
    return {
        "rank": spot.rank, "heat": spot.heat, "first_at": spot.first_at.isoformat(), "last_at": spot.last_at.isoformat(),
        "place": spot.place, "people": spot.people, "description": spot.description,
        "count": len(spot.appeals), "distinct": spot.distinct, "persons": spot.persons,
        "appeals": [{"id": a.id, "at": a.at.isoformat(), "text": mask(a.text)} for a in spot.appeals],
    }  # fmt: skip


WRITERS: dict[str, Callable[[Path, Sequence[HotSpot]], None]] = {".xlsx": write_workbook, ".csv": _write_csv, ".json": _write_json}
