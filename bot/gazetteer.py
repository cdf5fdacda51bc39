"""Names of places and what they belong to: national divisions down to streets, and the city's own roads, estates, villages.

One gazetteer serves the place reader's training, the parts of a location and the nearest service point. Pure after loading.
"""
from __future__ import annotations

import csv
import functools
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import ahocorasick
from pypinyin import Style, pinyin

from bot.text import fold

# Stands for the code of a county whose name several cities have (鼓楼区): the name is known, the code is not.
SHARED_NAME, SHARED_STREET = "000000", "000000000"
PROVINCE, CITY, DISTRICT, STREET = "province", "city", "district", "street"
_LEVEL_BY_LENGTH = {2: PROVINCE, 4: CITY, 6: DISTRICT, 9: STREET}
_SHORTENABLE = re.compile(r"(?:维吾尔自治区|壮族自治区|回族自治区|特别行政区|自治区|省|市|区|县)$")
# Kinds of local places that are no point of interest, and the part they are instead.
_PART_OF_KIND = {"道路": "road", "村": "community", "社区": "community", "镇街": "street"}
# After a short name, these make it the beginning of another name (运河北路, 清河小区).
_LONGER_NAME = re.compile(
    r"(?:[\u4e00-\u9fff]{0,2}?(?:[路街巷弄桥村庄港湖河岛苑]|大道|社区|花园|小区|新村|家园|广场|大厦|公园|医院|中学|小学|学院|大学)|[道大小园镇乡新人城口山])"
)
MAX_SPAN = 200
NEAR_KM = 0.5
_MAX_SOUND, _LONGEST_SOUND = 30, 8
_GENERIC = frozenset("市辖区 县 城区 郊区 矿区 新区 开发区 经济开发区 高新区 市中区 向阳 和平 新城 城关 永定 中山 光明 解放 人民 建设 长安 海州 兴隆 永安 西湖 东湖".split())
# -- patterns of the parts below the street. Every repeat is bounded: a span of a thousand digits costs a thousand steps. --

