"""The city's rules as data: categories, routing, time limits, required slots, matters, diversions, emergencies.

Loaded once from nlu_data/catalogue and nlu_data/cities/<city>; pure afterwards. Another city is another data folder.
"""
from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import chinese_calendar
import yaml

REQUEST_TYPES = ("咨询", "求助", "投诉", "举报", "建议", "表扬")
URGENCIES = ("一般", "紧急", "特急")
OTHER = "179999"
MAX_EXTRA_QUESTIONS = 2


class CatalogueError(ValueError):
    """A catalogue file cannot be used; the message names file and entry."""


@dataclass(frozen=True)
class Category:
    code: str
    path: tuple[str, str, str]

    @property
    def label(self) -> str:
        """What residents read: first level and the most telling lower level."""
        lower = next((level for level in reversed(self.path[1:]) if level != "其他"), None)
        return f"{self.path[0]} · {lower}" if lower else self.path[0]


@dataclass(frozen=True)
class Matter:
    """A matter that cuts across the category tree (see matters.yml)."""

    id: str
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None
    lead: str | None = None
    co: tuple[str, ...] = ()
    kind: str | None = None
    category: str | None = None
    urgency: str | None = None
    hours: int | None = None
    confidential: bool = False
    restricted: bool = False
    needs: tuple[str, ...] | None = None
    say: str | None = None

    def applies_to(self, text: str) -> bool:
        return bool(self.pattern.search(text)) and not (self.unless and self.unless.search(text))


@dataclass(frozen=True)
class Diversion:
    """A matter this service may not take, with the response that tells the right way to go."""

    code: str
    title: str
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None
    say: str
    file: bool = False
    category: str | None = None  # of the ticket that is filed all the same, unless its first level was read already

    def applies_to(self, text: str) -> bool:
        return bool(self.pattern.search(text)) and not (self.unless and self.unless.search(text))


