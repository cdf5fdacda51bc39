"""The parse of a call as drafts of its forms: one for each appeal, every field with the words it came from. Pure and thin."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.call_form import Draft, Source, Suggestion
from bot.call_reading import Reading
from bot.knowledge import told_emergency

_OF_APPEAL = ("title", "summary", "place", "when", "persons", "amount")
_OF_CALLER = ("name", "phone", "anonymous", "confidential")


def drafts_of(reading: Reading, caller: str | None, *, as_one: bool = False) -> list[Draft]:
    """At least one; what nobody said yet is an empty one that knows the number the telephone showed."""
    shown = {"phone": Suggestion(caller)} if caller else {}
    parse = reading.parse
    if parse is None or not str(parse["text"]).strip():
        return [Draft(fields=shown)]
    texts = [text for _, text in reading.said]
    parts = [] if as_one else parse["draft"]["parts"]
    if not parts:
        return [_draft(parse, _whole(parse), texts, shown)]
    return [_draft(parse, part, texts, shown, first=number == 0) for number, part in enumerate(parts)]


def _whole(parse: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: parse[name] for name in ("categories", "request_type", "urgency")}
    return {"start": 0, "end": len(parse["text"]), **kept, **{name: parse["draft"][name] for name in _OF_APPEAL}}


def _draft(
    parse: Mapping[str, Any], part: Mapping[str, Any], texts: Sequence[str], shown: Mapping[str, Suggestion], *, first: bool = True
) -> Draft:
    told, urgency, start, end = parse["draft"], part["urgency"], int(part["start"]), int(part["end"])
    found = {**{name: part[name] for name in _OF_APPEAL}, **{name: told[name] for name in _OF_CALLER}}
    fields = {name: _suggestion(entry, texts) for name, entry in found.items() if entry}
    # The words behind the classes are told for the first appeal; those of a further one are where it begins.
    said = told["sources"] if first else dict.fromkeys(told["sources"], [part["title"]] if part["title"] else [])
    best = part["categories"][0]
    fields["category"] = Suggestion(best["code"], best["confidence"], _sources(said["category"], texts))
    kind = part["request_type"]
    fields["request_type"] = Suggestion(kind["name"], kind["confidence"], _sources(said["request_type"], texts))
    fields["urgency"] = Suggestion(urgency["level"], urgency["confidence"], _sources(said["urgency"], texts))
    text = str(parse["text"])[start:end]
    return Draft(
        fields={**shown, **fields},
        categories=tuple((entry["code"], entry["confidence"]) for entry in part["categories"]),
        place={"text": part["place"]["value"], **part["place"]["parts"]} if part["place"] else None,
        text=text,
        emergency=bool(urgency["emergency"]),
        emergency_kind=told_emergency(urgency["kind"], text),
        reasons=tuple(urgency["reasons"]),
        sensitive=tuple((entry["kind"], _sources([entry], texts)) for entry in told["sensitive"]),
        evidence=tuple(span for span in parse["evidence"] if start <= span["start"] and span["end"] <= end),
        model=str(parse["model"]),
    )


def _suggestion(entry: Mapping[str, Any], texts: Sequence[str]) -> Suggestion:
    words = [entry, *(word for word in entry.get("words", ()) if (word["turn"], word["start"]) != (entry["turn"], entry["start"]))]
    return Suggestion(entry["value"], entry["confidence"], _sources(words, texts))


def _sources(entries: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> tuple[Source, ...]:
    return tuple(
        Source(entry["turn"], entry["start"], entry["end"], texts[entry["turn"]][entry["start"] : entry["end"]])
        for entry in entries
        if entry["start"] < entry["end"]
    )
