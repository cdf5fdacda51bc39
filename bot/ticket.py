"""A filed ticket: its states, what dispatch gets of it, what the outside sees of it, when two are alike. Pure."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from bot.catalogue import Catalogue
from bot.db import iso
from bot.gazetteer import PLACE_FIELDS
from bot.petition import Lanes, Petition, mask, matter_of, title_of

CHINA = timezone(timedelta(hours=8))

# States a resident and the desk see; the first eight come from dispatch, see DESIGN §7.
STATES = {
    "filed": "已登记",
    "accepted": "已签收",
    "in_progress": "办理中",
    "extended": "已延期",
    "replied": "已答复",
    "closed": "已办结",
    "returned": "重新派单中",
    "rejected": "不予受理",
    "withdrawn": "已撤回",
}
STATUS_FROM_DISPATCH = ("accepted", "in_progress", "replied", "closed", "returned", "rejected", "extended")
FINAL_STATES = frozenset({"closed", "rejected", "withdrawn"})
# Score → what a resident may say of a closed ticket, in the order it is offered.
RATINGS = {5: "非常满意", 4: "满意", 3: "基本满意", 2: "不满意", 1: "非常不满意"}
EVENT_LABELS = {
    **STATES,
    "supplemented": "补充情况",
    "urged": "催办",
    "corrected": "更正信息",
    "rated": "满意度评价",
    "feedback": "没办好的地方",
    "merged": "同类诉求",
    "separated": "不再并为同类",
    "rerouted": "重新派单",
}


@dataclass(frozen=True)
class Ticket:
    number: str
    kind: str
    source: str
    state: str
    title: str
    petition: Petition
    cluster: str | None
    cluster_size: int
    lead_department: str
    co_departments: tuple[str, ...]
    due_at: datetime | None
    filed_at: datetime
    updated_at: datetime
    status_department: str | None
    service_request_id: str | None
    conversation_id: str | None
    district: str | None  # whose staff may read it; None = the whole city's
    confidential: bool
    position: int  # its number as an integer, growing with time
    search_revision: int

    @property
    def state_label(self) -> str:
        return STATES[self.state]


@dataclass(frozen=True)
class TimelineEntry:
    kind: str
    at: datetime
    actor: str
    department: str | None
    note: str

    @property
    def label(self) -> str:
        return EVENT_LABELS.get(self.kind, self.kind)


@dataclass(frozen=True)
class StatusEvent:
    """A status event from dispatch, already verified and parsed."""

    webhook_id: str
    ticket_number: str
    status: str
    at: datetime
    department: str | None
    note: str


def created_payload(ticket: Ticket, catalogue: Catalogue, lanes: Lanes) -> dict[str, Any]:
    """`data` of ticket.created (DESIGN §7), with `kind`, `facts` and the cluster as additions."""
    return {
        "ticket_number": ticket.number,
        "source": ticket.source,
        "kind": ticket.kind,
        **payload_fields(ticket, catalogue),
        "department": {"lead": ticket.lead_department, "co": list(ticket.co_departments)},
        "due_at": iso(ticket.due_at) if ticket.due_at else None,
        "attachments": list(ticket.petition.attachments),
        # Only staff cleared for it may read the words (未成年人保护); the receiving system must keep that too.
        "restricted": bool((matter := matter_of(ticket.petition, catalogue)) and matter.restricted),
        "cluster": {"first": ticket.cluster, "appellants": ticket.cluster_size},
        "nlu": {
            "model": ticket.petition.model,
            "confidence": round(ticket.petition.category_confidence, 4),
            "lane": lanes.of(ticket.petition),
            "evidence": [dict(span) for span in ticket.petition.evidence],
        },
    }


def payload_fields(ticket: Ticket, catalogue: Catalogue) -> dict[str, Any]:
    petition = ticket.petition
    category = catalogue.get_category(petition.category)
    # The department reported on must never learn who spoke: what may identify stays in this service.
    hidden = petition.anonymous or petition.confidential
    return {
        "request_type": petition.request_type,
        "category": {"code": category.code, "path": list(category.path)},
        "title": ticket.title,
        "description": mask(petition.description) if hidden else petition.description,
        "location": {part: petition.place.get(part) for part in PLACE_FIELDS} if petition.place else {"text": None},
        "facts": dict(petition.facts),
        "urgency": petition.urgency,
        "emergency": petition.emergency,
        "reporter": {
            "name": None if hidden else petition.name,
            "phone": None if hidden else petition.phone,
            "anonymous": petition.anonymous,
            "confidential": petition.confidential,
        },
    }


def departments_of(petition: Petition, catalogue: Catalogue) -> tuple[str, tuple[str, ...]]:
    """(lead, co) by name: as a person chose, else by the catalogue's route with the district of the place."""
    lead_role, co_roles, local = catalogue.route(
        petition.category,
        matter_of(petition, catalogue),
        kind=petition.kind,
        emergency_kind=petition.emergency_kind if petition.emergency else None,
    )
    lead = petition.lead or catalogue.department(lead_role)
    if petition.co is not None:
        return lead, tuple(name for name in dict.fromkeys(petition.co) if name != lead)
    district = (petition.place or {}).get("district") if local else None
    names = [*(catalogue.department(role) for role in co_roles), *([str(district)] if district else [])]
    return lead, tuple(name for name in dict.fromkeys(names) if name != lead)


