"""Tables in files: csv, xlsx and jsonl, by suffix, read as rows and written as rows with the parse.

A file is looked through once before anything is written, so that an unreadable file changes nothing; rows are then streamed,
so that 100,000 of them fit in little memory.
"""
from __future__ import annotations

import codecs
import contextlib
import csv
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from datetime import time as clock_time
from pathlib import Path
from typing import Any

from openpyxl import Workbook, load_workbook
from openpyxl.cell import Cell, WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.styles import PatternFill
from openpyxl.utils.exceptions import InvalidFileException

from bot.petition import FILE, PERSON, SUGGEST, Lanes

PARSE = "parse"
FLAT_COLUMNS = (
    "category_code", "category_1", "category_2", "category_3", "category_confidence", "request_type", "request_type_confidence",
    "urgency", "emergency", "location", "district", "evidence", "appeals", "review", "model",
)  # fmt: skip
MAX_CELL = 10_000_000
MAX_XLSX_CELL = 32_767  # what a cell of a workbook holds
CUT = "……（太长，未写完）"
MAX_EXACT = 10**15  # a spreadsheet keeps 15 digits of a number: longer ones (order numbers) are written as text

# What openpyxl lets through when a workbook is cut off, overwritten or holds no sheet of cells; broken XML is a SyntaxError.
_BROKEN_WORKBOOK = (
    InvalidFileException, zipfile.BadZipFile, zlib.error, SyntaxError, EOFError, KeyError, IndexError, AttributeError, ValueError,
    OSError,
)  # fmt: skip
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """An input file that was found readable. `headings`: key in a row → heading as written (two columns may share one)."""

    headings: Mapping[str, str]
    open_rows: Callable[[], Iterator[tuple[int, Row]]]
    count: int  # of rows

    def key(self, name: str) -> str | None:
        """The key of the column called `name`, whatever its case and the spaces around it."""
        return next((key for key, heading in self.headings.items() if heading.strip().lower() == name), None)


# -- reading --------------------------------------------------------------------------------------------------------------


def open_table(path: Path) -> Table:
    """Looks through the whole file. Raises ValueError with one sentence when it cannot be read to its end."""
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"{path.name}: only .csv, .xlsx and .jsonl can be read")
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    return _READERS[path.suffix.lower()](path)


