"""How alike two texts are, for many texts at once: near-repeats in a pile, and the nearest neighbours of one text.

Texts become sets of hashed pairs of characters by array arithmetic, so that 100,000 of them take seconds. Pure: knows no rows.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, vstack

from bot.nlu.features import MAX_CHARACTERS, characters_of
from bot.text import fold

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

CHUNK = 4000  # texts whose pairs are in memory at the same time
# Near-repeats: two texts share a band of minima with certainty where they share most of their pairs, rarely where few.
BANDS, BAND_ROWS = 12, 4
TWINS = 0.85
MOST_LEADERS = 20
SLOTS = 1 << 16  # an index keeps two bytes for each pair of a text
MOST_BLOCKS = 64

_FIRST, _SECOND, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Pairs:
    """The distinct hashed pairs of some texts, one text after the other: those of text n are hashes[ends[n - 1]:ends[n]], sorted."""

    hashes: Hashes
    owners: Numbers
    ends: Numbers

    def of(self, number: int) -> Hashes:
        return self.hashes[self.ends[number - 1] if number else 0 : self.ends[number]]


def hash_pairs(texts: Sequence[str]) -> Pairs:
    """A text of one character is its own pair; what is neither word nor mark says nothing."""
    points, owners = _points(texts)
    hashes = _mixed(points[:-1] * _FIRST + points[1:] * _SECOND)
    inside = owners[:-1] == owners[1:]
    kept = np.unique((owners[:-1][inside].astype(np.uint64) << np.uint64(40)) | hashes[inside])
    of = (kept >> np.uint64(40)).astype(np.int64)
    return Pairs(kept & np.uint64((1 << 40) - 1), of, np.searchsorted(of, np.arange(len(texts)), side="right"))


def hash_grams(texts: Sequence[str], *, slots: int) -> csr_matrix:
    """(texts, slots): how often a text has each group of one, two and three characters; for readers of many texts."""
    return vstack([_count_grams(texts[start : start + CHUNK], slots) for start in range(0, len(texts), CHUNK)], format="csr")


def _count_grams(texts: Sequence[str], slots: int) -> csr_matrix:
    points, owners = _points(texts)
    found = []
    hashes = np.zeros(len(points), np.uint64)
    for size in (1, 2, 3):
        hashes = _mixed(hashes[: len(points) - size + 1] * _SECOND + points[size - 1 :] * _FIRST)
        inside = owners[: len(hashes)] == owners[size - 1 :]
        found.append((owners[: len(hashes)][inside].astype(np.uint64) << np.uint64(32)) | hashes[inside] % np.uint64(slots))
    kept, counts = np.unique(np.concatenate(found), return_counts=True)
    ends = np.cumsum(np.bincount((kept >> np.uint64(32)).astype(np.int64), minlength=len(texts)))
    indices = (kept & np.uint64(0xFFFFFFFF)).astype(np.int32)
    return csr_matrix((counts.astype(np.float32), indices, np.concatenate([[0], ends])), shape=(len(texts), slots))


def _points(texts: Sequence[str]) -> tuple[Hashes, Numbers]:
    """The code points of all texts, each text ending with a zero, and the text that each belongs to."""
    read = [f"{characters_of(fold(text[:MAX_CHARACTERS]))}\0" for text in texts]
    points = np.frombuffer("".join(read).encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    return points, np.repeat(np.arange(len(read), dtype=np.int64), [len(text) for text in read])


def _mixed(hashes: Hashes) -> Hashes:
    return ((hashes ^ (hashes >> np.uint64(29))) * _MIX) >> np.uint64(24)  # forty well mixed bits leave room for the owner


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, Pairs]]:
    for start in range(0, len(texts), CHUNK):
        yield start, hash_pairs(texts[start : start + CHUNK])


# -- near-repeats ---------------------------------------------------------------------------------------------------------


def find_twins(texts: Sequence[str], *, at_least: float = TWINS) -> Numbers:
    """For each text the number of the first one that it all but repeats (share of common pairs), or its own number."""
    leader = np.arange(len(texts), dtype=np.int64)
    parts = [(_bands(pairs), pairs) for _, pairs in _chunks(texts)]
    if not parts:
        return leader
    bands = np.vstack([band for band, _ in parts])
    compare = _Comparison([pairs for _, pairs in parts], at_least)
    for column in range(BANDS):
        for members in _same(bands[:, column]):
            _join(members, leader, compare)
    return _settled(leader)


def _bands(pairs: Pairs) -> Hashes:
    """One number for each text and band: texts with the same one are worth comparing. A text without pairs is like nothing."""
    bands = np.zeros((len(pairs.ends), BANDS), np.uint64)
    filled = np.diff(pairs.ends, prepend=0) > 0
    starts = np.concatenate([[0], pairs.ends[:-1]])[filled]
    rng = np.random.default_rng(0)
    for band in range(BANDS):
        for factor, shift in rng.integers(1, 1 << 62, (BAND_ROWS, 2), dtype=np.uint64):
            mixed = (pairs.hashes ^ shift) * (factor | np.uint64(1))
            least = np.minimum.reduceat(mixed ^ (mixed >> np.uint64(31)), starts) if len(starts) else mixed[:0]
            bands[filled, band] = bands[filled, band] * _MIX + least
    empty = np.flatnonzero(~filled)
    bands[empty] = rng.integers(1, 1 << 62, (len(empty), BANDS), dtype=np.uint64)
    return bands


def _same(keys: Hashes) -> Iterator[Numbers]:
    """Groups of two or more texts with the same key, each in order."""
    order = np.argsort(keys, kind="stable")
    borders = np.flatnonzero(np.diff(keys[order])) + 1
    for members in np.split(order, borders):
        if len(members) > 1:
            yield members


@dataclass(frozen=True)
class _Comparison:
    parts: Sequence[Pairs]
    at_least: float

    def __call__(self, first: int, second: int) -> bool:
        one, other = (self.parts[n // CHUNK].of(n % CHUNK) for n in (first, second))
        if min(len(one), len(other)) < self.at_least * max(len(one), len(other)):
            return False
        shared = len(np.intersect1d(one, other, assume_unique=True))
        return bool(shared >= self.at_least * (len(one) + len(other) - shared))


def _join(members: Numbers, leader: Numbers, compare: _Comparison) -> None:
    """Each member to the first of the group that it repeats; 500 copies of one text are 500 comparisons, not 125,000."""
    leaders: list[int] = []
    for member in members.tolist():
        root = _root(leader, member)
        same = next((one for one in leaders if _root(leader, one) == root or compare(one, member)), None)
        if same is None:
            leaders = [*leaders, member][-MOST_LEADERS:]
            continue
        other = _root(leader, same)
        leader[max(root, other)] = min(root, other)


def _root(leader: Numbers, number: int) -> int:
    while leader[number] != number:
        number = int(leader[number])
    return number


def _settled(leader: Numbers) -> Numbers:
    return np.array([_root(leader, number) for number in range(len(leader))], np.int64)


# -- neighbours -----------------------------------------------------------------------------------------------------------

Slots = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class _Block:
    """Some texts of an index: their keys, the slots of their pairs one text after the other, and where each text's begin."""

    keys: Numbers
    slots: Slots
    starts: Numbers

    def without(self, keys: Numbers) -> _Block:
        kept = np.isin(self.keys, keys, invert=True)
        lengths = np.diff(self.starts, append=len(self.slots))
        starts = np.concatenate([[0], np.cumsum(lengths[kept])[:-1]]) if kept.any() else self.starts[:0]
        return _Block(self.keys[kept], self.slots[np.repeat(kept, lengths)], starts.astype(np.int64))


