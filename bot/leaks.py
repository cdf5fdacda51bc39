"""Which training texts all but repeat a frozen test item: a model must not be examined on what it was taught. Pure."""
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bot.nlu.features import MAX_CHARACTERS, characters_of
from bot.text import fold

GRAM = 5
# Of the shorter text; of both together where the shorter is so short that a long letter may well hold it by chance.
SHARED, SHARED_SHORT, SHORT = 0.5, 0.6, 20
# What so many frozen items hold is a phrase of the trade ("请相关部门尽快处理"), no sign of a copy.
COMMON = 40


@dataclass(frozen=True)
class Frozen:
    """Frozen texts by their character 5-grams."""

    holders: dict[str, list[int]]
    common: frozenset[str]
    sizes: list[int]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Frozen:
        holders: defaultdict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(texts):
            for gram in _grams(text):
                holders[gram].append(number)
        common = frozenset(gram for gram, numbers in holders.items() if len(numbers) > COMMON)
        kept = {gram: numbers for gram, numbers in holders.items() if gram not in common}
        sizes = Counter(number for numbers in kept.values() for number in numbers)
        return cls(kept, common, [sizes[number] for number in range(len(texts))])

    def is_repeated_by(self, text: str) -> bool:
        grams = _grams(text) - self.common
        shared = Counter(number for gram in grams for number in self.holders.get(gram, ()))
        return any(_alike(count, len(grams), self.sizes[number]) for number, count in shared.items())


def _alike(shared: int, one: int, other: int) -> bool:
    if min(one, other) < SHORT:
        return shared >= SHARED_SHORT * (one + other - shared)
    return shared >= SHARED * min(one, other)


def _grams(text: str) -> set[str]:
    characters = characters_of(fold(text[:MAX_CHARACTERS]))
    return {characters[i : i + GRAM] for i in range(max(1, len(characters) - GRAM + 1))}
