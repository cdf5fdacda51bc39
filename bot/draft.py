"""The draft of a work order from a phone call: every field with the turn and the words it was taken from, and what to ask next.

Pure: takes the call, what the readers made of its cleaned text and the catalogue; decides nothing that an agent could not undo.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bot.call import CITIZEN, Call, Found
from bot.call_facts import find_amount, find_name, find_persons, find_when, wishes_of_secrecy
from bot.call_phone import find_phone
from bot.call_place import CallPlace, find_place
from bot.call_urgency import Read, read_urgency
from bot.catalogue import URGENCIES, Catalogue, Matter
from bot.gazetteer import Gazetteer, Place
from bot.headline import build_title, short_place
from bot.petition import MAX_TITLE, Petition, facts_in, missing_slots
from bot.story import Part, Story, read_story
from bot.summary import MAX_SUMMARY, build_summary

REPORTING = "举报"
# So many people without their wages are a matter of public order.
MANY_PEOPLE = 10
WAGES = "wage_arrears"
_MASS = re.compile(r"堵(?:大?门|路|马路|工地)|拉横幅|集体(?:上访|去|到|找)|聚集|围堵|上访|静坐|罢工|罢课|闹事|去(?:省里|北京|市里)(?:告|找|上)|群殴|打群架")
_SUICIDE = re.compile(r"不想活|跳楼|跳河|跳江|轻生|自杀|寻短见|割腕|喝农药|(?:爬|上)(?:了|到)?(?:塔吊|楼顶|天台)|要跳|往下跳|死给|活不下去|死了算了")
_INSIDER = re.compile(r"(?:我|俺|咱)们?(?:上班|工作|干活)?的?(?:那个)?(?:厂|公司|单位|工厂|车间|项目|村|局|医院|学校)|我在里面|内部(?:人|员工)|我是(?:这个厂|里面|员工)")
_REPEAT = re.compile(
    r"(?:上次|上回|上个?(?:礼拜|星期|月|周)|前几天|之前|昨天|前天|以前|去年)[^，。]{0,8}(?:打过|反映过|反应过|报过|登记过|投诉过|给你们打|就打)|(?:都)?打了[^，。]{1,3}个?(?:电话|遍)|反映过|工单|给你们打过|打过(?:你们|12345|热线|一二三四五)|第[二三四五六]次(?:打|反映|投诉)"
)
_YES = re.compile(r"^(?:嗯+|对+|是+的?|没错|就是|那必须|可不)")
_RECAP = re.compile(r"(?:您的诉求(?:就是|是)|您?(?:是)?(?:希望|想要?|要求)|诉求(?:就是|是))(?P<wish>[^？?]{4,40}?)(?:是吗|是吧|对吧|对吗|是不是|吗|吧)$")


_ONE_MORE = re.compile(r"第[二三]|还有一?个|另一?个|另外一?[个件]|再(?:反映|说|问|提)|顺便")
_SEVERAL = re.compile(r"[两二三]个?[件个]?(?:事|问题|情况)")


def separate_parts(parts: Sequence[Mapping[str, Any]], said: str) -> list[Mapping[str, Any]]:
    """The splitter's parts that a call takes for appeals of their own: another kind of matter, or announced as one more.

    What is told on the phone comes back to its matter more often than a letter does.
    """
    kept: list[Mapping[str, Any]] = []
    several = bool(_SEVERAL.search(said))
    for part in parts:
        start, end = int(part["start"]), int(part["end"])
        if kept and not (several or _ONE_MORE.search(said, start, min(end, start + 12)) or _kind(part) != _kind(kept[-1])):
            kept[-1] = {**kept[-1], "end": end}
            continue
        kept.append(part)
    return kept


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
        place = own if own and own.core.level != "fine" else whole
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


def build_draft(call: Call, appeals: Sequence[Appeal], matter: Matter | None, catalogue: Catalogue) -> dict[str, Any]:
    """The keys of the contract (each null or {value, turn, start, end, confidence}) and what the desk needs beside them."""
    main = appeals[0]
    anonymous, confidential = wishes_of_secrecy(call)
    name, phone = find_name(call), find_phone(call)
    fields = [_appeal_fields(call, appeal, catalogue) for appeal in appeals]
    told = fields[0]
    known_phone = Found(phone.digits, phone.turn, phone.start, phone.end, phone.confidence) if phone else None
    draft: dict[str, Any] = {
        **told,
        "title": _joint_title(fields),
        "summary": told["summary"] if len(fields) == 1 else _joint_summary(fields),
        "name": name.as_dict() if name else None,
        "phone": {**known_phone.as_dict(), "extension": phone.extension} if known_phone and phone else None,
        "anonymous": _flag(anonymous if name is None else None),
        "confidential": _flag(confidential),
        "repeat": _flag(_find(call, _REPEAT)),
        "sensitive": list(_sensitive(call, main, matter, confidential or anonymous)),
        "sources": _sources(call, main, matter),
        "parts": [_part(call, appeal, own) for appeal, own in zip(appeals, fields, strict=True)] if len(appeals) > 1 else [],
    }
    if matter and matter.confidential and draft["confidential"] is None:
        draft["confidential"] = _flag(_found_in(call, matter.pattern.search(call.said.text)))
    draft["questions"] = list(_questions(call, main, matter, draft, catalogue))
    return draft


FIELDS = ("title", "summary", "place", "when", "persons", "amount", "name", "phone", "anonymous", "confidential", "repeat")


def empty_draft() -> dict[str, Any]:
    """The draft of a call in which the citizen has said nothing yet."""
    return {**dict.fromkeys(FIELDS), "sensitive": [], "sources": {"category": [], "urgency": [], "request_type": []}, "parts": [], "questions": []}


def _appeal_fields(call: Call, appeal: Appeal, catalogue: Catalogue) -> dict[str, Any]:
    story = appeal.story
    place = _place_field(appeal)
    fallback = catalogue.get_category(appeal.category).label.split(" · ")[-1] if appeal.reading["first_level_confidence"] > 0.6 else "来电人未说明事项"
    where = appeal.place.value if appeal.place else ""
    called = short_place(appeal.place.core.text, appeal.resolved.as_dict()) if appeal.place and appeal.resolved and not _is_home(call, appeal) else ""
    title, part = build_title(story, appeal.request_type, called, fallback)
    summary = build_summary(story, where, _confirmed_wish(call))
    persons, amount = find_persons(call, story.bearing), find_amount(call, story.bearing)
    when = find_when(call, story.bearing)
    return {
        "title": _by(title, part, 0.7 if part else 0.3),
        "summary": _by(summary, part or next(iter(story.parts), None), 0.6) if summary else None,
        "place": place,
        "when": when.as_dict() if when else None,
        "persons": persons.as_dict() if persons else None,
        "amount": amount.as_dict() if amount else None,
    }


# Classes whose matters happen where people live; elsewhere the home of a caller is not where the matter is.
_AT_HOME = ("01", "02", "03", "08", "10", "13")
_HOME = re.compile(r"住在?哪|住的?|您家|户[口籍]")


def _is_home(call: Call, appeal: Appeal) -> bool:
    """Whether the place is only where the caller lives."""
    assert appeal.place is not None
    turn = call.turns[appeal.place.core.turn]
    return appeal.category[:2] not in _AT_HOME and bool(_HOME.search(turn.question))


def _by(value: str, part: Part | None, confidence: float) -> dict[str, Any]:
    start, end = part.piece.span if part else (0, 0)
    return {"value": value, "turn": part.piece.turn if part else 0, "start": start, "end": end, "confidence": confidence}


def _flag(found: Found | None) -> dict[str, Any] | None:
    return {**found.as_dict(), "value": True} if found else None


def _place_field(appeal: Appeal) -> dict[str, Any] | None:
    if appeal.place is None or appeal.resolved is None:
        return None
    core = appeal.place.core
    parts = {key: value for key, value in appeal.resolved.as_dict().items() if key != "text"}
    words = [{"turn": mention.turn, "start": mention.start, "end": mention.end} for mention in appeal.place.mentions]
    return {
        "value": appeal.place.value, "turn": core.turn, "start": core.start, "end": core.end,
        "confidence": round(appeal.place.confidence, 3), "parts": parts, "words": words,
    }  # fmt: skip


def _joint_title(fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Two appeals in one line where they fit, else the first."""
    first: dict[str, Any] = fields[0]["title"]
    for other in fields[1:]:
        joined = f"{first['value']}、{other['title']['value']}"
        if len(joined) <= MAX_TITLE:
            return {**first, "value": joined}
    return first