@dataclass(frozen=True)
class Emergency:
    numbers: tuple[str, ...]
    say: str
    lead: str | None
    category: str | None
    co: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One answerable question of the knowledge base; `source` and `valid_from` say where the fact comes from."""

    id: str
    title: str
    keywords: tuple[tuple[str, ...], ...]
    asks: tuple[str, ...]
    answer: str
    hotline: str | None
    service: str | None
    source: str
    valid_from: str


@dataclass(frozen=True)
class Entitlement:
    title: str
    when_facts: tuple[tuple[str, ...], ...]
    tell: str

    def applies_to(self, text: str) -> bool:
        return all(any(word in text for word in group) for group in self.when_facts)


@dataclass(frozen=True)
class ServicePoint:
    name: str
    address: str
    district: str
    lat: float | None
    lng: float | None
    phone: str
    hours: str
    items: tuple[str, ...]
    materials: str


@dataclass(frozen=True)
class Scene:
    """What a printed code stands for: a community, street, service window or deliberation room (`kind`)."""

    code: str
    kind: str
    name: str
    place: str


@dataclass(frozen=True)
class Catalogue:
    city: Mapping[str, Any]
    categories: Mapping[str, Category]
    routing: Mapping[str, Mapping[str, Any]]
    time_limits: Mapping[str, Any]
    slots: Mapping[str, Any]
    matters: tuple[Matter, ...]
    diversions: tuple[Diversion, ...]
    emergencies: Mapping[str, Emergency]
    knowledge: tuple[Entry, ...]
    entitlements: tuple[Entitlement, ...]
    services: tuple[ServicePoint, ...]
    scenes: Mapping[str, Scene]

    def get_category(self, code: str) -> Category:
        try:
            return self.categories[code]
        except KeyError:
            raise CatalogueError(f"unknown category code {code}") from None

    def department(self, role: str) -> str:
        """The city's name for a department role; a role the city does not name goes by itself."""
        return str(self.city["departments"].get(role, {}).get("name", role))

    def route(
        self, code: str, matter: Matter | None, *, kind: str = "appeal", emergency_kind: str | None = None
    ) -> tuple[str, list[str], bool]:
        """(lead role, co roles, whether the district of the place joins). In an emergency the rescuers lead."""
        rule = self.routing.get(kind) or _longest_prefix(self.routing, code) or {"lead": "其他"}
        lead, co = str(rule["lead"]), [str(role) for role in rule.get("co", ())]
        rescuers = self.emergency(emergency_kind).lead if emergency_kind else None
        if rescuers:
            lead, co = rescuers, [*self.emergency(emergency_kind).co, lead, *co]
        if matter and matter.lead:
            co = [*matter.co, *([lead] if lead not in (matter.lead, "其他") and matter.kind is None else [])]
            lead = matter.lead
        return lead, [role for role in dict.fromkeys(co) if role != lead], bool(rule.get("local", True))

    def required_slots(self, code: str, request_type: str, kind: str, matter: Matter | None, *, length: int) -> list[str]:
        """Slots to fill before filing, in asking order; at most a place and two more. `length`: characters said so far."""
        if kind in self.slots["kind"]:
            needed = self.slots["kind"][kind]
        elif matter and matter.needs is not None:
            needed = matter.needs
        elif request_type in self.slots["request_type"]:
            needed = self.slots["request_type"][request_type]
        elif request_type == "建议" and length >= self.slots["long_proposal"]:
            needed = []
        else:
            needed = _longest_prefix(self.slots["category"], code) if request_type != "建议" else None
            needed = self.slots["default"] if needed is None else needed
        return list(needed)[: MAX_EXTRA_QUESTIONS + 1]

    def question_aloud(self, slot: str, code: str) -> str:
        """What an agent reads aloud to ask for a slot; the longest category prefix that has words of its own wins."""
        words = self.slots["aloud"][slot]
        return str(_longest_prefix(words, code) or words["default"]) if isinstance(words, dict) else str(words)

    def find_matter(self, text: str) -> Matter | None:
        return next((matter for matter in self.matters if matter.applies_to(text)), None)

    def find_diversion(self, text: str) -> Diversion | None:
        return next((diversion for diversion in self.diversions if diversion.applies_to(text)), None)

    def find_entitlements(self, text: str) -> list[Entitlement]:
        return [entitlement for entitlement in self.entitlements if entitlement.applies_to(text)]

    def emergency(self, kind: str | None) -> Emergency:
        return self.emergencies.get(kind or "unknown") or self.emergencies["unknown"]

    def due_at(self, filed_at: datetime, *, request_type: str, urgency: str, matter: Matter | None) -> tuple[datetime, str]:
        """When the promised time ends (UTC), and how residents read the promise ("24 小时", "3 个工作日")."""
        limit = self._limit(request_type, urgency, matter)
        if "hours" in limit:
            return filed_at + timedelta(hours=limit["hours"]), f"{limit['hours']} 小时"
        return add_workdays(filed_at, int(limit["workdays"])), f"{limit['workdays']} 个工作日"

    def _limit(self, request_type: str, urgency: str, matter: Matter | None) -> Mapping[str, Any]:
        if matter and matter.hours:
            return {"hours": matter.hours}
        if urgency != "一般":
            return next((p for p in self._promises() if p.get("urgency") == urgency and _timed(p)), self.time_limits["urgency"][urgency])
        own = (p for p in self._promises() if p.get("request_type") == request_type and p.get("urgency", "一般") == "一般" and _timed(p))
        return next(own, self.time_limits["request_type"][request_type])

    def _promises(self) -> list[Mapping[str, Any]]:
        return list(self.city.get("promises") or ())


def _timed(promise: Mapping[str, Any]) -> bool:
    return bool(promise.get("hours") or promise.get("workdays"))


def add_workdays(start: datetime, days: int) -> datetime:
    """`start` moved by working days of China's calendar, 调休 included. Years the calendar does not know yet use Monday–Friday."""
    moment = start
    while days > 0:
        moment += timedelta(days=1)
        days -= is_workday(moment)
    return moment


def is_workday(moment: datetime) -> bool:
    return _is_workday((moment + timedelta(hours=8)).date())  # China keeps one time zone without summer time


@functools.lru_cache(maxsize=2000)
def _is_workday(day: date) -> bool:
    try:
        return bool(chinese_calendar.is_workday(day))
    except NotImplementedError:
        return day.weekday() < 5


