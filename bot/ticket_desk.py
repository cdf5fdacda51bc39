"""What staff do to a filed ticket: put its facts right, send it to another department, add to it. Each leaves its labels behind.

Only tickets the person may read (bot/access.py); the changes themselves are bot/tickets.py's. Knows no Flask.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bot.access import Access
from bot.catalogue import REQUEST_TYPES, URGENCIES
from bot.corrections import Correction, keep_corrections
from bot.db import transaction
from bot.petition import MAX_TITLE, Petition, find_phone, mask, place_from_answer
from bot.services import Services
from bot.ticket import Ticket

MAX_REASON = 500
FIELDS = {
    "title": "标题", "category": "类别", "request_type": "诉求类型", "urgency": "紧急程度", "place": "地点", "lead": "主办部门",
    "name": "姓名", "phone": "电话", "confidential": "保密",
}  # fmt: skip
PERSONAL = frozenset({"name", "phone"})


class Refused(ValueError):
    """The form does not fit; the text is what the person reads."""


@dataclass(frozen=True)
class TicketDesk:
    access: Access

    @property
    def services(self) -> Services:
        return self.access.services

    def correct(self, number: str, values: Mapping[str, Any], *, note: str = "", seen: datetime | None = None) -> Ticket:
        """Exchange facts. Raises TicketNotFound, TicketClosed, TicketChanged, Refused, StorageError."""
        ticket = self.access.get_ticket(number)
        if PERSONAL & set(values) and not self.access.may_see_person(ticket.petition):
            raise Refused("这件诉求的反映人信息对您的账号不开放，不能改。")
        petition = revised(ticket.petition, values, self.services)
        username = self.access.member.username
        with transaction(self.services.engine):
            changed = self.services.tickets.correct(number, petition, note=_reason(note, required=False), actor=username, seen=seen)
            found = differences(ticket, changed, evidence=_evidence(ticket.petition))
            model = ticket.petition.model
            keep_corrections(self.services, found, source="ticket", subject=number, username=username, model=model)
        return changed

    def reroute(self, number: str, values: Mapping[str, Any], *, reason: str) -> Ticket:
        """Send a returned ticket on. The reason is kept as a label. Raises as correct()."""
        ticket = self.access.get_ticket(number)
        chosen = {name: values[name] for name in ("category", "lead") if name in values}
        petition, reason = revised(ticket.petition, chosen, self.services), _reason(reason)
        username = self.access.member.username
        with transaction(self.services.engine):
            changed = self.services.tickets.reroute(number, petition, reason=reason, actor=username)
            found = differences(ticket, changed, evidence=f"{returned_because(self.services, number)}；改派说明：{reason}")
            model = ticket.petition.model
            keep_corrections(self.services, found, source="returned", subject=number, username=username, model=model)
        return changed

    def supplement(self, number: str, note: str) -> Ticket:
        """Raises TicketNotFound, TicketClosed, Refused, StorageError."""
        self.access.get_ticket(number)
        return self.services.tickets.supplement(number, _reason(note), actor=self.access.member.username)


def revised(petition: Petition, values: Mapping[str, Any], services: Services) -> Petition:
    """The petition with what a person wrote into the form; later readings leave those fields alone. Raises Refused."""
    unknown = set(values) - set(FIELDS)
    if unknown:
        raise Refused("有不认识的项目，请刷新页面再试。")
    changed = petition
    for name, value in values.items():
        changed = _set(changed, name, value, services)
    fixed = [name for name in ("category", "request_type", "urgency") if name in values]
    return replace(changed, fixed=tuple(dict.fromkeys((*petition.fixed, *fixed))))


def _set(petition: Petition, name: str, value: Any, services: Services) -> Petition:
    if name == "confidential":
        return replace(petition, confidential=bool(value))
    if not isinstance(value, str):
        raise Refused(f"{FIELDS[name]}应为文字。")
    value = value.strip()
    if name == "place":
        return place_from_answer(petition, value, services.gazetteer) if value else replace(petition, place=None)
    if name == "lead":
        # A department chosen for the old category must not outlive it: empty goes by the catalogue again.
        return replace(petition, lead=_one_of(value, departments(services), "主办部门") if value else None)
    if name == "phone":
        return replace(petition, phone=_phone(value) if value else None)
    if name == "name":
        return replace(petition, name=value[:30] or None)
    if name == "title":
        return replace(petition, title=_title(value))
    choices = {"category": services.catalogue.categories, "request_type": REQUEST_TYPES, "urgency": URGENCIES}
    chosen: dict[str, Any] = {name: _one_of(value, choices[name], FIELDS[name])}
    return replace(petition, **chosen)


def _one_of(value: str, known: Any, label: str) -> str:
    if value not in known:
        raise Refused(f"{label}“{value[:20]}”不在目录里，请从列表中选。")
    return value


def _phone(value: str) -> str:
    phone = find_phone(value)
    if phone is None:
        raise Refused("电话号码不对，请填手机号或带区号的座机。")
    return phone


def _title(value: str) -> str:
    if not 2 <= len(value) <= MAX_TITLE:
        raise Refused(f"标题要有 2 到 {MAX_TITLE} 个字。")
    return mask(value)


def _reason(text: str, *, required: bool = True) -> str:
    text = text.strip()
    if required and not text:
        raise Refused("请写一句说明。")
    if len(text) > MAX_REASON:
        raise Refused(f"说明最多 {MAX_REASON} 个字。")
    return text


def departments(services: Services) -> list[str]:
    return [str(entry["name"]) for entry in services.catalogue.city["departments"].values()]


def differences(before: Ticket, after: Ticket, *, evidence: str) -> list[Correction]:
    """What a person changed, field by field."""
    old, new = _values(before), _values(after)
    return [Correction(name, old[name], new[name], evidence) for name in FIELDS if old[name] != new[name]]


def _values(ticket: Ticket) -> dict[str, Any]:
    petition = ticket.petition
    return {
        "title": ticket.title,
        "category": petition.category,
        "request_type": petition.request_type,
        "urgency": petition.urgency,
        "place": (petition.place or {}).get("text"),
        "lead": ticket.lead_department,
        "name": petition.name,
        "phone": petition.phone,
        "confidential": petition.confidential,
    }


def _evidence(petition: Petition) -> str:
    return "；".join(str(span["text"]) for span in petition.evidence)


def returned_because(services: Services, number: str) -> str:
    """The department and its words when it last returned the ticket; empty when none did."""
    last = next((entry for entry in reversed(services.tickets.timeline(number)) if entry.kind == "returned"), None)
    return f"{last.department or ''}退回：{last.note or '未说明原因'}" if last else ""
