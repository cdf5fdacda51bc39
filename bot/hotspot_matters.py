"""What appeals are about, as numbers: pairs of characters weighed by how rare they are, and the fields of their telling words.

Groups of appeals stand around a centre, never in a chain from neighbour to neighbour. Counted with whole arrays: six thousand
letters have two million pairs.
"""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import ahocorasick
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, hstack

from bot.nlu.corpus import read_lexicon, read_petitions
from bot.text import fold

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

# How much of a similarity is that of fields.
FIELD_SHARE = 0.15
# A pair of characters is a telling word where so many letters have it and this share of them is of one leaf.
LEAST_LETTERS, MOSTLY = 8, 0.4
LEAF = 6
_HAN_PAIR = re.compile("[\u4e00-\u9fff]{2}")
_LEAST_LEAF = 1_000_000  # leaves are six digits, below zero


@dataclass(frozen=True)
class Bags:
    """Features of many texts, one after the other: text t has those from borders[t] to borders[t + 1], each once."""

    features: Numbers
    counts: Floats
    borders: Numbers

    @classmethod
    def of(cls, bags: Iterable[tuple[Numbers, Floats]]) -> Bags:
        features, counts = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for own, often in bags:
            features.append(own)
            counts.append(often)
        return cls(np.concatenate(features), np.concatenate(counts), np.cumsum([len(own) for own in features]))

    def __len__(self) -> int:
        return len(self.borders) - 1


@dataclass(frozen=True)
class Wording:
    """What is known of words beforehand: in how many of `texts` letters of any matter a feature stands, and telling words.

    Features are pairs of characters, and below zero the leaves of the catalogue that telling words speak for.
    """

    features: Numbers
    counts: Numbers
    texts: int
    telling: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, texts: Iterable[str], telling: Mapping[str, Sequence[int]]) -> Wording:
        bare = cls(np.empty(0, np.int64), np.empty(0, np.int64), 0, telling)
        folded = [fold(text) for text in texts]
        found = [part.features for part in (bare.pairs(folded), bare.fields(folded))]
        features, counts = np.unique(np.concatenate(found), return_counts=True)
        return cls(features, counts, len(folded), telling)

    def pairs(self, folded: Iterable[str]) -> Bags:
        """Pairs of neighbouring characters; two digits say nothing."""
        return Bags.of(map(_pairs, folded))

    def fields(self, folded: Iterable[str]) -> Bags:
        """Leaves of the catalogue; a word of several leaves is shared among them."""
        words = [[number for _, number in self._automaton.iter(text)] if self.telling else [] for text in folded]
        sizes, starts, leaves = self._leaves_of_words
        found = np.array([number for own in words for number in own], np.int64)
        text = np.repeat(np.repeat(np.arange(len(words)), [len(own) for own in words]), sizes[found])
        shares = np.repeat(1 / np.maximum(sizes, 1)[found], sizes[found])
        runs = np.arange(len(text)) - np.repeat(np.cumsum(sizes[found]) - sizes[found], sizes[found])
        each = leaves[np.repeat(starts[found], sizes[found]) + runs]
        keys, inverse = np.unique((text << 32) + each + _LEAST_LEAF, return_inverse=True)
        counts = np.bincount(inverse, shares, len(keys)).astype(np.float32)
        borders = np.searchsorted(keys >> 32, np.arange(len(words) + 1))
        return Bags((keys & 0xFFFFFFFF) - _LEAST_LEAF, counts, borders)

    def count(self, features: Numbers) -> Numbers:
        return np.where(*self._at(features), 0) if len(self.features) else np.zeros(len(features), np.int64)

    def _at(self, features: Numbers) -> tuple[Flags, Numbers]:
        at = np.minimum(np.searchsorted(self.features, features), len(self.features) - 1)
        return self.features[at] == features, self.counts[at]

    @cached_property
    def _automaton(self) -> ahocorasick.Automaton:
        automaton = ahocorasick.Automaton()
        for number, word in enumerate(self.telling):
            automaton.add_word(word, number)
        automaton.make_automaton()
        return automaton

    @cached_property
    def _leaves_of_words(self) -> tuple[Numbers, Numbers, Numbers]:
        """Of each telling word, by its number, how many leaves it has and where they start; and the leaves."""
        sizes = np.array([len(leaves) for leaves in self.telling.values()], np.int64)
        leaves = np.array([leaf for own in self.telling.values() for leaf in own], np.int64)
        return sizes, np.cumsum(sizes) - sizes, leaves


def _pairs(folded: str) -> tuple[Numbers, Floats]:
    points = np.frombuffer(folded.encode("utf-32-le", "replace"), np.uint32).astype(np.int64)
    digit = (points >= 0x30) & (points <= 0x39)
    kept = (points >= 0x4E00) & (points <= 0x9FFF) | (points >= 0x61) & (points <= 0x7A) | digit
    pairs = (points[:-1] << 16 | points[1:])[kept[:-1] & kept[1:] & ~(digit[:-1] & digit[1:])]
    found, counts = np.unique(pairs, return_counts=True)
    return found, counts.astype(np.float32)


