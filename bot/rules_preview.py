"""What a change of words, places, categories, routes or time limits would have done to the last month's tickets. Changes nothing."""
from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from bot.catalogue import Catalogue
from bot.city_rules import Content, build_with, check_content, current_content
from bot.db import iso, parse_iso, reading
from bot.gazetteer import Gazetteer
from bot.petition import Petition, mask, matter_of, petition_from_dict
from bot.schema import tickets
from bot.services import Services
from bot.ticket import departments_of

DAYS, MOST, EXAMPLES = 30, 2000, 5


@dataclass
class Effect:
    """`count` of the tickets looked at would differ; `examples` say how, without personal data."""

    title: str
    count: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)
    note: str = ""

    def add(self, number: str, title: str, change: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append({"number": number, "title": mask(title), "change": change})


@dataclass(frozen=True)
class _Seen:
    number: str
    title: str
    filed_at: Any
    petition: Petition


def preview(services: Services, content: Content, *, may_read: Callable[[str | None, bool], bool]) -> Mapping[str, Any]:
    """Effects by kind, over at most MOST tickets of the last DAYS days that the person may read. Raises RulesError."""
    checked = check_content(content, services)
    _, before = current_content(services)
    with tempfile.TemporaryDirectory() as directory:
        catalogue, gazetteer = build_with(services, checked, Path(directory) / "data")
    seen = _last_month(services, may_read)
    effects = [
        _routes(seen, services.catalogue, catalogue),
        _limits(seen, services.catalogue, catalogue),
        _places(seen, services.gazetteer, gazetteer),
        *_words(seen, before["words"], checked["words"], catalogue),
    ]
    return {"looked_at": len(seen), "days": DAYS, "effects": [vars(effect) for effect in effects if effect.count or effect.note]}


def _last_month(services: Services, may_read: Callable[[str | None, bool], bool]) -> list[_Seen]:
    since = iso(services.now() - timedelta(days=DAYS))
    wanted = select(tickets).where(tickets.c.filed_at >= since).order_by(tickets.c.filed_at.desc()).limit(MOST)
    with reading(services.engine) as connection:
        rows = connection.execute(wanted).fetchall()
    return [
        _Seen(row.number, row.title, parse_iso(row.filed_at), petition_from_dict(services.vault.open(row.petition)))
        for row in rows
        if may_read(row.district, bool(row.confidential))
    ]


def _routes(seen: Sequence[_Seen], before: Catalogue, after: Catalogue) -> Effect:
    effect = Effect("主办部门会变")
    for ticket in seen:
        old, new = departments_of(ticket.petition, before)[0], departments_of(ticket.petition, after)[0]
        if old != new:
            effect.add(ticket.number, ticket.title, f"{old} → {new}")
    return effect


def _limits(seen: Sequence[_Seen], before: Catalogue, after: Catalogue) -> Effect:
    effect = Effect("办理时限会变")
    for ticket in seen:
        old, new = (_promise(ticket, catalogue) for catalogue in (before, after))
        if old != new:
            effect.add(ticket.number, ticket.title, f"{old} → {new}")
    return effect


def _promise(ticket: _Seen, catalogue: Catalogue) -> str:
    petition = ticket.petition
    matter = matter_of(petition, catalogue)
    return catalogue.due_at(ticket.filed_at, request_type=petition.request_type, urgency=petition.urgency, matter=matter)[1]


def _places(seen: Sequence[_Seen], before: Gazetteer, after: Gazetteer) -> Effect:
    effect = Effect("地点会读成别的")
    for ticket in seen:
        text = str((ticket.petition.place or {}).get("text") or "")
        if not text:
            continue
        old, new = (gazetteer.resolve(text, context=ticket.petition.description) for gazetteer in (before, after))
        if (old.district, old.street, old.poi) != (new.district, new.street, new.poi):
            effect.add(ticket.number, ticket.title, f"{_say(old)} → {_say(new)}")
    return effect


def _say(place: Any) -> str:
    return "".join(part for part in (place.district, place.street, place.poi) if part) or "没有读出"


def _words(
    seen: Sequence[_Seen], before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], catalogue: Catalogue
) -> list[Effect]:
    """A new word teaches the next model; what it would pull at is known today: where it stands, and how those were read."""
    effects = []
    for code, words in after.items():
        fresh = [word for word in words if word not in before.get(code, ())]
        if not fresh:
            continue
        effect, read = Effect(f"新词指向“{catalogue.get_category(code).label}”"), Counter[str]()
        for ticket in seen:
            word = next((word for word in fresh if word in ticket.petition.description), None)
            if word is None:
                continue
            read[catalogue.categories[ticket.petition.category].label if ticket.petition.category in catalogue.categories else "其他"] += 1
            if ticket.petition.category != code:
                label = catalogue.categories.get(ticket.petition.category)
                effect.add(ticket.number, ticket.title, f"“{word}”，现在判为{label.label if label else '其他'}")
        already = sum(read.values()) - effect.count
        effect.note = f"上个月 {sum(read.values())} 件用到这些词，其中 {already} 件本来就是这个类别。训练新模型后才起作用。"
        effects.append(effect)
    return effects
