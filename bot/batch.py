"""`classify`: the parse of every row of a file, on as many cores as there are."""
from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bot.assistant import Assistant
from bot.parse import parse_text, parse_turns
from bot.processes import spread
from bot.services import Services
from bot.tables import WRITERS, Row, Table, cell_text, encodable, open_table, replacing
from bot.transcripts import turns_of

TEXT, TURNS = "text", "turns"
PROGRESS_SECONDS = 2.0

Parsed = tuple[Mapping[str, Any] | None, str | None]


def classify_file(input: Path, output: Path, assistant: Assistant, services: Services, *, processes: int = 1) -> int:
    """Rows written, in the order of the input. Raises ValueError with one sentence; `output` then stays as it was."""
    if output.suffix.lower() not in WRITERS:
        raise ValueError(f"{output.name}: write to .csv, .xlsx or .jsonl")
    table = open_table(input)
    check_columns(table, input.name)
    count, progress = 0, _Progress(input.name)
    with replacing(output) as part, WRITERS[output.suffix.lower()](part, table, services.tickets.lanes) as write:
        for number, row, (found, problem) in parsed_rows(table, table.open_rows(), assistant, services, processes=processes):
            if problem:
                print(f"{input.name} row {number}: {problem}; left without a parse", file=sys.stderr)
            write(row, found)
            count += 1
            progress.tell(count)
    return count


def check_columns(table: Table, name: str) -> None:
    """Raises ValueError when there is nothing to be read in this table."""
    if table.key(TEXT) is None and table.key(TURNS) is None:
        raise ValueError(f"{name} has no column or key called text or turns")


def parsed_rows(
    table: Table, rows: Iterable[tuple[int, Row]], assistant: Assistant, services: Services, *, processes: int
) -> Iterator[tuple[int, Row, Parsed]]:
    """Each of `rows` with its parse, or the sentence why it has none, in order."""
    text, turns = table.key(TEXT) or "", table.key(TURNS) or ""

    def cells(numbered: tuple[int, Row]) -> Cells:
        # Turns that are JSON already travel as text: a list nested too deep could not be sent.
        said = numbered[1].get(turns)
        return numbered[1].get(text), json.dumps(said, ensure_ascii=False) if isinstance(said, list) else said

    for (number, row), found in spread(partial(_parse_cells, assistant, services), rows, cells, processes=processes):
        yield number, row, found


Cells = tuple[Any, Any]  # what a row has of text and turns


def _parse_cells(assistant: Assistant, services: Services, cells: list[Cells]) -> list[Parsed]:
    """The parse of each row, or the sentence that says why it has none."""
    parsed: list[Parsed] = []
    for text, turns in cells:
        try:
            parsed.append((_parse_row(text, turns, assistant, services), None))
        except ValueError as error:
            parsed.append((None, str(error)))
    return parsed


def _parse_row(text: Any, turns: Any, assistant: Assistant, services: Services) -> Mapping[str, Any] | None:
    """None for a row that says nothing. Raises ValueError when turns cannot be read."""
    read = turns_of(turns) if turns not in (None, "") else []
    if any(turn["speaker"] == "citizen" and turn["text"].strip() for turn in read):
        return parse_turns(read, assistant, services.catalogue, services.gazetteer)
    said = encodable(cell_text(text))
    return parse_text(said, assistant, services.catalogue, services.gazetteer) if said.strip() else None


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
