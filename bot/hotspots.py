"""Hot spots: the same place, the same matter, close in time, ranked by how many people they move.

Pure: appeals in, ranked hot spots out, from a file or from tickets alike. How they are found and what the figures mean:
docs/decisions/0008-hot-spots.md.
"""
from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from bot.gazetteer import Place
from bot.hotspot_matters import Matters, Measure, Numbers, Wording, alike, near_groups
from bot.hotspot_places import Site, Sites, find_sites, squeeze
from bot.hotspot_words import describe, people_of

# By then place and matter have been named.
READ = 800
# How near the first members must be to a centre, and every member to their common direction: words and fields mixed.
SEED, JOIN = 0.10, 0.20
# Where only a city or a district is named nothing but the matter tells one trouble from another: words and fields must both agree.
# One writer's set phrases are alike in words alone, two questions about buses in their field alone.
BROAD_SEED, BROAD_JOIN = 0.10, 0.30
BROAD_FIELD_SEED, BROAD_FIELD_JOIN = 0.35, 0.6
# So many of a hot spot's appeals put its place in front; where only a district is named the others must name none.
SAID, SAID_BROAD = 1 / 2, 1 / 3
# Appeals of one matter that are further apart belong to two waves.
QUIET = timedelta(days=60)
DENSE = timedelta(days=14)
# A text this near to an earlier one of the same hot spot is a copy of it.
COPY = 0.9
COPIED_VOICE, REPEATED_VOICE = 0.5, 0.1
URGENT = {"紧急": 0.5, "特急": 1.0}
# So many appeals of one place are compared with each other at once; more are taken in order of time.
AT_ONCE = 2500
NOWHERE = "地点未写明"

Hours = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Appeal:
    """`places`: what was read in `text`, the scene first. `sender` tells who is the same person; None = not known.

    `at` of all appeals must be comparable: all with a time zone or none.
    """

    id: str
    at: datetime
    text: str
    places: tuple[Place, ...] = ()
    sender: str | None = None
    urgency: str = "一般"


@dataclass(frozen=True)
class HotSpot:
    """`appeals` in order of time: `distinct` of them in words of their own, by `persons` people; `days` from first to last."""

    rank: int
    heat: float
    place: str
    people: str
    description: str
    appeals: tuple[Appeal, ...]
    distinct: int
    persons: int

    @property
    def concerned(self) -> str:
        """地点人群"""
        return self.place + self.people

    @property
    def first_at(self) -> datetime:
        return self.appeals[0].at

    @property
    def last_at(self) -> datetime:
        return self.appeals[-1].at


def find_hot_spots(appeals: Sequence[Appeal], wording: Wording, *, top: int | None = None) -> list[HotSpot]:
    """The hottest first; an appeal belongs to one at most."""
    texts = [squeeze(appeal.text)[:READ] for appeal in appeals]
    sites = find_sites(texts, [appeal.places for appeal in appeals])
    matters = Matters.of(sites.matters, wording)
    judge = _Judge(appeals, texts, matters)
    candidates = [judge.weigh(site, members) for site in sites.sites for members in _groups(site, matters, judge.hours)]
    written, spots = [appeal.text for appeal in appeals], list[HotSpot]()
    for found in _disjoint(candidates, judge):
        if top is not None and len(spots) == top:
            break
        spots.append(_told(len(spots) + 1, found, appeals, written, sites, matters))
    return spots


# -- groups of one place, one matter and one time ---------------------------------------------------------------------------


def _groups(site: Site, matters: Matters, hours: Hours) -> Iterator[Numbers]:
    """Members of one matter and one wave, in order of time."""
    for appeals in _portions(site, matters, hours):
        ahead = np.array([site.appeals[number] for number in appeals.tolist()])
        for group in near_groups(_measures(site, matters, appeals), ahead):
            quiet = np.flatnonzero(np.diff(hours[appeals[group]]) > _hours(QUIET)) + 1
            for wave in np.split(group, quiet):
                if len(wave) > 1 and ahead[wave].mean() >= (SAID_BROAD if site.broad else SAID):
                    yield appeals[wave]


def _portions(site: Site, matters: Matters, hours: Hours) -> Iterator[Numbers]:
    """The appeals of a site in order of time, so many at once that all can be compared with all."""
    appeals = np.array(list(site.appeals))
    if site.broad:  # most of those that name a wider place are about something else
        ahead = np.array(list(site.appeals.values()))
        own = matters.words[appeals[ahead]]
        outside = [part[alike(matters.words[part], own).max(axis=1) >= BROAD_SEED] for part in _parts(appeals[~ahead])]
        appeals = np.concatenate([appeals[ahead], *outside])
    yield from _parts(appeals[np.argsort(hours[appeals], kind="stable")])