def _joint_summary(fields: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    told = [field["summary"] for field in fields if field["summary"]]
    if not told:
        return None
    room = MAX_SUMMARY // len(told) - 2
    value = "".join(f"{number}. {field['value'][:room]}" for number, field in enumerate(told, 1))
    return {**told[0], "value": value}


def _confirmed_wish(call: Call) -> str | None:
    """What the agent sums up as the wish and the caller says yes to."""
    for turn, answer in zip(call.turns, call.turns[1:]):
        match = _RECAP.search(turn.text) if turn.speaker != CITIZEN else None
        if match and answer.speaker == CITIZEN and _YES.match(answer.text):
            return match.group("wish")
    return None


# -- what needs care ---------------------------------------------------------------------------------------------------------


def _find(call: Call, pattern: re.Pattern[str]) -> Found | None:
    return next((Found(m.group(), turn.number, *m.span(), 0.8) for turn in call.citizen if (m := pattern.search(turn.text))), None)


def _found_in(call: Call, match: re.Match[str] | None) -> Found | None:
    """A match in the cleaned text as words of a turn."""
    if match is None:
        return None
    start, end = call.said.span(*match.span())
    turn, first = call.locate(start)
    return Found(match.group(), turn, first, min(first + end - start, len(call.turns[turn].text)), 0.8)


def _sensitive(call: Call, appeal: Appeal, matter: Matter | None, secrecy: Found | None) -> Iterator[dict[str, Any]]:
    """Cases that a supervisor sees at once and that not everybody may read."""
    found = {
        "minor": _found_in(call, matter.pattern.search(call.said.text)) if matter and matter.kind == "minor" else None,
        "suicide": _find(call, _SUICIDE) if appeal.reading["urgency"]["emergency"] else None,
        "whistleblowing": (_find(call, _INSIDER) or secrecy) if appeal.request_type == REPORTING or secrecy and _find(call, _INSIDER) else None,
        "mass_incident": _find(call, _MASS),
    }
    for kind, words in found.items():
        if words:
            yield {"kind": kind, "turn": words.turn, "start": words.start, "end": words.end, "text": call.turns[words.turn].text[words.start : words.end]}


# -- which words say so ------------------------------------------------------------------------------------------------------


def _sources(call: Call, appeal: Appeal, matter: Matter | None) -> dict[str, list[dict[str, Any]]]:
    reading = appeal.reading
    category = [(int(span["start"]), int(span["end"])) for span in reading["evidence"]]
    urgency = [(int(start), int(end)) for start, end in reading["urgency"].get("spans", ())]
    if not urgency and matter and matter.urgency and (match := matter.pattern.search(call.said.text)):
        urgency = [match.span()]
    manner = max(appeal.story.parts, key=lambda part: part.announces + 0.5 * part.wish + 0.3 * part.question + part.weight / 10, default=None)
    return {
        "category": _words(call, category),
        "urgency": _words(call, urgency),
        "request_type": _words(call, [(manner.start, manner.start + len(manner.piece.text))] if manner else []),
    }


def _words(call: Call, spans: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    found = []
    for start, end in spans:
        first, last = call.said.span(start, end)
        turn, begin = call.locate(first)
        stop = min(begin + last - first, len(call.turns[turn].text))
        found.append({"turn": turn, "start": begin, "end": stop, "text": call.turns[turn].text[begin:stop]})
    return found


def _part(call: Call, appeal: Appeal, fields: Mapping[str, Any]) -> dict[str, Any]:
    reading = appeal.reading
    start, end = call.said.span(appeal.start, appeal.end)
    return {
        "start": start, "end": end, **fields,
        "categories": [dict(entry) for entry in reading["categories"][:5]],
        "request_type": dict(reading["request_type"]),
        "urgency": {key: reading["urgency"][key] for key in ("level", "confidence", "emergency", "reasons", "kind")},
    }  # fmt: skip


# -- what to ask next --------------------------------------------------------------------------------------------------------


def _questions(call: Call, appeal: Appeal, matter: Matter | None, draft: Mapping[str, Any], catalogue: Catalogue) -> Iterator[dict[str, str]]:
    """The next questions in words to read aloud: where in an emergency first, then what the category needs, then how to reach the caller."""
    petition = Petition(
        id="draft", texts=(call.said.text,), category=appeal.category, request_type=appeal.request_type,
        kind=(matter.kind if matter and matter.kind else "appeal"), matter=matter.id if matter else None,
        place=_known_place(appeal), facts=_known_facts(call, draft),
    )  # fmt: skip
    missing = missing_slots(petition, catalogue)
    if appeal.reading["urgency"]["emergency"] and "location" in missing:
        missing = ["location_now", *(slot for slot in missing if slot != "location")]
    if draft["anonymous"] is None:
        missing += [slot for slot in ("phone", "name") if draft[slot] is None]
    for slot in missing:
        yield {"slot": slot.removesuffix("_now"), "text": catalogue.question_aloud(slot, appeal.category)}


def _known_place(appeal: Appeal) -> dict[str, Any] | None:
    if appeal.resolved is None:
        return None
    return {**appeal.resolved.as_dict(), **({"among": list(appeal.resolved.ambiguous)} if appeal.resolved.ambiguous else {})}


def _known_facts(call: Call, draft: Mapping[str, Any]) -> dict[str, str]:
    facts = facts_in(call.said.text.replace("\n", ""))
    return {**facts, **{slot: draft[slot]["value"] for slot in ("when", "persons", "amount") if draft[slot]}}


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

