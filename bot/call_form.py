"""The form of a call: what the model suggests, what a person set over it, what is missing, and the petition that comes of it. Pure.

A field that a person set is theirs: no later reading changes it. Nothing is filled with a default that could pass for a fact.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bot.catalogue import OTHER, REQUEST_TYPES, URGENCIES, Catalogue, CatalogueError
from bot.corrections import Correction
from bot.gazetteer import Gazetteer
from bot.petition import MAX_TITLE, Petition, facts_in, find_phone, matter_of, missing_slots
from bot.ticket import departments_of

TEXT_LENGTHS = {"title": MAX_TITLE, "summary": 2000, "place": 200, "when": 60, "persons": 60, "amount": 60, "name": 30}
CHOICES = {"request_type": REQUEST_TYPES, "urgency": URGENCIES}
FLAGS = ("anonymous", "confidential")
FIELDS = (
    "title", "summary", "category", "request_type", "urgency", "place", "when", "persons", "amount", "name", "phone", "anonymous",
    "confidential", "lead", "co",
)  # fmt: skip
_LABELS = "标题 内容 类别 诉求类型 紧急程度 地点 时间 涉及人数 金额 姓名 电话 匿名 保密 主办 协办"
LABELS = dict(zip(FIELDS, _LABELS.split(), strict=True))
# Where the answer to a question about a slot of the catalogue goes.
FIELD_OF_SLOT = {"location": "place", "district": "place"} | {name: name for name in FIELDS}
MOST_DEPARTMENTS = 8
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class FormError(ValueError):
    """A value that does not fit its field; the text is what the agent reads."""


@dataclass(frozen=True)
class Source:
    """Words of a turn, by its number in the reading; offsets are code points into its text."""

    turn: int
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Suggestion:
    value: Any
    confidence: float | None = None
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Draft:
    """What the model makes of one appeal. `place`: the parts of the suggested place, as a petition keeps them."""

    fields: Mapping[str, Suggestion] = field(default_factory=dict)
    categories: tuple[tuple[str, float], ...] = ()
    place: Mapping[str, Any] | None = None
    text: str = ""  # the citizen's words about it
    emergency: bool = False
    emergency_kind: str | None = None
    reasons: tuple[str, ...] = ()
    sensitive: tuple[tuple[str, tuple[Source, ...]], ...] = ()
    questions: tuple[tuple[str, str], ...] = ()  # (field, words to read aloud)
    evidence: tuple[Mapping[str, Any], ...] = ()
    model: str = ""


@dataclass(frozen=True)
class Form:
    """One appeal as the agent sees it now."""

    draft: Draft
    set_by_person: Mapping[str, Any]
    values: Mapping[str, Any]  # every field of FIELDS; None = not known
    petition: Petition
    routed: tuple[str | None, tuple[str, ...]]  # lead and co as the catalogue routes it, whatever a person set
    due_at: datetime | None
    promise: str

    def touched(self, name: str) -> bool:
        return name in self.set_by_person


def build_form(
    draft: Draft, set_by_person: Mapping[str, Any], catalogue: Catalogue, gazetteer: Gazetteer, now: datetime
) -> Form:
    values = {name: set_by_person.get(name, draft.fields[name].value if name in draft.fields else None) for name in FIELDS}
    values["urgency"] = values["urgency"] or URGENCIES[0]
    petition = petition_of(draft, set_by_person, values, catalogue, gazetteer)
    known = bool(values["category"])
    lead, co = departments_of(petition, catalogue) if known else (None, ())
    routed = departments_of(replace(petition, lead=None, co=None), catalogue) if known else (None, ())
    values |= {"lead": lead, "co": list(co), "anonymous": petition.anonymous, "confidential": petition.confidential}
    if not (known and values["request_type"]):
        return Form(draft, set_by_person, values, petition, routed, None, "")
    due_at, promise = catalogue.due_at(
        now, request_type=petition.request_type, urgency=petition.urgency, matter=matter_of(petition, catalogue)
    )
    return Form(draft, set_by_person, values, petition, routed, due_at, promise)


def petition_of(
    draft: Draft, set_by_person: Mapping[str, Any], values: Mapping[str, Any], catalogue: Catalogue, gazetteer: Gazetteer
) -> Petition:
    """What would be filed. Who stays anonymous leaves neither name nor number on the ticket."""
    urgency, summary = str(values["urgency"]), str(values["summary"] or "")
    words = f"{draft.text}\n{summary}"
    matter = catalogue.find_matter(words)
    confidential = values["confidential"]
    if "confidential" not in set_by_person:
        confidential = bool(confidential or matter and matter.confidential)
    emergency = draft.emergency and urgency == URGENCIES[-1]
    anonymous = bool(values["anonymous"])
    facts = {name: str(values[name]) for name in ("when", "persons", "amount") if values[name]}
    return Petition(
        id="call",
        kind=matter.kind if matter and matter.kind else "appeal",
        texts=(summary,) if summary else (),
        title=str(values["title"] or ""),
        request_type=values["request_type"] or REQUEST_TYPES[1],
        request_type_confidence=_confidence(draft, "request_type"),
        category=values["category"] or OTHER,
        category_confidence=_confidence(draft, "category"),
        alternatives=draft.categories,
        urgency=urgency,
        emergency=emergency,
        emergency_kind=draft.emergency_kind if emergency else None,
        reasons=draft.reasons,
        matter=matter.id if matter else None,
        place=_place(draft, set_by_person, values["place"], gazetteer),
        facts={**facts_in(words), **facts},
        name=None if anonymous else values["name"],
        phone=None if anonymous else values["phone"],
        anonymous=anonymous,
        confidential=bool(confidential),
        evidence=_evidence_in(summary, draft.evidence),
        model=draft.model,
        source="hotline",
        fixed=tuple(name for name in set_by_person if name in FIELDS),
        lead=set_by_person.get("lead"),
        co=tuple(set_by_person["co"]) if "co" in set_by_person else None,
    )


def _confidence(draft: Draft, name: str) -> float:
    """0 where nothing was read: a class that a person chose by hand is in `fixed`."""
    suggestion = draft.fields.get(name)
    return float(suggestion.confidence or 0.0) if suggestion else 0.0


def _place(draft: Draft, set_by_person: Mapping[str, Any], text: str | None, gazetteer: Gazetteer) -> Mapping[str, Any] | None:
    if not text:
        return None
    if "place" not in set_by_person and draft.place is not None:
        return draft.place
    place = gazetteer.resolve(text, context=f"{text}\n{draft.text}")
    return {**place.as_dict(), **({"among": list(place.ambiguous)} if place.ambiguous else {})}


def _evidence_in(summary: str, evidence: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The telling words as far as the filed text has them, where it has them."""
    return tuple(
        {"text": span["text"], "start": start, "end": start + len(span["text"]), "weight": span["weight"]}
        for span in evidence
        if (start := summary.find(str(span["text"]))) >= 0
    )


