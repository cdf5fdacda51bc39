"""Which place each appeal is about, so that appeals of one place meet: estates by their names, wherever a text writes them.

A place is a name and the city and district it lies in. Names are learned from the places that were read in all the appeals
together, because a resident writes "天心区丽景新城小区3栋", the next one "丽景新城旁". Pure; knows no particular place.
"""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import ahocorasick

from bot.gazetteer import Place
from bot.text import fold

# What stands so far in front is what the writer puts first: the title, or the first sentences.
HEAD = 90
# A name is one when so many of the openings that have its characters have it as a place; else it is a word (搅拌站, 公交).
LEAST_SHARE = 1 / 3
# Names shorter than this stand inside too many other words to be looked for in texts.
SEARCHED = 3
# A longer name goes with the name it ends in (万科丽景新城) when that is this long and often stands without anything before it.
CORE, LEAD, BARE_SHARE = 4, 2, 1 / 3
# Who leaves the district out means the one in which so many others say the place is.
AGREED = 2 / 3

_BLANKS = re.compile(r"[\s·•.．“”\"'‘’《》〈〉【】「」『』]+")
# Names of divisions that were made unreadable: A市, B3区.
_CODED = re.compile(r"(?P<city>(?:西地省)?[a-z]\d{0,3}市)?(?P<district>[a-z]\d{0,3}[区县])?")
_NUMBER = "0-9a-z一二三四五六七八九十"
_TAIL = re.compile(
    rf"(?<=..)(?:[(（\[].*|第?[{_NUMBER}]{{1,4}}(?:号楼|号院|[栋幢期座号楼层室]|单元|组团?|区$).*|\d[\d\-~#—]*$|[a-z]\d?区.*"
    r"|(?:附近|附件|旁|周边|周围|对面|门口|底层|临街|楼[下上]|门面|[东南西北正侧]门|[东南西北][侧边面]|后面|前面|外面|以[东南西北]|路段|沿线|内|的|村部|村委会|村民委员会|居委会).*)"
)
_KIND = re.compile(r"(?:小区|社区|楼盘|项目|片区|工地|一带|业主|居民区|开发商)+$")
_SHORT = re.compile(r"(?:省|市|区|县|街道|镇|乡)$")
_REST_OF_DIVISION = re.compile(r"(?:省|市|区|县|街道(?:办事处|办)?|镇|乡)(?![\u4e00-\u9fff]?[路街场])")
_WAY_ON = re.compile(r"[\d\-—~]+号?")
# Authorities and companies act; they are seldom where something happens.
_NO_NAME = re.compile(
    rf"[{_NUMBER}号路线组—/\-]*|.*(?:政府|[委局厅署]|公安|派出所|法院|检察院|支队|大队|分局|办事处|公司|集团|平台|银行|支行)"
)


@dataclass(frozen=True)
class Scope:
    """City (four digits of its code, or its name) and district (its name); empty = not said."""

    city: str = ""
    district: str = ""

    def includes(self, other: Scope) -> bool:
        """Whether `other` may lie in it: everything that is said here is said there too."""
        return self.city in ("", other.city) and self.district in ("", other.district)


@dataclass(frozen=True)
class Mention:
    """A place as one appeal names it. `name` is empty where only a division is named; `broad`: it is larger than a village."""

    name: str
    written: str
    scope: Scope
    above: str = ""  # the smallest division it names, as the gazetteer writes it
    broad: bool = False


@dataclass
class Site:
    """One place and the appeals that name it: number of the appeal → whether it says so in front."""

    name: str
    scope: Scope
    broad: bool
    appeals: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Sites:
    """`matters`: what is left of each text without the names of places. `names`: every name, and the one its place goes by."""

    sites: tuple[Site, ...]
    matters: tuple[str, ...]
    mentions: tuple[tuple[Mention, ...], ...]  # of each appeal
    names: Mapping[str, str]

    def label(self, site: Site, members: Iterable[int]) -> str:
        """The place as its appeals write it, below the district or city they name; empty where they name none."""
        own = [mention for number in members for mention in self.mentions[number]]
        written = Counter(m.written for m in own if m.written and self.names.get(m.name, m.name) == site.name)
        above = Counter(m.above for m in own if m.above and site.scope.includes(m.scope) and m.scope.includes(site.scope))
        name = written.most_common(1)[0][0] if written else site.name
        top = above.most_common(1)[0][0] if above else ""
        return (name if name.startswith(top) else top + name).upper()


