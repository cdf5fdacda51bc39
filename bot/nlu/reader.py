"""The component that reads what a message is about: intent, category on three levels, request type, urgency, evidence.

All readers are linear over one sparse view of the text, so a message is tokenised once. When the resident is in the middle
of describing a petition, the message is also read together with what they said before (`draft_reading`).
"""
from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasa.engine.recipes.default_recipe import DefaultV1Recipe
from rasa.engine.storage.resource import Resource
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.constants import INTENT, TEXT
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData
from scipy.sparse import csr_matrix

from bot.nlu import corpus
from bot.nlu.component import ModelPart
from bot.nlu.context import draft_text
from bot.nlu.evidence import evidence_spans
from bot.nlu.features import Row, Vectorizer, tokens_of
from bot.nlu.linear import LinearReader
from bot.nlu.splitter import PARTS, is_announced
from bot.nlu.urgency import judge_urgency
from bot.text import fold

READING, DRAFT_READING = "reading", "draft_reading"
TOP_CATEGORIES = 5
# From here on other leaves of the same first level are likelier to be what is looked for than other first levels.
SURE_FIRST_LEVEL = 0.9


# Whoever opens with "我要投诉" has said what it is; only the very beginning counts, later the word is part of the story.
_NAMED = re.compile(
    r"^(?:你好|您好|喂|领导|同志|请问|我们?|实名|匿名|要|想|来|再|就是|向你们?|给你们|打电话|提|几个|[一两三]个|个|点|反映|\s|[，,。!！])*"
    r"(投诉|举报|咨询|建议|表扬|感谢|求助)"
)
NAMED_CONFIDENCE = 0.9
# To accuse somebody of breaking the law takes more than a hunch of the reader.
REPORTING, SURE_REPORTING = "举报", 0.45


def named_request_type(text: str) -> str | None:
    match = _NAMED.match(fold(text[:30]))
    return {"感谢": "表扬"}.get(match.group(1), match.group(1)) if match else None


# How sure both sides must be of different first levels before a border without "also" or a number holds.
PLAINLY = 0.5
LEAST_PART = 10


def are_separate(before: Mapping[str, Any], after: Mapping[str, Any], text: str) -> bool:
    """Whether a candidate border divides two appeals: said to be another matter, or plainly about another field."""
    first, second = before["categories"][0]["code"], after["categories"][0]["code"]
    if is_announced(text):
        return bool(first != second or len(text) > 12)
    if len(text.strip()) < LEAST_PART:
        return False
    sure = min(before["first_level_confidence"], after["first_level_confidence"])
    return bool(first[:2] != second[:2] and sure >= PLAINLY)


def known_share(tokens: Sequence[str], vectorizer: Vectorizer) -> float:
    """Share of a text's character pairs that the training texts know: near 0 for gibberish, whatever a reader makes of it."""
    pairs = [token for token in tokens if len(token) == 2 and token[0] >= " "]
    return sum(pair in vectorizer.vocabulary for pair in pairs) / len(pairs) if pairs else 1.0


@dataclass(frozen=True)
class CategoryReader:
    """First level over all texts, then the leaf within each first-level class: P(leaf) = P(first) · P(leaf | first)."""

    first: LinearReader
    leaves: dict[str, LinearReader]

    @classmethod
    def fit(cls, matrix: csr_matrix, codes: Sequence[str]) -> CategoryReader:
        first = LinearReader.fit(matrix, [code[:2] for code in codes], blend=True)
        members: dict[str, list[int]] = defaultdict(list)
        for number, code in enumerate(codes):
            members[code[:2]].append(number)
        leaves = {
            prefix: LinearReader.fit(matrix[numbers], [codes[number] for number in numbers], calibrate=False, blend=True)
            for prefix, numbers in members.items()
        }
        return cls(first, leaves)

    def best(self, row: Row, count: int = TOP_CATEGORIES) -> list[tuple[str, float]]:
        """(leaf code, confidence), best first.

        The best leaf of a first level stands for it and carries its probability, the one that can be checked and that decides
        who gets the matter; a further leaf carries its own. While the first level is in doubt every entry is of another one.
        """
        firsts = self.first.probabilities(row)
        leading: list[tuple[str, float]] = []
        further: list[tuple[str, float]] = []
        for number in np.argsort(-firsts)[:count]:
            leaves = self.leaves[self.first.classes[int(number)]]
            within = leaves.probabilities(row)
            order = np.argsort(-within)[:count]
            leading.append((leaves.classes[int(order[0])], float(firsts[number])))
            further += [(leaves.classes[int(i)], float(firsts[number] * within[i])) for i in order[1:]]
        if firsts.max() >= SURE_FIRST_LEVEL:
            return sorted(leading + further, key=lambda leaf: -leaf[1])[:count]
        return [*leading, *sorted(further, key=lambda leaf: -leaf[1])][:count]


