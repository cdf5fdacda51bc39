"""What two models read of the same frozen test items, as figures that people can compare. Pure; keeps ids and labels, never a text."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from bot.evaluation import ECE_BINS, calibration_error
from bot.frozen import MUST_PASS, SHIPPED, TEST, FrozenItem

MOST_EXAMPLES = 300
THRESHOLDS = tuple(round(step / 100, 2) for step in range(101))


@dataclass(frozen=True)
class Answer:
    """What one model read of one item; `milliseconds` is what it took."""

    category: str
    confidence: float
    request_type: str
    urgency: str
    emergency: bool
    intent: str
    milliseconds: float

    @property
    def first_level(self) -> str:
        return self.category[:2]


Examined = Sequence[tuple[FrozenItem, Answer]]


def build_report(
    items: Sequence[FrozenItem], candidate: Sequence[Answer], serving: Sequence[Answer] | None, names: Mapping[str, str]
) -> dict[str, Any]:
    """`names`: first-level code → what people call it. `serving` is None where no model serves yet."""
    return {
        "items": dict(Counter(item.kind for item in items)),
        "candidate": figures(list(zip(items, candidate, strict=True)), names),
        "serving": figures(list(zip(items, serving, strict=True)), names) if serving is not None else None,
        **(_changes(items, candidate, serving) if serving is not None else {"newly_right": [], "newly_wrong": []}),
    }


def figures(examined: Examined, names: Mapping[str, str]) -> dict[str, Any]:
    """Scores of one model between 0 and 1; None where no item has the label."""
    classed = [(item, answer) for item, answer in examined if item.kind == TEST and item.labels.get("category")]
    return {
        **_classes(classed, names),
        "calibration": _calibration(classed),
        "coverage": _coverage(classed),
        "by_source": _by_source(classed),
        "request_type": _agreement(examined, "request_type"),
        "urgency": _agreement(examined, "urgency"),
        "emergency": _emergencies(examined),
        "must_pass": _must_pass(examined),
        "latency": _latency([answer.milliseconds for _, answer in examined]),
    }


def truth_of(item: FrozenItem) -> str:
    return str(item.labels["category"])[:2]


def _classes(classed: Examined, names: Mapping[str, str]) -> dict[str, Any]:
    truth, said = [truth_of(item) for item, _ in classed], [answer.first_level for _, answer in classed]
    codes = sorted(set(truth))
    if not codes:
        return {"macro_f1": None, "accuracy": None, "per_class": {}, "confusion": {"codes": [], "names": [], "rows": []}}
    columns = precision_recall_fscore_support(truth, said, labels=codes, zero_division=0)
    per_class = {
        code: {"name": names.get(code, code), "precision": _round(p), "recall": _round(r), "f1": _round(f), "support": int(n)}
        for code, p, r, f, n in zip(codes, *columns, strict=True)
    }
    every = sorted({*truth, *said})
    matrix = confusion_matrix(truth, said, labels=every)
    confusion = {"codes": every, "names": [names.get(code, code) for code in every], "rows": matrix.tolist()}
    right = float(np.mean([t == s for t, s in zip(truth, said, strict=True)]))
    return {"macro_f1": _round(np.mean(columns[2])), "accuracy": _round(right), "per_class": per_class, "confusion": confusion}


def _calibration(classed: Examined) -> dict[str, Any]:
    """How far "80 % sure" means right in 80 of 100, in ten steps of confidence."""
    if not classed:
        return {"ece": None, "bins": []}
    sure = np.array([answer.confidence for _, answer in classed])
    right = np.array([truth_of(item) == answer.first_level for item, answer in classed])
    steps = np.minimum((sure * ECE_BINS).astype(int), ECE_BINS - 1)
    bins = []
    for number in np.unique(steps).tolist():
        here = steps == number
        means = {"sure": _round(sure[here].mean()), "right": _round(right[here].mean())}
        bins.append({"from": number / ECE_BINS, "count": int(here.sum()), **means})
    return {"ece": calibration_error(sure.tolist(), right.tolist()), "bins": bins}


def _coverage(classed: Examined) -> list[list[int]]:
    """For each threshold of THRESHOLDS how many items are at least so sure, and how many of those are right."""
    sure = np.array([answer.confidence for _, answer in classed])
    right = np.array([truth_of(item) == answer.first_level for item, answer in classed], bool)
    return [[int((sure >= least).sum()), int(right[sure >= least].sum())] for least in THRESHOLDS] if classed else []


def _by_source(classed: Examined) -> dict[str, Any]:
    """The project's own items and the city's, each by themselves."""
    parts: dict[str, Any] = {}
    for name, shipped in (("shipped", True), ("city", False)):
        part = [(truth_of(item), answer.first_level) for item, answer in classed if (item.source == SHIPPED) == shipped]
        if part:
            truth, said = zip(*part, strict=True)
            score = f1_score(truth, said, labels=sorted(set(truth)), average="macro", zero_division=0)
            parts[name] = {"items": len(part), "macro_f1": _round(score), "accuracy": _round(np.mean([t == s for t, s in part]))}
    return parts


def _agreement(examined: Examined, label: str) -> dict[str, Any]:
    pairs = [(item.labels[label], getattr(answer, label)) for item, answer in examined if item.kind == TEST and label in item.labels]
    return {"items": len(pairs), "accuracy": _round(np.mean([t == s for t, s in pairs])) if pairs else None}


def _emergencies(examined: Examined) -> dict[str, Any]:
    """Over every item that says whether it is one; `missed` and `false_alarms` are ids."""
    labelled = [(item.id, bool(item.labels["emergency"]), answer.emergency) for item, answer in examined if "emergency" in item.labels]
    real, rung = sum(true for _, true, _ in labelled), sum(said for _, _, said in labelled)
    found = sum(true and said for _, true, said in labelled)
    return {
        "items": real,
        "recall": _round(found / real) if real else None,
        "precision": _round(found / rung) if rung else None,
        "missed": [number for number, true, said in labelled if true and not said],
        "false_alarms": [number for number, true, said in labelled if said and not true],
    }


def _must_pass(examined: Examined) -> dict[str, Any]:
    wrong = []
    asked = [(item, answer) for item, answer in examined if item.kind == MUST_PASS]
    for item, answer in asked:
        differing = differences(item, answer)
        if differing:
            wrong.append({"id": item.id, "expected": {key: item.labels[key] for key in differing}, "read": differing})
    return {"total": len(asked), "passed": len(asked) - len(wrong), "wrong": wrong}


def differences(item: FrozenItem, answer: Answer) -> dict[str, Any]:
    """What the answer says where it differs from the item's labels; a higher level of a category is met by every class below it."""
    said = {name: getattr(answer, name) for name in item.labels.keys() & vars(answer).keys()}
    return {
        name: value
        for name, value in said.items()
        if not (str(value).startswith(str(item.labels[name])) if name == "category" else value == item.labels[name])
    }


