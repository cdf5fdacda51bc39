"""Names of places and what they belong to: national divisions down to streets, and the city's own roads, estates, villages.

One gazetteer serves the place reader's training, the parts of a location and the nearest service point. Pure after loading.
"""
from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bot.text import fold

# Stands for the code of a county whose name several cities have (鼓楼区): the name is known, the code is not.
SHARED_NAME = "000000"
PROVINCE, CITY, DISTRICT, STREET = "province", "city", "district", "street"
_LEVEL_BY_LENGTH = {2: PROVINCE, 4: CITY, 6: DISTRICT, 9: STREET}
_SHORTENABLE = re.compile(r"(?:维吾尔自治区|壮族自治区|回族自治区|特别行政区|自治区|省|市|区|县)$")
_GENERIC = frozenset("市辖区 县 城区 郊区 矿区 新区 开发区 经济开发区 高新区 市中区 向阳 和平 新城 城关 永定 中山 光明 解放 人民 建设 长安 海州 兴隆 永安 西湖 东湖".split())

_ROAD = re.compile(r"[\w]{1,8}?(?:大道|公路|高速|国道|省道|街道?|路|巷|弄|胡同|大街|道)(?=$|[^道])(?:[\d一二三四五六七八九十百]+[-\d]*号)?")
_COMMUNITY = re.compile(r"[^省市区县镇乡]{1,8}?(?:社区|村委会|行政村|居委会|村(?!委)|屯|庄|坝|湾)")
_ESTATE = re.compile(r"[\w]{2,10}?(?:小区|花园|家园|新村|公寓|山庄|公馆|名都|名苑|华庭|广场|大厦|花苑|嘉园|雅苑|佳苑|御景|豪庭|城|苑|府|里|园|坊|庭|湾|轩|居|院)")
_INSTITUTION = re.compile(r"[\w]{1,12}?(?:小学|中学|学校|大学|学院|幼儿园|医院|卫生院|超市|市场|菜场|公园|车站|地铁站|公交站|派出所|银行|酒店|宾馆|饭店|餐厅|火锅店|烧烤店|网吧|工地|厂|公司|商场|体育馆|图书馆|养老院|敬老院|加油站|收费站|服务区|河|湖|桥|渠|水库|景区|大楼|夜市)")
_BUILDING = re.compile(r"[\dA-Za-z一二三四五六七八九十]+\s*(?:号楼|栋|幢|座|号院|单元|层|楼|室|号)(?:\s*[\dA-Za-z一二三四五六七八九十]+\s*(?:单元|层|楼|室|号)?)*")


@dataclass(frozen=True)
class Place:
    """A place mention and its parts; a part that the text does not name is None. Codes are national division codes."""

    text: str
    province: str | None = None
    city: str | None = None
    district: str | None = None
    street: str | None = None
    community: str | None = None
    road: str | None = None
    poi: str | None = None
    building: str | None = None
    adcode: str | None = None
    lat: float | None = None
    lng: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Division:
    code: str
    name: str

    @property
    def level(self) -> str:
        return _LEVEL_BY_LENGTH[len(self.code)]


@dataclass(frozen=True)
class LocalPlace:
    """A row of the city's own gazetteer.csv."""

    name: str
    kind: str
    district: str
    street: str
    lat: float | None
    lng: float | None


