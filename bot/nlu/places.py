"""The part that finds place mentions: maximal spans such as "经开区山阳小区南门进去那段路", and the one to send people to.

A character-level conditional random field over the character window, word borders, cue words, place suffixes and the gazetteer's
names (given by the importer) is trained here and read in bot.nlu.place_finder; bot.nlu.place_spans mends its spans. What a span's
parts are (district, street …) is bot.gazetteer's work.
"""
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ahocorasick
import numpy as np
import pycrfsuite
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.constants import TEXT
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData
from sklearn.linear_model import LogisticRegression

from bot.nlu import corpus
from bot.nlu.part import Part
from bot.nlu.place_finder import MAX_CHARACTERS, Floats, PlaceFinder, automaton, character_features, divisions_in, main_row, words_of
from bot.nlu.place_spans import main_features, without_repeats
from bot.text import fold

PLACES_FOUND = "place_spans"
MAX_ITERATIONS = 60
# What only one or two texts show is chance: without it training is shorter and places of other writers are found as well.
MIN_FREQUENCY = 3
LETTER_WEIGHT = 2


class PlaceReader(Part):
    """Sets `place_spans`: [{start, end, text, confidence, weight}], in order of the text; the scene has the greatest weight."""

    finder: PlaceFinder
    names: ahocorasick.Automaton
    model: bytes
    main_weights: list[float]

    def get_state(self) -> dict[str, Any]:
        return {"model": self.model, "names": list(self.names.items()), "main_weights": self.main_weights}

    def set_state(self, state: dict[str, Any]) -> None:
        self.model, self.main_weights = state["model"], state["main_weights"]
        self.names = automaton(state["names"])
        self.finder = PlaceFinder(self.model, self.names, self.main_weights)

    def fit(self, training_data: TrainingData) -> None:
        elements = [name for message in training_data.training_examples for name in message.get(corpus.PLACE_NAMES) or ()]
        self.names = automaton([(name, (len(name), level)) for level, name in (element.split(":", 1) for element in elements)])
        marked = _with_fewer_placeless([m for m in corpus.texts_in(training_data) if m.get(corpus.PLACES) is not None])
        self.model, self.main_weights = self._fit_tagger(marked), self._fit_main(marked)

    def _fit_tagger(self, marked: Sequence[Message]) -> bytes:
        trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
        settings = {"c1": 0.05, "c2": 0.02, "max_iterations": MAX_ITERATIONS, "feature.minfreq": MIN_FREQUENCY}
        trainer.set_params({**settings, "feature.possible_transitions": True})
        for message in marked:
            whole = fold(message.get(TEXT))
            text = whole[:MAX_CHARACTERS]
            features = pycrfsuite.ItemSequence(character_features(text, words_of(whole), self.names))
            tags = tags_from_spans(len(text), message.get(corpus.PLACES))
            # Texts written for this task are the longest and the most like real letters.
            for _ in range(LETTER_WEIGHT if message.get(corpus.URGENCY) is None else 1):
                trainer.append(features, tags)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "places.crfsuite"
            trainer.train(str(path))
            return path.read_bytes()

    def _fit_main(self, marked: Sequence[Message]) -> list[float]:
        """Weights that put the marked scene above the other places of its text; all zero where no text says."""
        pairs: list[Floats] = []
        for message in marked:
            text, main = fold(message.get(TEXT)), message.get(corpus.MAIN_PLACE)
            if main is None:
                continue
            scene = tuple(message.get(corpus.PLACES)[main])
            spans = without_repeats(text, [tuple(span) for span in message.get(corpus.PLACES)])
            divisions = divisions_in(text, self.names)
            rows = {span: main_row(text, span, spans, divisions) for span in spans}
            pairs += [rows[scene] - row for span, row in rows.items() if scene in rows and span != scene]
        if not pairs:
            return [0.0] * len(main_features("", (0, 0), [(0, 0)], bare=False))
        sides = np.array([*pairs, *(-pair for pair in pairs)])
        model = LogisticRegression(fit_intercept=False).fit(sides, [1] * len(pairs) + [0] * len(pairs))
        return [float(weight) for weight in model.coef_[0]]

    def read(self, message: Message, tracker: DialogueStateTracker) -> None:
        message.set(PLACES_FOUND, self.finder.find(message.get(TEXT) or ""), add_to_output=True)


def _with_fewer_placeless(messages: Sequence[Message]) -> list[Message]:
    """Every third of the short texts without a place: they teach little each, and training time is theirs too."""
    return [
        message
        for number, message in enumerate(messages)
        if message.get(corpus.PLACES) or message.get(corpus.URGENCY) is None or number % 3 == 0
    ]


def tags_from_spans(length: int, spans: Sequence[Sequence[int]]) -> list[str]:
    tags = ["O"] * length
    for start, end in spans:
        for position in range(start, min(end, length)):
            tags[position] = "B" if position == start else "I"
    return tags
