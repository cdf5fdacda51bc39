"""The draft of a work order from a phone call: every field with the turn and the words it was taken from, and what to ask next.

Pure: takes the call, what the readers made of its cleaned text and the catalogue; decides nothing that an agent could not undo.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bot.call import CITIZEN, Call, Found
from bot.call_appeals import Appeal
from bot.call_care import called_before, sensitive_cases, words_of_matter
from bot.call_facts import find_amount, find_name, find_persons, find_when, wishes_of_secrecy
from bot.call_phone import find_phone
from bot.call_place import CallPlace
from bot.call_questions import next_questions
from bot.catalogue import Catalogue, Matter
from bot.headline import build_title, short_place
from bot.petition import MAX_TITLE, SURE
from bot.story import Part
from bot.summary import MAX_SUMMARY, NOTHING_TOLD, build_summary

_YES = re.compile(r"^(?:嗯+|对+|是+的?|没错|就是|那必须|可不)")
_RECAP = re.compile(
    r"(?:您的诉求(?:就是|是)|您?(?:是)?(?:希望|想要?|要求)|诉求(?:就是|是))(?P<wish>[^？?]{4,40}?)(?:是吗|是吧|对吧|对吗|是不是|吗|吧)$"
)


def build_draft(call: Call, appeals: Sequence[Appeal], matter: Matter | None, catalogue: Catalogue) -> dict[str, Any]:
    """The keys of the contract (each null or {value, turn, start, end, confidence}) and what the desk needs beside them."""
    main = appeals[0]
    name, phone = find_name(call), find_phone(call)
    anonymous, confidential = wishes_of_secrecy(call, name)
    fields = [_appeal_fields(call, appeal, catalogue) for appeal in appeals]
    told = fields[0]
    known_phone = Found(phone.digits, phone.turn, phone.start, phone.end, phone.confidence) if phone else None
    draft: dict[str, Any] = {
        **told,
        "title": _joint_title(fields),
        "summary": told["summary"] if len(fields) == 1 else _joint_summary(fields),
        "name": name.as_dict() if name else None,
        "phone": {**known_phone.as_dict(), "extension": phone.extension} if known_phone and phone else None,
        "anonymous": _flag(anonymous),
        "confidential": _flag(confidential),
        "repeat": _flag(called_before(call)),
        "sensitive": list(sensitive_cases(call, main, matter, confidential or anonymous)),
        "sources": _sources(call, main, matter),
        "parts": [_part(call, appeal, own) for appeal, own in zip(appeals, fields, strict=True)] if len(appeals) > 1 else [],
    }
    if matter and matter.confidential and draft["confidential"] is None:
        draft["confidential"] = _flag(words_of_matter(call, matter))
    draft["questions"] = list(next_questions(call, main, matter, draft, catalogue))
    return draft


FIELDS = ("title", "summary", "place", "when", "persons", "amount", "name", "phone", "anonymous", "confidential", "repeat")


def empty_draft() -> dict[str, Any]:
    """The draft of a call in which the citizen has said nothing yet."""
    sources: dict[str, list[Any]] = {"category": [], "urgency": [], "request_type": []}
    return {**dict.fromkeys(FIELDS), "sensitive": [], "sources": sources, "parts": [], "questions": []}


def _appeal_fields(call: Call, appeal: Appeal, catalogue: Catalogue) -> dict[str, Any]:
    story = appeal.story
    where = appeal.place.value if appeal.place else ""
    title, part = build_title(story, appeal.request_type, _called(call, appeal), _untold(appeal, catalogue), where=where)
    summary = build_summary(story, where, _confirmed_wish(call))
    facts = {
        "when": find_when(call, story.bearing),
        "persons": find_persons(call, story.bearing),
        "amount": find_amount(call, story.bearing),
    }
    return {
        "title": _by(title, part, 0.7 if part else 0.3),
        "summary": _by(summary, part or next(iter(story.parts), None), 0.6) if summary else None,
        "place": _place_field(appeal),
        **{name: found.as_dict() if found else None for name, found in facts.items()},
    }


def _untold(appeal: Appeal, catalogue: Catalogue) -> str:
    """The title of a call whose words make none: its class where that is sure."""
    if appeal.reading["first_level_confidence"] < SURE:
        return NOTHING_TOLD
    return catalogue.get_category(appeal.category).label.split(" · ")[-1]


def _called(call: Call, appeal: Appeal) -> str:
    """What the title may call the place."""
    if appeal.place is None or appeal.resolved is None or _is_home(call, appeal.place, appeal.category):
        return ""
    return short_place(appeal.place.core.text, appeal.resolved.as_dict())


# Classes whose matters happen where people live; elsewhere the home of a caller is not where the matter is.
_AT_HOME = ("01", "02", "03", "08", "10", "13")
_HOME = re.compile(r"住在?哪|住的?|您家|户[口籍]")


def _is_home(call: Call, place: CallPlace, category: str) -> bool:
    """Whether the place is only where the caller lives."""
    return category[:2] not in _AT_HOME and bool(_HOME.search(call.turns[place.core.turn].question))


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


# -- which words say so ------------------------------------------------------------------------------------------------------


def _sources(call: Call, appeal: Appeal, matter: Matter | None) -> dict[str, list[dict[str, Any]]]:
    """For category, urgency and request type the words that carry them, each with its turn."""
    reading = appeal.reading
    urgency = reading["urgency"].get("spans", ())
    if not urgency and matter and matter.urgency and (match := matter.pattern.search(call.said.text)):
        urgency = [match.span()]
    manner = max(appeal.story.parts, key=_tells_the_type, default=None)
    return {
        "category": _words(call, [(span["start"], span["end"]) for span in reading["evidence"]]),
        "urgency": _words(call, urgency),
        "request_type": _words(call, [(manner.start, manner.start + len(manner.piece.text))] if manner else []),
    }


def _tells_the_type(part: Part) -> float:
    return part.announces + 0.5 * part.wish + 0.3 * part.question + part.weight / 10


def _words(call: Call, spans: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
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
