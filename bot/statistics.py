"""What happened in a period, from the plain columns of tickets: volumes, rates with numerator and denominator, lanes, live accuracy.

Rates follow the assessment of the 12345 hotlines; each says what it counts. Personal data is not read here.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Row

from bot.db import iso, parse_iso, reading
from bot.petition import Lanes
from bot.schema import ticket_events, tickets
from bot.services import Services
from bot.staff_schema import corrections
from bot.ticket import CHINA

RESPONSE_TIME = timedelta(hours=24)  # first contact within a day
SATISFIED = 3  # 基本满意 counts as satisfied
FETCH = 5000
ROUNDING = 4

CHANNELS = {"wechat": "微信", "web": "网页", "hotline": "电话", "api": "接口", "import": "导入"}
_COLUMNS = (
    tickets.c.number, tickets.c.category_code, tickets.c.district, tickets.c.source, tickets.c.state, tickets.c.urgency,
    tickets.c.emergency, tickets.c.confidence, tickets.c.filed_at, tickets.c.due_at, tickets.c.responded_at, tickets.c.closed_at,
    tickets.c.score,
)  # fmt: skip


@dataclass(frozen=True)
class Scope:
    """Tickets filed from `since` until before `until`; of these districts, or of all when there are none."""

    since: datetime
    until: datetime
    districts: tuple[str, ...] = ()

    @property
    def days(self) -> int:
        return max(1, round((self.until - self.since) / timedelta(days=1)))

    def before(self, times: int = 1) -> Scope:
        """The `times` as long period that ends where this one begins."""
        return Scope(self.since - times * (self.until - self.since), self.since, self.districts)


@dataclass(frozen=True)
class Rate:
    """`name` → `count` of `total`; None as value when there is nothing to count yet."""

    key: str
    name: str
    meaning: str
    count: int
    total: int

    @property
    def value(self) -> float | None:
        return round(self.count / self.total, ROUNDING) if self.total else None


@dataclass(frozen=True)
class LiveAccuracy:
    """Of the calls whose category the model read as `category` (first level), how many the agents left as it was."""

    category: str
    kept: int
    corrected: int

    @property
    def value(self) -> float | None:
        total = self.kept + self.corrected
        return round(self.kept / total, ROUNDING) if total else None


@dataclass
class Volumes:
    total: int = 0
    emergencies: int = 0
    by_category: Counter[str] = field(default_factory=Counter)
    by_district: Counter[str] = field(default_factory=Counter)
    by_channel: Counter[str] = field(default_factory=Counter)
    by_hour: Counter[int] = field(default_factory=Counter)
    by_day: Counter[str] = field(default_factory=Counter)
    by_lane: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, lanes: Lanes) -> None:
        filed = parse_iso(row.filed_at).astimezone(CHINA)
        self.total += 1
        self.emergencies += bool(row.emergency)
        self.by_category[row.category_code[:2]] += 1
        self.by_district[row.district or ""] += 1
        self.by_channel[row.source] += 1
        self.by_hour[filed.hour] += 1
        self.by_day[f"{filed:%Y-%m-%d}"] += 1
        if row.confidence is not None:
            self.by_lane[lanes.lane(row.confidence)] += 1


# Each: the row counts below the line, and above it. `now` decides what is due already.
Counts = Callable[[Row, datetime], tuple[bool, bool]]


def _responded(row: Row, now: datetime) -> tuple[bool, bool]:
    limit = parse_iso(row.filed_at) + RESPONSE_TIME
    answered = row.responded_at is not None
    return row.state != "withdrawn" and (answered or limit <= now), answered and parse_iso(row.responded_at) <= limit


def _closed_in_time(row: Row, now: datetime) -> tuple[bool, bool]:
    if row.due_at is None or row.state in ("withdrawn", "rejected"):
        return False, False
    due = parse_iso(row.due_at)
    return row.closed_at is not None or due <= now, row.closed_at is not None and parse_iso(row.closed_at) <= due


def _satisfied(row: Row, _now: datetime) -> tuple[bool, bool]:
    return row.score is not None, row.score is not None and row.score >= SATISFIED


RATES: Mapping[str, tuple[str, str, Counts]] = {
    "responded": ("响应率", "24 小时内签收或答复的，占应签收的（撤回的、还没到时间的不算）", _responded),
    "satisfied": ("满意率", "评价非常满意、满意、基本满意的，占评价过的", _satisfied),
    "in_time": ("按时办结率", "在时限前办结的，占已办结和已到期的（撤回、不予受理的不算）", _closed_in_time),
}
SOLVED = ("solved", "解决率", "评价过且没有说“没办好”的，占评价过的")


def count_tickets(services: Services, scope: Scope) -> tuple[Volumes, list[Rate]]:
    """One pass over the period's tickets."""
    volumes, now, lanes = Volumes(), services.now(), services.tickets.lanes
    totals, counts = Counter[str](), Counter[str]()
    unsolved = _complained(services, scope)
    for row in rows_of(services, scope):
        volumes.add(row, lanes)
        for key, (_, _, judge) in RATES.items():
            below, above = judge(row, now)
            totals[key] += below
            counts[key] += below and above
        totals["solved"] += row.score is not None
        counts["solved"] += row.score is not None and row.number not in unsolved
    rates = [Rate(key, name, meaning, counts[key], totals[key]) for key, (name, meaning, _) in RATES.items()]
    rates.insert(1, Rate(*SOLVED, counts["solved"], totals["solved"]))
    return volumes, rates