def _open_csv(path: Path) -> Table:
    encoding = _encoding_of(path)
    with open(path, encoding=encoding, newline="") as file:
        delimiter = max(",;\t", key=next(filter(str.strip, file), "").count)

    def records() -> Iterator[tuple[int, list[Any]]]:
        csv.field_size_limit(MAX_CELL)
        with open(path, encoding=encoding, newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            try:
                yield from ((number, record) for number, record in enumerate(reader, 1) if record)
            except csv.Error as error:
                raise ValueError(f"{path.name} line {reader.line_num}: {error}") from None

    return _table_of(path, records)


def _encoding_of(path: Path) -> str:
    for encoding in ("utf-8-sig", "gb18030"):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            with open(path, "rb") as file:
                for block in iter(lambda file=file: file.read(1 << 20), b""):  # type: ignore[misc]
                    decoder.decode(block)
            decoder.decode(b"", final=True)
            return encoding
        except UnicodeDecodeError:
            continue
    raise ValueError(f"{path.name} is neither UTF-8 nor GB18030 text")


def _open_xlsx(path: Path) -> Table:
    def records() -> Iterator[tuple[int, list[Any]]]:
        try:
            book = load_workbook(path, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # some programs write wrong ones, and rows would be lost
            rows = enumerate(sheet.iter_rows(values_only=True), 1)
        except _BROKEN_WORKBOOK:
            raise ValueError(f"{path.name} is not a readable xlsx workbook") from None
        with contextlib.closing(book):
            while True:
                try:
                    number, cells = next(rows)
                except StopIteration:
                    return
                except _BROKEN_WORKBOOK:
                    raise ValueError(f"{path.name} is damaged: not all of its rows can be read") from None
                if any(cell is not None for cell in cells):
                    yield number, list(cells)

    return _table_of(path, records)


def _table_of(path: Path, records: Callable[[], Iterator[tuple[int, list[Any]]]]) -> Table:
    """A table whose first record is the heading; cells beyond it get columns without a heading."""
    everything = records()
    _, heading = next(everything, (0, None))
    if heading is None:
        raise ValueError(f"{path.name} is empty")
    width = count = 0
    for _, record in everything:
        width, count = max(width, len(record)), count + 1
    headings: dict[str, str] = {}
    numbers: dict[str, Iterator[str]] = {}
    for title in [*map(cell_text, heading), *[""] * (width - len(heading))]:
        keys = numbers.setdefault(title, _numbered(title))
        headings[next(key for key in keys if key not in headings)] = title

    def rows() -> Iterator[tuple[int, Row]]:
        inside = records()
        next(inside)
        for number, record in inside:
            yield number, dict(zip(headings, [*record, *[None] * (len(headings) - len(record))], strict=True))

    return Table(headings, rows, count)


def _numbered(title: str) -> Iterator[str]:
    yield title
    number = 2
    while True:
        yield f"{title} ({number})"
        number += 1


def _open_jsonl(path: Path) -> Table:
    def rows() -> Iterator[tuple[int, Row]]:
        try:
            with open(path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, _json_object(line, path, number)
        except UnicodeDecodeError:
            raise ValueError(f"{path.name} is not UTF-8 text") from None

    headings: dict[str, str] = {}
    count = 0
    for _, row in rows():
        headings.update({key: key for key in row if key != PARSE})
        count += 1
    return Table(headings, rows, count)


def _json_object(line: str, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"{path.name} line {number} is not a JSON object")
    return row


_READERS: dict[str, Callable[[Path], Table]] = {".csv": _open_csv, ".xlsx": _open_xlsx, ".jsonl": _open_jsonl}


# -- writing --------------------------------------------------------------------------------------------------------------


def flat_columns(parse: Mapping[str, Any] | None, lanes: Lanes) -> Row:
    """The parse as cells; all None without a parse."""
    if parse is None:
        return dict.fromkeys(FLAT_COLUMNS)
    best = parse["categories"][0]
    place = parse["locations"][parse["main_location"]] if parse["main_location"] is not None else {}
    cells = (
        best["code"], *best["path"], best["confidence"], parse["request_type"]["name"], parse["request_type"]["confidence"],
        parse["urgency"]["level"], parse["urgency"]["emergency"], place.get("text"), place.get("district"),
        "；".join(span["text"] for span in parse["evidence"]), len(parse["parts"]), _review(parse, lanes), parse["model"],
    )  # fmt: skip
    return dict(zip(FLAT_COLUMNS, cells, strict=True))


REVIEW = {FILE: "", SUGGEST: "建议核对", PERSON: "必须核对"}
FILLS = {"建议核对": "FFF6CF", "必须核对": "FDE2DF"}


def _review(parse: Mapping[str, Any], lanes: Lanes) -> str:
    """Whether a person should look at the row, in words, by the confidence of the first level, as everywhere."""
    first = parse["categories"][0]["code"][:2]
    return REVIEW[lanes.lane(sum(item["confidence"] for item in parse["categories"] if item["code"][:2] == first))]


Write = Callable[[Row, Mapping[str, Any] | None], None]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when all went well; input and output may be the same file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _write_jsonl(path: Path, _table: Table, _lanes: Lanes) -> Iterator[Write]:
    with open(path, "w", encoding="utf-8", errors="replace") as file:

        def write(row: Row, parse: Mapping[str, Any] | None) -> None:
            file.write(json.dumps({**row, PARSE: parse}, ensure_ascii=False, default=cell_text) + "\n")

        yield write


@contextlib.contextmanager
def _write_csv(path: Path, table: Table, lanes: Lanes) -> Iterator[Write]:
    # With a byte order mark, because without one Excel takes Chinese for another encoding.
    with open(path, "w", encoding="utf-8-sig", errors="replace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([harmless(heading) for heading in _all_headings(table)])

        def write(row: Row, parse: Mapping[str, Any] | None) -> None:
            cells = [*(row.get(key) for key in table.headings), *flat_columns(parse, lanes).values()]
            writer.writerow([harmless(cell_text(cell)) for cell in cells])

        yield write


@contextlib.contextmanager
def _write_xlsx(path: Path, table: Table, lanes: Lanes) -> Iterator[Write]:
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.freeze_panes = "A2"
    sheet.append([xlsx_cell(sheet, heading) for heading in _all_headings(table)])

    def write(row: Row, parse: Mapping[str, Any] | None) -> None:
        ours = flat_columns(parse, lanes)
        cells = [xlsx_cell(sheet, cell) for cell in (*(row.get(key) for key in table.headings), *ours.values())]
        sheet.append(_filled(sheet, cells, FILLS[ours["review"]]) if ours["review"] else cells)

    try:
        yield write
    finally:  # also on the way out of an error: openpyxl keeps the rows in a temporary file until it saves
        book.save(path)


WRITERS: dict[str, Callable[[Path, Table, Lanes], contextlib.AbstractContextManager[Write]]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".xlsx": _write_xlsx,
}


def _all_headings(table: Table) -> list[str]:
    """Input headings, then ours; a column of the input (a label given by people) is never overwritten by one of ours."""
    taken = {heading.strip() for heading in table.headings.values()}
    return [*table.headings.values(), *(f"parse_{name}" if name in taken else name for name in FLAT_COLUMNS)]


def harmless(cell: str) -> str:
    """A csv cell that no spreadsheet takes for a formula; numbers stay numbers."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not _PLAIN_NUMBER.fullmatch(cell) else cell


def xlsx_cell(sheet: Any, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # a workbook has no number for it, and would hold nothing
    if value is None or isinstance(value, (bool, float, date, clock_time)) or isinstance(value, int) and abs(value) < MAX_EXACT:
        return value
    text = ILLEGAL_CHARACTERS_RE.sub("", encodable(cell_text(value)))
    if len(text) > MAX_XLSX_CELL:
        text = text[: MAX_XLSX_CELL - len(CUT)] + CUT
    if not text.startswith(("=", "+", "-", "@")):
        return text
    cell = WriteOnlyCell(sheet, text)
    cell.data_type, cell.quotePrefix = "s", True  # text, and it stays text when somebody edits the cell
    return cell


def _filled(sheet: Any, cells: Sequence[Any], colour: str) -> list[Any]:
    """The whole row in one colour, so that it is seen while scrolling."""
    filled = [cell if isinstance(cell, Cell) else WriteOnlyCell(sheet, cell) for cell in cells]
    for cell in filled:
        cell.fill = PatternFill("solid", start_color=colour)
    return filled


def cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (date, clock_time)):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def encodable(text: str) -> str:
    """JSON can carry half of a surrogate pair, which no file can."""
    return text.encode("utf-8", "replace").decode("utf-8")