def _parts(numbers: Numbers) -> list[Numbers]:
    return np.array_split(numbers, -(-len(numbers) // AT_ONCE)) if len(numbers) else []


def _measures(site: Site, matters: Matters, appeals: Numbers) -> list[Measure]:
    if not site.broad:
        return [Measure(alike(matters.both[appeals]), SEED, JOIN)]
    words = Measure(alike(matters.words[appeals]), BROAD_SEED, BROAD_JOIN)
    return [words, Measure(alike(matters.fields[appeals]), BROAD_FIELD_SEED, BROAD_FIELD_JOIN)]


def _hours(span: timedelta) -> float:
    return span.total_seconds() / 3600


# -- heat -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    heat: float
    distinct: int
    persons: int
    site: Site
    members: Numbers


@dataclass(frozen=True)
class _Voices:
    """What each appeal adds, in order of time: a new person in words of their own 1, in copied words less, a repeat little."""

    weights: Hours
    distinct: int
    persons: int


class _Judge:
    def __init__(self, appeals: Sequence[Appeal], texts: Sequence[str], matters: Matters) -> None:
        self._appeals, self._texts, self._matters = appeals, texts, matters
        self.hours: Hours = np.array([appeal.at.timestamp() / 3600 for appeal in appeals])

    def weigh(self, site: Site, members: Numbers) -> _Found:
        """Heat = voices · (½ + their share in the densest fortnight) · (1 + mean urgency)."""
        voices = self._voices(members)
        urgency = sum(URGENT.get(self._appeals[number].urgency, 0.0) for number in members.tolist()) / len(members)
        heat = float(voices.weights.sum()) * (0.5 + self._density(members, voices.weights)) * (1 + urgency)
        return _Found(round(heat, 1), voices.distinct, voices.persons, site, members)

    def _voices(self, members: Numbers) -> _Voices:
        """Who copies a text without saying who they are is taken for the one who wrote it."""
        near = np.tril(alike(self._matters.words[members]) >= COPY, -1)
        writers: dict[str, str] = {}
        people: list[str] = []
        weights = np.ones(len(members))
        copies = 0
        for place, number in enumerate(members.tolist()):
            earlier = np.flatnonzero(near[place])
            writer = writers.get(self._texts[number]) or (people[earlier[0]] if len(earlier) else None)
            person = self._appeals[number].sender or writer or f"\0{number}"
            if person in people:
                weights[place] = REPEATED_VOICE
            elif writer:
                weights[place] = COPIED_VOICE
            copies += writer is not None
            writers.setdefault(self._texts[number], person)
            people.append(person)
        return _Voices(weights, len(members) - copies, len(set(people)))

    def _density(self, members: Numbers, weights: Hours) -> float:
        hours = self.hours[members]
        sums = np.concatenate([[0.0], np.cumsum(weights)])
        ends = np.searchsorted(hours, hours + _hours(DENSE), "right")
        return float((sums[ends] - sums[:-1]).max() / sums[-1])


def _disjoint(candidates: Sequence[_Found], judge: _Judge) -> Iterator[_Found]:
    """The hottest, then the hottest of what is left without its appeals, and so on: one appeal may name several places."""
    order = [(*_before(found), number, found) for number, found in enumerate(candidates)]
    heapq.heapify(order)
    taken: set[int] = set()
    number = len(order)
    while order:
        *_, found = heapq.heappop(order)
        left = np.array([member for member in found.members.tolist() if member not in taken], np.int64)
        if len(left) == len(found.members):
            taken.update(left.tolist())
            yield found
        elif len(left) > 1:
            again = judge.weigh(found.site, left)
            heapq.heappush(order, (*_before(again), number := number + 1, again))


def _before(found: _Found) -> tuple[float, int, bool]:
    """Of two names for the same appeals the one that more of them put in front, and a place rather than a division."""
    return -found.heat, -sum(found.site.appeals[member] for member in found.members.tolist()), found.site.broad


def _told(
    rank: int, found: _Found, appeals: Sequence[Appeal], texts: Sequence[str], sites: Sites, matters: Matters
) -> HotSpot:
    typical = np.argsort(-alike(matters.words[found.members]).sum(axis=1), kind="stable")
    members = found.members.tolist()
    return HotSpot(
        rank=rank,
        heat=found.heat,
        place=sites.label(found.site, members) or NOWHERE,
        people=people_of([texts[number] for number in members]),
        description=describe(texts, found.members[typical].tolist(), matters),
        appeals=tuple(appeals[number] for number in members),
        distinct=found.distinct,
        persons=found.persons,
    )
