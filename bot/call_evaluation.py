"""Measures the drafts of work orders on transcripts of calls whose facts are known.

A row is {"id", "turns", "expect"}; `expect` holds what a full work order says. Reports carry ids and labels, never words of a call.
"""
from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.assistant import Assistant
from bot.headline import FRAMES
from bot.parse import parse_turns
from bot.petition import MAX_TITLE
from bot.services import Services
from bot.summary import FRAME_WORDS, MAX_SUMMARY
from bot.wording import official, third_person

MAX_MISTAKES = 30


@dataclass(frozen=True)
class JudgedCall:
    id: str
    turns: Sequence[Mapping[str, str]]
    expect: Mapping[str, Any]
    parse: Mapping[str, Any]
    milliseconds: float

    @property
    def draft(self) -> Mapping[str, Any]:
        return self.parse["draft"]  # type: ignore[no-any-return]

    def value(self, field: str) -> Any:
        return self.draft[field]["value"] if self.draft[field] else None

    @property
    def place(self) -> str:
        """The main location's words and the draft's place: a dispatcher reads both."""
        main = self.parse["main_location"]
        located = str(self.parse["locations"][main]["text"]) if main is not None else ""
        return re.sub(r"\s", "", located) + "\n" + (self.value("place") or "")

    @property
    def district(self) -> str | None:
        main = self.parse["main_location"]
        return self.parse["locations"][main]["district"] if main is not None else None


def evaluate_calls(rows: Sequence[tuple[str, Mapping[str, Any]]], assistant: Assistant, services: Services) -> dict[str, Any]:
    """Shares between 0 and 1 (None where no row says), times in milliseconds, `mistakes` by measure. Raises ValueError."""
    calls = [_judge(name, row, assistant, services) for name, row in rows]
    report: dict[str, Any] = {"rows": len(calls), "model": assistant.serving_model()}
    mistakes: dict[str, list[dict[str, Any]]] = {}
    for name, (applies, right) in _MEASURES.items():
        judged = [(call, right(call)) for call in calls if applies(call)]
        report[name] = round(sum(bool(found) for _, found in judged) / len(judged), 4) if judged else None
        wrong = [{"id": call.id} for call, found in judged if not found]
        if wrong:
            mistakes[name] = wrong[:MAX_MISTAKES]
    times = sorted(call.milliseconds for call in calls)
    report["ms_p50"] = round(statistics.median(times), 2)
    report["ms_p95"] = round(times[min(len(times) - 1, int(0.95 * len(times)))], 2)
    report["mistakes"] = mistakes
    return report


def _judge(name: str, row: Mapping[str, Any], assistant: Assistant, services: Services) -> JudgedCall:
    turns, expect = row.get("turns"), row.get("expect")
    if not isinstance(turns, list) or not turns or not isinstance(expect, dict):
        raise ValueError(f"{name} has no turns or no facts to expect")
    started = time.process_time()
    parse = parse_turns(turns, assistant, services.catalogue, services.gazetteer)
    return JudgedCall(name, turns, expect, parse, 1000 * (time.process_time() - started))


def _has(field: str) -> Callable[[JudgedCall], bool]:
    return lambda call: field in call.expect


def _labelled(field: str) -> Callable[[JudgedCall], bool]:
    return lambda call: bool(call.expect.get(field))


def _classes(call: JudgedCall) -> list[str]:
    return [entry["path"][0] for entry in call.parse["categories"]]


def _surname(call: JudgedCall) -> bool:
    return str(call.value("name") or "")[:1] == str(call.expect["name"] or "")[:1]


def _mentions(call: JudgedCall) -> bool:
    """Every word the title must hold; words divided by | are as good as each other."""
    return all(any(word in call.value("title") for word in words.split("|")) for words in call.expect["title_must_mention"])


def _speakers(call: JudgedCall) -> bool:
    """Whether exactly the turns whose labels are wrong were read as the other speaker's."""
    turned = [n for n, (turn, read) in enumerate(zip(call.turns, call.parse["speakers"])) if turn["speaker"] != read]
    return turned == sorted(call.expect.get("wrong_speakers", []))


def is_grounded(written: str, call: JudgedCall) -> bool:
    """Whether every stretch of a title or summary stands in the call, as said or in the official words for it."""
    said = ["".join(turn["text"].split()) for turn in call.turns]
    spoken = "\n".join(said + [official(text) for text in said] + [third_person(official(text)) for text in said])
    rest = re.sub("|".join((*FRAMES, *FRAME_WORDS)), " ", written)
    return all(_stands_in(stretch, spoken) for stretch in re.findall(r"[\u4e00-\u9fffa-zA-Z]+", rest))


def _stands_in(stretch: str, spoken: str) -> bool:
    """Cut greedily into the longest pieces that were said; a content word is never made of single characters."""
    while stretch:
        size = next((size for size in range(len(stretch), 0, -1) if stretch[:size] in spoken), 0)
        if not size:
            return False
        stretch = stretch[size:]
    return True


_EMERGENCY = "emergency"
_MEASURES: dict[str, tuple[Callable[[JudgedCall], bool], Callable[[JudgedCall], Any]]] = {
    "category_accuracy": (_labelled("category"), lambda call: _classes(call)[0] in call.expect["category"]),
    "category_top3_accuracy": (_labelled("category"), lambda call: set(_classes(call)[:3]) & set(call.expect["category"])),
    "request_type_accuracy": (_labelled("request_type"), lambda call: call.parse["request_type"]["name"] in call.expect["request_type"]),
    "urgency_accuracy": (_labelled("urgency"), lambda call: call.parse["urgency"]["level"] in call.expect["urgency"]),
    "emergency_recall": (_labelled(_EMERGENCY), lambda call: call.parse["urgency"]["emergency"]),
    "emergency_quiet": (lambda call: call.expect.get(_EMERGENCY) is False, lambda call: not call.parse["urgency"]["emergency"]),
    "place_contains": (_labelled("location_contains"), lambda call: all(name in call.place for name in call.expect["location_contains"])),
    "place_excludes": (_labelled("location_excludes"), lambda call: not any(name in call.place for name in call.expect["location_excludes"])),
    "district_accuracy": (_labelled("district"), lambda call: call.district == call.expect["district"]),
    "phone_accuracy": (_has("phone"), lambda call: call.value("phone") == call.expect["phone"]),
    "name_accuracy": (_has("name"), _surname),
    "amount_accuracy": (_has("amount"), lambda call: str(call.expect["amount"]) in str(call.value("amount"))),
    "persons_accuracy": (_has("persons"), lambda call: str(call.expect["persons"]) in str(call.value("persons"))),
    "appeals_accuracy": (_has("appeals"), lambda call: len(call.parse["parts"]) == call.expect["appeals"]),
    "confidential_accuracy": (_has("confidential"), lambda call: bool(call.value("confidential")) == call.expect["confidential"]),
    "repeat_accuracy": (_has("repeat"), lambda call: bool(call.value("repeat")) == call.expect["repeat"]),
    "title_mentions": (_labelled("title_must_mention"), _mentions),
    "title_fits": (lambda call: True, lambda call: 0 < len(call.value("title") or "") <= MAX_TITLE),
    "title_grounded": (lambda call: True, lambda call: is_grounded(call.value("title") or "", call)),
    "summary_fits": (lambda call: True, lambda call: len(call.value("summary") or "") <= MAX_SUMMARY),
    "summary_grounded": (lambda call: True, lambda call: is_grounded(call.value("summary") or "", call)),
    "speakers_right": (lambda call: True, _speakers),
}
