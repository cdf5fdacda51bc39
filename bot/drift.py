"""Whether people now bring other matters, in other words, than before: the sign that a model should be looked at. Pure.

The population stability index compares two distributions; below 0.1 nothing moved, above 0.2 something did (the usual bounds of
credit scoring, where it comes from).
"""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NOTICE, ALERT = 0.1, 0.2
MIN_COUNT = 5  # a word said three times more often by four people is chance
SMOOTHING = 0.5


@dataclass(frozen=True)
class RisenWord:
    """`now` and `before`: texts with the word; `times`: how much larger its share is now."""

    word: str
    now: int
    before: int
    times: float


def stability_index(now: Mapping[str, int], before: Mapping[str, int]) -> float | None:
    """None when one side is too small to say anything."""
    if min(sum(now.values()), sum(before.values())) < 30:
        return None
    names = now.keys() | before.keys()
    index = 0.0
    for name in names:
        a = (now.get(name, 0) + SMOOTHING) / (sum(now.values()) + SMOOTHING * len(names))
        b = (before.get(name, 0) + SMOOTHING) / (sum(before.values()) + SMOOTHING * len(names))
        index += (a - b) * math.log(a / b)
    return round(index, 4)


def risen_words(now: Iterable[Iterable[str]], before: Iterable[Iterable[str]], *, most: int = 12) -> list[RisenWord]:
    """Words whose share of texts grew beyond chance (two-proportion z > 3), the most telling first. Each text counts once."""
    texts_now, texts_before = [set(words) for words in now], [set(words) for words in before]
    if not texts_now or not texts_before:
        return []
    count_now, count_before = _counts(texts_now), _counts(texts_before)
    found = []
    for word, count in count_now.items():
        score = _z(count, len(texts_now), count_before[word], len(texts_before))
        if count >= MIN_COUNT and score > 3:
            share = (count_before[word] + SMOOTHING) / (len(texts_before) + 1)
            found.append((score, RisenWord(word, count, count_before[word], round(count / len(texts_now) / share, 1))))
    return [word for _, word in sorted(found, key=lambda item: (-item[0], item[1].word))[:most]]


def _counts(texts: Iterable[set[str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for words in texts:
        counts.update(words)
    return counts


def _z(a: int, of_a: int, b: int, of_b: int) -> float:
    pooled = (a + b) / (of_a + of_b)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / of_a + 1 / of_b))
    return (a / of_a - b / of_b) / spread if spread else 0.0
