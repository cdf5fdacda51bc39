"""Whether a candidate may serve: its figures beside those of the serving model, and the floors of nlu_data/catalogue/gate.yml. Pure."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class GateError(ValueError):
    """gate.yml cannot be used; the message says why."""


@dataclass(frozen=True)
class Floors:
    overall_drop: float
    critical_drop: float
    least_support: int
    emergency_recall: float
    critical: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A figure that is too low: `candidate` is what it is, `least` what it would have to be, `serving` what it is today."""

    figure: str
    candidate: float
    least: float
    serving: float | None
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def load_floors(data_dir: Path) -> Floors:
    """Raises GateError."""
    path = data_dir / "catalogue" / "gate.yml"
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        critical = tuple(str(code) for code in given["critical"])
        numbers = {name: float(given[name]) for name in ("overall_drop", "critical_drop", "emergency_recall")}
        return Floors(**numbers, least_support=int(given["least_support"]), critical=critical)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise GateError(f"{path.name}: {error}") from error


def failures(candidate: Mapping[str, Any], serving: Mapping[str, Any] | None, floors: Floors) -> list[Failure]:
    """What keeps the candidate from serving; empty = it may. Both are figures of bot.report; without a serving model only what
    is absolute counts."""
    found = [*_emergencies(candidate, serving, floors), *_must_pass(candidate)]
    if serving is not None:
        found = [*_overall(candidate, serving, floors), *_critical(candidate, serving, floors), *found]
    return found


def _overall(candidate: Mapping[str, Any], serving: Mapping[str, Any], floors: Floors) -> Iterator[Failure]:
    if candidate["macro_f1"] is None or serving["macro_f1"] is None:  # no test item has a category
        return
    ours, theirs = float(candidate["macro_f1"]), float(serving["macro_f1"])
    if ours < theirs - floors.overall_drop:
        allowed = f"最多允许低 {_points(floors.overall_drop)}"
        sentence = f"总体分类水平（宏平均 F1）是 {_percent(ours)}，正在使用的模型是 {_percent(theirs)}，{allowed}"
        yield Failure("macro_f1", ours, theirs - floors.overall_drop, theirs, sentence)


def _critical(candidate: Mapping[str, Any], serving: Mapping[str, Any], floors: Floors) -> Iterator[Failure]:
    for code in floors.critical:
        ours, theirs = candidate["per_class"].get(code), serving["per_class"].get(code)
        if not ours or not theirs or int(theirs["support"]) < floors.least_support:
            continue
        if ours["f1"] < theirs["f1"] - floors.critical_drop:
            sentence = (
                f"重点类别“{ours['name']}”的 F1 是 {_percent(ours['f1'])}，正在使用的模型是 {_percent(theirs['f1'])}，"
                f"最多允许低 {_points(floors.critical_drop)}"
            )
            yield Failure(f"f1:{code}", ours["f1"], theirs["f1"] - floors.critical_drop, theirs["f1"], sentence)


def _emergencies(candidate: Mapping[str, Any], serving: Mapping[str, Any] | None, floors: Floors) -> Iterator[Failure]:
    ours = candidate["emergency"]["recall"]
    if ours is None:
        return
    theirs = serving["emergency"]["recall"] if serving else None
    least = max(floors.emergency_recall, theirs or 0.0)
    if ours < least:
        today = f"正在使用的模型是 {_percent(theirs)}，" if theirs is not None else ""
        sentence = f"紧急情况只认出 {_percent(ours)}，{today}至少要 {_percent(least)}"
        yield Failure("emergency_recall", float(ours), least, theirs, sentence)


def _must_pass(candidate: Mapping[str, Any]) -> Iterator[Failure]:
    passed, total = int(candidate["must_pass"]["passed"]), int(candidate["must_pass"]["total"])
    if passed < total:
        yield Failure("must_pass", passed, total, None, f"必答题 {total} 条里答错 {total - passed} 条，必须全对")


def _percent(share: float) -> str:
    return f"{share * 100:.1f}%"


def _points(share: float) -> str:
    return f"{share * 100:g} 个百分点"