def _latency(milliseconds: Sequence[float]) -> dict[str, float] | None:
    if not milliseconds:
        return None
    return {name: round(float(np.percentile(milliseconds, share)), 2) for name, share in (("p50", 50), ("p99", 99))}


def _changes(items: Sequence[FrozenItem], candidate: Sequence[Answer], serving: Sequence[Answer]) -> dict[str, Any]:
    """Items whose first level only one of the two reads right, the surest first."""
    right: list[dict[str, Any]] = []
    wrong: list[dict[str, Any]] = []
    for item, new, old in zip(items, candidate, serving, strict=True):
        if not item.labels.get("category"):
            continue
        truth = truth_of(item)
        change = {"id": item.id, "truth": truth, "new": new.first_level, "old": old.first_level, "sure": _round(new.confidence)}
        if (new.first_level == truth) != (old.first_level == truth):
            (right if new.first_level == truth else wrong).append(change)
    for changes in (right, wrong):
        changes.sort(key=lambda change: -change["sure"])
    counts = {"newly_right_count": len(right), "newly_wrong_count": len(wrong)}
    return {"newly_right": right[:MOST_EXAMPLES], "newly_wrong": wrong[:MOST_EXAMPLES], **counts}


def _round(value: Any) -> float:
    return round(float(value), 4)