def load_wording(data_dir: Path) -> Wording:
    """From the project's own training letters and telling words (nlu_data/README.md). Raises CorpusError."""
    letters = [example for path in sorted((data_dir / "petitions").glob("*.txt")) for example in read_petitions(path)]
    texts = [fold(example.text) for example in letters]
    telling = {word: {code} for word, code in _telling_pairs(texts, [str(example.category) for example in letters])}
    for code, words in read_lexicon(data_dir).items():
        for word in words:
            telling.setdefault(fold(word), set()).add(code)
    return Wording.of(texts, {word: sorted(-int(code) for code in codes) for word, codes in telling.items()})


def _telling_pairs(texts: Sequence[str], codes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of characters that stand mostly in letters of one leaf, and that leaf: 电梯, which the lexicon has only in longer words."""
    letters: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text, code in zip(texts, codes, strict=True):
        for pair in {text[i : i + 2] for i in range(len(text) - 1)}:
            letters[pair][code] += 1
    for pair, counts in letters.items():
        code, most = counts.most_common(1)[0]
        if len(code) == LEAF and counts.total() >= LEAST_LETTERS and most >= MOSTLY * counts.total() and _HAN_PAIR.fullmatch(pair):
            yield pair, code


@dataclass(frozen=True)
class Space:
    """All features of some texts and how rare they are, and which of them more than one text has."""

    features: Numbers
    rarity: Floats
    shared: Flags

    @classmethod
    def of(cls, bags: Bags, wording: Wording) -> Space:
        features, counts = np.unique(bags.features, return_counts=True)
        known = counts + wording.count(features)
        return cls(features, np.log((1 + len(bags) + wording.texts) / (1 + known)).astype(np.float32), counts > 1)

    def rows(self, bags: Bags) -> csr_matrix:
        """One row per text, of length 1 before what no other text shares was left out: that makes texts unlike each other."""
        at = np.minimum(np.searchsorted(self.features, bags.features), max(len(self.features) - 1, 0))
        known = self.features[at] == bags.features if len(self.features) else np.zeros(len(at), bool)
        at, counts, text = at[known], bags.counts[known], np.repeat(np.arange(len(bags)), np.diff(bags.borders))[known]
        weights = np.where(counts > 1, 1 + np.log(np.maximum(counts, 1)), counts) * self.rarity[at]
        lengths = np.sqrt(np.bincount(text, weights**2, len(bags)))
        kept = self.shared[at]
        weights = (weights / np.maximum(lengths, 1e-9)[text])[kept].astype(np.float32)
        borders = np.concatenate([[0], np.cumsum(np.bincount(text[kept], minlength=len(bags)))])
        columns = (np.cumsum(self.shared) - 1)[at[kept]]
        return csr_matrix((weights, columns, borders), shape=(len(bags), int(self.shared.sum())))


@dataclass(frozen=True)
class Matters:
    """The words and the fields of each text as rows of two spaces, and both in one: products of `both` mix the similarities."""

    wording: Wording
    space: Space
    words: csr_matrix
    fields: csr_matrix
    both: csr_matrix

    @classmethod
    def of(cls, texts: Sequence[str], wording: Wording) -> Matters:
        """`texts` are folded."""
        pairs, leaves = wording.pairs(texts), wording.fields(texts)
        space = Space.of(pairs, wording)
        words, fields = space.rows(pairs), Space.of(leaves, wording).rows(leaves)
        mixed = words * np.float32(np.sqrt(1 - FIELD_SHARE)), fields * np.float32(np.sqrt(FIELD_SHARE))
        return cls(wording, space, words, fields, hstack(mixed).tocsr())

    def rows(self, folded: Iterable[str]) -> csr_matrix:
        """Other texts in the space of words."""
        return self.space.rows(self.wording.pairs(folded))


def alike(rows: csr_matrix, others: csr_matrix | None = None) -> Floats:
    """Similarities of each row with each of the others, or with each other."""
    products: Floats = (rows @ (rows if others is None else others).T).toarray()
    if others is None:
        np.fill_diagonal(products, 1)  # what a row has alone was left out of it
    return products


@dataclass(frozen=True)
class Measure:
    """One way in which texts are alike. `seed`: how near the first members are to a centre; `join`: every member to their direction."""

    alike: Floats
    seed: float
    join: float


def near_groups(measures: Sequence[Measure], centres: Flags) -> Iterator[Numbers]:
    """Disjoint groups of at least two texts, the densest first. By every measure, members are near the common direction of those
    around a centre, their own share left out. The direction is taken once: a group cannot wander from one text to the next.
    """
    near = np.logical_and.reduce([measure.alike >= measure.seed for measure in measures])
    np.fill_diagonal(near, False)
    weights = np.where(near, measures[0].alike, 0)
    free = np.ones(len(centres), bool)
    while True:
        gains = np.where(centres & free, weights @ free, 0)
        centre = int(gains.argmax())
        if gains[centre] <= 0:
            return
        around = near[centre] & free
        around[centre] = True
        members = np.flatnonzero(free & np.logical_and.reduce([_closeness(m.alike, around) >= m.join for m in measures]))
        free[centre] = False
        if len(members) > 1:
            free[members] = False
            yield members


def _closeness(similar: Floats, around: Flags) -> Floats:
    """Cosine of every text with the sum of those `around`; one among them is not counted for itself."""
    dots = similar @ around
    length = dots[around].sum() + np.where(around, 1 - 2 * dots, 0)
    closeness: Floats = (dots - around) / np.sqrt(np.maximum(length, 1e-9))
    return closeness