def squeeze(text: str) -> str:
    return _BLANKS.sub("", fold(text))


def mention_of(place: Place) -> Mention:
    text = squeeze(place.text)
    coded = _CODED.match(text)
    city = coded["city"] or "" if coded else ""
    district = coded["district"] or "" if coded else ""
    if place.adcode and len(place.adcode) >= 4:
        city = place.adcode[:4]
    written = _TAIL.sub("", _without_road(_without_divisions(text, place), place))
    name = _KIND.sub("", written)
    if len(name) < 2:
        name = written
    if len(name) < 2 or _NO_NAME.fullmatch(name):
        name = written = ""
    scope, above = Scope(city, fold(place.district or district)), place.district or district or place.city or city
    if not name and place.street:
        return Mention(squeeze(place.street), place.street, scope, above, broad=True)
    return Mention(name, written, scope, above or place.province or "", broad=not name)


def _without_divisions(text: str, place: Place) -> str:
    named = [fold(name) for name in (place.province, place.city, place.district, place.street) if name]
    heads = sorted({form for name in named for form in (name, _SHORT.sub("", name)) if len(form) >= 2}, key=len, reverse=True)
    while True:
        start = text
        coded = _CODED.match(text)
        text = text[coded.end() :] if coded else text
        for head in heads:
            if text.startswith(head):
                rest = text[len(head) :]
                if head[-1] not in "省市区县镇乡道" and re.match(r"[路街巷村湖河桥]|大道|[东南西北中]路", rest):
                    continue
                text = _REST_OF_DIVISION.sub("", rest, count=1) if _REST_OF_DIVISION.match(rest) else rest
        if text == start:
            return text


def _without_road(text: str, place: Place) -> str:
    """The estate on a road without the road; a road without its house number."""
    road = fold(place.road or "")
    if not road or not text.startswith(road):
        return text
    rest = text[len(road) :]
    number = _WAY_ON.match(rest)
    rest = (rest[number.end() :] if number else rest).removeprefix("的")
    return rest if len(_TAIL.sub("", rest)) >= SEARCHED else re.sub(r"[\d\-—~]+号?$", "", road)


# -- names of all appeals together ----------------------------------------------------------------------------------------


def find_sites(texts: Sequence[str], places: Sequence[Sequence[Place]]) -> Sites:
    """Every place that two appeals name. `texts` are squeezed; aligned with the places that were read in each."""
    divisions = _division_names(places)
    read = [tuple(m if m.broad or m.name not in divisions else _division_of(m) for m in map(mention_of, own)) for own in places]
    known = _real_names(texts, read)
    names = _cores(Counter(mention.name for own in read for mention in {m.name: m for m in own}.values() if mention.name in known))
    mentions = tuple(tuple(m if m.name in names else _division_of(m) for m in own) for own in read)
    searched, hidden = _automaton(names), _automaton({*names, *divisions})
    sightings = [_sightings(text, own, names, searched) for text, own in zip(texts, mentions)]
    matters = tuple(_cut_out(text, hidden) for text in texts)
    return Sites(tuple(_sites(sightings)), matters, mentions, names)


def _division_names(places: Iterable[Iterable[Place]]) -> set[str]:
    """As they are written, and without their ending."""
    named = {fold(n) for own in places for p in own for n in (p.province, p.city, p.district, p.street) if n}
    return {form for name in named for form in (name, _SHORT.sub("", name)) if len(form) >= 2}


def _division_of(mention: Mention) -> Mention:
    return mention if mention.broad else replace(mention, name="", written="", broad=True)


def _real_names(texts: Sequence[str], read: Sequence[Sequence[Mention]]) -> set[str]:
    marked = Counter(name for own in read for name in {mention.name for mention in own if mention.name})
    automaton = _automaton(marked)
    seen: Counter[str] = Counter()
    for text in texts if marked else ():
        seen.update({name for _, name in automaton.iter(text[:HEAD])})
    return {name for name, count in marked.items() if count >= LEAST_SHARE * seen[name]}


