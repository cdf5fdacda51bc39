"""Measures the serving model on labelled messages.

Changes nothing. Reports carry ids, labels and offsets, never the text of a message.
"""
from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from bot.assistant import Assistant
from bot.call_evaluation import evaluate_calls
from bot.parse import build_parse
from bot.services import Services
from bot.tables import open_table

MAX_MISTAKES = 30
ECE_BINS = 10
RANDOM_SPANS = 5
Span = tuple[int, int]


@dataclass(frozen=True)
class Judged:
    """One gold row beside what the model read."""

    id: str
    gold: Mapping[str, Any]
    text: str
    parse: Mapping[str, Any]
    deletion: bool | None  # the first evidence carries more than random spans do; None where the text is one span

    def labels(self, task: str) -> list[Any]:
        """Every label given by anybody; each of them is right. Empty: this row has none for the task."""
        value = self.gold.get(task, [])
        return value if isinstance(value, list) else [value]


def evaluate_file(gold: Path, assistant: Assistant, services: Services) -> dict[str, Any]:
    """Scores between 0 and 1, flat (None where the file has no labels for it), and `mistakes`: the first 30 of each task.

    A file of calls (rows with `turns`) is measured by their drafts (bot.call_evaluation).
    Macro-F1 is the mean over every label that was given or predicted. Raises ValueError when the file cannot be used.
    """
    table = list(open_table(gold).open_rows())
    if table and table[0][1].get("turns"):
        return evaluate_calls([(str(row.get("id", number)), row) for number, row in table], assistant, services)
    rows: list[Judged] = []
    started = time.perf_counter()
    for number, row in table:
        if not isinstance(row.get("text"), str) or not row["text"].strip():
            raise ValueError(f"{gold.name} line {number} has no text")
        rows.append(_judge(str(row.get("id", number)), row, assistant, services))
    if not rows:
        raise ValueError(f"{gold.name} has no rows")
    seconds = time.perf_counter() - started
    report: dict[str, Any] = {"rows": len(rows), "model": assistant.serving_model(), "seconds_per_row": round(seconds / len(rows), 5)}
    mistakes: dict[str, list[dict[str, Any]]] = {}
    for task, predict in _LABEL_TASKS.items():
        report.update(_score_labels(rows, task, predict, mistakes))
    report.update(_score_category_ranks(rows))
    told = [row.deletion for row in rows if row.deletion is not None]
    report["evidence_deletion"] = _share(sum(told), len(told))
    report.update(_score_emergencies(rows))
    report.update(_score_places(rows, mistakes))
    report["mistakes"] = {task: found[:MAX_MISTAKES] for task, found in mistakes.items()}
    return report


def _judge(name: str, gold: Mapping[str, Any], assistant: Assistant, services: Services) -> Judged:
    data = assistant.parse(gold["text"])
    matter = services.catalogue.find_matter(gold["text"])
    parse = build_parse(gold["text"], data, assistant.serving_model(), services.catalogue, services.gazetteer, matter)
    return Judged(name, gold, gold["text"], parse, _evidence_carries(parse, data["reading"], assistant, random.Random(name)))


def _evidence_carries(parse: Mapping[str, Any], reading: Mapping[str, Any], assistant: Assistant, chance: random.Random) -> bool | None:
    """Whether the message is taken less surely for its first-level category without the first evidence than, in the mean,
    without random spans of that length. No evidence carries nothing; None where there is no other span to compare with."""
    text = parse["text"]
    if not parse["evidence"]:
        return False
    start, end = parse["evidence"][0]["start"], parse["evidence"][0]["end"]
    others = [at for at in range(len(text) - (end - start) + 1) if at >= end or at + end - start <= start]
    if not others:
        return None
    top = reading["categories"][0]["code"][:2]

    def without(at: int) -> float:
        read = assistant.parse(text[:at] + text[at + end - start :])["reading"]["categories"]
        return max((float(leaf["confidence"]) for leaf in read if leaf["code"][:2] == top), default=0.0)

    drawn = chance.sample(others, min(RANDOM_SPANS, len(others)))
    return without(start) < sum(map(without, drawn)) / len(drawn)


def _district(row: Judged) -> str | None:
    main = row.parse["main_location"]
    return row.parse["locations"][main]["district"] if main is not None else None


_LABEL_TASKS: dict[str, Callable[[Judged], Any]] = {
    "category": lambda row: row.parse["categories"][0]["path"][0],
    "request_type": lambda row: row.parse["request_type"]["name"],
    "urgency": lambda row: row.parse["urgency"]["level"],
    "emergency": lambda row: row.parse["urgency"]["emergency"],
    "district": _district,
    "appeals": lambda row: len(row.parse["parts"]),
}
_WITH_F1 = ("category", "request_type", "urgency")


