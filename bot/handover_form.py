"""The half-filled form beside a conversation that a person has taken: seen, filled in, filed, or left for the bot to go on with.

The form is the bot's own: the first draft of the conversation's state. Whoever changes it holds the conversation (bot/handover.py).
"""
from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from bot.access import Access, drafts_of
from bot.assistant import Assistant, AssistantError
from bot.card import card_of
from bot.conversation import message_of
from bot.corrections import Correction, keep_corrections
from bot.db import reading, transaction
from bot.petition import MAX_DESCRIPTION, Petition, add_places, add_text, apply_reading, missing_slots, note_asked, title_of
from bot.schema import conversations, inbound_messages
from bot.services import Services
from bot.ticket import Ticket, departments_of
from bot.ticket_desk import PERSONAL, Refused, revised

SLOT_LABELS = {
    "location": "地点", "district": "区县", "employer": "单位", "amount": "金额", "when": "时间", "item": "需要什么",
    "other_party": "对方", "respondent": "涉及人员",
}  # fmt: skip
FILED = "已为您登记：“{title}”，编号 {number}，由{lead}办理。随时查看：{link}"
MISSING = "“{title}”还差{label}。{question}"
COMPLETE = "请核对：\n{card}\n没有问题请回复“确认提交”；要改的地方直接说。"
# Kept in the conversation's state while a person has it: what they changed of what the model had read.
_CHANGES = "desk_changes"
_LEARNT = ("category", "request_type", "urgency", "place")


@dataclass(frozen=True)
class HandoverForm:
    access: Access
    conversation_id: str
    assistant: Assistant

    @property
    def services(self) -> Services:
        return self.access.services

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """Drafts as the page shows them, and the tickets of this conversation."""
        with reading(self.services.engine) as connection:
            state = self._state(connection)
        filed = [ticket for ticket in self.services.tickets.find_of_conversation(self.conversation_id) if self.access.may_read(ticket)]
        return {
            "drafts": [self._view(draft) for draft in drafts_of(state)],
            "tickets": [{"number": one.number, "title": one.title, "state": one.state_label} for one in filed],
        }

    def _view(self, draft: Petition) -> dict[str, Any]:
        catalogue, open_to = self.services.catalogue, self.access.may_see_person(draft)
        category, (lead, _co) = catalogue.get_category(draft.category), departments_of(draft, catalogue)
        return {
            "id": draft.id,
            "title": title_of(draft),
            "description": draft.description,
            "category": f"{category.code} {'/'.join(category.path)}",
            "confidence": None if "category" in draft.fixed or not draft.model else draft.category_confidence,
            "request_type": draft.request_type,
            "urgency": draft.urgency,
            "place": str((draft.place or {}).get("text") or ""),
            "name": (draft.name or "") if open_to else "",
            "phone": (draft.phone or "") if open_to else "",
            "open_to": open_to,
            "anonymous": draft.anonymous,
            "confidential": draft.confidential,
            "lead": lead,
            "attachments": list(draft.attachments),
            "missing": [
                {"slot": slot, "label": SLOT_LABELS.get(slot, slot), "question": catalogue.question_aloud(slot, draft.category)}
                for slot in missing_slots(draft, catalogue)
            ],
        }

    # -- writing --------------------------------------------------------------------------------------------------

    def save(self, draft_id: str, values: Mapping[str, Any]) -> None:
        """Raises NotYours, Refused, StorageError."""
        with self._changing() as (connection, state):
            drafts = drafts_of(state)
            number = _number_of(drafts, draft_id)
            if PERSONAL & set(values) and not self.access.may_see_person(drafts[number]):
                raise Refused("反映人信息对您的账号不开放，不能改。")
            changed = _filled(drafts[number], values, self.services)
            changes = _noted(state.get(_CHANGES) or [], drafts[number], changed)
            drafts[number] = changed
            self._keep(connection, {**state, _CHANGES: changes}, drafts)

    def quote(self, message_id: int) -> None:
        """Add a message of the resident to the form, read as the bot would; a new form when there is none.

        Without the model only the words are taken. Raises NotYours, Refused, StorageError.
        """
        words = self._words_of(message_id)
        with self._changing() as (connection, state):
            drafts = drafts_of(state) or [self._new_draft(connection, state)]
            drafts[0] = self._told(drafts[0], words)
            self._keep(connection, {**state, "pictures": None}, drafts)

    def start(self) -> None:
        """An empty form. Raises NotYours, StorageError."""
        with self._changing() as (connection, state):
            if not drafts_of(state):
                self._keep(connection, {**state, "pictures": None}, [self._new_draft(connection, state)])

    def file(self, draft_id: str) -> Ticket:
        """Ticket, labels, state and the resident's word of it in one transaction. Raises NotYours, Refused, StorageError."""
        member = self.access.member
        with self._changing() as (connection, state):
            drafts = drafts_of(state)
            draft = drafts.pop(_number_of(drafts, draft_id))
            if not draft.description.strip():
                raise Refused("还没有诉求内容，请先填写，或从对话里引用一句。")
            ticket = self.services.tickets.open_ticket(
                draft, request_key=f"{self.conversation_id}:{draft.id}", conversation_id=self.conversation_id, actor=member.username
            )
            found = [Correction(**change) for change in state.get(_CHANGES) or ()]
            keep_corrections(self.services, found, source="ticket", subject=ticket.number, username=member.username, model=draft.model)
            recent = [ticket.number, *(state.get("recent_tickets") or ())][:10]
            self._keep(connection, {**state, "asked": None, "recent_tickets": recent, _CHANGES: None}, drafts)
            link = self.services.tickets.link(ticket.number, self.services.settings.base_url)
            words = FILED.format(title=ticket.title, number=ticket.number, lead=ticket.lead_department, link=link)
            self.services.handovers.tell(connection, self.conversation_id, member, words)
        return ticket

    def give_back(self) -> None:
        """The bot asks for what the form still lacks, or shows the card. Raises NotYours, StorageError."""
        with self._changing() as (_connection, state):
            drafts, asked, question = _resumed(drafts_of(state), self.services)
            if asked:
                state = {**state, "asked": asked, "misses": None, "drafts": [draft.as_dict() for draft in drafts]}
            state = {name: value for name, value in state.items() if name != _CHANGES}
            self.services.handovers.give_back(self.conversation_id, self.access.member, state=state, question=question)

    # -- inside ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[tuple[Connection, dict[str, Any]]]:
        """A transaction in which the person surely has the conversation and nobody else changes its state."""
        with transaction(self.services.engine) as connection:
            self.services.handovers.hold(connection, self.conversation_id, self.access.member)
            yield connection, self._state(connection, locked=True)

    def _state(self, connection: Connection, *, locked: bool = False) -> dict[str, Any]:
        chosen = select(conversations.c.state).where(conversations.c.id == self.conversation_id)
        sealed = connection.execute(chosen.with_for_update() if locked else chosen).scalar()
        return dict(self.services.vault.open(sealed)) if sealed else {}

    def _keep(self, connection: Connection, state: Mapping[str, Any], drafts: list[Petition]) -> None:
        kept = {**state, "drafts": [draft.as_dict() for draft in drafts] or None}
        self.services.handovers.keep_state(connection, self.conversation_id, kept)

    def _new_draft(self, connection: Connection, state: Mapping[str, Any]) -> Petition:
        channel = connection.execute(select(conversations.c.channel).where(conversations.c.id == self.conversation_id)).scalar_one()
        reporter = state.get("reporter") or {}
        return Petition(
            id=uuid.uuid4().hex[:12],
            source="wechat" if channel == "wechat" else "web",
            name=reporter.get("name"),
            phone=reporter.get("phone"),
            anonymous=bool(reporter.get("anonymous")),
            confidential=bool(reporter.get("confidential")),
            attachments=tuple(state.get("pictures") or ()),
        )

    def _words_of(self, message_id: int) -> str:
        mine = inbound_messages.c.id == message_id, inbound_messages.c.conversation_id == self.conversation_id
        with reading(self.services.engine) as connection:
            row = connection.execute(select(inbound_messages).where(*mine)).first()
        words = message_of(self.services, row).text.strip() if row else ""
        if not words:
            raise Refused("这一条没有文字可以引用。")
        return words

    def _told(self, draft: Petition, words: str) -> Petition:
        told = add_text(draft, words)
        try:
            whole, alone = self.assistant.parse(told.description), self.assistant.parse(words)
        except AssistantError:
            return told
        read = apply_reading(replace(told, model=self.assistant.serving_model()), whole["reading"], self.services.catalogue)
        return add_places(read, alone.get("place_spans") or (), words, self.services.gazetteer)


