"""A comparison as the report page shows it: figures with the sentence that explains them, rows, cells and points. Reads nothing itself."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.frozen import FrozenItem
from bot.gate import Floors
from bot.report import THRESHOLDS

SHOWN_EXAMPLES = 40
CHART_WIDTH, CHART_HEIGHT = 560, 300
SOURCES = {"shipped": "随系统附带的考题", "city": "本市的考题"}


@dataclass(frozen=True)
class Figure:
    """A number of both models: what it is called, what it means, whether more is better."""

    name: str
    meaning: str
    new: str
    old: str
    better: bool | None  # None = no telling difference


def figure_cards(report: Mapping[str, Any]) -> list[Figure]:
    """The figures at the top of the page."""
    new, old = report["candidate"], report["serving"]
    cards = [
        _share("总体水平", "各类别同样重要，平均下来有多准（宏平均 F1，满分 100）", new, old, "macro_f1"),
        _share("一级类别判对", "每 100 条考题里，类别判对多少条", new, old, "accuracy"),
        _share("紧急情况认出", "每 100 条真正的紧急情况里，认出多少条", new["emergency"], old and old["emergency"], "recall"),
        _share("报紧急报得准", "每报 100 次紧急，有多少次真是紧急", new["emergency"], old and old["emergency"], "precision"),
        _share("诉求类型判对", "咨询、求助、投诉等判对的比例", new["request_type"], old and old["request_type"], "accuracy"),
        _must_pass(new["must_pass"], old and old["must_pass"]),
        _error("把握的误差", "它说有八成把握时，和真实对错平均差多少；越小越可信", new["calibration"], old and old["calibration"]),
        _latency(new["latency"], old and old["latency"]),
    ]
    return [card for card in cards if card is not None]


def _share(name: str, meaning: str, new: Mapping[str, Any], old: Mapping[str, Any] | None, key: str) -> Figure | None:
    if new.get(key) is None:
        return None
    before = old.get(key) if old else None
    return Figure(name, meaning, percent(new[key]), percent(before), _better(new[key], before, 0.005))


def _error(name: str, meaning: str, new: Mapping[str, Any], old: Mapping[str, Any] | None) -> Figure | None:
    if new["ece"] is None:
        return None
    before = old["ece"] if old else None
    return Figure(name, meaning, percent(new["ece"]), percent(before), _better(before, new["ece"], 0.005) if before is not None else None)


def _must_pass(new: Mapping[str, int], old: Mapping[str, int] | None) -> Figure | None:
    if not new["total"]:
        return None
    before = f"{old['passed']} / {old['total']}" if old else "—"
    better = None if not old or new["passed"] == old["passed"] else new["passed"] > old["passed"]
    return Figure("必答题", "一条也不许答错的题", f"{new['passed']} / {new['total']}", before, better)


def _latency(new: Mapping[str, float] | None, old: Mapping[str, float] | None) -> Figure | None:
    if not new:
        return None
    before = f"{old['p50']:.0f} / {old['p99']:.0f}" if old else "—"
    meaning = "一半的消息不超过前一个数，一百条里九十九条不超过后一个数"
    return Figure("读一条用时（毫秒）", meaning, f"{new['p50']:.0f} / {new['p99']:.0f}", before, None)


def _better(new: float | None, old: float | None, least: float) -> bool | None:
    if new is None or old is None or abs(new - old) < least:
        return None
    return new > old


def percent(share: float | None) -> str:
    return "—" if share is None else f"{share * 100:.1f}"


def class_rows(report: Mapping[str, Any], floors: Floors) -> list[dict[str, Any]]:
    """One row a class, those that lost most first."""
    new, old = report["candidate"]["per_class"], (report["serving"] or {}).get("per_class", {})
    rows = []
    for code, ours in new.items():
        theirs = old.get(code)
        change = ours["f1"] - theirs["f1"] if theirs else None
        rows.append({
            "code": code, "name": ours["name"], "support": ours["support"], "critical": code in floors.critical,
            "precision": percent(ours["precision"]), "recall": percent(ours["recall"]), "f1": percent(ours["f1"]),
            "old_precision": percent(theirs and theirs["precision"]), "old_recall": percent(theirs and theirs["recall"]),
            "old_f1": percent(theirs and theirs["f1"]), "few": ours["support"] < floors.least_support,
            "change": None if change is None else round(change * 100, 1),
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row["change"] if row["change"] is not None else 0.0, row["code"]))


def confusion_cells(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of cells with a heat from 0 to 9: the share of the class that was read so."""
    confusion = figures["confusion"]
    rows = []
    for number, row in enumerate(confusion["rows"]):
        total = sum(row)
        if not total:
            continue
        cells = [{"count": count, "heat": min(9, round(9 * count / total)) if count else -1, "right": column == number}
                 for column, count in enumerate(row)]  # fmt: skip
        rows.append({"name": confusion["names"][number], "total": total, "cells": cells})
    return {"names": confusion["names"], "rows": rows}


def mixed_up(figures: Mapping[str, Any], most: int = 6) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for each other most."""
    confusion = figures["confusion"]
    names = confusion["names"]
    pairs = [
        {"truth": names[number], "said": names[column], "count": count}
        for number, row in enumerate(confusion["rows"])
        for column, count in enumerate(row)
        if count and column != number
    ]
    return sorted(pairs, key=lambda pair: -pair["count"])[:most]


def calibration_rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"sure": step["sure"], "right": step["right"], "count": step["count"], "label": f"{step['sure']:.0%}"}
        for step in figures["calibration"]["bins"]
    ]


def coverage_points(figures: Mapping[str, Any]) -> str:
    """The curve as SVG points: how many messages need nobody (across) and how many of them are right (up, from a half)."""
    coverage = figures["coverage"]
    if not coverage or not coverage[0][0]:
        return ""
    total = coverage[0][0]
    points = [(kept / total, right / kept) for kept, right in coverage if kept]
    return " ".join(f"{CHART_WIDTH * x:.1f},{CHART_HEIGHT * (1 - (max(y, 0.5) - 0.5) * 2):.1f}" for x, y in points)


def slider_facts(report: Mapping[str, Any], *, threshold: float, per_day: int) -> dict[str, Any]:
    """What the slider's script reckons with."""
    old = report["serving"]
    return {
        "thresholds": list(THRESHOLDS),
        "new": report["candidate"]["coverage"],
        "old": old["coverage"] if old else [],
        "start": threshold,
        "perDay": per_day,
        "width": CHART_WIDTH,
        "height": CHART_HEIGHT,
    }


def examples(changes: Sequence[Mapping[str, Any]], items: Mapping[int, FrozenItem], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Test items that only one of the models reads right, with their words; those that were taken out since are left out."""
    return [
        {
            "id": change["id"],
            "text": items[change["id"]].text,
            "truth": names.get(change["truth"], change["truth"]),
            "new": names.get(change["new"], change["new"]),
            "old": names.get(change["old"], change["old"]),
        }
        for change in changes[:SHOWN_EXAMPLES]
        if change["id"] in items
    ]
