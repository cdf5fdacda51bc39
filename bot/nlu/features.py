"""One sparse view of a text for all linear readers: words, character n-grams, and the first words once more.

The first words count twice because residents and hotline agents put the matter first (a title, or "我要反映…").
Scikit-learn fits; prediction walks one dictionary, because its transformers cost a millisecond per message.
"""
from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jieba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from bot.text import fold

FIRST_WORDS = 15
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


def words_of(text: str) -> list[str]:
    """Words of an already folded text, without punctuation; long numbers collapse to one token."""
    return [word for word in jieba.cut(_DIGITS.sub("0", text), HMM=False) if _WORD.match(word)]


def tokens_of(text: str) -> list[str]:
    """Feature tokens of a raw text: marked words, word pairs and first words, then bare character n-grams."""
    folded = fold(text[:MAX_CHARACTERS])
    words = words_of(folded)
    return tokens_from_words(words, _NOISE.sub("", _DIGITS.sub("0", folded)))


def tokens_from_words(words: Sequence[str], joined: str | None = None) -> list[str]:
    """Feature tokens of a text given as words, as tokenised corpora come."""
    characters = "".join(words) if joined is None else joined
    tokens = [WORD_MARK + word for word in words]
    tokens += [f"{PAIR_MARK}{first}{PAIR_MARK}{second}" for first, second in zip(words, words[1:])]
    tokens += [FIRST_MARK + word for word in words[:FIRST_WORDS]]
    for size in (1, 2, 3):
        tokens += [characters[i : i + size] for i in range(len(characters) - size + 1)]
    return tokens


@dataclass(frozen=True)
class Vectorizer:
    """Sublinear TF-IDF over tokens_of(). `idf` is aligned with the numbers in `vocabulary`."""

    vocabulary: dict[str, int]
    idf: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, documents: Iterable[Sequence[str]], *, min_documents: int = 2) -> Vectorizer:
        frequency: Counter[str] = Counter()
        total = 0
        for tokens in documents:
            total += 1
            frequency.update(set(tokens))
        kept = sorted(token for token, count in frequency.items() if count >= min_documents)
        counts = np.array([frequency[token] for token in kept], dtype=np.float32)
        idf = (np.log((1.0 + total) / (1.0 + counts)) + 1.0).astype(np.float32)
        return cls({token: number for number, token in enumerate(kept)}, idf)

    def row(self, tokens: Sequence[str]) -> Row:
        """Column numbers and L2-normalised weights of one text."""
        counts = Counter(tokens)
        known = [(number, count) for token, count in counts.items() if (number := self.vocabulary.get(token)) is not None]
        if not known:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        known.sort()
        numbers = np.fromiter((number for number, _ in known), np.int32, len(known))
        counted = np.fromiter((count for _, count in known), np.float32, len(known))
        weights = (1.0 + np.log(counted)) * self.idf[numbers]
        return numbers, (weights / np.sqrt((weights**2).sum())).astype(np.float32)

    def matrix(self, documents: Sequence[Sequence[str]]) -> csr_matrix:
        rows = [self.row(tokens) for tokens in documents]
        indptr = np.cumsum([0, *(len(numbers) for numbers, _ in rows)])
        indices = np.concatenate([numbers for numbers, _ in rows]) if rows else np.empty(0, np.int32)
        data = np.concatenate([weights for _, weights in rows]) if rows else np.empty(0, np.float32)
        return csr_matrix((data, indices, indptr), shape=(len(rows), len(self.vocabulary)))
