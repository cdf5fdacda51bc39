"""`import`: labelled work orders of a city become annotations, all good rows at once; a bad row is named and refused."""
from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bot import db, staff_schema
from bot.catalogue import REQUEST_TYPES, URGENCIES, Catalogue
from bot.petition import mask
from bot.services import Services
from bot.tables import Row, cell_text, encodable, open_table

logger = logging.getLogger(__name__)

TEXT = "text"
LABEL_COLUMNS = ("category_code", "category", "request_type", "urgency", "location")
INSERT_ROWS = 1000


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
        cells = {name: encodable(cell_text(row.get(key))).strip() for name, key in keys.items()}
        try:
            labels = _labels(cells, codes)
        except ValueError as error:
            problems.append(f"{path.name} row {number}: {error}")
            continue
        unplaced += bool(cells.get("location")) and "places" not in labels
        good.append(_annotation(mask(cells[TEXT]), labels, path.name, services))
    table_of_labels = staff_schema.annotation_rows
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
