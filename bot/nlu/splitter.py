"""The part that divides a message into separate appeals where a person would.

Two steps: a linear reader of the words around a border names the few likeliest borders, and a logistic judge weighs for each
what bot.nlu.borders measures on both sides. A wrong cut costs a resident more than a missed one, so only sure borders hold.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.constants import TEXT
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from bot.nlu import corpus
from bot.nlu.borders import MIN_PART, Fields, Outline, candidate_borders, measures, wording
from bot.nlu.features import Vectorizer
from bot.nlu.linear import LinearReader
from bot.nlu.part import Part
from bot.processes import together
from bot.text import fold

PARTS = "parts"
HOLDS, INSIDE = "border", "inside"
# On held-out folds of our own texts 0.5 keeps 93 of 100 single appeals whole (adversarial ones included) and finds 7 of 10 borders.
THRESHOLD = 0.5
# The judge looks at so many borders of a stretch, and a message falls into so many parts at most.
LIKELIEST, MOST_PARTS = 6, 5
# Characters past this are not divided: a text that long is one petition with its history.
MAX_CHARACTERS = 1500
# Petitions of the category texts are one appeal each. The long ones teach what does not divide, but must not outweigh.
LONG_PETITION, PETITION_WEIGHT = 70, 0.3
# A border that stands this near to a candidate is the same border: before or after a blank, before or after a comma.
SAME = 2

Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Judge:
    """Probability that a border holds, from its measures and the score of its wording."""

    weights: npt.NDArray[np.float32]
    bias: float

    def probabilities(self, rows: Sequence[Sequence[float]]) -> npt.NDArray[np.float32]:
        scores = np.array(rows, np.float32) @ self.weights + self.bias
        return (1.0 / (1.0 + np.exp(-scores))).astype(np.float32)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Wording:
    """How the words around a border speak for it."""

    vectorizer: Vectorizer
    reader: LinearReader

    @classmethod
    def fit(cls, lessons: Sequence[Lesson]) -> Wording:
        documents = [tokens for lesson in lessons for tokens in lesson.tokens]
        labels = [HOLDS if holds else INSIDE for lesson in lessons for holds in lesson.holds]
        vectorizer = Vectorizer.fit(documents)
        return cls(vectorizer, LinearReader.fit(vectorizer.matrix(documents), labels, calibrate=False))

    def scores(self, documents: Sequence[Sequence[str]]) -> list[float]:
        scores: list[float] = self.reader.scores_for(HOLDS, self.vectorizer.matrix(documents)).tolist()
        return scores


@dataclass(frozen=True)
class Lesson:
    """A training text with its candidate borders, and which of them hold."""

    outline: Outline
    ends: tuple[int, ...]
    weight: float
    borders: list[int]
    holds: list[bool]
    tokens: list[list[str]]

    @classmethod
    def of(cls, text: str, fields: Fields, parts: Sequence[tuple[int, int]] | None) -> Lesson:
        outline = Outline(text, fields)
        ends = tuple(end for _, end in parts) if parts else (len(text),)
        found = candidate_borders(outline.text)
        borders = sorted({*found, *(end for end in ends[:-1] if not _near(end, found))})
        holds = [_near(border, ends[:-1]) for border in borders]
        weight = 1.0 if parts else PETITION_WEIGHT
        return cls(outline, ends, weight, borders, holds, [wording(outline.text, border) for border in borders])

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The whole text, and every shorter run of parts, as the splitter meets them after a first cut."""
        starts = (0, *self.ends[:-1])
        for first, start in enumerate(starts):
            for end in self.ends[first:]:
                yield start, end


# What one says before the matter ("那个 你们能不能") is none of its own.
_FILLERS = re.compile(
    r"那个|这个|就是(?:说)?|你们|我们?|能不能|可不可以|请问|想|问一?下|反映|投诉|咨询|喂|[你您]好|然后|还有|另外|顺便|再说|再就是|对了|麻烦|领导|[啊嘛呢哎嗯哦吧的了事]|\W"
)
LEAST_TOLD = 5
# The second of several numbered demands or reasons belongs to the same appeal as the first.
_NEXT_POINT = re.compile(r"[\s，,；;。]*(?:[（(]?[2-9二三四五六七八九][）)、.．，:：]|第[二三四五六]|[②③④⑤⑥])")


def tells(piece: str) -> bool:
    """Whether a piece of a folded text says anything that could be a matter."""
    return len(_FILLERS.sub("", piece)) >= LEAST_TOLD


def _near(border: int, others: Sequence[int]) -> bool:
    return any(abs(border - other) <= SAME for other in others)


def _likeliest(borders: Sequence[int], scores: Sequence[float], start: int, end: int) -> list[int]:
    """Numbers of the borders worth judging between start and end, best wording first."""
    inside = [number for number, border in enumerate(borders) if start + MIN_PART <= border <= end - MIN_PART]
    return sorted(inside, key=lambda number: -scores[number])[:LIKELIEST]


