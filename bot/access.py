"""What a member of staff may read: the one place that decides, as a filter for lists and as a look-up for single things.

- A ticket, and all that hangs on it, is for the staff of its district; a ticket of no district of this city is everybody's, so that
  it is not nobody's. A confidential one is only for who is cleared. What may not be read does not exist: TicketNotFound.
- A conversation may be read by who may read every ticket filed in it and the place of what is being written in it. Who has taken it
  reads it to the end, also when the place turns out to be elsewhere: the resident must not be left in the middle of a sentence.
- Who spoke stays hidden from who works for the department that is spoken about, and from all but the cleared when the resident
  wished to be anonymous.
"""
from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.engine import Row
from sqlalchemy.sql import ColumnElement

from bot.catalogue import Catalogue
from bot.db import reading
from bot.petition import Petition, petition_from_dict
from bot.schema import attachments, conversations, handovers, outbox, tickets
from bot.services import Services
from bot.staff import StaffMember
from bot.ticket import Ticket, is_confidential
from bot.tickets import TicketNotFound

_NUMBER = re.compile(r"[0-9]{8}-[0-9]{4,7}")
_REPORTS = frozenset({"投诉", "举报"})


@dataclass(frozen=True)
class Access:
    services: Services
    member: StaffMember

    # -- tickets --------------------------------------------------------------------------------------------------

    def readable(self) -> list[ColumnElement[bool]]:
        """Conditions on the ticket table that hold for every ticket this person may read, and for no other."""
        conditions: list[ColumnElement[bool]] = []
        if self.member.districts:
            conditions.append(or_(tickets.c.district.is_(None), tickets.c.district.in_(self.member.districts)))
        if not self.member.cleared:
            conditions.append(tickets.c.confidential.is_(False))
        return conditions

    def may_read(self, ticket: Ticket) -> bool:
        return self.member.may_read(district=ticket.district, confidential=ticket.confidential)

    def get_ticket(self, number: str) -> Ticket:
        """Raises TicketNotFound for a ticket of others as for one that does not exist."""
        if not _NUMBER.fullmatch(number):
            raise TicketNotFound
        ticket = self.services.tickets.get_ticket(number)
        if not self.may_read(ticket):
            raise TicketNotFound
        return ticket

    def get_attachment(self, number: str, attachment_id: str) -> Row:
        """Raises TicketNotFound."""
        ticket = self.get_ticket(number)
        if attachment_id not in ticket.petition.attachments:
            raise TicketNotFound
        with reading(self.services.engine) as connection:
            row = connection.execute(select(attachments).where(attachments.c.id == attachment_id)).first()
        if row is None:
            raise TicketNotFound
        return row

    def get_delivery(self, outbox_id: str) -> Row:
        """Raises TicketNotFound."""
        with reading(self.services.engine) as connection:
            row = connection.execute(select(outbox).where(outbox.c.id == outbox_id)).first()
        if row is None:
            raise TicketNotFound
        self.get_ticket(row.ticket_number)
        return row

    # -- persons --------------------------------------------------------------------------------------------------

    def may_see_person(self, petition: Petition) -> bool:
        """Whether this person may learn who spoke: name, number, and the words as they were said."""
        if petition.anonymous and not self.member.cleared:
            return False
        department = self.member.department
        if department is None:
            return True
        hidden = petition.anonymous or is_confidential(petition, self.services.catalogue) or petition.request_type == "举报"
        return not hidden and not reports_on(petition, department, self.services.catalogue)

    # -- conversations --------------------------------------------------------------------------------------------

    def may_read_conversation(self, conversation_id: str) -> bool:
        return bool(self.readable_conversations([conversation_id]))

    def readable_conversations(self, ids: Collection[str]) -> set[str]:
        """Those of these conversations that this person may read."""
        filed = select(tickets.c.conversation_id, tickets.c.petition).where(tickets.c.conversation_id.in_(ids))
        own = handovers.c.conversation_id.in_(ids), handovers.c.closed_at.is_(None), handovers.c.username == self.member.username
        with reading(self.services.engine) as connection:
            rows = connection.execute(select(conversations.c.id, conversations.c.state).where(conversations.c.id.in_(ids))).fetchall()
            told = connection.execute(filed).fetchall()
            held = set(connection.execute(select(handovers.c.conversation_id).where(*own)).scalars())
        vault = self.services.vault
        spoken = [(row.conversation_id, petition_from_dict(vault.open(row.petition))) for row in told]
        spoken += [(row.id, draft) for row in rows if row.state for draft in drafts_of(vault.open(row.state))]
        refused = {conversation_id for conversation_id, petition in spoken if not self._may_hear(petition, held=conversation_id in held)}
        return {row.id for row in rows} - refused

    def _may_hear(self, petition: Petition, *, held: bool) -> bool:
        district, secret = self.services.tickets.district_of(petition), is_confidential(petition, self.services.catalogue)
        if not held and not self.member.may_read(district=district, confidential=secret):
            return False
        return self.member.department is None or self.may_see_person(petition)


def drafts_of(state: Mapping[str, Any]) -> list[Petition]:
    """The petitions being written in a conversation with this state, the one asked about first."""
    return [petition_from_dict(draft) for draft in state.get("drafts") or ()]


def reports_on(petition: Petition, department: str, catalogue: Catalogue) -> bool:
    """Whether a complaint or report speaks of this department: by its name, its short name or its role, as people call it."""
    if petition.request_type not in _REPORTS:
        return False
    said = f"{petition.description}\n{petition.facts.get('respondent', '')}\n{petition.facts.get('employer', '')}"
    return any(name in said for name in names_of(department, catalogue))


def names_of(department: str, catalogue: Catalogue) -> set[str]:
    role = next((role for role, entry in catalogue.city["departments"].items() if entry.get("name") == department), "")
    short = re.sub(r"^市|（.*）$", "", department)
    return {name for name in (department, short, role, re.sub(r"(?:管理|监督)?(?:局|委员会|中心|主管部门)$", "", short)) if len(name) >= 2}
