"""Which open tickets may be about the same trouble, and what a caller has said before. Reads tickets, writes nothing."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, func, select
from sqlalchemy.engine import Connection, Row

from bot.catalogue import Catalogue
from bot.db import iso, parse_iso
from bot.petition import Petition
from bot.schema import tickets
from bot.ticket import FINAL_STATES, has_spot, place_key, place_keys, same_matter

# The same matter at the same place within this time belongs to one cluster.
CLUSTER_DAYS = 60
MOST_SIMILAR, MOST_EARLIER = 5, 6

_OPEN = tickets.c.state.notin_(sorted(FINAL_STATES))
_SHOWN = (
    tickets.c.number, tickets.c.cluster, tickets.c.title, tickets.c.category_code, tickets.c.state, tickets.c.urgency, tickets.c.filed_at,
    tickets.c.lead_department, tickets.c.district, tickets.c.confidential, tickets.c.person_key,
)  # fmt: skip
# Built once: building an expression costs as much as running it.
_SAME_PLACE = (
    select(*_SHOWN)
    .where(tickets.c.place_key.in_(bindparam("places", expanding=True)), _OPEN, tickets.c.filed_at >= bindparam("since"))
    .order_by(tickets.c.number)
    .limit(20)
)
_EARLIER = select(*_SHOWN).where(tickets.c.person_key == bindparam("person")).order_by(tickets.c.number.desc()).limit(MOST_EARLIER)


@dataclass(frozen=True)
class Earlier:
    """A filed ticket as a colleague may see it: no words and no person. `appellants`: size of its cluster."""

    number: str
    cluster: str
    title: str
    category_code: str
    state: str
    urgency: str
    filed_at: datetime
    lead_department: str
    district: str | None
    confidential: bool
    same_matter: bool
    same_person: bool
    appellants: int


def find_cluster(connection: Connection, petition: Petition, catalogue: Catalogue, now: datetime) -> str | None:
    """The first open ticket on the same matter at the same place; each appellant keeps a ticket and hears the result."""
    key = place_key(petition)
    if key is None or petition.kind in ("minor", "need"):
        return None
    rows = connection.execute(_SAME_PLACE, {"places": [key], "since": iso(now - timedelta(days=CLUSTER_DAYS))}).fetchall()
    return next((row.cluster for row in rows if same_matter(petition, row.category_code, row.title, catalogue)), None)


def find_similar(
    connection: Connection, petition: Petition, catalogue: Catalogue, now: datetime, *, person_key: str | None
) -> list[Earlier]:
    """Open tickets of the same place, those on the same matter first, whatever class they were read as."""
    if not has_spot(petition):
        return []
    levels = sorted({code[:2] for code in catalogue.categories})
    since = iso(now - timedelta(days=CLUSTER_DAYS))
    rows = connection.execute(_SAME_PLACE, {"places": place_keys(petition, levels), "since": since}).fetchall()
    found = list(_shown(connection, rows, petition, catalogue, person_key))
    return sorted(found, key=lambda item: (not item.same_matter, item.number))[:MOST_SIMILAR]


def find_earlier(connection: Connection, petition: Petition, catalogue: Catalogue, person_key: str) -> list[Earlier]:
    """What the same caller filed before, newest first."""
    rows = connection.execute(_EARLIER, {"person": person_key}).fetchall()
    return list(_shown(connection, rows, petition, catalogue, person_key))


def _shown(
    connection: Connection, rows: Iterable[Row], petition: Petition, catalogue: Catalogue, person_key: str | None
) -> Iterable[Earlier]:
    rows = list(rows)
    count = select(tickets.c.cluster, func.count()).where(tickets.c.cluster.in_([row.cluster for row in rows])).group_by(tickets.c.cluster)
    sizes: dict[str, int] = dict(connection.execute(count).fetchall()) if rows else {}  # type: ignore[arg-type]
    for row in rows:
        yield Earlier(
            number=row.number,
            cluster=row.cluster,
            title=row.title,
            category_code=row.category_code,
            state=row.state,
            urgency=row.urgency,
            filed_at=parse_iso(row.filed_at),
            lead_department=row.lead_department,
            district=row.district,
            confidential=bool(row.confidential),
            same_matter=same_matter(petition, row.category_code, row.title, catalogue),
            same_person=person_key is not None and row.person_key == person_key,
            appellants=sizes.get(row.cluster, 1),
        )