def _cores(counts: Mapping[str, int]) -> dict[str, str]:
    """Each name and the name it goes with: its own ending where that is a name by itself, else itself."""
    led: Counter[str] = Counter()
    endings: dict[str, str] = {}
    for name in counts:
        ending = next((name[i:] for i in range(LEAD, len(name) - CORE + 1) if name[i:] in counts), "")
        if ending:
            endings[name] = ending
            led[ending] += counts[name]
    bare = {ending for ending, count in led.items() if counts[ending] >= BARE_SHARE * (counts[ending] + count)}

    def core(name: str) -> str:
        return core(endings[name]) if endings.get(name) in bare else name

    return {name: core(name) for name in counts}


def _automaton(names: Iterable[str]) -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for name in names:
        if len(name) >= 2:
            automaton.add_word(name, name)
    automaton.make_automaton()
    return automaton


@dataclass
class _Sighting:
    scopes: set[Scope]
    ahead: bool
    broad: bool


def _sightings(
    text: str, own: Sequence[Mention], names: Mapping[str, str], automaton: ahocorasick.Automaton
) -> dict[str, _Sighting]:
    """The places one appeal names; divisions only where it names nothing smaller."""
    found: dict[str, _Sighting] = {}
    for number, mention in enumerate(own):
        name = names.get(mention.name, mention.name)
        written = text.find(mention.name)
        seen = found.setdefault(name, _Sighting(set(), False, mention.broad))
        seen.scopes.add(mention.scope)
        seen.ahead |= number == 0 or 0 <= written < HEAD
    for last, name in automaton.iter_long(text) if names else ():
        if len(name) >= SEARCHED:
            seen = found.setdefault(names[name], _Sighting(set(), False, False))
            seen.ahead |= last < HEAD
    if not found:
        found[""] = _Sighting({Scope()}, True, True)
    small = {name: seen for name, seen in found.items() if not seen.broad}
    return _with_scopes(small or {name: seen for name, seen in found.items() if name} or found, own)


def _with_scopes(found: dict[str, _Sighting], own: Sequence[Mention]) -> dict[str, _Sighting]:
    """Who names one district means it for every place."""
    said = {mention.scope for mention in own} - {Scope()}
    deepest = [scope for scope in said if not any(scope != other and scope.includes(other) for other in said)]
    for seen in found.values():
        named = [scope for scope in seen.scopes if scope.district]
        seen.scopes = {named[0] if named else deepest[0] if len(deepest) == 1 else Scope(_city(said))}
    return found


def _city(scopes: Iterable[Scope]) -> str:
    cities = {scope.city for scope in scopes if scope.city}
    return cities.pop() if len(cities) == 1 else ""


def _cut_out(text: str, names: ahocorasick.Automaton) -> str:
    if not len(names):
        return text
    pieces, start = [], 0
    for last, name in names.iter_long(text):
        pieces.append(text[start : last + 1 - len(name)])
        start = last + 1
    return "\n".join([*pieces, text[start:]])


def _sites(sightings: Sequence[Mapping[str, _Sighting]]) -> Iterable[Site]:
    by_name: defaultdict[str, list[tuple[int, Scope, _Sighting]]] = defaultdict(list)
    for number, found in enumerate(sightings):
        for name, seen in found.items():
            by_name[name].extend((number, scope, seen) for scope in seen.scopes)
    for name, seen_at in by_name.items():
        counts = Counter(scope for _, scope, _ in seen_at)
        sites: dict[Scope, Site] = {}
        for number, scope, seen in seen_at:
            settled = _settle(scope, counts) if name else scope
            site = sites.setdefault(settled, Site(name, settled, seen.broad))
            site.appeals[number] = seen.ahead
        if not name:  # who names only the city may mean any of its districts
            _let_in_wider(sites)
        yield from (site for site in sites.values() if len(site.appeals) > 1)


def _let_in_wider(sites: Mapping[Scope, Site]) -> None:
    own = {scope: list(site.appeals) for scope, site in sites.items()}
    for scope, site in sites.items():
        for wider, appeals in own.items():
            if wider != scope and wider.includes(scope):
                site.appeals.update(dict.fromkeys(appeals, False))


def _settle(scope: Scope, counts: Mapping[Scope, int]) -> Scope:
    """The narrower scope that is meant: the only one there is, or the one most appeals agree on."""
    inside = {other: count for other, count in counts.items() if scope != other and scope.includes(other)}
    deepest = {other: count for other, count in inside.items() if not any(o != other and other.includes(o) for o in inside)}
    if not deepest:
        return scope
    best = max(deepest, key=lambda other: deepest[other])
    return best if deepest[best] >= AGREED * sum(deepest.values()) else scope
