"""The appeals of a call: one or several, each with its story, place and reading, and how urgent the call makes them. Pure."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bot.call import Call
from bot.call_place import FINE, CallPlace, find_place
from bot.call_urgency import Read, read_urgency
from bot.catalogue import URGENCIES, Catalogue, Matter
from bot.gazetteer import Gazetteer, Place
from bot.story import Story, read_story

# So many people without their wages are a matter of public order.
MANY_PEOPLE = 10
WAGES = "wage_arrears"
_ONE_MORE = re.compile(r"第[二三]|还有一?个|另一?个|另外一?[个件]|再(?:反映|说|问|提)|顺便")
# Characters an appeal of its own is told in, and those in which it is announced.
LEAST_PART, OPENING = 16, 12
_SAYS_NOTHING = re.compile(r"[\s。]|没了|有空|电话就不留了吧?|能改就行|快点弄|谢谢")
_SEVERAL = re.compile(r"[两二三]个?[件个]?(?:事|问题|情况)")


def separate_parts(parts: Sequence[Mapping[str, Any]], said: str) -> list[Mapping[str, Any]]:
    """The splitter's parts that a call takes for appeals of their own: another kind of matter, or announced as one more.

    What is told on the phone comes back to its matter more often than a letter does.
    """
    kept: list[Mapping[str, Any]] = []
    several = bool(_SEVERAL.search(said))
    for part in parts:
        if kept and not several and not _is_another(part, kept[-1], said):
            kept[-1] = {**kept[-1], "end": part["end"]}
            continue
        kept.append(part)
    return kept


def _is_another(part: Mapping[str, Any], before: Mapping[str, Any], said: str) -> bool:
    start, end = int(part["start"]), int(part["end"])
    if len(_SAYS_NOTHING.sub("", said[start:end])) < LEAST_PART:
        return False
    return bool(_ONE_MORE.search(said, start, min(end, start + OPENING))) or _kind(part) != _kind(before)


def _kind(part: Mapping[str, Any]) -> str:
    return str(part["reading"]["categories"][0]["code"])[:4]


@dataclass(frozen=True)
class Appeal:
    """One appeal of a call: its story between `start` and `end` of the cleaned text, and what the readers made of it."""

    story: Story
    reading: Mapping[str, Any]
    place: CallPlace | None
    resolved: Place | None
    start: int
    end: int

    @property
    def category(self) -> str:
        return str(self.reading["categories"][0]["code"])

    @property
    def request_type(self) -> str:
        return str(self.reading["request_type"]["name"])


def read_appeals(call: Call, data: Mapping[str, Any], gazetteer: Gazetteer, read: Read) -> list[Appeal]:
    """`data`: parse data of `call.said.text`. One entry per separate appeal, at least one."""
    parts = data["parts"] if len(data["parts"]) > 1 else [{"start": 0, "end": len(call.said.text), "reading": data["reading"]}]
    whole = find_place(call, data["place_spans"])
    appeals = []
    for part in parts:
        start, end = int(part["start"]), int(part["end"])
        own = find_place(call, data["place_spans"], (start, end)) if len(parts) > 1 else whole
        place = own if own and own.core.level != FINE else whole
        resolved = gazetteer.resolve(place.value, context=call.text) if place else None
        reading = _moved(part["reading"], start if len(parts) > 1 else 0)
        appeals.append(Appeal(read_story(call, reading).within(start, end), reading, place, resolved, start, end))
    return _with_urgency(call, data, appeals, read)


def _with_urgency(call: Call, data: Mapping[str, Any], appeals: list[Appeal], read: Read) -> list[Appeal]:
    """The urgency of the whole call goes to the appeal that holds its words, to the first where none does."""
    urgency = read_urgency(call, appeals[0].story, data["reading"]["urgency"], read)
    spans = urgency.get("spans", ())
    holder = next((n for n, appeal in enumerate(appeals) if any(appeal.start <= start < appeal.end for start, _ in spans)), 0)
    if len(appeals) > 1 and urgency["level"] == appeals[holder].reading["urgency"]["level"]:
        return appeals
    reading = {**appeals[holder].reading, "urgency": urgency}
    story = read_story(call, reading).within(appeals[holder].start, appeals[holder].end)
    appeals[holder] = replace(appeals[holder], reading=reading, story=story)
    return appeals


def highest_urgency(appeals: Sequence[Appeal]) -> Mapping[str, Any]:
    return max((appeal.reading["urgency"] for appeal in appeals), key=lambda urgency: URGENCIES.index(urgency["level"]))  # type: ignore[no-any-return]


def _moved(reading: Mapping[str, Any], by: int) -> Mapping[str, Any]:
    """A reading of a part with its offsets in the whole cleaned text."""
    if not by:
        return reading
    evidence = [{**span, "start": span["start"] + by, "end": span["end"] + by} for span in reading["evidence"]]
    spans = [[start + by, end + by] for start, end in reading["urgency"].get("spans", ())]
    telling = [[start + by, end + by] for start, end in reading.get("telling", ())]
    return {**reading, "evidence": evidence, "telling": telling, "urgency": {**reading["urgency"], "spans": spans}}




def find_matter(catalogue: Catalogue, said: str, appeal: Appeal) -> Matter | None:
    """A cross-cutting matter of the call, unless its class is far from what the readers see: long talk has all words somewhere."""
    matter = catalogue.find_matter(said)
    likely = {str(entry["code"])[:2] for entry in appeal.reading["categories"][:4]}
    return None if matter and matter.category and matter.category[:2] not in likely else matter


def raised_urgency(matter: Matter | None, persons: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """(level, reason) where facts of the call make a matter urgent that its words alone do not."""
    if matter and matter.id == WAGES and persons and _count(str(persons["value"])) >= MANY_PEOPLE:
        return "紧急", "群体欠薪"
    return None


_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2, "几": 3, "〇": 0}
_UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10000}


def _count(text: str) -> int:
    """"二十三个人" → 23; the first number of a text, 0 without one."""
    match = re.search(r"\d+|[零〇一二两三四五六七八九十百千万几]+", text)
    if match is None:
        return 0
    if match.group().isdecimal():
        return int(match.group())
    total = digit = 0
    for character in match.group():
        if character in _UNITS:
            total, digit = total + max(digit, 1) * _UNITS[character], 0
        else:
            digit = _DIGITS[character]
    return total + digit