class Gazetteer:
    def __init__(self, divisions: Iterable[Division], local: Iterable[tuple[str, LocalPlace]], home: Mapping[str, Any]) -> None:
        self._home_code = str(home["code"])
        self._aliases: Mapping[str, str] = home.get("district_aliases") or {}
        self.local = dict(local)
        self._by_code = {division.code: division for division in divisions}
        self._names: dict[str, list[Division]] = defaultdict(list)
        for division in self._by_code.values():
            for name in _name_forms(division):
                self._names[name].append(division)
        self._longest = max(map(len, self._names))

    def lookup_elements(self) -> Iterator[str]:
        """`level:name` of every name, for the place reader's training."""
        marks = {PROVINCE: "P", CITY: "C", DISTRICT: "D", STREET: "S"}
        for name, divisions in self._names.items():
            if len(name) >= 2 and name not in _GENERIC:
                yield f"{marks[divisions[0].level]}:{name}"
        for name in self._aliases:
            yield f"D:{name}"
        for name in self.local:
            yield f"L:{name}"

    def resolve(self, span: str, *, context: str = "") -> Place:
        """Parts of one place mention. `context` is the whole text: a district named elsewhere in it fills a gap."""
        original, span, context = span, fold(span), fold(context)
        found = self._divisions_in(span)
        if DISTRICT not in found and context:
            found = {**{level: d for level, d in self._divisions_in(context).items() if level in (PROVINCE, CITY, DISTRICT)}, **found}
        local = next((place for name, place in self._local_by_length() if name in span), None)
        district = found.get(DISTRICT)
        if district is None and local and local.district:
            district = self._home_district(local.district)
        deepest = found.get(STREET) or district or found.get(CITY) or found.get(PROVINCE)
        rest = span
        for division in found.values():
            for form in sorted(_name_forms(division), key=len, reverse=True):
                if rest.startswith(form) or form in rest[:12] and len(form) > 2:
                    rest = rest.split(form, 1)[1].lstrip("的 ，")
                    break
        return Place(
            text=original,
            province=_name(found.get(PROVINCE)),
            city=_name(found.get(CITY)),
            district=_name(district),
            street=_name(found.get(STREET)) or (local.street or None if local else None),
            community=_first(_COMMUNITY, rest),
            road=_first(_ROAD, rest),
            poi=(local.name if local and local.kind not in ("道路", "村", "社区", "镇街") else None) or _first(_ESTATE, rest) or _first(_INSTITUTION, rest),
            building=_first(_BUILDING, rest),
            adcode=deepest.code if deepest and deepest.code != SHARED_NAME else None,
            lat=local.lat if local else None,
            lng=local.lng if local else None,
        )

    def in_home_city(self, place: Place) -> bool:
        """False only when the place names another city."""
        return place.adcode is None or place.adcode.startswith(self._home_code) or len(place.adcode) < 4

    def _divisions_in(self, text: str) -> dict[str, Division]:
        """The divisions named in a text, at most one a level, each inside the one before where codes can tell."""
        found: dict[str, Division] = {}
        position = 0
        while position < len(text):
            match = self._match_at(text, position, found)
            if match is None:
                position += 1
                continue
            size, division = match
            found.setdefault(division.level, division)
            position += size
        return found

    def _match_at(self, text: str, position: int, found: Mapping[str, Division]) -> tuple[int, Division] | None:
        for size in range(min(self._longest, len(text) - position), 1, -1):
            name = text[position : position + size]
            if name in self._aliases:
                home = self._home_district(self._aliases[name])
                if home:
                    return size, home
            candidates = self._names.get(name)
            if candidates and name not in _GENERIC:
                chosen = self._choose(candidates, name, found, text[position + size : position + size + 1])
                if chosen:
                    return size, chosen
        return None

    def _choose(self, candidates: list[Division], name: str, found: Mapping[str, Division], following: str) -> Division | None:
        """The candidate inside what is already known; else the home city's; else the only one there is."""
        known = max((d.code for d in found.values() if d.code != SHARED_NAME), key=len, default="")
        inside = [d for d in candidates if len(d.code) > len(known) and d.code.startswith(known)] if known else []
        if inside:
            return inside[0]
        at_home = [d for d in candidates if d.code.startswith(self._home_code)]
        if at_home:
            return at_home[0]
        if known and len(known) > 2:
            return None
        full = [d for d in candidates if d.name == name]
        if len(full) == 1 and full[0].level in (PROVINCE, CITY, DISTRICT):
            return full[0]
        if full and all(division.level == DISTRICT for division in full):
            return Division(SHARED_NAME, name)
        # A short form ("运河" inside 运河北路) is only a division when no road or estate word follows it.
        short = [d for d in candidates if d.level in (PROVINCE, CITY)]
        return short[0] if len(short) == 1 and following not in "路街道巷河小大花苑园村镇东西南北" else None

    def _home_district(self, name: str) -> Division | None:
        return next((d for d in self._names.get(name, ()) if d.level == DISTRICT and d.code.startswith(self._home_code)), None)

    def _local_by_length(self) -> list[tuple[str, LocalPlace]]:
        return sorted(self.local.items(), key=lambda item: -len(item[0]))


def load_gazetteer(data_dir: Path, city: str, home: Mapping[str, Any]) -> Gazetteer:
    divisions = [
        Division(row["code"], row["name"])
        for level in ("provinces", "cities", "areas", "streets")
        for row in _rows(data_dir / "divisions" / f"{level}.csv")
    ]
    return Gazetteer(divisions, _local_places(data_dir / "cities" / city / "gazetteer.csv"), home)


def distance_km(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Great-circle distance of two (lat, lng) points in kilometres."""
    lat1, lng1, lat2, lng2 = map(math.radians, (*first, *second))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lng2 - lng1) / 2) ** 2
    return 2 * 6371.0 * math.asin(math.sqrt(half))


def _name_forms(division: Division) -> set[str]:
    forms = {division.name}
    if division.level in (PROVINCE, CITY, DISTRICT):
        short = _SHORTENABLE.sub("", division.name)
        # Short forms of two characters are too often parts of other names below city level.
        if len(short) >= (2 if division.level != DISTRICT else 3):
            forms.add(short)
    return {form for form in forms if len(form) >= 2 and form not in _GENERIC}


def _name(division: Division | None) -> str | None:
    return division.name if division else None


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match.group() if match else None


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _local_places(path: Path) -> Iterator[tuple[str, LocalPlace]]:
    if not path.exists():
        return
    for row in _rows(path):
        place = LocalPlace(
            row["name"], row["kind"], row["district"], row["street"],
            float(row["lat"]) if row["lat"] else None, float(row["lng"]) if row["lng"] else None,
        )  # fmt: skip
        for name in (row["name"], *filter(None, row["aliases"].split("|"))):
            yield name, place
