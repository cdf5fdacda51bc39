"""Hot spots of a period's tickets as a job; the page keeps the result with the job. Confidential matters and minors are left out."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select

from bot.db import iso, parse_iso, reading
from bot.gazetteer import PLACE_FIELDS, Place
from bot.hotspot_matters import load_wording
from bot.hotspots import Appeal, HotSpot, find_hot_spots
from bot.jobs import Job, JobRun, list_jobs, submit_job
from bot.petition import petition_from_dict
from bot.schema import tickets
from bot.services import DATA_DIR, Services
from bot.statistics import Scope

KIND = "hotspots"
TOP, MOST, FETCH = 10, 20_000, 2000


def submit_hot_spots(services: Services, scope: Scope, *, username: str) -> int:
    return submit_job(services, KIND, _params(scope), username=username)


def find_hot_spot_job(services: Services, scope: Scope) -> Job | None:
    """The newest job for exactly this period and these districts."""
    return next((job for job in list_jobs(services, KIND, limit=30) if job.params == _params(scope)), None)


def _params(scope: Scope) -> dict[str, Any]:
    return {"since": iso(scope.since), "until": iso(scope.until), "districts": list(scope.districts)}


def run_hot_spots(job: JobRun) -> Mapping[str, Any]:
    """`{"appeals": how many were compared, "spots": [...]}`; a spot names its tickets in order of time."""
    job.tell(0.0, "读取诉求")
    scope = Scope(parse_iso(job.params["since"]), parse_iso(job.params["until"]), tuple(job.params["districts"]))
    appeals = list(_appeals(job.services, scope))
    job.tell(0.3, f"比较 {len(appeals)} 件诉求")
    spots = find_hot_spots(appeals, load_wording(DATA_DIR), top=TOP) if appeals else []
    return {"appeals": len(appeals), "spots": [_as_dict(spot) for spot in spots]}


def _appeals(services: Services, scope: Scope) -> Iterator[Appeal]:
    wanted = (
        select(tickets)
        .where(tickets.c.filed_at >= iso(scope.since), tickets.c.filed_at < iso(scope.until))
        .where(tickets.c.confidential.is_(False), tickets.c.kind != "minor")
        .order_by(tickets.c.filed_at.desc())
        .limit(MOST)
    )
    if scope.districts:
        wanted = wanted.where(tickets.c.district.in_(scope.districts))
    with reading(services.engine) as connection:
        for row in connection.execution_options(yield_per=FETCH).execute(wanted):
            petition = petition_from_dict(services.vault.open(row.petition))
            place = petition.place
            known = (Place(**{name: place[name] for name in PLACE_FIELDS if name in place}),) if place and place.get("text") else ()
            sender = row.conversation_id or row.person_key
            yield Appeal(row.number, parse_iso(row.filed_at), petition.description or row.title, known, sender, row.urgency)


def _as_dict(spot: HotSpot) -> dict[str, Any]:
    return {
        "rank": spot.rank,
        "heat": spot.heat,
        "first_at": iso(spot.first_at),
        "last_at": iso(spot.last_at),
        "concerned": spot.concerned,
        "description": spot.description,
        "distinct": spot.distinct,
        "persons": spot.persons,
        "tickets": [appeal.id for appeal in spot.appeals],
    }
