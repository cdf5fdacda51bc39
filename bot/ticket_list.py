"""The list of tickets: filters, search, paging and counts, always inside what a member of staff may read. Changes nothing."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from sqlalchemy import and_, case, distinct, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement, Select

from bot.access import Access
from bot.catalogue import REQUEST_TYPES, URGENCIES
from bot.db import iso, reading
from bot.petition import find_phone
from bot.schema import ticket_events, tickets
from bot.search import REVISIONS, contains, find_hits, query_words, searchable_text
from bot.services import Services
from bot.ticket import CHINA, FINAL_STATES, STATES, Ticket

PAGE = 50
MOST_COUNTED = 1000  # with a search the number of hits is told up to here
_CHUNK, _CHUNKS = 200, 60
SOURCES = {"wechat": "微信", "web": "网页", "hotline": "热线", "import": "导入"}
FLAGS = ("emergency", "overdue", "returned", "low", "mine")
# Waits for nobody's answer any more.
_ANSWERED = FINAL_STATES | {"replied"}


@dataclass(frozen=True)
class Filters:
    """What the list is narrowed to; the field names are those of the address. Empty = not narrowed."""

    q: str = ""
    state: str = ""
    district: str = ""
    category: str = ""
    type: str = ""
    urgency: str = ""
    source: str = ""
    department: str = ""
    since: str = ""
    until: str = ""
    emergency: bool = False
    overdue: bool = False
    returned: bool = False
    low: bool = False
    mine: bool = False

    def as_arguments(self) -> dict[str, Any]:
        """The inverse of read_filters(): only what narrows."""
        return {name: "1" if value is True else str(value) for name, value in vars(self).items() if value}


def read_filters(arguments: Mapping[str, str], services: Services) -> Filters:
    """Filters of an address; what no ticket can have is dropped, so that an old bookmark still shows a list."""
    given = {field.name: arguments.get(field.name, "").strip()[:200] for field in fields(Filters)}
    known: dict[str, Any] = {
        "state": STATES,
        "type": REQUEST_TYPES,
        "urgency": URGENCIES,
        "source": SOURCES,
        "district": (*services.gazetteer.home_districts(), "none"),
    }
    for name, values in known.items():
        given[name] = given[name] if given[name] in values else ""
    if not any(code.startswith(given["category"]) for code in services.catalogue.categories):
        given["category"] = ""
    days = {name: value if (value := given[name]) and _day(value) else "" for name in ("since", "until")}
    chosen: dict[str, Any] = {**given, **days, **{flag: bool(given[flag]) for flag in FLAGS}}
    return Filters(**chosen)


def _day(value: str) -> date | None:
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


@dataclass(frozen=True)
class Page:
    """`older` is the position after which the next page begins; None = there is none."""

    tickets: tuple[Ticket, ...]
    older: int | None


@dataclass(frozen=True)
class TicketList:
    access: Access

    @property
    def services(self) -> Services:
        return self.access.services

    def page(self, filters: Filters, *, before: int | None = None, size: int = PAGE) -> Page:
        """Newest first. Raises StorageError."""
        words, found = query_words(filters.q), list[Ticket]()
        with reading(self.services.engine) as connection:
            for number in range(_CHUNKS):
                chunk = max(size + 1, _CHUNK if number else 0)  # most often the first look finds a page
                positions = self._positions(connection, filters, before, chunk)
                tickets_here = self.services.tickets.at_positions(connection, positions)
                found += [ticket for ticket in tickets_here if not words or self._fits(ticket, filters.q, words)]
                if len(found) > size or len(positions) < chunk:
                    break
                before = positions[-1]
        return Page(tuple(found[:size]), found[size - 1].position if len(found) > size else None)

    def _positions(self, connection: Connection, filters: Filters, before: int | None, limit: int) -> list[int]:
        """The next positions that may fit, newest first; one with several documents comes several times."""
        chosen = self._chosen(connection, filters, before)
        return list(connection.execute(chosen.limit(limit)).scalars()) if chosen is not None else []

    def _chosen(self, connection: Connection, filters: Filters, before: int | None = None) -> Select[Any] | None:
        """Positions in order; None when what is searched is too short."""
        words, phone = query_words(filters.q), find_phone(filters.q)
        conditions = [*self.access.readable(), *self._conditions(filters)]
        chosen = select(tickets.c.position).where(*conditions)
        if not words or phone:
            if phone:
                chosen = chosen.where(tickets.c.person_key == self.services.vault.person_key(phone))
            return (chosen if before is None else chosen.where(tickets.c.position < before)).order_by(tickets.c.position.desc())
        hits = find_hits(connection, self.services.vault, words)
        if hits is None:
            return None
        chosen = chosen.join_from(hits.index, tickets, tickets.c.position == hits.position).where(hits.match)
        return (chosen if before is None else chosen.where(hits.document < before * REVISIONS)).order_by(hits.document.desc())

    def _fits(self, ticket: Ticket, query: str, words: list[str]) -> bool:
        if find_phone(query):  # found by whose it is: only for who may know that
            return self.access.may_see_person(ticket.petition)
        return contains(words, searchable_text(ticket.number, ticket.title, ticket.petition))

    def _conditions(self, filters: Filters) -> list[ColumnElement[bool]]:
        column, wanted = tickets.c, list[ColumnElement[bool]]()
        equal = {"state": column.state, "type": column.request_type, "urgency": column.urgency, "source": column.source}
        wanted += [column_ == getattr(filters, name) for name, column_ in equal.items() if getattr(filters, name)]
        if filters.district:
            wanted.append(column.district.is_(None) if filters.district == "none" else column.district == filters.district)
        if filters.category:
            wanted.append(column.category_code.like(f"{filters.category}%"))
        if filters.department:
            wanted.append(column.lead_department == filters.department)
        if filters.since:
            wanted.append(column.filed_at >= _midnight(filters.since))
        if filters.until:
            wanted.append(column.filed_at < _midnight(filters.until, days=1))
        return wanted + [condition for flag, condition in self._flags().items() if getattr(filters, flag)]

    def _flags(self) -> dict[str, ColumnElement[bool]]:
        column, now = tickets.c, iso(self.services.now())
        mine = select(ticket_events.c.ticket_number).where(ticket_events.c.actor == self.access.member.username)
        return {
            "emergency": column.emergency.is_(True),
            "overdue": and_(column.due_at < now, column.state.notin_(sorted(_ANSWERED))),
            "returned": column.state == "returned",
            "low": and_(column.confidence < self.services.tickets.lanes.file, column.state.notin_(sorted(FINAL_STATES))),
            "mine": column.number.in_(mine),
        }

    # -- counts ---------------------------------------------------------------------------------------------------

    def count(self, filters: Filters) -> int:
        """How many tickets fit; with a search at most MOST_COUNTED, before the words are compared."""
        if find_phone(filters.q):  # the number alone must not tell whom a hidden report is from
            return len(self.page(filters, size=MOST_COUNTED).tickets)
        with reading(self.services.engine) as connection:
            chosen = self._chosen(connection, filters)
            if chosen is None:
                return 0
            chosen = chosen.limit(MOST_COUNTED) if filters.q else chosen.order_by(None)
            return int(connection.execute(select(func.count(distinct(chosen.subquery().c.position)))).scalar_one())

    def counts(self, filters: Filters) -> dict[str, int]:
        """How many there would be with each flag alone added to what is chosen, flags aside; not for a search."""
        plain = replace(filters, q="", emergency=False, overdue=False, returned=False, low=False, mine=False)
        flags = self._flags()
        counted = [func.coalesce(func.sum(case((flags[name], 1), else_=0)), 0).label(name) for name in FLAGS if name != "mine"]
        conditions = [*self.access.readable(), *self._conditions(plain)]
        with reading(self.services.engine) as connection:
            row = connection.execute(select(func.count().label("all"), *counted).where(*conditions)).one()
            mine = connection.execute(select(func.count()).select_from(tickets).where(*conditions, flags["mine"])).scalar_one()
        return {**{name: int(value) for name, value in row._mapping.items()}, "mine": int(mine)}


def _midnight(day: str, *, days: int = 0) -> str:
    """The beginning of a day in China, as it is stored."""
    return iso(datetime.combine(date.fromisoformat(day), time(), CHINA) + timedelta(days=days))
