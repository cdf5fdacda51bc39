"""Files of messages: `classify` adds the parse to every row, `import` takes in labelled work orders.

csv, xlsx and jsonl, by suffix. A file is looked through once before anything is written, so that an unreadable file changes
nothing; rows are then streamed, so that 100,000 of them fit in little memory.
"""
from __future__ import annotations

import codecs
import contextlib
import csv
import json
import logging
import os
import re
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from datetime import time as clock_time
from pathlib import Path
from typing import Any

from openpyxl import Workbook, load_workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.utils.exceptions import InvalidFileException

from bot import db
from bot.assistant import Assistant
from bot.catalogue import REQUEST_TYPES, URGENCIES, Catalogue
from bot.parse import parse_text, parse_turns
from bot.petition import mask
from bot.services import Services

logger = logging.getLogger(__name__)

TEXT, TURNS, PARSE = "text", "turns", "parse"
FLAT_COLUMNS = (
    "category_code", "category_1", "category_2", "category_3", "category_confidence", "request_type", "request_type_confidence",
    "urgency", "emergency", "location", "district", "evidence", "appeals", "model",
)  # fmt: skip
LABEL_COLUMNS = ("category_code", "category", "request_type", "urgency", "location")
PROGRESS_SECONDS = 2.0
MAX_CELL = 10_000_000
MAX_EXACT = 10**15  # a spreadsheet keeps 15 digits of a number: longer ones (order numbers) are written as text
INSERT_ROWS = 1000

_SPEAKER = re.compile(r"^\s*(坐席|座席|话务员|接线员|客服|市民|来电人|群众|agent|citizen)\s*[：:]\s*", re.IGNORECASE)
_AGENTS = frozenset({"坐席", "座席", "话务员", "接线员", "客服", "agent"})
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """An input file that was found readable. `headings`: key in a row → heading as written (two columns may share one)."""

    headings: Mapping[str, str]
    open_rows: Callable[[], Iterator[tuple[int, Row]]]

    def key(self, name: str) -> str | None:
        """The key of the column called `name`, whatever its case and the spaces around it."""
        return next((key for key, heading in self.headings.items() if heading.strip().lower() == name), None)


# -- classify -------------------------------------------------------------------------------------------------------------


def classify_file(input: Path, output: Path, assistant: Assistant, services: Services) -> int:
    """Rows written. Raises ValueError with one sentence; `output` then stays as it was."""
    if output.suffix.lower() not in _WRITERS:
        raise ValueError(f"{output.name}: write to .csv, .xlsx or .jsonl")
    table = open_table(input)
    text_key, turns_key = table.key(TEXT), table.key(TURNS)
    if text_key is None and turns_key is None:
        raise ValueError(f"{input.name} has no column or key called text or turns")
    count, progress = 0, _Progress(input.name)
    with _replacing(output) as part, _WRITERS[output.suffix.lower()](part, table) as write:
        for number, row in table.open_rows():
            try:
                parse = _parse_row(row.get(text_key or ""), row.get(turns_key or ""), assistant, services)
            except ValueError as error:
                parse = None
                print(f"{input.name} row {number}: {error}; left without a parse", file=sys.stderr)
            write(row, parse)
            count += 1
            progress.tell(count)
    return count


def _parse_row(text: Any, turns: Any, assistant: Assistant, services: Services) -> Mapping[str, Any] | None:
    """None for a row that says nothing. Raises ValueError when turns cannot be read."""
    read = _turns(turns) if turns not in (None, "") else []
    if any(turn["speaker"] == "citizen" and turn["text"].strip() for turn in read):
        return parse_turns(read, assistant, services.catalogue, services.gazetteer)
    said = _encodable(_cell_text(text))
    return parse_text(said, assistant, services.catalogue, services.gazetteer) if said.strip() else None


def _turns(value: Any) -> list[dict[str, str]]:
    """A list of {"speaker","text"}, that list as JSON, or lines such as `坐席：…` and `市民：…`."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError("turns is not valid JSON") from None
    if isinstance(value, str):
        return _turns_of_lines(value)
    if not isinstance(value, list) or not all(isinstance(turn, dict) and isinstance(turn.get("text"), str) for turn in value):
        raise ValueError('turns is not a list of {"speaker","text"}')
    return [{"speaker": _speaker(str(turn.get("speaker", ""))), "text": _encodable(turn["text"])} for turn in value]


def _turns_of_lines(text: str) -> list[dict[str, str]]:
    """A line without a speaker goes on with the turn before it; the first one then is the citizen's."""
    turns: list[dict[str, str]] = []
    for line in filter(str.strip, text.splitlines()):
        match = _SPEAKER.match(line)
        if match or not turns:
            said = line[match.end() :] if match else line
            turns.append({"speaker": _speaker(match.group(1)) if match else "citizen", "text": _encodable(said.strip())})
        else:
            turns[-1]["text"] += "\n" + _encodable(line.strip())
    return turns