_NUMERAL = "一二三四五六七八九十百"
_UNIT = r"(?:号楼|号院|号门|号(?![线桥公路]|大[街道])|栋|幢|座|单元|层|楼(?![梯道上下])|室|弄|组(?![织团])|房(?![东子屋产间价租贷])|队|户|铺|#楼?|f(?![a-z]))"
_NUMBER = rf"(?:[a-z]{{0,2}}(?<!\d)\d{{1,6}}(?!\d|[区期路街巷线米]|大[道街]|公里|多米|号[线桥公路]|号大[道街])[a-z]?|[{_NUMERAL}]{{1,4}}(?={_UNIT})|[a-z](?={_UNIT}))"
_CHAIN = rf"{_NUMBER}{_UNIT}?(?:[-—~#.\s]{{0,2}}{_NUMBER}{_UNIT}?){{0,7}}"
# A place beside which, opposite which or at the crossing of which something is: what follows is another name.
_BREAK = (
    r"[\s,，。.;；:：、()（）_|/\-—~]+|与|的|斜?对面|对过|附近|旁边?|隔壁|周边|沿线|交叉路?口|交叉处|交[汇界]处|十字路口|路口|大?门口|楼下|楼上|里面|院内"
    r"|[东南西北前后左右]{1,2}(?:侧|边|面)|到|至(?!善|诚|德|尊)"
)
_ROAD = r"大道|大街|高速公路|公路|高速|国道|省道|县道|胡同|[东西南北中环]道|(?<![马道铁线])路|街(?!道)|巷|弄堂"
_COMMUNITY = r"社区(?!卫生)|村民委员会|村委会|居民委员会|居委会|行政村|自然村|(?<![农乡本我全新])村(?!民|委)"
_ZONE = r"(?:经济|技术|高新|产业|工业)*(?:开发区|工业园区|工业园|工业区|产业园|科技园|高新区|园区|保税区)"
_ESTATE = (
    "小区|花园|家园|新村|公寓|山庄|公馆|名都|名苑|华庭|广场|大厦|花苑|嘉园|雅苑|佳苑|家苑|锦园|锦苑|御景|御园|豪庭|豪园|名城|新城|商城|学府|宿舍|别墅"
    "|华府|景园|景苑|嘉苑|佳园|雅园|名园|名邸|华苑|春天"
)
_INSTITUTION = (
    "小学|中学|学校|大学|学院|幼儿园|卫生服务中心|卫生服务站|医院|卫生院|卫生室|超市|市场|菜场|公园|汽车站|火车站|客运站|车站|地铁站|公交站台?|派出所|法院|检察院"
    "|银行|信用社|酒店|宾馆|饭店|餐厅|火锅店|烧烤店|网吧|工地|有限公司|公司|集团|商场|体育馆|体育场|图书馆|博物馆|纪念馆|文化馆|养老院|敬老院|福利院|加油站|收费站|服务区"
    "|水库|景区|大楼|写字楼|办公楼|综合楼|商务楼|教学楼|宿舍楼|夜市|政府|管委会|办事处|服务中心|商务中心|购物中心|物流中心|中心|门市部|专卖店|专柜|批发部|经营部|仓库|影城|步行街|商贸城|工厂"
    "|浴室|药店|快递站|驿站|垃圾站|变电站|泵站|隧道|码头|机场|口岸|农场|林场|初中|高中|书店|药房|诊所|停车场|植物园|动物园|美食城|建材城|影院"
)
# Endings of one character are part of many longer names: they end a name only where nothing of the name can follow.
_AFTER_NAME = rf"(?=$|[\s,，。;；、()（）\-—_0-9a-z]|[{_NUMERAL}]{{1,3}}(?:期|区|{_UNIT})|[a-z东南西北]区|与|的|对面|附近|旁|门口|大门|路口)"
_SHORT_POI = rf"[城苑府里园坊庭湾轩居院厂店馆站楼河湖桥渠岛寺庙塔闸场校局所亭]{_AFTER_NAME}"
_SHORT_COMMUNITY = rf"[屯庄坝塘圩埠]{_AFTER_NAME}"
_SCAN = re.compile(
    rf"(?P<highway>[gsx]\d{{3,4}}(?!\d)(?:国道|省道|县道|高速公路|高速|线)?|(?<!\d)\d{{3}}(?:国道|省道|县道))|(?P<building>{_CHAIN})|(?P<street>街道(?!口)(?:办事处)?|(?<![古小特市集])镇(?![江海])|(?<![城老家])乡(?![村镇下间音]))|(?P<road>(?:{_ROAD})(?:[东西南北中]段)?)"
    rf"|(?P<zone>{_ZONE})|(?P<poi>{_INSTITUTION}|{_ESTATE})|(?P<community>{_COMMUNITY})|(?P<short_poi>{_SHORT_POI})|(?P<short_community>{_SHORT_COMMUNITY})"
    rf"|(?P<end>{_BREAK})"
)
_LONGEST_STEM = {"street": 5, "road": 9, "zone": 10, "poi": 16, "community": 7}
_PHASE = re.compile(rf"(?:[{_NUMERAL}]{{1,3}}|\d{{1,3}}|[a-z])(?:期|区)|[东南西北中]区")
_ROAD_NUMBER = re.compile(rf"\d{{1,5}}(?:[-—~]\d{{1,5}})?(?:[号弄](?![楼院门])|(?![\d#f栋幢座层楼室组队户]|单元|号[楼院门]))|[{_NUMERAL}]{{1,4}}号(?![楼院门])")
_LEAD = re.compile(r"(?:位于|住在|就在|在|从|由)+")
_NOT_A_NAME = re.compile(r"[我你他她它您咱这那哪谁啥每各些几了着过没有不]|电联|收货")
# A county that is no more (江干区), or that the table does not have: known by its ending, at the head or behind its city.
_UNLISTED = re.compile(
    r"(?!市辖|开发|经济|工业|高新|中心)[\u4e00-\u9fff]{2,3}?(?<![小园社业发校景矿厂片街新宅超菜夜东西南北中一二三四五六七八九十])(?<![老新古主]城)"
    r"(?:[区县](?!域|城|政)|市(?![场政民区中]))"
)
_STREET_ENDING = re.compile(r"(?:街道(?:办事处)?|镇|乡)(?![路街])")
_DIRECTIONS = frozenset("东西南北中前后")


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
    ambiguous: tuple[str, ...] = ()  # districts of the home city that all have a place of this name, when nothing tells which

    def as_dict(self) -> dict[str, Any]:
        """The parts; `ambiguous` is a question to ask, not a part."""
        return {name: getattr(self, name) for name in PLACE_FIELDS}


