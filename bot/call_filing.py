"""Filing a call: its forms become tickets, corrections and the end of the call in one commit; and taking a merge back."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bot.calls import DROPPED, FILED, CallClosed, Calls
from bot.corrections import Correction, keep_corrections
from bot.db import iso, transaction
from bot.petition import Petition, petition_from_dict
from bot.services import Services
from bot.ticket import Ticket

# How a form is to be filed: beside an open ticket of the same trouble, as its own, or as an addition to that ticket.
JOIN, ALONE, MERGE = "join", "alone", "merge"


@dataclass(frozen=True)
class Filing:
    """One form, ready to become a ticket. `note` is what an existing ticket gets where the form is merged into it."""

    petition: Petition
    relation: Mapping[str, Any]
    note: str
    corrections: tuple[Correction, ...] = ()


@dataclass(frozen=True)
class CallFiling:
    services: Services
    calls: Calls

    def file(self, call_id: str, filings: Sequence[Filing], *, username: str) -> list[str]:
        """Ticket numbers, all of them in one commit; a call that was filed before gives the same ones.

        Raises CallNotFound, CallClosed, TicketClosed (the ticket to merge into has ended), StorageError.
        """
        with transaction(self.services.engine) as connection:
            call = self.calls.lock(connection, call_id)
            if call.state == FILED:
                return list(call.ticket_numbers)
            if call.state == DROPPED:
                raise CallClosed("这通电话已经标为不立单。")
            numbers = [self._file_one(call_id, number, filing, username) for number, filing in enumerate(filings)]
            filed = [
                {"number": ticket, "relation": dict(filing.relation), "petition": filing.petition.as_dict(), "note": filing.note}
                for ticket, filing in zip(numbers, filings, strict=True)
            ]
            for filing in filings:
                model = filing.petition.model
                keep_corrections(self.services, filing.corrections, source="call", subject=call_id, username=username, model=model)
            # Who wants to be anonymous is not kept by the number that the telephone showed either.
            forget = {"caller": None, "person_key": None} if all(filing.petition.anonymous for filing in filings) else {}
            self.calls.touch(
                connection, call_id, state=FILED, username=call.username or username, ended_at=call.ended_at or iso(self.services.now()),
                ticket_numbers=",".join(dict.fromkeys(numbers)), form=self.calls.seal({**call.form, "filed": filed}), **forget,
            )  # fmt: skip
            return list(dict.fromkeys(numbers))

    def _file_one(self, call_id: str, number: int, filing: Filing, username: str) -> str:
        kind, other = filing.relation.get("kind"), str(filing.relation.get("number") or "")
        tickets = self.services.tickets
        if kind == MERGE:
            return tickets.supplement(other, filing.note, urgency=filing.petition.urgency, actor=username).number
        cluster = "" if kind == ALONE else (tickets.get_ticket(other).cluster if kind == JOIN else None)
        return self._open_ticket(call_id, number, filing.petition, username, cluster).number

    def _open_ticket(self, call_id: str, number: int, petition: Petition, username: str, cluster: str | None) -> Ticket:
        key = f"call:{call_id}" if number == 0 else f"call:{call_id}:{number + 1}"
        return self.services.tickets.open_ticket(petition, request_key=key, conversation_id=None, cluster=cluster, actor=username)

    def undo_relation(self, call_id: str, number: int, *, username: str) -> str:
        """Take one filed form out of the ticket or cluster it went into; the number of the ticket it has now.

        Raises CallNotFound, CallClosed, TicketClosed.
        """
        with transaction(self.services.engine) as connection:
            call = self.calls.lock(connection, call_id)
            filed = [dict(item) for item in call.form.get("filed", ())]
            if not 0 <= number < len(filed):
                raise CallClosed("这通电话没有这一件。")
            item = filed[number]
            merged_into, petition = str(item["number"]), petition_from_dict(item["petition"])
            if item["relation"].get("kind") == MERGE:
                self._take_back(merged_into, str(item["note"]), username)
                item["number"] = self._open_ticket(call_id, number, petition, username, "").number
            else:
                self.services.tickets.regroup(merged_into, None, actor=username)
            item["relation"] = {"kind": ALONE, "number": None}
            numbers = ",".join(dict.fromkeys(str(one["number"]) for one in filed))
            self.calls.touch(connection, call_id, ticket_numbers=numbers, form=self.calls.seal({**call.form, "filed": filed}))
            return str(item["number"])

    def _take_back(self, number: str, note: str, username: str) -> None:
        ticket = self.services.tickets.get_ticket(number)
        texts = tuple(said for said in ticket.petition.texts if said != note)
        self.services.tickets.correct(number, replace(ticket.petition, texts=texts), note="撤销并单，前一条补充不属于此单", actor=username)