def is_confidential(petition: Petition, catalogue: Catalogue) -> bool:
    """Whether only staff cleared for it may read the ticket: the appellant asked for it, or the matter demands it."""
    matter = matter_of(petition, catalogue)
    return petition.confidential or bool(matter and matter.restricted)


def place_key(petition: Petition) -> str | None:
    """Category and place in one key, only where the place is precise enough that equal keys mean the same trouble."""
    return place_keys(petition, [petition.category[:2]])[0] if has_spot(petition) else None


def has_spot(petition: Petition) -> bool:
    place = petition.place or {}
    return bool(place.get("road") or place.get("poi") or place.get("community"))


def place_keys(petition: Petition, levels: Iterable[str]) -> list[str]:
    """The keys that tickets of these first levels have at the same place."""
    place = petition.place or {}
    spot = "".join(str(place.get(part) or "") for part in ("district", "road", "community", "poi"))
    return [f"{level}|{spot}"[:200] for level in levels]


def same_matter(petition: Petition, category_code: str, title: str, catalogue: Catalogue) -> bool:
    """Whether a ticket of the same place is about the same: read as the same leaf, or told in the same words."""
    if category_code == petition.category or alike(title_of(petition), title):
        return True
    matter = matter_of(petition, catalogue)
    return matter is not None and matter == catalogue.find_matter(title)


def alike(first: str, second: str) -> bool:
    """Whether two titles name the same thing: they share a word of two characters that is not only about anything."""
    pairs = {first[i : i + 2] for i in range(len(first) - 1)} & {second[i : i + 2] for i in range(len(second) - 1)}
    return len(pairs - _EMPTY_PAIRS) >= 2


_EMPTY_PAIRS = frozenset("这里 那里 没有 一直 已经 希望 能不 不能 我们 他们 现在 晚上 好几 几天 天了 问题 一个".split())


def summary_of(ticket: Ticket) -> dict[str, Any]:
    """What a caller of the API sees of a ticket: no personal data."""
    return {
        "ticket_number": ticket.number,
        "kind": ticket.kind,
        "state": ticket.state,
        "state_label": ticket.state_label,
        "title": ticket.title,
        "request_type": ticket.petition.request_type,
        "urgency": ticket.petition.urgency,
        "emergency": ticket.petition.emergency,
        "department": {"lead": ticket.lead_department, "co": list(ticket.co_departments)},
        "due_at": iso(ticket.due_at) if ticket.due_at else None,
    }


