"""The component that divides a message into separate appeals where a person would.

Candidate borders are clause ends; a linear reader trained on our own divided messages looks at both sides of each border,
and a border holds only where the two sides are also read as different matters or a connective says "another thing".
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rasa.engine.recipes.default_recipe import DefaultV1Recipe
from rasa.engine.storage.resource import Resource
from rasa.shared.nlu.constants import TEXT
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData

from bot.nlu import corpus
from bot.nlu.component import ModelPart
from bot.nlu.features import Vectorizer
from bot.nlu.linear import LinearReader
from bot.text import clauses, fold

PARTS = "parts"
MIN_PART = 5
HOLDS, THRESHOLD = "border", 0.5
# Longer texts are petitions with a history; they are rarely two appeals and a wrong cut costs more than a missed one.
MAX_CHARACTERS = 400

CONNECTIVE = re.compile(
    r"^\s*(?:还有(?:一?[个件桩])?(?:事|问题)?|另外|再(?:说|反映|问|就是|一个|一[件桩])|此外|同时(?:还)?(?:要|想)?反映|顺(?:便|带)|对了|"
    r"二是|三是|其次|第[二三]|[二三23][、.，)）]|以及|也想|除此之外|还想|还要|又(?:一个|一件)|第[二三](?:个|件)|②|③|其[二三]|再者|再有)"
)


@DefaultV1Recipe.register(DefaultV1Recipe.ComponentType.INTENT_CLASSIFIER, is_trainable=True)
class AppealSplitter(ModelPart):
    """Sets `parts`: [{start, end}], one per separate appeal, in order and covering the text."""

    vectorizer: Vectorizer
    reader: LinearReader

    def get_state(self) -> tuple[Vectorizer, LinearReader]:
        return self.vectorizer, self.reader

    def set_state(self, state: tuple[Vectorizer, LinearReader]) -> None:
        self.vectorizer, self.reader = state

    def train(self, training_data: TrainingData) -> Resource:
        documents: list[list[str]] = []
        labels: list[str] = []
        for message in corpus.texts_in(training_data):
            parts = message.get(corpus.PARTS)
            if parts is None:
                continue
            text = message.get(TEXT)
            true_borders = {end for _, end in parts[:-1]}
            candidates = set(candidate_borders(text)) | true_borders
            for border in sorted(candidates):
                documents.append(border_tokens(text, border))
                labels.append(HOLDS if border in true_borders else "inside")
        self.vectorizer = Vectorizer.fit(documents)
        self.reader = LinearReader.fit(self.vectorizer.matrix(documents), labels)
        return self.persist()

    def process(self, messages: list[Message]) -> list[Message]:
        for message in messages:
            message.set(PARTS, self.split(message.get(TEXT) or ""), add_to_output=True)
        return messages

    def split(self, text: str) -> list[dict[str, int]]:
        if len(text) > MAX_CHARACTERS:
            return [{"start": 0, "end": len(text)}]
        column = self.reader.classes.index(HOLDS)
        starts = [0]
        numbered = enumeration_borders(text)
        if numbered:
            starts += [border for border in numbered[1:] if border - starts[-1] >= MIN_PART]
            return [{"start": start, "end": end} for start, end in zip(starts, [*starts[1:], len(text)])]
        for border in candidate_borders(text):
            row = self.vectorizer.row(border_tokens(text, border))
            probability = float(self.reader.probabilities(row)[column])
            if probability >= THRESHOLD and border - starts[-1] >= MIN_PART and len(text) - border >= MIN_PART:
                starts.append(border)
        return [{"start": start, "end": end} for start, end in zip(starts, [*starts[1:], len(text)])]


_ANNOUNCED = re.compile(
    r"^\s*(?:另外|还有(?:一?[个件桩])?(?:事|问题)?|再(?:反映|说|报)(?:一?[个件桩])?|再就是|再有|再者|再一个|此外|顺(?:便|带)|对了|除此之外|[二三]是|[二三]、|第[二三]|[23][、.，)）]|②|③|其[二三]|(?:我)?还(?:想|要|建议|想问)|也要(?:投诉|举报|反映)|跟你说另外)"
)


def is_announced(text: str) -> bool:
    """Whether a part opens by saying that another matter, or the next point, comes."""
    return bool(_ANNOUNCED.match(fold(text)))


_ENUMERATIONS = tuple(
    tuple(re.compile(mark) for mark in marks)
    for marks in (
        (r"一是|一、|一，", r"二是|二、|二，", r"三是|三、|三，"),
        (r"(?<!\d)1[、.，)）]", r"(?<!\d)2[、.，)）]", r"(?<!\d)3[、.，)）]"),
        (r"第一[个件]?", r"第二[个件]?", r"第三[个件]?"),
        (r"①", r"②", r"③"),
    )
)
_SEVERAL = re.compile(r"(?:两|二|三|几|2|3)(?:个|件|条|点)(?:事|问题|建议|意见|情况|诉求)")


def enumeration_borders(text: str) -> list[int]:
    """Where numbered points begin, when the resident says that there are several matters and numbers them."""
    if not _SEVERAL.search(text):
        return []
    for marks in _ENUMERATIONS:
        borders: list[int] = []
        for mark in marks:
            match = mark.search(text, borders[-1] + 1 if borders else 0)
            if match is None:
                break
            borders.append(match.start())
        if len(borders) >= 2:
            return borders
    return []


def candidate_borders(text: str) -> list[int]:
    """Ends of clauses, and places where a connective or a space opens a new clause, but for the text's own end."""
    borders = {end for _, end in clauses(text)}
    borders |= {match.end() for match in re.finditer(r"\s+", text)}
    borders |= {match.start() for match in re.finditer(r"还有|另外|对了|顺便|再一个|二是|三是|再说", text)}
    return sorted(border for border in borders if MIN_PART <= border <= len(text) - MIN_PART)


def border_tokens(text: str, border: int) -> list[str]:
    """What the reader sees of one border: the words around it, the opening of the second side, how alike the sides are."""
    left, right = fold(text[:border]), fold(text[border:])
    match = CONNECTIVE.match(right)
    tokens = [f"c{match.group().strip()}" if match else "c-", f"o{right[:2]}", f"o{right[:3]}", f"O{right[:4]}"]
    tokens += ["connective"] * (3 if match else 0)
    tokens += [f"e{left[-1:]}", f"e{left[-2:]}"]
    tokens += [f"r{right[i : i + 2]}" for i in range(min(len(right) - 1, 24))]
    tokens += [f"l{left[-i - 2 : len(left) - i]}" for i in range(min(len(left) - 1, 16))]
    shared = _bigrams(left) & _bigrams(right)
    tokens += [f"shared{min(len(shared), 5)}", f"left{min(len(left) // 10, 6)}", f"right{min(len(right) // 10, 6)}"]
    return tokens


def _bigrams(text: Sequence[str]) -> set[Any]:
    return {text[i : i + 2] for i in range(len(text) - 1)}
