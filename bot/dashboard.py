"""Everything the dashboard and its files show, put together once: bars with their share, rates with their change, drift, accuracy."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import jieba
from sqlalchemy import select

from bot.catalogue import Catalogue
from bot.db import iso, reading
from bot.drift import ALERT, NOTICE, RisenWord, risen_words, stability_index
from bot.petition import FILE, PERSON, SUGGEST
from bot.schema import tickets
from bot.services import Services
from bot.statistics import CHANNELS, LiveAccuracy, Rate, Scope, Volumes, count_tickets, days_of, live_accuracy
from bot.ticket import CHINA

Key = TypeVar("Key", str, int)
LANES = {FILE: "直接采用", SUGGEST: "给出几个选项", PERSON: "人工判断"}
EARLIER = 4  # drift compares with this many periods before
MOST_TITLES = 20_000


@dataclass(frozen=True)
class Bar:
    """`share` of the largest bar, 0 … 1, for drawing; `part` of all, for reading."""

    key: str
    label: str
    count: int
    share: float
    part: float


@dataclass(frozen=True)
class Dashboard:
    title: str
    made_at: datetime
    total: int
    total_before: int
    emergencies: int
    rates: Sequence[Rate]
    days: Sequence[Bar]
    hours: Sequence[Bar]
    categories: Sequence[Bar]
    districts: Sequence[Bar]
    channels: Sequence[Bar]
    lanes: Sequence[Bar]
    accuracy: Sequence[LiveAccuracy]
    category_names: Mapping[str, str]
    stability: float | None
    stability_words: str
    words: Sequence[RisenWord]


def build_dashboard(services: Services, scope: Scope) -> Dashboard:
    volumes, rates = count_tickets(services, scope)
    earlier, _ = count_tickets(services, scope.before(EARLIER))
    before, _ = count_tickets(services, scope.before())
    names = first_levels(services.catalogue)
    index = stability_index(volumes.by_category, earlier.by_category)
    return Dashboard(
        title=_title(scope),
        made_at=services.now(),
        total=volumes.total,
        total_before=before.total,
        emergencies=volumes.emergencies,
        rates=rates,
        days=_in_order(volumes.by_day, days_of(scope), lambda day: f"{int(day[5:7])}月{int(day[8:])}日"),
        hours=_in_order(volumes.by_hour, range(24), lambda hour: f"{hour} 点"),
        categories=_largest(volumes.by_category, lambda code: names.get(code, code)),
        districts=_largest(volumes.by_district, lambda name: name or "未写明"),
        channels=_largest(volumes.by_channel, lambda source: CHANNELS.get(source, source)),
        lanes=_in_order(volumes.by_lane, LANES, LANES.__getitem__),
        accuracy=live_accuracy(services, scope),
        category_names=names,
        stability=index,
        stability_words=_say_stability(index, volumes),
        words=risen_words(_titles(services, scope), _titles(services, scope.before(EARLIER))),
    )


def first_levels(catalogue: Catalogue) -> dict[str, str]:
    return {category.code[:2]: category.path[0] for category in catalogue.categories.values()}


def _say_stability(index: float | None, volumes: Volumes) -> str:
    if index is None:
        return f"诉求还太少（本期 {volumes.total} 件），看不出变化。"
    if index < NOTICE:
        return "类别分布和以前差不多。"
    return "类别分布有些变化，留意一下。" if index < ALERT else "类别分布变化明显：请到审核页看看最近的诉求，必要时重新训练。"


def _title(scope: Scope) -> str:
    first, last = scope.since.astimezone(CHINA), scope.until.astimezone(CHINA) - timedelta(days=1)
    where = "、".join(scope.districts) or "全市"
    return f"{where} {first.year}年{first.month}月{first.day}日至{last.year}年{last.month}月{last.day}日"


def _largest(counts: Counter[str], label: Callable[[str], str]) -> list[Bar]:
    return _bars([(key, label(key), count) for key, count in counts.most_common()])


def _in_order(counts: Mapping[Key, int], keys: Iterable[Key], label: Callable[[Key], str]) -> list[Bar]:
    return _bars([(str(key), label(key), counts.get(key, 0)) for key in keys])


def _bars(rows: Sequence[tuple[str, str, int]]) -> list[Bar]:
    most, total = max((count for *_, count in rows), default=0), sum(count for *_, count in rows)
    return [Bar(key, label, count, count / most if most else 0.0, count / total if total else 0.0) for key, label, count in rows]


def _titles(services: Services, scope: Scope) -> list[list[str]]:
    """Words of titles: they are the matter without the story. Confidential ones are left out."""
    wanted = (
        select(tickets.c.title)
        .where(tickets.c.filed_at >= iso(scope.since), tickets.c.filed_at < iso(scope.until), tickets.c.confidential.is_(False))
        .order_by(tickets.c.filed_at.desc())
        .limit(MOST_TITLES)
    )
    if scope.districts:
        wanted = wanted.where(tickets.c.district.in_(scope.districts))
    with reading(services.engine) as connection:
        rows = connection.execute(wanted).fetchall()
    return [[word for word in jieba.cut(row.title) if len(word) > 1 and not word.isascii()] for row in rows]
