"""What the city knows by heart: the stored answer to a question, the service points near somebody, what to say in danger. Pure."""
from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bot.catalogue import Catalogue, Entry, ServicePoint
from bot.gazetteer import distance_km

NEAREST = 3
SAME_CITY_KM = 150  # farther than a prefecture is wide: the resident is in another city
_LEAST_LIKENESS = 0.2
_SELF = re.compile(
    r"我(?:也|真|就|都|已经|现在)?[^，。]{0,6}(?:不想活|活不下去|想死|想跳|要跳|准备跳|活着没|割腕|吞了|喝了)|^(?:不想活|活着没)"
)
_WOMAN = re.compile(r"老婆|妻子|媳妇|女的|女人|姐|妹|闺女|女儿|家暴|丈夫|老公|男人打|男朋友")


def points_near(catalogue: Catalogue, service: str, here: Mapping[str, Any]) -> Sequence[tuple[ServicePoint, float | None]]:
    able = [point for point in catalogue.services if service in point.items]
    if here.get("lat"):
        measured = [
            (point, distance_km((here["lat"], here["lng"]), (point.lat, point.lng)))
            for point in able
            if point.lat is not None and point.lng is not None
        ]
        near = sorted((pair for pair in measured if pair[1] < SAME_CITY_KM), key=lambda pair: pair[1])
        return list(near[:NEAREST])
    if not here.get("known", True):
        return []
    in_district = [point for point in able if point.district == here.get("district")]
    return [(point, None) for point in (in_district or able)[:NEAREST]]


def find_entry(catalogue: Catalogue, text: str) -> Entry | None:
    """The knowledge entry whose keywords all occur and whose questions are most alike; None when none is close."""
    matching = [entry for entry in catalogue.knowledge if all(any(word in text for word in group) for group in entry.keywords)]
    scored = [(max(_likeness(text, ask) for ask in (*entry.asks, entry.title)), len(entry.keywords), entry) for entry in matching]
    scored = [item for item in scored if item[0] >= _LEAST_LIKENESS]
    return max(scored, key=lambda item: (item[0], item[1]))[2] if scored else None


@functools.lru_cache(maxsize=4096)
def _pairs(text: str) -> frozenset[str]:
    kept = re.sub(r"[\W_]|请问|我想|一下|怎么|什么|哪里|可以", "", text)
    return frozenset(kept[i : i + 2] for i in range(len(kept) - 1)) | frozenset(kept)


def _likeness(text: str, ask: str) -> float:
    """Share of the shorter side's characters and character pairs found in the other."""
    first, second = _pairs(text), _pairs(ask)
    return len(first & second) / max(1, min(len(first), len(second)))


def told_emergency(kind: str | None, text: str) -> str | None:
    """The kind of emergency whose advice fits who is speaking: somebody in despair is told another thing than who found them."""
    if kind == "suicide" and _SELF.search(text):
        return "suicide_self"
    if kind == "violence" and _WOMAN.search(text):
        return "woman"
    return kind