def _speaker(name: str) -> str:
    return "agent" if name.strip().lower() in _AGENTS else "citizen"


def flat_columns(parse: Mapping[str, Any] | None) -> Row:
    """The parse as cells; all None without a parse."""
    if parse is None:
        return dict.fromkeys(FLAT_COLUMNS)
    best = parse["categories"][0]
    place = parse["locations"][parse["main_location"]] if parse["main_location"] is not None else {}
    cells = (
        best["code"], *best["path"], best["confidence"], parse["request_type"]["name"], parse["request_type"]["confidence"],
        parse["urgency"]["level"], parse["urgency"]["emergency"], place.get("text"), place.get("district"),
        "；".join(span["text"] for span in parse["evidence"]), len(parse["parts"]), parse["model"],
    )  # fmt: skip
    return dict(zip(FLAT_COLUMNS, cells, strict=True))


class _Progress:
    """One line on standard error every two seconds, so that short runs stay silent."""

    def __init__(self, name: str) -> None:
        self._name, self._started = name, time.monotonic()
        self._told = self._started

    def tell(self, count: int) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            print(f"{self._name}: {count} rows, {count / (now - self._started):.0f} rows/s", file=sys.stderr, flush=True)


# -- writing --------------------------------------------------------------------------------------------------------------

Write = Callable[[Row, Mapping[str, Any] | None], None]


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
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
def _write_jsonl(path: Path, _table: Table) -> Iterator[Write]:
    with open(path, "w", encoding="utf-8", errors="replace") as file:

        def write(row: Row, parse: Mapping[str, Any] | None) -> None:
            file.write(json.dumps({**row, PARSE: parse}, ensure_ascii=False, default=_cell_text) + "\n")

        yield write