@DefaultV1Recipe.register(DefaultV1Recipe.ComponentType.INTENT_CLASSIFIER, is_trainable=True)
class PetitionReader(ModelPart):
    """Trains on corpus messages in seconds; sets Rasa's `intent` and our `reading` (and `draft_reading`)."""

    vectorizer: Vectorizer
    intent: LinearReader
    category: CategoryReader
    request_type: LinearReader
    urgency: LinearReader

    def get_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("vectorizer", "intent", "category", "request_type", "urgency")}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def train(self, training_data: TrainingData) -> Resource:
        messages = corpus.texts_in(training_data)
        tokens = [tokens_of(message.get(TEXT)) for message in messages]
        self.vectorizer, matrix = Vectorizer.fit_matrix(tokens)

        def labelled(key: str) -> tuple[csr_matrix, list[str]]:
            chosen = [number for number, message in enumerate(messages) if message.get(key) is not None]
            return matrix[chosen], [str(messages[number].get(key)) for number in chosen]

        self.intent, self.request_type = LinearReader.fit(*labelled(INTENT)), LinearReader.fit(*labelled(corpus.REQUEST_TYPE))
        self.urgency = LinearReader.fit(*labelled(corpus.URGENCY))
        self.category = CategoryReader.fit(*labelled(corpus.CATEGORY))
        return self.persist()

    def process(self, messages: list[Message], tracker: DialogueStateTracker) -> list[Message]:
        for message in messages:
            text = message.get(TEXT) or ""
            tokens = tokens_of(text)
            row = self.vectorizer.row(tokens)
            if not message.get(INTENT):  # a payload such as /affirm has set it already
                self._set_intent(message, row)
            message.set(READING, self._read(text, row, tokens), add_to_output=True)
            self._read_parts(message, text)
            earlier = draft_text(tracker)
            if earlier:
                joined = f"{earlier}\n{text}"
                joined_tokens = tokens_of(joined)
                reading = self._read(joined, self.vectorizer.row(joined_tokens), joined_tokens)
                message.set(DRAFT_READING, reading, add_to_output=True)
        return messages

    def _read_parts(self, message: Message, text: str) -> None:
        """Each separate appeal gets a reading of its own; borders between parts that are read alike fall."""
        parts = message.get(PARTS) or []
        if len(parts) < 2:
            return
        kept: list[dict[str, Any]] = []
        for part in parts:
            part = {**part, READING: self._read_piece(text, part["start"], part["end"])}
            if kept and not are_separate(kept[-1][READING], part[READING], text[part["start"] : part["end"]]):
                start = kept.pop()["start"]
                part = {"start": start, "end": part["end"], READING: self._read_piece(text, start, part["end"])}
            kept.append(part)
        message.set(PARTS, kept if len(kept) > 1 else [{"start": 0, "end": len(text)}], add_to_output=True)

    def _read_piece(self, text: str, start: int, end: int) -> dict[str, Any]:
        tokens = tokens_of(text[start:end])
        return self._read(text[start:end], self.vectorizer.row(tokens), tokens)

    def _set_intent(self, message: Message, row: Row) -> None:
        probabilities = self.intent.probabilities(row)
        order = np.argsort(-probabilities)[:6]
        ranking = [{"name": self.intent.classes[int(i)], "confidence": float(probabilities[i])} for i in order]
        message.set(INTENT, ranking[0], add_to_output=True)
        message.set("intent_ranking", ranking, add_to_output=True)

    def _read(self, text: str, row: Row, tokens: Sequence[str]) -> dict[str, Any]:
        request_type, request_confidence = self.request_type.best(row)
        if request_type == REPORTING and request_confidence < SURE_REPORTING:
            ranked = zip(self.request_type.probabilities(row), self.request_type.classes)
            request_confidence, request_type = max((float(p), name) for p, name in ranked if name != REPORTING)
        named = named_request_type(text)
        if named and named != request_type:
            request_type, request_confidence = named, NAMED_CONFIDENCE
        urgency_probabilities = dict(zip(self.urgency.classes, map(float, self.urgency.probabilities(row))))
        categories = self.category.best(row)
        top, first_level_confidence = categories[0][0][:2], categories[0][1]
        return {
            "categories": [{"code": code, "confidence": round(confidence, 4)} for code, confidence in categories],
            "known": round(known_share(tokens, self.vectorizer), 3),
            "first_level_confidence": round(first_level_confidence, 4),
            "request_type": {"name": request_type, "confidence": round(request_confidence, 4)},
            "urgency": judge_urgency(text, urgency_probabilities).as_dict(),
            "evidence": evidence_spans(text, tokens, self.vectorizer, self.category.first, row, top),
        }