def _number_of(drafts: list[Petition], draft_id: str) -> int:
    number = next((number for number, draft in enumerate(drafts) if draft.id == draft_id), None)
    if number is None:
        raise Refused("这张表单已经登记或取消了，请看左边的工单。")
    return number


def _filled(draft: Petition, values: Mapping[str, Any], services: Services) -> Petition:
    rest = dict(values)
    if "description" in rest:
        text = str(rest.pop("description")).strip()
        if len(text) > MAX_DESCRIPTION:
            raise Refused(f"诉求内容最多 {MAX_DESCRIPTION} 个字。")
        draft = replace(draft, texts=(text,) if text else ())
    if "anonymous" in rest:
        draft = replace(draft, anonymous=bool(rest.pop("anonymous")))
    return revised(draft, rest, services)


def _noted(changes: list[Mapping[str, Any]], before: Petition, after: Petition) -> list[dict[str, Any]]:
    """What the model had read and what stands there now, field by field; a value that was set back is no change."""
    known = {str(change["field"]): dict(change) for change in changes}
    old, new = _learnt(before), _learnt(after)
    evidence = "；".join(str(span["text"]) for span in before.evidence)
    for name in _LEARNT:
        if old[name] != new[name]:
            known[name] = {**known.get(name, {"field": name, "old": old[name], "evidence": evidence}), "new": new[name]}
    return [change for change in known.values() if before.model and change["old"] != change["new"]]


def _learnt(draft: Petition) -> dict[str, Any]:
    place = (draft.place or {}).get("text")
    return {"category": draft.category, "request_type": draft.request_type, "urgency": draft.urgency, "place": place}


def _resumed(drafts: list[Petition], services: Services) -> tuple[list[Petition], str | None, str]:
    """The drafts with the one asked about in front, what the bot has now asked for, and in which words; nothing without a draft."""
    catalogue = services.catalogue
    for number, draft in enumerate(drafts):
        missing = missing_slots(draft, catalogue)
        if missing:
            asked = note_asked(draft, missing[0])
            label, question = SLOT_LABELS.get(missing[0], missing[0]), catalogue.question_aloud(missing[0], draft.category)
            words = MISSING.format(title=title_of(draft), label=label, question=question)
            return [asked, *drafts[:number], *drafts[number + 1 :]], missing[0], words
    if not drafts:
        return drafts, None, ""
    return drafts, "confirm", COMPLETE.format(card="\n".join(card_of(draft, catalogue) for draft in drafts))