def numbers_behind(services: Services, scope: Scope, key: str, *, missed: bool) -> list[str]:
    """Ticket numbers a rate counts: those above the line, or with `missed` those that are only below it. Raises KeyError."""
    now, found = services.now(), []
    unsolved = _complained(services, scope) if key == "solved" else frozenset()
    judge = (lambda row, _now: (row.score is not None, row.number not in unsolved)) if key == "solved" else RATES[key][2]
    for row in rows_of(services, scope):
        below, above = judge(row, now)
        if below and above != missed:
            found.append(row.number)
    return found


def rows_of(services: Services, scope: Scope) -> Iterator[Row]:
    wanted = select(*_COLUMNS).where(tickets.c.filed_at >= iso(scope.since), tickets.c.filed_at < iso(scope.until))
    if scope.districts:
        wanted = wanted.where(tickets.c.district.in_(scope.districts) | tickets.c.district.is_(None))
    with reading(services.engine) as connection:
        yield from connection.execution_options(yield_per=FETCH).execute(wanted.order_by(tickets.c.filed_at))


def _complained(services: Services, scope: Scope) -> frozenset[str]:
    """Tickets of which the resident said what had not been done."""
    wanted = select(ticket_events.c.ticket_number).where(ticket_events.c.kind == "feedback", ticket_events.c.at >= iso(scope.since))
    with reading(services.engine) as connection:
        return frozenset(row.ticket_number for row in connection.execute(wanted))


def live_accuracy(services: Services, scope: Scope) -> list[LiveAccuracy]:
    """Per first level, worst first: what agents made of the category that was suggested to them on calls."""
    filed, old, new = Counter[str](), Counter[str](), Counter[str]()
    for row in rows_of(services, scope):
        if row.source == "hotline":
            filed[row.category_code[:2]] += 1
    wanted = select(corrections).where(
        corrections.c.field == "category", corrections.c.at >= iso(scope.since), corrections.c.at < iso(scope.until)
    )
    with reading(services.engine) as connection:
        for row in connection.execute(wanted):
            before, after = (str(services.vault.open(value) or "")[:2] for value in (row.old, row.new))
            if before and before != after:
                old[before] += 1
                new[after] += 1
    found = [LiveAccuracy(code, max(filed[code] - new[code], 0), old[code]) for code in filed.keys() | old.keys()]
    return sorted(found, key=lambda item: (item.value if item.value is not None else 1.0, -item.kept))


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def days_of(scope: Scope) -> Sequence[str]:
    """Every day of the period as in Volumes.by_day, so that a day without tickets shows as one."""
    first = scope.since.astimezone(CHINA).date()
    return [f"{first + timedelta(days=number):%Y-%m-%d}" for number in range(scope.days)]


def as_numbers(rates: Sequence[Rate]) -> list[dict[str, Any]]:
    return [{"key": r.key, "name": r.name, "meaning": r.meaning, "count": r.count, "total": r.total, "value": r.value} for r in rates]
