"""How a city's own labelled messages and the project's texts teach the first level of the category together.

The project's texts know every class and nobody's manner of writing; a city's messages know its own, and often not every class.
Both train one reader of whole texts, in which a city's message counts more. Where the city has a fair sample of its messages
(an import), their openings train a second reader, and a logistic regression over held-out scores learns how to read messages
of that sample. How far a message is read so depends on how far it reads like one of the sample: what residents write elsewhere
keeps all classes open.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rasa.shared.nlu.constants import TEXT
from rasa.shared.nlu.training_data.message import Message
from scipy.sparse import csr_matrix

from bot.nlu.corpus import ORIGIN, SAMPLED, WEIGHT
from bot.nlu.features import MAX_CHARACTERS, Row, Vectorizer, opening_tokens, tokens_from_words, words_of
from bot.nlu.linear import Fitting, Floats, LinearReader, fit_mixing, softmax
from bot.text import fold

# For how many of the project's texts one of the city's counts: of a sample, and of what somebody picked to put right.
SAMPLE_WEIGHT, PICKED_WEIGHT = 2.0, 5.0
# Fewer say nothing reliable of how a city writes; a class needs some to be held out.
ENOUGH, LEAST_OF_CLASS = 300, 6
# The rest stays with the reader of all texts, so that a class the sample lacks can still be found.
MOST_TRUST = 0.95
THEIRS, OURS = "city", "project"


@dataclass(frozen=True)
class CityText:
    """A training text and how it came here: `origin` is None for the project's own, else see bot.nlu.corpus."""

    text: str
    origin: str | None
    weight: float

    @classmethod
    def of(cls, message: Message) -> CityText:
        return cls(message.get(TEXT), message.get(ORIGIN), float(message.get(WEIGHT) or 1.0))

    @property
    def count(self) -> float:
        """For how many of the project's texts it counts."""
        if self.origin is None:
            return 1.0
        return self.weight * (SAMPLE_WEIGHT if self.origin == SAMPLED else PICKED_WEIGHT)


def counts_of(texts: Sequence[CityText]) -> Floats:
    return np.array([one.count for one in texts], np.float32)


@dataclass(frozen=True)
class CityReading:
    """What the sample taught: which texts read like it, and how the scores of whole text and opening are to be taken in them.

    `mixing` is (classes of whole texts and openings, classes of the sample); `columns` says where those stand among the first.
    """

    likeness: LinearReader
    vectorizer: Vectorizer
    openings: LinearReader
    mixing: Floats
    bias: Floats
    columns: npt.NDArray[np.int64]

    def adjust(self, plain: Floats, whole: Floats, row: Row, text: str) -> Floats:
        """Probabilities from those that all texts taught (`plain`) and the scores behind them."""
        trust = MOST_TRUST * float(self.likeness.probabilities(row)[self.likeness.classes.index(THEIRS)])
        opening = self.openings.scores(self.vectorizer.row(opening_of(text)))
        theirs = np.zeros_like(plain)
        theirs[self.columns] = softmax((np.concatenate([whole, opening]) @ self.mixing + self.bias)[None, :])[0]
        return (1.0 - trust) * plain + trust * theirs


def opening_of(text: str) -> list[str]:
    """Feature tokens of the beginning of a raw text."""
    return opening_tokens(tokens_from_words(words_of(fold(text[:MAX_CHARACTERS])), ""))


def fit_city_reading(
    matrix: csr_matrix, truth: npt.NDArray[np.str_], texts: Sequence[CityText], whole: Floats | None
) -> CityReading | None:
    """None where there is no sample large enough to learn from. `whole`: what the reader of whole texts says of each text that it has
    not seen; None where that cannot be told."""
    sample = _sample(truth, texts)
    if len(sample) < ENOUGH or len(np.unique(truth[sample])) < 2:
        return None
    own = np.flatnonzero([one.origin is None for one in texts])
    if whole is None or not len(own):
        return None
    vectorizer, seen = Vectorizer.fit_matrix([opening_of(texts[number].text) for number in sample])
    unseen = Fitting().held_out_scores(seen, truth[sample])
    names, every = np.unique(truth[sample]), np.arange(seen.shape[1], dtype=np.int32)
    mixing, bias = fit_mixing([whole[sample], unseen], truth[sample], len(names))
    openings = LinearReader.at_rest(tuple(map(str, names)), *Fitting().hyperplanes(seen, truth[sample]), 1.0, every)
    both = np.concatenate([own, sample])
    likeness = LinearReader.fit(matrix[both], [OURS] * len(own) + [THEIRS] * len(sample))
    return CityReading(likeness, vectorizer, openings, np.vstack(mixing), bias, np.searchsorted(np.unique(truth), names))


def _sample(truth: npt.NDArray[np.str_], texts: Sequence[CityText]) -> npt.NDArray[np.int64]:
    """Rows of the city's fair sample, of classes that have enough of them. What people picked because a model was unsure or wrong
    is none: it would teach that the model always is."""
    sampled = np.array([one.origin == SAMPLED for one in texts])
    common = [name for name, size in Counter(truth[sampled].tolist()).items() if size >= LEAST_OF_CLASS]
    return np.flatnonzero(sampled & np.isin(truth, common))