PLACE_FIELDS = tuple(field.name for field in fields(Place) if field.name != "ambiguous")


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


@dataclass(frozen=True)
class _Found:
    """What the gazetteer knows of a text: a division a level, where their names stand, the city's own places."""

    divisions: dict[str, Division]
    taken: list[tuple[int, int]]
    local: tuple[LocalPlace, ...]


class Gazetteer:
    def __init__(self, divisions: Iterable[Division], local: Iterable[tuple[str, LocalPlace]], home: Mapping[str, Any]) -> None:
        self._home_code = str(home["code"])
        self._aliases: Mapping[str, str] = home.get("district_aliases") or {}
        self.local: dict[str, list[LocalPlace]] = defaultdict(list)
        for name, place in local:
            self.local[fold(name)].append(place)
        self._names: dict[str, list[Division]] = defaultdict(list)
        self._loose: dict[str, list[Division]] = defaultdict(list)
        known = list(divisions)
        for division in known:
            for name in _name_forms(division):
                self._names[name].append(division)
        self._streets: dict[str, list[Division]] = defaultdict(list)
        for division in known:
            if division.level == STREET:
                self._streets[division.code[:6]].append(division)
                self._streets[division.code[:4]].append(division)
            for name in _loose_forms(division):
                if name not in self._names and name not in _GENERIC:
                    self._loose[name].append(division)
        self._automaton = ahocorasick.Automaton()
        for name in (*self._names, *self._loose, *self._aliases, *self.local):
            self._automaton.add_word(name, name)
        self._automaton.make_automaton()
        self._sounds = self._sound_index()
        # One text is the context of each of its places.
        self._named_in = functools.lru_cache(maxsize=64)(lambda text: self._find(fold(text), mention=False).divisions)
        self._located = [place for places in self.local.values() for place in places if place.lat is not None]

    def home_districts(self) -> list[str]:
        """Full names of the home city's districts, in the order of their codes."""
        known = {d for names in self._names.values() for d in names if d.level == DISTRICT and d.code.startswith(self._home_code)}
        return [d.name for d in sorted(known, key=lambda d: d.code) if d.name != "市辖区"]

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

    def division_names(self) -> Iterator[tuple[str, str]]:
        """(level mark, name) of every division, and its name without the ending under the small letter."""
        for names in (self._names, self._loose):
            for name, divisions in names.items():
                for division in divisions:
                    mark = _LEVEL_BY_LENGTH[len(division.code)][0]
                    yield mark.upper() if name == division.name else mark, name
        for code, streets in self._streets.items():
            yield from (("s", short) for short in map(_short_street, (d.name for d in streets)) if len(code) == 4 and len(short) >= 2)

    def resolve(self, span: str, *, context: str = "") -> Place:
        """Parts of one place mention. `context` is the whole text: a district named elsewhere in it fills a gap.

        A name written as it sounds (清江铺) gets the parts of the name that is meant; `text` stays as written.
        """
        folded = fold(span[:MAX_SPAN])
        found = self._find(folded, mention=True)
        if DISTRICT not in found.divisions:
            folded, found = self._find_by_sound(folded, found)
        if DISTRICT not in found.divisions:
            _find_unlisted(folded, found)
        if STREET not in found.divisions and found.taken:
            self._find_street(folded, found)
        divisions = dict(found.divisions)
        candidates = found.local if self._at_home(divisions) else ()
        local, ambiguous = _one_place(candidates, divisions.get(DISTRICT))
        if local and local.district and DISTRICT not in divisions:
            district = self._home_district(local.district)
            divisions.update({DISTRICT: district} if district else {})
        if DISTRICT not in divisions and context:
            _fill_gaps(divisions, self._named_in(context))
            local, ambiguous = _one_place(candidates, divisions.get(DISTRICT))
        parts = _parts_of(folded, found.taken)
        if local:
            kind = _PART_OF_KIND.get(local.kind, "poi")
            parts = {**parts, kind: local.name} if kind == "poi" else {kind: local.street or local.name, **parts} if kind == "street" else {kind: local.name, **parts}
        deepest = next((d for d in map(divisions.get, (STREET, DISTRICT, CITY, PROVINCE)) if d and d.code.strip("0")), None)
        return Place(
            text=span,
            province=_name(divisions.get(PROVINCE)),
            city=_name(divisions.get(CITY)),
            district=_name(divisions.get(DISTRICT)),
            street=_name(divisions.get(STREET)) or (local.street if local else None) or parts.get("street"),
            community=parts.get("community"),
            road=parts.get("road"),
            poi=parts.get("poi"),
            building=parts.get("building"),
            adcode=deepest.code if deepest else None,
            lat=local.lat if local else None,
            lng=local.lng if local else None,
            ambiguous=ambiguous,
        )

    def nearest(self, lat: float, lng: float) -> LocalPlace | None:
        """The city's own place nearest to a point, within half a kilometre."""
        near = [(distance_km((lat, lng), (place.lat, place.lng)), n) for n, place in enumerate(self._located) if place.lat and place.lng]
        distance, number = min(near, default=(NEAR_KM, -1))
        return self._located[number] if distance < NEAR_KM else None

    def in_home_city(self, place: Place) -> bool:
        """False only when the place names another city."""
        return place.adcode is None or place.adcode.startswith(self._home_code) or len(place.adcode) < 4

    def _find(self, text: str, *, mention: bool) -> _Found:
        """Longest names first, from left to right. In a mention short names count too, and the city's own places."""
        names: dict[int, list[str]] = defaultdict(list)
        for last, name in self._automaton.iter(text):
            names[last + 1 - len(name)].append(name)
        found = _Found({}, [], ())
        reached, own = 0, ""
        for start in sorted(names):
            for name in sorted(names[start], key=len, reverse=True):
                if start < reached:
                    break
                if mention and name in self.local and len(name) > len(own):
                    own = name
                division = self._division(name, found.divisions, text[start + len(name) : start + len(name) + 4], mention=mention, head=start == 0)
                if division:
                    found.divisions.setdefault(division.level, division)
                    found.taken.append((start, start + len(name)))
                    reached = start + len(name)
                elif name in self.local:
                    # What stands inside the name of a place (淮阴中学) says nothing about where it is, but for a full name.
                    inner = next((n for n in names[start] if n in self._names and n[-1] in "省市区县"), "")
                    reached = start + len(name) if not inner else reached
        return _Found(found.divisions, found.taken, tuple(self.local[own]) if own else ())

    def _division(self, name: str, found: Mapping[str, Division], following: str, *, mention: bool, head: bool) -> Division | None:
        if name in self._aliases:
            whole = name[-1] in "区县" or not _LONGER_NAME.match(following) and not set(following[:2]) & {"区", "县"}
            return self._home_district(self._aliases[name]) if whole and self._at_home(found) else None
        if name in _GENERIC:
            return None
        chosen = self._choose(self._names[name], name, found, following) if name in self._names else None
        if chosen is None and mention and name in self._loose:
            return self._choose_loose(self._loose[name], name, found, following, head=head)
        return chosen

    def _choose(self, candidates: list[Division], name: str, found: Mapping[str, Division], following: str) -> Division | None:
        """The candidate inside what is already known; else the home city's; else the only one there is."""
        known = _known_code(found)
        again = next((d for d in candidates if known.startswith(d.code) or d in found.values()), None)
        inside = [d for d in candidates if len(d.code) > len(known) and d.code.startswith(known)] if known else []
        if again:
            return again
        if inside:
            return inside[0] if len(inside) == 1 or inside[0].level != STREET else Division(SHARED_STREET, name)
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
        return short[0] if len(short) == 1 and not _LONGER_NAME.match(following) else None

    def _choose_loose(
        self, candidates: list[Division], name: str, found: Mapping[str, Division], following: str, *, head: bool
    ) -> Division | None:
        """A short or former name: inside a known division, or at the head of a mention when only one is called so."""
        known = _known_code(found)
        former = name[-1] in "市县区" and len(name) >= 3
        if not former and _LONGER_NAME.match(following):
            return None
        if any(d in found.values() for d in candidates):
            return next(d for d in candidates if d in found.values())
        inside = [d for d in candidates if len(d.code) > len(known) and d.code.startswith(known)] if known else []
        if len(inside) == 1:
            return inside[0]
        unique = len(candidates) == 1 and not known
        return candidates[0] if unique and (former or head and candidates[0].name.endswith("市")) else None

    def _find_street(self, text: str, found: _Found) -> None:
        """A street behind its district under a short or former name: 余杭区闲林, 永嘉县瓯北镇 for 瓯北街道."""
        start = found.taken[-1][1]
        named = []
        for street in self._streets.get(_known_code(found.divisions), ()):
            short = _short_street(street.name)
            if len(short) >= 2 and short not in _GENERIC and text.startswith(short, start):
                ending = _STREET_ENDING.match(text, start + len(short))
                if ending or not _LONGER_NAME.match(text, start + len(short)):
                    named.append((start, ending.end() if ending else start + len(short), street))
        if len(named) == 1:
            begin, end, street = named[0]
            found.divisions[STREET] = street
            found.taken.append((begin, end))

    def _at_home(self, found: Mapping[str, Division]) -> bool:
        """Whether nothing found lies outside the home city."""
        return all(
            d.code.startswith(self._home_code) or self._home_code.startswith(d.code) or not d.code.strip("0") for d in found.values()
        )

    def _home_district(self, name: str) -> Division | None:
        return next((d for d in self._names.get(name, ()) if d.level == DISTRICT and d.code.startswith(self._home_code)), None)

    # -- names written as they sound --------------------------------------------------------------------------------------

    def _sound_index(self) -> dict[tuple[str, ...], str]:
        """Syllables without tones → name: provinces and cities of the country, districts, streets and places of the home city."""
        index: dict[tuple[str, ...], str] = {}
        near = (n for n, ds in self._names.items() if any(d.level in (PROVINCE, CITY) or d.code.startswith(self._home_code) for d in ds))
        for name in (*self._aliases, *self.local, *near):
            if 2 <= len(name) <= _LONGEST_SOUND and name not in _GENERIC:
                for sounds in itertools.islice(itertools.product(*map(_readings, name)), 8):
                    index.setdefault(sounds, name)
        return index

    def _find_by_sound(self, text: str, found: _Found) -> tuple[str, _Found]:
        """A mention as it is meant: its first stretch that sounds like a name and shares a character with it is exchanged.

        Two characters are too few to tell, unless they are the whole mention.
        """
        if not 2 <= len(text) <= _MAX_SOUND:
            return text, found
        sounds = [_readings(character)[0] for character in text]
        for size in range(min(_LONGEST_SOUND, len(text)), 2 if len(text) > 2 else 1, -1):
            for start in range(len(text) - size + 1):
                end = start + size
                name, written = self._sounds.get(tuple(sounds[start:end])), text[start:end]
                if name is None or name == written or not any(map(str.__eq__, name, written)):
                    continue
                if any(start < stop and begin < end for begin, stop in found.taken):
                    continue
                mended = text[:start] + name + text[end:]
                again = self._find(mended, mention=True)
                if len(again.divisions) > len(found.divisions) or again.local and not found.local:
                    return mended, again
        return text, found


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


