"""One sparse view of a text for all linear readers: words, character n-grams, and the first words once more.

The first words count twice because residents and hotline agents put the matter first (a title, or "我要反映…").
Scikit-learn fits; prediction walks one dictionary, because its transformers cost a millisecond per message.
"""
from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, chain, repeat

import jieba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from bot.text import fold

FIRST_WORDS, VERY_FIRST_WORDS = 15, 6
# Kind marks of feature tokens; character n-grams carry none. Control characters cannot occur in a folded word.
WORD_MARK, PAIR_MARK, FIRST_MARK = "\x01", "\x02", "\x03"
# Characters past this add time and noise, not meaning: the matter has been named by then.
MAX_CHARACTERS = 1500

# Blanks, emoji and repeated marks say nothing of the matter.
_NOISE = re.compile(r"[^\w，。？！、：；（）《》“”]+|(?<=[，。？！、])[，。？！、]+")
_DIGITS = re.compile(r"\d{3,}")
_WORD = re.compile(r"[^\W_]+")

jieba.setLogLevel(logging.WARNING)

Row = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]
Span = tuple[int, int]


@lru_cache(maxsize=64)
def cut(text: str) -> tuple[Span, ...]:
    """(start, end) of the words of an already folded text, punctuation included, without gaps. Every component reads the same
    message one after the other, and cutting it is what costs most: the last few are kept."""
    ends = list(accumulate(map(len, jieba.cut(text, HMM=False))))
    return tuple(zip([0, *ends], ends))


def words_of(text: str) -> list[str]:
    """Words of an already folded text, without punctuation; long numbers collapse to one token."""
    words = (text[start:end] for start, end in cut(text))
    return [_DIGITS.sub("0", word) for word in words if _WORD.match(word)]


def characters_of(text: str) -> str:
    """What the character n-grams of an already folded text are taken from: no blanks, no noise, marks kept."""
    return _NOISE.sub("", _DIGITS.sub("0", text))


def tokens_of(text: str) -> list[str]:
    """Feature tokens of a raw text: marked words, word pairs and first words, then bare character n-grams."""
    folded = fold(text[:MAX_CHARACTERS])
    return tokens_from_words(words_of(folded), characters_of(folded))


def tokens_from_words(words: Sequence[str], joined: str | None = None) -> list[str]:
    """Feature tokens of a text given as words, as tokenised corpora come."""
    characters = "".join(words) if joined is None else joined
    tokens = [WORD_MARK + word for word in words]
    tokens += [f"{PAIR_MARK}{first}{PAIR_MARK}{second}" for first, second in zip(words, words[1:])]
    tokens += [FIRST_MARK + word for word in words[:FIRST_WORDS]]
    return tokens + _grams(characters)


def opening_tokens(tokens: Sequence[str]) -> list[str]:
    """Feature tokens of the opening alone, from the tokens of a whole text: the very first words count twice."""
    words = [token[1:] for token in tokens if token[0] == FIRST_MARK]
    marked = [WORD_MARK + word for word in words] + [FIRST_MARK + word for word in words[:VERY_FIRST_WORDS]]
    pairs = [f"{PAIR_MARK}{first}{PAIR_MARK}{second}" for first, second in zip(words, words[1:])]
    return marked + pairs + _grams("".join(words))


def _grams(characters: str) -> list[str]:
    return [characters[i : i + size] for size in (1, 2, 3) for i in range(len(characters) - size + 1)]


@dataclass(frozen=True)
class Vectorizer:
    """Sublinear TF-IDF over tokens_of(). `idf` is aligned with the numbers in `vocabulary`."""

    vocabulary: dict[str, int]
    idf: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, documents: Iterable[Sequence[str]], *, min_documents: int = 2) -> Vectorizer:
        return cls.fit_matrix(documents, min_documents=min_documents)[0]

    @classmethod
    def fit_matrix(cls, documents: Iterable[Sequence[str]], *, min_documents: int = 2) -> tuple[Vectorizer, csr_matrix]:
        """The vectorizer and matrix() of the same documents, counted once."""
        seen: defaultdict[str, int] = defaultdict()
        seen.default_factory = seen.__len__
        counted = [
            np.unique(np.fromiter(map(seen.__getitem__, tokens), np.int32, len(tokens)), return_counts=True) for tokens in documents
        ]
        found = np.concatenate([numbers for numbers, _ in counted]) if counted else np.empty(0, np.int32)
        frequency = np.bincount(found, minlength=len(seen))
        kept = sorted(token for token, number in seen.items() if frequency[number] >= min_documents)
        old = np.fromiter((seen[token] for token in kept), np.int32, len(kept))
        idf = (np.log((1.0 + len(counted)) / (1.0 + frequency[old].astype(np.float32))) + 1.0).astype(np.float32)
        new = np.full(len(seen), -1, np.int32)
        new[old] = np.arange(len(kept), dtype=np.int32)
        vectorizer = cls({token: number for number, token in enumerate(kept)}, idf)
        owners = np.repeat(np.arange(len(counted)), [len(numbers) for numbers, _ in counted])
        counts = np.concatenate([own for _, own in counted]) if counted else np.empty(0, np.int64)
        numbers = new[found]
        known = numbers >= 0
        matrix = vectorizer._rows(numbers[known], counts[known], owners[known], len(counted))
        matrix.sort_indices()
        return vectorizer, matrix

    @cached_property
    def names(self) -> list[str]:
        """The token of each number."""
        return list(self.vocabulary)

    def row(self, tokens: Sequence[str]) -> Row:
        """Column numbers in order and L2-normalised weights of one text."""
        found = np.fromiter(map(self.vocabulary.get, tokens, repeat(-1)), np.int32, len(tokens))
        numbers, counts = np.unique(found[found >= 0], return_counts=True)
        weights = self._weigh(numbers, counts)
        length = np.sqrt((weights**2).sum(dtype=np.float64))
        return numbers, (weights / length).astype(np.float32)

    def matrix(self, documents: Sequence[Sequence[str]]) -> csr_matrix:
        """row() of each text, worked out together."""
        sizes, width = list(map(len, documents)), len(self.vocabulary)
        numbers = np.fromiter(map(self.vocabulary.get, chain.from_iterable(documents), repeat(-1)), np.int64, sum(sizes))
        owners = np.repeat(np.arange(len(sizes)), sizes)
        known = numbers >= 0
        cells, counts = np.unique(owners[known] * width + numbers[known], return_counts=True)
        owners, numbers = np.divmod(cells, max(width, 1))
        return self._rows(numbers.astype(np.int32), counts, owners, len(sizes))

    def _weigh(self, numbers: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Of tokens that a text has so often, before its row is brought to length 1."""
        weights: npt.NDArray[np.float32] = (1.0 + np.log(counts.astype(np.float32))) * self.idf[numbers]
        return weights

    def _rows(
        self, numbers: npt.NDArray[np.int32], counts: npt.NDArray[np.int64], owners: npt.NDArray[np.int64], documents: int
    ) -> csr_matrix:
        """Rows of so many texts from the tokens of the vocabulary that each of them has."""
        weights = self._weigh(numbers, counts)
        lengths = np.sqrt(np.bincount(owners, weights**2, minlength=documents))
        ends = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=documents))])
        return csr_matrix(((weights / lengths[owners]).astype(np.float32), numbers, ends), shape=(documents, len(self.vocabulary)))