def _score_labels(
    rows: Sequence[Judged], task: str, predict: Callable[[Judged], Any], mistakes: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    pairs = []
    for row in rows:
        right = row.labels(task)
        if not right:
            continue
        predicted = predict(row)
        pairs.append((predicted if predicted in right else right[0], predicted))
        if predicted not in right:
            mistakes.setdefault(task, []).append({"id": row.id, "gold": right, "predicted": predicted})
    if not pairs:
        return {f"{task}_accuracy": None, **({f"{task}_macro_f1": None} if task in _WITH_F1 else {})}
    truth, found = zip(*pairs, strict=True)
    scores = {f"{task}_accuracy": _share(sum(t == p for t, p in pairs), len(pairs))}
    if task in _WITH_F1:
        scores[f"{task}_macro_f1"] = round(float(f1_score(truth, found, average="macro", zero_division=0)), 4)
    return scores


def _score_category_ranks(rows: Sequence[Judged]) -> dict[str, float | None]:
    """What the first three entries hold, and how far the confidence of the first is from being right about the first level."""
    labelled = [row for row in rows if row.labels("category")]
    found = [[entry["path"][0] in row.labels("category") for entry in row.parse["categories"]] for row in labelled]
    confidences = [float(row.parse["categories"][0]["confidence"]) for row in labelled]
    return {
        "category_top3_accuracy": _share(sum(any(right[:3]) for right in found), len(found)),
        "category_ece": calibration_error(confidences, [right[0] for right in found]) if found else None,
    }


def _score_emergencies(rows: Sequence[Judged]) -> dict[str, float | None]:
    """Recall over what everybody called an emergency, false alarms over what nobody did."""
    labelled = [(row.labels("emergency"), bool(row.parse["urgency"]["emergency"])) for row in rows]
    real = [rung for labels, rung in labelled if labels and all(labels)]
    quiet = [rung for labels, rung in labelled if labels and not any(labels)]
    return {"emergency_recall": _share(sum(real), len(real)), "emergency_false_alarms": _share(sum(quiet), len(quiet))}


def _score_places(rows: Sequence[Judged], mistakes: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """Spans are compared as text, once each; of several annotators the one nearest to the model counts."""
    hits = found = wanted = 0
    for row in rows:
        if "locations" not in row.gold:
            continue
        predicted = {place["text"] for place in row.parse["locations"]}
        nearest = max(_place_sets(row.gold["locations"]), key=lambda given: _f1(len(given & predicted), len(predicted), len(given)))
        hits, found, wanted = hits + len(nearest & predicted), found + len(predicted), wanted + len(nearest)
        if nearest != predicted:
            spans = {"gold": _offsets(nearest, row.text), "predicted": _offsets(predicted, row.text)}
            mistakes.setdefault("locations", []).append({"id": row.id, **spans})
    scores = {
        "location_precision": _share(hits, found),
        "location_recall": _share(hits, wanted),
        "location_f1": round(_f1(hits, found, wanted), 4) if wanted else None,
    }
    return {**scores, **_score_main_places(rows, mistakes)}


def _score_main_places(rows: Sequence[Judged], mistakes: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """`main_location_*` over all rows (no place is right where there is none), `…_named` over rows where everybody names one."""
    scores: list[tuple[bool, bool, bool]] = []  # exact, overlapping, named by everybody
    for row in rows:
        if "main_location" not in row.gold:
            continue
        right, predicted = row.labels("main_location"), _main(row)
        exact = predicted in right
        scores.append((exact, exact or any(_overlap(label, row, predicted) for label in right), all(right)))
        if not exact:
            spans = {"gold": _offsets(filter(None, right), row.text), "predicted": _offsets(filter(None, [predicted]), row.text)}
            mistakes.setdefault("main_location", []).append({"id": row.id, **spans})
    named = [score for score in scores if score[2]]
    return {
        "main_location_exact": _share(sum(exact for exact, _, _ in scores), len(scores)),
        "main_location_overlap": _share(sum(overlap for _, overlap, _ in scores), len(scores)),
        "main_location_exact_named": _share(sum(exact for exact, _, _ in named), len(named)),
        "main_location_overlap_named": _share(sum(overlap for _, overlap, _ in named), len(named)),
    }


def _main(row: Judged) -> str | None:
    number = row.parse["main_location"]
    return str(row.parse["locations"][number]["text"]) if number is not None else None


def _overlap(label: str | None, row: Judged, predicted: str | None) -> bool:
    if not label or not predicted:
        return False
    here = row.parse["locations"][row.parse["main_location"]]
    return any(start < here["end"] and here["start"] < end for start, end in _occurrences(label, row.text))


def _place_sets(value: Sequence[Any]) -> list[set[str]]:
    """One set for each annotator, from a list of lists or from one plain list."""
    if value and all(isinstance(given, list) for given in value):
        return [set(given) for given in value]
    return [set(value)]


def _occurrences(piece: str, text: str) -> Iterator[Span]:
    start = text.find(piece)
    while start >= 0:
        yield start, start + len(piece)
        start = text.find(piece, start + 1)


def _offsets(pieces: Iterable[str], text: str) -> list[Span]:
    return sorted({next(_occurrences(piece, text), (-1, -1)) for piece in pieces})


def _f1(hits: int, found: int, wanted: int) -> float:
    return 2 * hits / (found + wanted) if found + wanted else 1.0


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error over ten equal bins of confidence."""
    confidence, correct = np.array(confidences, float), np.array(right, float)
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [abs(confidence[bins == n].sum() - correct[bins == n].sum()) for n in range(ECE_BINS)]
    return round(float(sum(gaps) / len(confidence)), 4)