def load_catalogue(data_dir: Path, city: str) -> Catalogue:
    """Raises CatalogueError naming the file when something is missing or malformed."""
    base, home = data_dir / "catalogue", data_dir / "cities" / city
    if not home.is_dir():
        raise CatalogueError(f"no data folder for city {city!r}: expected {home}")
    city_file = _read_yaml(home / "city.yml")
    try:
        return Catalogue(
            city=city_file,
            categories=_read_categories(base / "categories.csv"),
            routing=_read_yaml(base / "routing.yml"),
            time_limits=_read_yaml(base / "time_limits.yml"),
            slots=_read_yaml(base / "slots.yml"),
            matters=tuple(_matter(entry, city_file) for entry in _read_yaml(base / "matters.yml")),
            diversions=tuple(_diversion(entry) for entry in _read_yaml(base / "diversions.yml")),
            emergencies={kind: _emergency(entry) for kind, entry in _read_yaml(base / "emergencies.yml").items()},
            knowledge=tuple(_entry(entry) for entry in _read_yaml(home / "knowledge.yml", missing=[])),
            entitlements=tuple(_entitlement(entry) for entry in _read_yaml(home / "entitlements.yml", missing=[])),
            services=_read_services(home / "services.csv"),
            scenes=_read_scenes(home / "scenes.csv"),
        )
    except (KeyError, TypeError, re.error) as error:
        raise CatalogueError(f"catalogue of {city}: {error!r}") from error


def _longest_prefix(table: Mapping[str, Any], code: str) -> Any:
    return next((table[code[:size]] for size in range(len(code), 1, -1) if code[:size] in table), None)


def _read_yaml(path: Path, *, missing: Any = None) -> Any:
    if missing is not None and not path.exists():
        return missing
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError) as error:
        raise CatalogueError(f"{path.name}: {error}") from error


def _read_categories(path: Path) -> dict[str, Category]:
    with open(path, encoding="utf-8", newline="") as file:
        return {
            row["code"]: Category(row["code"], (row["level1"], row["level2"], row["level3"])) for row in csv.DictReader(file)
        }


def _matter(entry: Mapping[str, Any], city: Mapping[str, Any]) -> Matter:
    hours = entry.get("hours") or (city.get(entry["hours_key"]) if "hours_key" in entry else None)
    return Matter(
        id=entry["id"],
        pattern=re.compile(entry["pattern"]),
        unless=re.compile(entry["unless"]) if entry.get("unless") else None,
        lead=entry.get("lead"),
        co=tuple(entry.get("co", ())),
        kind=entry.get("kind"),
        category=entry.get("category"),
        urgency=entry.get("urgency"),
        hours=hours,
        confidential=bool(entry.get("confidential")),
        restricted=bool(entry.get("restricted")),
        needs=tuple(entry["needs"]) if "needs" in entry else None,
        say=entry.get("say"),
    )


def _emergency(entry: Mapping[str, Any]) -> Emergency:
    return Emergency(tuple(entry["numbers"]), str(entry["say"]), entry.get("lead"), entry.get("category"), tuple(entry.get("co", ())))


def _diversion(entry: Mapping[str, Any]) -> Diversion:
    unless = re.compile(entry["unless"]) if entry.get("unless") else None
    file, category = bool(entry.get("file")), entry.get("category")
    return Diversion(entry["code"], entry["title"], re.compile(entry["pattern"]), unless, entry["say"], file, category)


def _entry(entry: Mapping[str, Any]) -> Entry:
    return Entry(
        id=entry["id"],
        title=entry["title"],
        keywords=tuple(tuple(map(str, group)) for group in entry["keywords"]),
        asks=tuple(entry["asks"]),
        answer=entry["answer"].strip(),
        hotline=entry.get("hotline"),
        service=entry.get("service"),
        source=entry["source"],
        valid_from=str(entry["valid_from"]),
    )


def _entitlement(entry: Mapping[str, Any]) -> Entitlement:
    return Entitlement(entry["title"], tuple(tuple(map(str, group)) for group in entry["when_facts"]), entry["tell"])


def _read_services(path: Path) -> tuple[ServicePoint, ...]:
    if not path.exists():
        return ()
    with open(path, encoding="utf-8", newline="") as file:
        return tuple(
            ServicePoint(
                name=row["name"],
                address=row["address"],
                district=row["district"],
                lat=float(row["lat"]) if row["lat"] else None,
                lng=float(row["lng"]) if row["lng"] else None,
                phone=row["phone"],
                hours=row["hours"],
                items=tuple(item for item in row["items"].split("|") if item),
                materials=row["materials"],
            )
            for row in csv.DictReader(file)
        )


def _read_scenes(path: Path) -> dict[str, Scene]:
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        return {row["code"]: Scene(row["code"], row["kind"], row["name"], row["place"]) for row in csv.DictReader(file)}