# -- what a person may set -----------------------------------------------------------------------------------------------


def clean_value(name: str, value: Any, catalogue: Catalogue) -> Any:
    """`value` as it is kept. Raises FormError."""
    if name in FLAGS:
        return bool(value)
    if name == "co":
        return _departments(value)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise FormError(f"“{LABELS.get(name, name)}”应为文字。")
    text = _CONTROL.sub("", value).strip()
    if name in CHOICES:
        if text not in CHOICES[name]:
            raise FormError(f"“{LABELS[name]}”没有“{text[:10]}”这一项。")
        return text
    if name == "category":
        return _category(text, catalogue)
    if name == "phone":
        return _phone(text)
    if name == "lead":
        return text[:80] or None
    if name not in TEXT_LENGTHS:
        raise FormError("没有这一栏。")
    if len(text) > TEXT_LENGTHS[name]:
        raise FormError(f"“{LABELS[name]}”最多 {TEXT_LENGTHS[name]} 个字，现在 {len(text)} 个。")
    return text or None


def _departments(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise FormError("“协办”应为单位名称的列表。")
    names = [_CONTROL.sub("", name).strip()[:80] for name in value]
    return list(dict.fromkeys(filter(None, names)))[:MOST_DEPARTMENTS]


def _category(text: str, catalogue: Catalogue) -> str:
    try:
        return catalogue.get_category(text).code
    except CatalogueError:
        raise FormError("没有这个类别。") from None


def _phone(text: str) -> str | None:
    """Digits. What is no number yet is kept as it was typed: the check before filing says so, nothing typed is lost."""
    return find_phone(text) or text[:30] or None


# -- before it is filed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remark:
    """Something about a field: a question for the caller, or what keeps the form from being filed."""

    field: str
    text: str


def find_questions(form: Form, catalogue: Catalogue) -> list[Remark]:
    """What is still to be asked, in words to read aloud: where first, then what the matter needs, then how to reach the caller."""
    petition, code = form.petition, str(form.values["category"] or "")
    slots = missing_slots(petition, catalogue) if code else ([] if petition.place else ["location"])
    if not petition.anonymous:
        slots += [slot for slot in ("phone", "name") if not form.values[slot]]
    aloud = {slot: "location_now" if slot == "location" and petition.emergency else slot for slot in slots}
    return [Remark(FIELD_OF_SLOT.get(slot, "summary"), catalogue.question_aloud(aloud[slot], code)) for slot in slots]


def find_problems(form: Form) -> list[Remark]:
    """What must be put right before the form can be filed, in the order of the form."""
    problems = [
        Remark(name, sentence)
        for name, sentence in (
            ("title", "还没有标题。"),
            ("summary", "还没有内容。"),
            ("category", "还没有选类别。"),
            ("request_type", "还没有选诉求类型。"),
        )
        if not form.values[name]
    ]
    phone = form.values["phone"]
    if phone and not form.values["anonymous"] and find_phone(phone) != phone:
        problems.append(Remark("phone", "电话号码不对：手机 11 位，座机带区号。"))
    return problems


def find_corrections(form: Form) -> tuple[Correction, ...]:
    """What a person changed of what the model had read, and what it had not found; nothing where no model read the call."""
    if not form.draft.model:
        return ()
    changes = []
    for name in FIELDS:
        if not form.touched(name):
            continue
        suggestion = form.draft.fields.get(name)
        old, new = suggestion.value if suggestion else None, form.values[name]
        if name in ("lead", "co"):
            old = form.routed[0] if name == "lead" else list(form.routed[1])
        if (old or None) != (new or None):
            words = "；".join(source.text for source in suggestion.sources) if suggestion else ""
            changes.append(Correction(name, old, new, words))
    return tuple(changes)
