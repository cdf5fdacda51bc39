"""The parse of the contract (DESIGN §7): one JSON from `parse`, `classify` and `/api/parse`, for a text or for call turns. Pure."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.assistant import Reader
from bot.call import Call, read_call
from bot.call_appeals import Appeal, find_matter, highest_urgency, raised_urgency, read_appeals, separate_parts
from bot.catalogue import Catalogue, Matter
from bot.draft import build_draft, empty_draft
from bot.gazetteer import Gazetteer
from bot.petition import SURE, main_span

PLACE_PARTS = ("province", "city", "district", "street", "community", "road", "poi", "building", "adcode")


def parse_text(text: str, assistant: Reader, catalogue: Catalogue, gazetteer: Gazetteer) -> dict[str, Any]:
    """Raises AssistantError. Offsets are code points into `text`."""
    return build_parse(text, assistant.parse(text), assistant.serving_model(), catalogue, gazetteer, catalogue.find_matter(text))


def parse_turns(turns: Sequence[Mapping[str, str]], assistant: Reader, catalogue: Catalogue, gazetteer: Gazetteer) -> dict[str, Any]:
    """A call: the citizen's turns joined by newlines are `text`; they are read without fillers, offsets point into `text`.

    `speakers` says who speaks in each turn, where words and order speak against a label; `draft` is the work order.
    """
    call = read_call(turns)
    said = call.said.text
    if not said.strip():
        return {**parse_text(call.text, assistant, catalogue, gazetteer), "speakers": call.speakers, "draft": empty_draft()}
    data = assistant.parse(said)
    if len(data["parts"]) > 1:
        data = {**data, "parts": separate_parts(data["parts"], said)}
    appeals = read_appeals(call, data, gazetteer, lambda text: assistant.parse(text)["reading"]["urgency"])
    matter = find_matter(catalogue, said, appeals[0])
    data = {**data, "reading": {**data["reading"], "urgency": highest_urgency(appeals)}}
    parse = build_parse(call.text, _placed(data, call), assistant.serving_model(), catalogue, gazetteer, matter)
    draft = build_draft(call, appeals, matter, catalogue)
    _raise_urgency(parse["urgency"], raised_urgency(matter, draft["persons"]))
    if appeals[0].place and appeals[0].resolved:
        _set_main_location(parse, call, appeals[0])
    _lead_with_the_emergency(parse, data["reading"], catalogue)
    return {**parse, "speakers": call.speakers, "draft": draft}


def _placed(data: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """Parse data of the cleaned text with its offsets in the citizen's own."""

    def moved(span: Mapping[str, Any]) -> dict[str, Any]:
        start, end = call.said.span(int(span["start"]), int(span["end"]))
        return {**span, "start": start, "end": end, **({"text": call.text[start:end]} if "text" in span else {})}

    bounds = [0, *(call.said.span(int(part["start"]), int(part["end"]))[0] for part in data["parts"][1:]), len(call.text)]
    parts = [{"start": start, "end": end} for start, end in zip(bounds, bounds[1:])]
    reading = {**data["reading"], "evidence": [moved(span) for span in data["reading"]["evidence"]]}
    return {**data, "reading": reading, "place_spans": [moved(span) for span in data["place_spans"]], "parts": parts}


def _raise_urgency(urgency: dict[str, Any], raised: tuple[str, str] | None) -> None:
    if raised and urgency["level"] == "一般":
        urgency.update(level=raised[0], reasons=[*urgency["reasons"], raised[1]])


def _set_main_location(parse: dict[str, Any], call: Call, appeal: Appeal) -> None:
    """The place of the draft is the main one: its core as a span of the text, its parts from all that was said of it."""
    assert appeal.place is not None and appeal.resolved is not None
    core = appeal.place.core
    if call.turns[core.turn].start is None:  # the agent's words, confirmed by the caller, are no span of the text
        return
    begin = call.turns[core.turn].start or 0
    start, end = begin + core.start, begin + core.end
    known = next((place for place in parse["locations"] if place["start"] <= start and end <= place["end"]), None)
    resolved = appeal.resolved.as_dict()
    entry = {**(known or {"text": call.text[start:end], "start": start, "end": end}), **{part: resolved[part] for part in PLACE_PARTS}}
    others = [place for place in parse["locations"] if place["end"] <= entry["start"] or entry["end"] <= place["start"]]
    parse["locations"] = sorted([*others, entry], key=lambda place: int(place["start"]))
    parse["main_location"] = parse["locations"].index(entry)


def _lead_with_the_emergency(parse: dict[str, Any], reading: Mapping[str, Any], catalogue: Catalogue) -> None:
    """Where the category of a cry for help is a guess, the kind of danger says more (as in the chat)."""
    if not reading["urgency"]["emergency"] or reading["first_level_confidence"] >= SURE:
        return
    code = catalogue.emergency(reading["urgency"]["kind"]).category
    if code:
        rest = [entry for entry in parse["categories"] if entry["code"] != code]
        confidence = parse["categories"][0]["confidence"]
        parse["categories"] = [{"code": code, "path": list(catalogue.get_category(code).path), "confidence": confidence}, *rest][:5]


def build_parse(
    text: str, data: Mapping[str, Any], model: str, catalogue: Catalogue, gazetteer: Gazetteer, matter: Matter | None
) -> dict[str, Any]:
    reading = data["reading"]
    locations = [_location(span, text, gazetteer) for span in data["place_spans"]]
    main = main_span(data["place_spans"], text)
    urgency = {key: reading["urgency"][key] for key in ("level", "confidence", "emergency", "kind", "reasons")}
    if matter and matter.urgency == "紧急" and urgency["level"] == "一般":
        urgency["level"] = "紧急"
    return {
        "text": text,
        "model": model,
        "intent": {"name": data["intent"]["name"], "confidence": round(float(data["intent"]["confidence"]), 4)},
        "request_type": dict(reading["request_type"]),
        "categories": [
            {"code": item["code"], "path": list(catalogue.get_category(item["code"]).path), "confidence": item["confidence"]}
            for item in reading["categories"]
        ],
        "urgency": urgency,
        "locations": locations,
        "main_location": next((n for n, span in enumerate(locations) if span["text"] == main), 0 if locations else None),
        "evidence": list(reading["evidence"]),
        "parts": [{"start": part["start"], "end": part["end"]} for part in data["parts"]],
    }


def _location(span: Mapping[str, Any], text: str, gazetteer: Gazetteer) -> dict[str, Any]:
    place = gazetteer.resolve(str(span["text"]), context=text).as_dict()
    return {"text": span["text"], "start": span["start"], "end": span["end"], **{part: place[part] for part in PLACE_PARTS}}
