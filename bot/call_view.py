"""The state of a call as the page shows it: JSON, complete each time, a few kilobytes. Pure."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bot.call_form import FIELDS, Form, Remark, find_problems, find_questions
from bot.call_reading import AWAY, SLOW, Reading
from bot.calls import PhoneCall
from bot.catalogue import Catalogue
from bot.services import Services
from bot.ticket import CHINA, Ticket

ORIGINS = {"live": "来电", "pasted": "粘贴", "uploaded": "上传", "blank": "空白单"}
NOTES = {
    SLOW: "识别有点慢，请先手工填写；建议出来后会补上没动过的栏。",
    AWAY: "自动识别暂时不可用，请手工填写，照常可以登记；恢复后会补上没动过的栏。",
}
# A case that needs care: its name, and what the agent does.
SENSITIVE = {
    "minor": ("未成年人", "语气放缓，不追问细节；正在受伤害请转 110。工单限专人查看，24 小时内跟进。"),
    "suicide": ("轻生表述", "不要挂断，稳住情绪，同时转 110、120；心理援助热线 12356。"),
    "whistleblowing": ("内部举报", "按保密登记，不复述其身份，不转被举报单位。"),
    "mass_incident": ("群体性苗头", "问清人数、地点和诉求，登记后马上报告班长。"),
}
PLACE_PARTS = ("province", "city", "district", "street", "community", "road", "poi", "building")
WEEKDAYS = "一二三四五六日"


def token_of(call: PhoneCall, reading: Reading) -> str:
    """Changes whenever the page would look different."""
    return f"{call.version}.{reading.serial}.{reading.state}"


def state_of(
    call: PhoneCall, reading: Reading, forms: Sequence[Form], filed: Sequence[Ticket], services: Services, *, withheld: bool
) -> dict[str, Any]:
    return {
        "call": {
            "id": call.id,
            "state": call.state,
            "username": call.username,
            "origin": ORIGINS.get(call.origin, call.origin),
            "live": call.origin == "live",
            "ended": call.ended_at is not None,
            "started_at": call.created_at,
        },
        "reading": {"state": reading.state, "note": NOTES.get(reading.state), "turns": len(reading.said)},
        "turns": [] if withheld else _turns(call, reading),
        "forms": [] if withheld else [_form(form, call.relation(number), services) for number, form in enumerate(forms)],
        "appeals": {"heard": len((reading.parse or {}).get("draft", {}).get("parts", ())) or 1, "set": call.form.get("appeals")},
        "filed": [_filed(ticket, relation) for ticket, relation in zip(filed, _relations(call), strict=True)],
        "withheld": withheld,
    }


def _turns(call: PhoneCall, reading: Reading) -> list[dict[str, Any]]:
    """`speaker` as it was read: words and order may speak against what the recogniser said."""
    heard = (reading.parse or {}).get("speakers", ())
    same = len(heard) == len(reading.said) and reading.said == tuple((t.speaker, t.text) for t in call.turns[: len(reading.said)])
    speakers = [*(heard if same else ())]
    return [
        {"id": turn.turn_id, "text": turn.text, "at": turn.at, "said_by": turn.speaker,
         "speaker": speakers[number] if number < len(speakers) else turn.speaker}
        for number, turn in enumerate(call.turns)
    ]  # fmt: skip


def _relations(call: PhoneCall) -> list[Mapping[str, Any]]:
    return [item["relation"] for item in call.form.get("filed", ())]


def _filed(ticket: Ticket, relation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": ticket.number,
        "title": ticket.title,
        "lead": ticket.lead_department,
        "due": china_short(ticket.due_at) if ticket.due_at else "",
        "relation": relation.get("kind"),
        "appellants": ticket.cluster_size,
    }


def _form(form: Form, relation: Mapping[str, Any], services: Services) -> dict[str, Any]:
    catalogue, petition = services.catalogue, form.petition
    emergency = catalogue.emergency(petition.emergency_kind) if petition.emergency else None
    return {
        "fields": {name: _field(form, name) for name in FIELDS},
        "categories": [
            {"code": code, "path": list(catalogue.get_category(code).path), "confidence": confidence}
            for code, confidence in form.draft.categories
        ],
        "category_path": list(catalogue.get_category(form.values["category"]).path) if form.values["category"] else [],
        "place": _place(petition.place),
        "due": {"text": china_short(form.due_at), "promise": form.promise} if form.due_at else None,
        "emergency": {"say": emergency.say, "numbers": list(emergency.numbers)} if emergency else None,
        "sensitive": [
            {"kind": kind, "name": SENSITIVE[kind][0], "text": SENSITIVE[kind][1], "sources": [vars(source) for source in sources]}
            for kind, sources in form.draft.sensitive
        ],
        "questions": _remarks(find_questions(form, catalogue)),
        "problems": _remarks(find_problems(form)),
        "warnings": _remarks(find_warnings(form, catalogue, services.tickets.lanes.suggest)),
        "relation": relation or None,
    }


def _field(form: Form, name: str) -> dict[str, Any]:
    suggestion = form.draft.fields.get(name)
    return {
        "value": form.values[name],
        "touched": form.touched(name),
        "suggested": suggestion.value if suggestion else None,
        "confidence": suggestion.confidence if suggestion else None,
        "sources": [vars(source) for source in suggestion.sources] if suggestion else [],
    }


def _place(place: Mapping[str, Any] | None) -> dict[str, Any]:
    if place is None:
        return {"parts": [], "point": None, "among": []}
    point = [place["lat"], place["lng"]] if place.get("lat") else None
    return {"parts": [place[part] for part in PLACE_PARTS if place.get(part)], "point": point, "among": list(place.get("among", ()))}


def _remarks(remarks: Sequence[Remark]) -> list[dict[str, str]]:
    return [{"field": remark.field, "text": remark.text} for remark in remarks]


def find_warnings(form: Form, catalogue: Catalogue, least_sure: float) -> list[Remark]:
    """What an agent should look at once more; filing again goes on all the same."""
    asked = {question.field for question in find_questions(form, catalogue)}
    unsure = form.values["category"] and not form.touched("category") and form.petition.category_confidence < least_sure
    return [
        Remark(name, sentence)
        for name, sentence, applies in (
            ("place", "地点还不清楚。", "place" in asked),
            ("category", "类别把握不大，请看一眼。", unsure),
            ("phone", "没有联系电话。", "phone" in asked),
        )
        if applies
    ]


def china_short(moment: datetime) -> str:
    """11月30日 周一 18:05, the way staff read time."""
    local = moment.astimezone(CHINA)
    return f"{local.month}月{local.day}日 周{WEEKDAYS[local.weekday()]} {local:%H:%M}"
