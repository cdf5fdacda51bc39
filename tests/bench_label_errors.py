"""How many wrong labels are found: flips a share of a labelled file's labels and looks for them.

    python -m tests.bench_label_errors train.csv [--flip 0.05] [--seed 1]

The file has the columns text,label (names of first-level classes, or anything else). Prints precision and recall of what is called
likely, of the beginning of the list, and of all that is suspected. Labels that were wrong before count against precision.
"""
from __future__ import annotations

import argparse
import json
import random
import resource
import time
from pathlib import Path
from typing import Any

from bot.label_errors import LIKELY, MODEL, TWINS, Labelled, find_suspects
from bot.tables import open_table


def read(path: Path) -> list[Labelled]:
    table = open_table(path)
    text, label = table.key("text"), table.key("label")
    if text is None or label is None:
        raise SystemExit(f"{path.name} needs the columns text,label")
    rows = [(str(row[text]), str(row[label])) for _, row in table.open_rows()]
    codes = {name: f"{number:02d}" for number, name in enumerate(sorted({name for _, name in rows}), 1)}
    return [Labelled(str(number), said, codes[name]) for number, (said, name) in enumerate(rows)]


def flipped(rows: list[Labelled], share: float, seed: int) -> tuple[list[Labelled], dict[int, str]]:
    """The rows with some labels exchanged for another class at random; number → the label before."""
    chance = random.Random(seed)
    classes = sorted({row.category for row in rows})
    wrong = {number: rows[number].category for number in chance.sample(range(len(rows)), round(share * len(rows)))}
    given = [
        Labelled(row.digest, row.text, chance.choice([one for one in classes if one != row.category]) if number in wrong else row.category)
        for number, row in enumerate(rows)
    ]
    return given, wrong


def measure(rows: list[Labelled], share: float, seed: int) -> dict[str, Any]:
    given, wrong = flipped(rows, share, seed)
    started, cpu = time.perf_counter(), time.process_time()
    found = find_suspects(given)
    hits = [suspect.number in wrong for suspect in found]
    return {
        "rows": len(rows),
        "flipped": len(wrong),
        "likely": _shares([hit for hit, suspect in zip(hits, found, strict=True) if suspect.score >= LIKELY], len(wrong)),
        "first_as_many_as_flipped": _shares(hits[: len(wrong)], len(wrong)),
        "first_twice_as_many": _shares(hits[: 2 * len(wrong)], len(wrong)),
        "all_suspected": _shares(hits, len(wrong)),
        "right_suggestions": round(sum(wrong.get(s.number) == s.suggested for s in found) / max(1, sum(hits)), 3),
        "by_kind": {kind: sum(suspect.kind == kind for suspect in found) for kind in (MODEL, TWINS)},
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _shares(hits: list[bool], wrong: int) -> dict[str, float]:
    return {"rows": len(hits), "precision": round(sum(hits) / max(1, len(hits)), 3), "recall": round(sum(hits) / max(1, wrong), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--flip", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(measure(read(options.file), options.flip, options.seed), ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