@contextlib.contextmanager
def _write_csv(path: Path, table: Table) -> Iterator[Write]:
    # With a byte order mark, because without one Excel takes Chinese for another encoding.
    with open(path, "w", encoding="utf-8-sig", errors="replace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([_harmless(heading) for heading in _all_headings(table)])

        def write(row: Row, parse: Mapping[str, Any] | None) -> None:
            cells = [*(row.get(key) for key in table.headings), *flat_columns(parse).values()]
            writer.writerow([_harmless(_cell_text(cell)) for cell in cells])

        yield write


@contextlib.contextmanager
def _write_xlsx(path: Path, table: Table) -> Iterator[Write]:
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append([_xlsx_cell(sheet, heading) for heading in _all_headings(table)])

    def write(row: Row, parse: Mapping[str, Any] | None) -> None:
        cells = [*(row.get(key) for key in table.headings), *flat_columns(parse).values()]
        sheet.append([_xlsx_cell(sheet, cell) for cell in cells])

    try:
        yield write
    finally:  # also on the way out of an error: openpyxl keeps the rows in a temporary file until it saves
        book.save(path)


_WRITERS: dict[str, Callable[[Path, Table], contextlib.AbstractContextManager[Write]]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".xlsx": _write_xlsx,
}


def _all_headings(table: Table) -> list[str]:
    """Input headings, then ours; a column of the input (a label given by people) is never overwritten by one of ours."""
    taken = {heading.strip() for heading in table.headings.values()}
    return [*table.headings.values(), *(f"parse_{name}" if name in taken else name for name in FLAT_COLUMNS)]


def _harmless(cell: str) -> str:
    """A csv cell that no spreadsheet takes for a formula; numbers stay numbers."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not _PLAIN_NUMBER.fullmatch(cell) else cell


def _xlsx_cell(sheet: Any, value: Any) -> Any:
    if value is None or isinstance(value, (bool, float, date, clock_time)) or isinstance(value, int) and abs(value) < MAX_EXACT:
        return value
    text = ILLEGAL_CHARACTERS_RE.sub("", _encodable(_cell_text(value)))
    if not text.startswith(("=", "+", "-", "@")):
        return text
    cell = WriteOnlyCell(sheet, text)
    cell.data_type, cell.quotePrefix = "s", True  # text, and it stays text when somebody edits the cell
    return cell


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (date, clock_time)):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def _encodable(text: str) -> str:
    """JSON can carry half of a surrogate pair, which no file can."""
    return text.encode("utf-8", "replace").decode("utf-8")


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
        delimiter = max(",;\t", key=file.readline().count)

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
        except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError):
            raise ValueError(f"{path.name} is not a readable xlsx workbook") from None
        with contextlib.closing(book):
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # some programs write wrong ones, and rows would be lost
            for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
                if any(cell is not None for cell in cells):
                    yield number, list(cells)

    return _table_of(path, records)


def _table_of(path: Path, records: Callable[[], Iterator[tuple[int, list[Any]]]]) -> Table:
    """A table whose first record is the heading; cells beyond it get columns without a heading."""
    everything = records()
    _, heading = next(everything, (0, None))
    if heading is None:
        raise ValueError(f"{path.name} is empty")
    width = max((len(record) for _, record in everything), default=0)
    headings: dict[str, str] = {}
    for title in [*map(_cell_text, heading), *[""] * (width - len(heading))]:
        key = next(key for key in _numbered(title) if key not in headings)
        headings[key] = title

    def rows() -> Iterator[tuple[int, Row]]:
        inside = records()
        next(inside)
        for number, record in inside:
            yield number, dict(zip(headings, [*record, *[None] * (len(headings) - len(record))], strict=True))

    return Table(headings, rows)


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

    headings = {key: key for _, row in rows() for key in row if key != PARSE}
    return Table(headings, rows)


def _json_object(line: str, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"{path.name} line {number} is not a JSON object")
    return row


_READERS: dict[str, Callable[[Path], Table]] = {".csv": _open_csv, ".xlsx": _open_xlsx, ".jsonl": _open_jsonl}


# -- import ---------------------------------------------------------------------------------------------------------------


def import_file(path: Path, services: Services) -> tuple[int, list[str]]:
    """Labelled work orders into `annotation`: (rows imported, one line for each refused row).

    All good rows in one transaction. Texts are masked, then sealed. `labels` is JSON with the keys of bot.nlu.corpus:
    `category` (a code, or the prefix of a higher level), `request_type`, `urgency`, `places` (offsets into the masked text).
    Raises ValueError when the file cannot be read; nothing is imported then.
    """
    table = open_table(path)
    keys = {name: key for name in (TEXT, *LABEL_COLUMNS) if (key := table.key(name)) is not None}
    if TEXT not in keys:
        raise ValueError(f"{path.name} has no column or key called text")
    if len(keys) == 1:
        raise ValueError(f"{path.name} has no label: expected a column of {', '.join(LABEL_COLUMNS)}")
    codes = _category_names(services.catalogue)
    good: list[Row] = []
    problems: list[str] = []
    unplaced = 0
    for number, row in table.open_rows():
        cells = {name: _encodable(_cell_text(row.get(key))).strip() for name, key in keys.items()}
        try:
            labels = _labels(cells, codes)
        except ValueError as error:
            problems.append(f"{path.name} row {number}: {error}")
            continue
        unplaced += bool(cells.get("location")) and "places" not in labels
        good.append(_annotation(mask(cells[TEXT]), labels, path.name, services))
    table_of_labels = db.annotation_rows
    with db.transaction(services.engine) as connection:
        for start in range(0, len(good), INSERT_ROWS):
            connection.execute(table_of_labels.insert(), good[start : start + INSERT_ROWS])
    if unplaced:
        logger.warning("%d rows: the location is not written in the text, imported without it", unplaced)
    return len(good), problems


def _annotation(text: str, labels: Mapping[str, Any], file_name: str, services: Services) -> Row:
    return {
        "text": services.vault.seal(text),
        "labels": json.dumps(labels, ensure_ascii=False),
        "author": "import",
        "source": f"import:{file_name}"[:40],
        "at": db.iso(services.now()),
        "weight": 1.0,
    }


def _labels(cells: Mapping[str, str], codes: Mapping[str, str]) -> dict[str, Any]:
    """Raises ValueError saying what is wrong with the row, without quoting its text."""
    if not cells[TEXT]:
        raise ValueError("the text is empty")
    labels: dict[str, Any] = {}
    for name in ("category_code", "category"):
        if cells.get(name) and "category" not in labels:
            labels["category"] = _category(cells[name], codes)
    for name, allowed in (("request_type", REQUEST_TYPES), ("urgency", URGENCIES)):
        if cells.get(name):
            if cells[name] not in allowed:
                raise ValueError(f"{name} must be one of {'、'.join(allowed)}, not {cells[name][:20]!r}")
            labels[name] = cells[name]
    location = cells.get("location", "")
    start = mask(cells[TEXT]).find(location) if location else -1
    if start >= 0:
        labels["places"] = [[start, start + len(location)]]
    if not labels:
        raise ValueError("the location is not written in the text and there is no other label" if location else "no label is given")
    return labels


def _category_names(catalogue: Catalogue) -> dict[str, str]:
    """Codes and their prefixes, and `一级>二级>三级` cut after any level → the code or prefix meant."""
    codes: dict[str, str] = {}
    for category in catalogue.categories.values():
        for level in (1, 2, 3):
            code = category.code[: 2 * level]
            codes[code] = code
            codes.setdefault(">".join(category.path[:level]), code)
    return codes


def _category(name: str, codes: Mapping[str, str]) -> str:
    if name.isascii() and name.isdigit():
        name = name.zfill(len(name) + len(name) % 2)  # spreadsheets drop a leading zero
    wanted = ">".join(part.strip() for part in re.split(r"[>＞/／]", name))
    if wanted not in codes:
        raise ValueError(f"there is no category {name[:40]!r}")
    return codes[wanted]