@dataclass
class Index:
    """Texts under whole-number keys, for neighbours and for search; about three bytes a character. Not thread-safe."""

    _texts: dict[int, str] = field(default_factory=dict)  # folded
    _blocks: list[_Block] = field(default_factory=list)
    _seen: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(SLOTS, np.int32))  # texts with a pair of the slot

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, key: int) -> bool:
        return key in self._texts

    def add(self, keys: Sequence[int], texts: Sequence[str]) -> None:
        """Keys that are there already are left as they are."""
        new = {key: fold(text) for key, text in zip(keys, texts, strict=True) if key not in self._texts}
        self._texts.update(new)
        numbers = np.fromiter(new, np.int64, len(new))
        for start, pairs in _chunks(list(new.values())):
            filled = np.diff(pairs.ends, prepend=0) > 0
            slots = (pairs.hashes % np.uint64(SLOTS)).astype(np.uint16)
            starts = np.concatenate([[0], pairs.ends[:-1]])[filled]
            self._blocks.append(_Block(numbers[start : start + CHUNK][filled], slots, starts))
            self._seen += np.bincount(slots, minlength=SLOTS).astype(np.int32)
        if len(self._blocks) > MOST_BLOCKS:
            self._blocks = [_joined(self._blocks)]

    def discard(self, keys: Sequence[int]) -> None:
        for key in keys:
            self._texts.pop(key, None)
        gone = np.fromiter(keys, np.int64, len(keys))
        self._blocks = [block.without(gone) for block in self._blocks]

    def nearest(self, text: str, count: int, *, at_least: float) -> list[tuple[int, float]]:
        """(key, likeness between 0 and 1), likest first: the cosine over pairs, of which rare ones weigh more."""
        asked = np.unique((hash_pairs([text]).hashes % np.uint64(SLOTS)).astype(np.int64))
        squares = ((np.log((1.0 + len(self._texts)) / (1.0 + self._seen)) + 1.0) ** 2).astype(np.float32)
        shared = np.zeros(SLOTS, np.float32)
        shared[asked] = squares[asked]
        own = float(squares[asked].sum())
        found: list[tuple[int, float]] = []
        for block in self._blocks:
            if not len(block.keys):
                continue
            dots, norms = (np.add.reduceat(weights[block.slots], block.starts) for weights in (shared, squares))
            likeness = np.minimum(dots / np.sqrt(np.maximum(norms * own, 1e-9)), 1.0)  # slots may be shared by chance
            best = np.argpartition(-likeness, count)[:count] if len(likeness) > count else np.arange(len(likeness))
            found += [(int(block.keys[n]), round(float(likeness[n]), 3)) for n in best if likeness[n] >= at_least]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:count]

    def containing(self, words: Sequence[str]) -> list[int]:
        """Keys of the texts that hold every one of `words`, as people write them; greatest key first."""
        wanted = [fold(word) for word in words if word]
        return sorted((key for key, text in self._texts.items() if all(word in text for word in wanted)), reverse=True)


def _joined(blocks: Sequence[_Block]) -> _Block:
    shifts = np.cumsum([0, *(len(block.slots) for block in blocks[:-1])])
    return _Block(
        np.concatenate([block.keys for block in blocks]),
        np.concatenate([block.slots for block in blocks]),
        np.concatenate([block.starts + shift for block, shift in zip(blocks, shifts, strict=True)]),
    )