class AppealSplitter(Part):
    """Sets `parts`: [{start, end}], one per separate appeal, in order and covering the text."""

    fields: Fields
    wording: Wording
    judge: Judge

    def get_state(self) -> tuple[Fields, Wording, Judge]:
        return self.fields, self.wording, self.judge

    def set_state(self, state: tuple[Fields, Wording, Judge]) -> None:
        self.fields, self.wording, self.judge = state

    def fit(self, training_data: TrainingData) -> None:
        messages = corpus.texts_in(training_data)
        # A city's letter may hold several appeals, whatever its one label says.
        own = [message for message in messages if message.get(corpus.CATEGORY) and not message.get(corpus.ORIGIN)]
        petitions = [(message.get(TEXT), message.get(corpus.CATEGORY)[:2]) for message in own]
        self.fields = _fit_fields(petitions)
        divided = [message for message in messages if message.get(corpus.PARTS)]
        lessons = [Lesson.of(message.get(TEXT), self.fields, message.get(corpus.PARTS)) for message in divided]
        # A petition is measured with fields that have not seen it.
        for half, others in ((petitions[::2], petitions[1::2]), (petitions[1::2], petitions[::2])):
            unseen = _fit_fields(others)
            lessons += [Lesson.of(text, unseen, None) for text, _ in half if len(text) >= LONG_PETITION]
        self.judge = _fit_judge(lessons)
        self.wording = Wording.fit(lessons)

    def read(self, message: Message, tracker: DialogueStateTracker) -> None:
        message.set(PARTS, self.split(message.get(TEXT) or ""), add_to_output=True)

    def split(self, text: str) -> list[dict[str, int]]:
        outline = Outline(text[:MAX_CHARACTERS], self.fields)
        borders = candidate_borders(outline.text)
        scores = self.wording.scores([wording(outline.text, border) for border in borders])
        cuts: list[int] = []
        open_stretches = [(0, len(outline.text))] if borders else []
        while open_stretches and len(cuts) < MOST_PARTS - 1:
            start, end = open_stretches.pop(0)
            border = self._best_border(outline, borders, scores, (start, end))
            if border is not None:
                cuts.append(border)
                open_stretches += [(start, border), (border, end)]
        bounds = [0, *sorted(cuts), len(text)]
        return [{"start": start, "end": end} for start, end in zip(bounds, bounds[1:])]

    def _best_border(self, outline: Outline, borders: Sequence[int], scores: Sequence[float], stretch: tuple[int, int]) -> int | None:
        start, end = stretch
        numbers = [
            number
            for number in _likeliest(borders, scores, start, end)
            if tells(outline.text[start : borders[number]])
            and tells(outline.text[borders[number] : end])
            and not (outline.reasons and _NEXT_POINT.match(outline.text, borders[number]))
        ]
        if not numbers:
            return None
        judged = self.judge.probabilities([[*measures(outline, start, borders[number], end), scores[number]] for number in numbers])
        best = int(judged.argmax())
        return borders[numbers[best]] if judged[best] >= THRESHOLD else None


def _fit_fields(petitions: Sequence[tuple[str, str]]) -> Fields:
    return Fields.fit([fold(text) for text, _ in petitions], [field for _, field in petitions])


def _fit_judge(lessons: Sequence[Lesson]) -> Judge:
    """From the borders the wording would propose in texts it has not seen, and from those that hold."""
    folds = KFold(3, shuffle=True, random_state=0).split(lessons)
    told = together([partial(_borders_unseen, [lessons[n] for n in taught], [lessons[n] for n in held_out]) for taught, held_out in folds])
    rows, holds, weights = (np.concatenate(parts) for parts in zip(*told))
    model = LogisticRegression(max_iter=3000).fit(rows, holds, sample_weight=weights)
    return Judge(model.coef_[0].astype(np.float32), float(model.intercept_[0]))


def _borders_unseen(taught: Sequence[Lesson], held_out: Sequence[Lesson]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """(measures, whether it holds, weight) of borders in `held_out` that wording of the others would propose, and of all that hold."""
    rows: list[list[float]] = []
    holds: list[bool] = []
    weights: list[float] = []
    reader = Wording.fit(taught)
    for lesson in held_out:
        scores = reader.scores(lesson.tokens)
        for start, end in lesson.stretches():
            numbers = _likeliest(lesson.borders, scores, start, end)
            numbers += [n for n, border in enumerate(lesson.borders) if lesson.holds[n] and start < border < end and n not in numbers]
            rows += [[*measures(lesson.outline, start, lesson.borders[n], end), scores[n]] for n in numbers]
            holds += [lesson.holds[n] for n in numbers]
            weights += [lesson.weight] * len(numbers)
    return np.array(rows), np.array(holds), np.array(weights)
