"""The parse of the contract (DESIGN §7): one JSON from `parse`, `classify` and `/api/parse`, for a text or for call turns. Pure."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bot.assistant import Assistant
from bot.catalogue import Catalogue
from bot.gazetteer import Gazetteer
from bot.petition import Petition, add_text, facts_in, find_name, find_phone, main_span, mask, title_of

PLACE_PARTS = ("province", "city", "district", "street", "community", "road", "poi", "building", "adcode")
SUMMARY_LENGTH = 200


def parse_text(text: str, assistant: Assistant, catalogue: Catalogue, gazetteer: Gazetteer) -> dict[str, Any]:
    """Raises AssistantError. Offsets are code points into `text`."""
    return build_parse(text, assistant.parse(text), assistant.serving_model(), catalogue, gazetteer)


def parse_turns(turns: Sequence[Mapping[str, str]], assistant: Assistant, catalogue: Catalogue, gazetteer: Gazetteer) -> dict[str, Any]:
    """A call: the citizen's turns joined by newlines are read as one text; `draft` says which turn each fact came from."""
    citizen = [(number, turn["text"]) for number, turn in enumerate(turns) if turn["speaker"] == "citizen"]
    text = "\n".join(said for _, said in citizen)
    parse = parse_text(text, assistant, catalogue, gazetteer)
    parse["draft"] = _draft(citizen, turns, parse)
    return parse


def build_parse(
    text: str, data: Mapping[str, Any], model: str, catalogue: Catalogue, gazetteer: Gazetteer
) -> dict[str, Any]:
    reading = data["reading"]
    matter = catalogue.find_matter(text)
    locations = [_location(span, text, gazetteer) for span in data["place_spans"]]
    main = main_span(data["place_spans"], text)
    urgency = {key: reading["urgency"][key] for key in ("level", "confidence", "emergency", "reasons")}
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


def _draft(citizen: Sequence[tuple[int, str]], turns: Sequence[Mapping[str, str]], parse: Mapping[str, Any]) -> dict[str, Any]:
    """Each field null or {"value", "turn", "confidence"}; a later turn corrects an earlier one for phone and name."""
    draft: dict[str, Any] = dict.fromkeys(("title", "summary", "name", "phone", "when", "persons", "amount"))
    petition = Petition(id="draft", evidence=tuple(parse["evidence"]))
    for number, said in citizen:
        petition = add_text(petition, said)
        for field, value in (("phone", find_phone(said)), ("name", find_name(said))):
            if value:
                draft[field] = {"value": value, "turn": number, "confidence": 0.9}
        for field, value in facts_in(said).items():
            if field in draft and draft[field] is None:
                draft[field] = {"value": value, "turn": number, "confidence": 0.6}
    title = title_of(petition)
    draft["title"] = {"value": title, "turn": _turn_of(title, citizen), "confidence": 0.6}
    told = [said for _, said in citizen if len(said) > 6]
    summary = mask("；".join(re.sub(r"\s+", "", said) for said in told))[:SUMMARY_LENGTH]
    draft["summary"] = {"value": summary, "turn": citizen[0][0], "confidence": 0.5} if summary else None
    return draft


def _turn_of(title: str, citizen: Sequence[tuple[int, str]]) -> int:
    return next((number for number, said in citizen if title[:6] in said), citizen[0][0] if citizen else 0)