def _loose_forms(division: Division) -> set[str]:
    """Short names that need something around them (鹿城 after 温州), and what a county was called before it became a district."""
    if division.level == DISTRICT:
        short = _SHORTENABLE.sub("", division.name)
        return {short, *(short + ending for ending in "市县区")} if len(short) >= 2 and short != division.name else set()
    return set()


@functools.lru_cache(maxsize=50_000)
def _short_street(name: str) -> str:
    return re.sub(r"(?:街道|镇|乡)$", "", name)


def _find_unlisted(text: str, found: _Found) -> None:
    unlisted = _UNLISTED.match(text, found.taken[-1][1] if found.taken else 0)
    if unlisted and (found.taken or unlisted.group()[-1] != "市"):
        found.divisions[DISTRICT] = Division(SHARED_NAME, unlisted.group())
        found.taken.append(unlisted.span())


def _known_code(found: Mapping[str, Division]) -> str:
    return max((d.code for d in found.values() if d.code.strip("0")), key=len, default="")


def _fill_gaps(divisions: dict[str, Division], others: Mapping[str, Division]) -> None:
    """Adds the divisions of `others` that do not lie outside what is known."""
    for level in (PROVINCE, CITY, DISTRICT):
        known, other = _known_code(divisions), others.get(level)
        if other is None or level in divisions:
            continue
        if not other.code.strip("0") or other.code.startswith(known) or known.startswith(other.code):
            divisions[level] = other


def _one_place(candidates: Sequence[LocalPlace], district: Division | None) -> tuple[LocalPlace | None, tuple[str, ...]]:
    """The place that is meant, or the districts to choose from."""
    inside = [place for place in candidates if district is None or place.district in ("", district.name)]
    districts = tuple(dict.fromkeys(place.district for place in inside if place.district))
    if len(districts) > 1:
        return None, districts
    return (inside or (None,))[0], ()


@functools.lru_cache(maxsize=8000)
def _readings(character: str) -> tuple[str, ...]:
    """Every reading without its tone, the usual one first; the character itself when it has none."""
    return tuple(dict.fromkeys(pinyin(character, style=Style.NORMAL, heteronym=True)[0]))


@dataclass(frozen=True)
class _Part:
    kind: str
    start: int
    end: int


def _parts_of(text: str, taken: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Street, community, road, poi and building in what the divisions leave of a mention: the first of each."""
    parts: list[_Part] = []
    unnamed: list[_Part] = []
    edges = sorted(taken)
    for (_, start), (end, _) in zip([(0, 0), *edges], [*edges, (len(text), 0)], strict=True):
        division = next((begin for begin, stop in edges if stop == start), None)
        _scan(text, start, end, division, parts, unnamed)
    found: dict[str, str] = {}
    for part in parts:
        found.setdefault(part.kind, text[part.start : part.end])
    zone = found.pop("zone", None)
    if "poi" not in found:
        name = zone or (_unnamed_poi(text, unnamed) if found or taken else None)
        found.update({"poi": name} if name else {})
    return found


def _unnamed_poi(text: str, unnamed: Sequence[_Part]) -> str | None:
    names = [text[part.start : part.end] for part in unnamed]
    return next((name for name in names if 2 <= len(name) <= 14 and not _NOT_A_NAME.search(name) and re.search(r"[\u4e00-\u9fff]{2}", name)), None)


def _scan(text: str, start: int, end: int, division: int | None, parts: list[_Part], unnamed: list[_Part]) -> None:
    """Cuts text[start:end] behind each ending word. `division` is where the division begins that ends at `start`."""
    lead = _LEAD.match(text, start, end)
    bound = lead.end() if lead else start
    position = bound
    previous: _Part | None = None
    while position < end:
        match = _SCAN.search(text, position, end)
        if match is None:
            break
        kind = str(match.lastgroup).removeprefix("short_")
        position = match.end()
        stem = text[bound : match.start()]
        if kind == "end":
            unnamed.append(_Part("poi", bound, match.start()))
            bound, previous, division = match.end(), None, None
            continue
        if kind == "highway":
            previous = _Part("road", match.start(), match.end())
            parts.append(previous)
            bound = match.end()
            continue
        if kind == "building":
            previous = _add_number(text, bound, match, previous, parts, unnamed)
            bound = previous.end
            position = max(bound, match.start() + 1)
            continue
        joined = previous is not None and previous.end == bound and (not stem or kind == "road" and len(stem) == 1 and stem in _DIRECTIONS)
        if joined and previous is not None and previous.kind != "building":
            if previous.kind not in ("street", "community") or kind != "poi":
                parts.remove(previous)
            part = _Part(kind, previous.start, match.end())
        elif not stem and kind == "poi" and division is not None and bound == start:
            part = _Part(kind, division, match.end())
        elif stem and len(stem) <= _LONGEST_STEM[kind]:
            part = _Part(kind, bound, match.end())
        else:
            continue
        if kind == "poi":
            phase = _PHASE.match(text, part.end, end)
            part = _Part(kind, part.start, phase.end() if phase else part.end)
        parts.append(part)
        previous, bound, position = part, part.end, part.end
    unnamed.append(_Part("poi", bound, end))


def _add_number(
    text: str, bound: int, match: re.Match[str], previous: _Part | None, parts: list[_Part], unnamed: list[_Part]
) -> _Part:
    """A run of numbers: the first belongs to the road it follows, the rest is a building, its unit, its room."""
    start, end = match.span()
    if bound < start:
        unnamed.append(_Part("poi", bound, start))
    elif previous is not None and previous.kind == "road":
        number = _ROAD_NUMBER.match(text, start, end)
        if number:
            parts.remove(previous)
            road = _Part("road", previous.start, number.end())
            parts.append(road)
            start = number.end() + len(match.string[number.end() : end]) - len(match.string[number.end() : end].lstrip("-—~#. "))
            if start == end:
                return _Part("building", end, end)
    building = _Part("building", start, end)
    parts.append(building)
    return building


def _name(division: Division | None) -> str | None:
    return division.name if division else None


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
