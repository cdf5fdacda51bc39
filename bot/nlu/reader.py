"""The part that reads what a message is about: intent, category on three levels, request type, urgency, evidence.

All readers are linear over one sparse view of the text, so a message is tokenised once. When the resident is in the middle
of describing a petition, the message is also read together with what they said before (`draft_reading`).
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.constants import INTENT, TEXT
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData
from scipy.sparse import csr_matrix, vstack

from bot.nlu import corpus
from bot.nlu.city import CityReading, CityText, counts_of, fit_city_reading
from bot.nlu.context import answers_the_card, draft_text, names_the_place
from bot.nlu.evidence import evidence_spans
from bot.nlu.features import Row, Vectorizer
from bot.nlu.lexicon import Hit, Lexicon
from bot.nlu.linear import Aids, Fitting, LinearReader, softmax
from bot.nlu.part import Part
from bot.nlu.request_type import RequestTypeReader
from bot.nlu.splitter import PARTS
from bot.nlu.urgency import judge_urgency
from bot.nlu.view import Seen, View, fit_view
from bot.processes import together

READING, DRAFT_READING = "reading", "draft_reading"
Understood = tuple[list[dict[str, Any]], dict[str, Any]]
SHORT, MOST_SHORT = 8, 4096
ENOUGH_PAIRS = 100
PLAIN = 0.6
TOP_CATEGORIES, LEAF = 5, 6
# From here on other leaves of the same first level are likelier to be what is looked for than other first levels.
SURE_FIRST_LEVEL = 0.9


def _fit_plain(matrix: csr_matrix, labels: Sequence[str], city: Sequence[CityText] | None) -> LinearReader:
    return LinearReader.fit(matrix, labels, counts=counts_of(city) if city else None)


def known_share(tokens: Sequence[str], vectorizer: Vectorizer) -> float:
    """Share of a text's character pairs that the training texts know: near 0 for gibberish, whatever a reader makes of it."""
    pairs = list(islice((token for token in tokens if len(token) == 2 and token[0] >= " "), ENOUGH_PAIRS))
    return sum(pair in vectorizer.vocabulary for pair in pairs) / len(pairs) if pairs else 1.0


def _told(hits: Sequence[Hit], classes: Collection[str]) -> list[list[int]]:
    """Where telling words of these first-level classes stand: the longest of those that overlap, in order."""
    kept: list[list[int]] = []
    for hit in sorted(hits, key=lambda hit: (hit.start, -hit.end)):
        if hit.first_level in classes and (not kept or hit.start >= kept[-1][1]):
            kept.append([hit.start, hit.end])
    return kept


@dataclass(frozen=True)
class CategoryReader:
    """First level over all texts, then the leaf within each first-level class: P(leaf) = P(first) · P(leaf | first)."""

    first: LinearReader
    leaves: dict[str, LinearReader]
    city: CityReading | None = None  # where a city has labelled enough of its messages

    @classmethod
    def fit(
        cls, matrix: csr_matrix, codes: Sequence[str], *, aids: Aids | None = None, city: Sequence[CityText] | None = None
    ) -> CategoryReader:
        """`aids`: rows made of telling words and their leaf codes; those of first levels without any text teach nothing.

        `city`: what is known of each row, where some of them are a city's. A row with the code of a higher level teaches that level.
        """
        known = {code[:2] for code in codes}
        kept = [number for number, code in enumerate(aids[1]) if code[:2] in known] if aids else []
        aids = (aids[0][kept], [aids[1][number] for number in kept]) if aids and kept else None
        first_aids = (aids[0], [code[:2] for code in aids[1]]) if aids else None
        firsts = [code[:2] for code in codes]
        if not city:
            return cls(LinearReader.fit(matrix, firsts, blend=True, aids=first_aids), _fit_leaves(matrix, codes, aids, None))
        truth, counts = np.array(firsts), counts_of(city)
        unseen = Fitting(blend=True, aids=first_aids, counts=counts).held_out_scores(matrix, truth)
        first = LinearReader.fit(matrix, firsts, blend=True, aids=first_aids, counts=counts, held_out=unseen)
        return cls(first, _fit_leaves(matrix, codes, aids, city), fit_city_reading(matrix, truth, city, unseen))

    def best(self, row: Row, text: str = "", *, count: int = TOP_CATEGORIES) -> list[tuple[str, float]]:
        """(leaf code, confidence), best first.

        The best leaf of a first level stands for it and carries its probability, the one that can be checked and that decides
        who gets the matter; a further leaf carries its own. While the first level is in doubt every entry is of another one.
        """
        scores = self.first.scores(row)
        firsts = softmax(scores[None, :] * self.first.temperature)[0]
        if self.city:
            firsts = self.city.adjust(firsts, scores, row, text)
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


def _fit_leaves(
    matrix: csr_matrix, codes: Sequence[str], aids: Aids | None, city: Sequence[CityText] | None
) -> dict[str, LinearReader]:
    """A reader for the leaves below each first level."""
    counts = counts_of(city) if city else np.ones(len(codes), np.float32)
    if aids:
        matrix, codes = vstack([matrix, aids[0]]).tocsr(), [*codes, *aids[1]]
        counts = np.concatenate([counts, np.ones(len(aids[1]), np.float32)])
    members: dict[str, list[int]] = defaultdict(list)
    for number, code in enumerate(codes):
        if len(code) == LEAF:
            members[code[:2]].append(number)
    return {
        prefix: LinearReader.fit(
            matrix[numbers], [codes[n] for n in numbers], calibrate=False, blend=True, counts=counts[numbers] if city else None
        )
        for prefix, numbers in members.items()
    }


class PetitionReader(Part):
    """Trains on corpus messages in seconds; sets Rasa's `intent` and our `reading` (and `draft_reading`)."""

    view: View
    intent: LinearReader
    category: CategoryReader
    request_type: RequestTypeReader
    urgency: LinearReader
    _short: dict[str, Understood]

    def get_state(self) -> dict[str, Any]:
        readers = {name: getattr(self, name) for name in ("intent", "category", "request_type", "urgency")}
        return {**readers, "vectorizer": self.view.vectorizer, "telling_words": self.view.lexicon.words}

    def set_state(self, state: dict[str, Any]) -> None:
        self.view = View(state.pop("vectorizer"), Lexicon(state.pop("telling_words")))
        for name, value in state.items():
            setattr(self, name, value)
        self._short = {}

    def fit(self, training_data: TrainingData) -> None:
        messages = corpus.texts_in(training_data)
        words = (message.get(corpus.TELLING_WORDS) for message in training_data.training_examples)
        self.view, matrix, aids = fit_view([message.get(TEXT) for message in messages], Lexicon(next(filter(None, words), {})))

        from_city = any(message.get(corpus.ORIGIN) for message in messages)

        def labelled(key: str) -> tuple[csr_matrix, list[str], list[CityText] | None]:
            chosen = [number for number, message in enumerate(messages) if message.get(key) is not None]
            texts = [CityText.of(messages[number]) for number in chosen] if from_city else None
            return matrix[chosen], [str(messages[number].get(key)) for number in chosen], texts

        def fit_request_type() -> RequestTypeReader:
            typed, types, city = labelled(corpus.REQUEST_TYPE)
            said = [message.get(TEXT) for message in messages if message.get(corpus.REQUEST_TYPE) is not None]
            return RequestTypeReader.fit(typed, said, types, counts_of(city) if city else None)

        def fit_category() -> CategoryReader:
            categorised, codes, city = labelled(corpus.CATEGORY)
            return CategoryReader.fit(categorised, codes, aids=aids, city=city)

        # The longest first, so that the short ones fill what is left of the other cores.
        works: dict[str, Callable[[], Any]] = {
            "category": fit_category,
            "intent": lambda: _fit_plain(*labelled(INTENT)),
            "request_type": fit_request_type,
            "urgency": lambda: _fit_plain(*labelled(corpus.URGENCY)),
        }
        for name, reader in zip(works, together(list(works.values())), strict=True):
            setattr(self, name, reader)

    def read(self, message: Message, tracker: DialogueStateTracker) -> None:
        text = message.get(TEXT) or ""
        ranking, reading = self._understand(text)
        if not message.get(INTENT):  # a payload such as /affirm has set it already
            message.set(INTENT, ranking[0], add_to_output=True)
            message.set("intent_ranking", ranking, add_to_output=True)
        message.set(READING, reading, add_to_output=True)
        self._read_parts(message, text)
        earlier = draft_text(tracker)
        if earlier and not answers_the_card(text, tracker):
            message.set(DRAFT_READING, self._read_draft(earlier, text, names_the_place(text, tracker)), add_to_output=True)

    def _understand(self, text: str) -> Understood:
        """Intents, likeliest first, and the reading. Taps on buttons are most of all messages: short texts are kept."""
        if text in self._short:
            return self._short[text]
        seen = self.view.see(text)
        understood = self._rank_intents(seen.row), self._read(seen)
        if len(text) <= SHORT and len(self._short) < MOST_SHORT:
            self._short[text] = understood
        return understood

    def _read_draft(self, earlier: str, text: str, is_place: bool) -> dict[str, Any]:
        """Everything said so far; the words of a mere place count only where what was told before leaves the matter open."""
        if is_place:
            reading = self._read_text(earlier)
            if reading["first_level_confidence"] >= PLAIN:
                return reading
        return self._read_text(f"{earlier}\n{text}")

    def _read_parts(self, message: Message, text: str) -> None:
        """Each separate appeal gets a reading of its own."""
        parts = message.get(PARTS) or []
        if len(parts) < 2:
            return
        read = [{**part, READING: self._read_text(text[part["start"] : part["end"]])} for part in parts]
        message.set(PARTS, read, add_to_output=True)

    def _read_text(self, text: str) -> dict[str, Any]:
        return self._read(self.view.see(text))

    def _rank_intents(self, row: Row) -> list[dict[str, Any]]:
        probabilities = self.intent.probabilities(row)
        order = np.argsort(-probabilities)[:6]
        return [{"name": self.intent.classes[int(i)], "confidence": float(probabilities[i])} for i in order]

    def _read(self, seen: Seen) -> dict[str, Any]:
        request_type, request_confidence = self.request_type.best(seen.text, seen.row)
        categories = self.category.best(seen.row, seen.text)
        top, first_level_confidence = categories[0][0][:2], categories[0][1]
        vectorizer = self.view.vectorizer
        return {
            "categories": [{"code": code, "confidence": round(confidence, 4)} for code, confidence in categories],
            "known": round(known_share(seen.tokens, vectorizer), 3),
            "first_level_confidence": round(first_level_confidence, 4),
            "request_type": {"name": request_type, "confidence": round(request_confidence, 4)},
            "urgency": judge_urgency(seen.text, self._urgency(seen.row), self._read_urgency).as_dict(),
            "evidence": evidence_spans(seen.text, vectorizer, self.category.first, seen.row, top, seen.hits),
            "telling": _told(seen.hits, {code[:2] for code, _ in categories[:3]}),
        }

    def _urgency(self, row: Row) -> dict[str, float]:
        """Probability by level."""
        return dict(zip(self.urgency.classes, map(float, self.urgency.probabilities(row)), strict=True))

    def _read_urgency(self, sentence: str) -> dict[str, float]:
        return self._urgency(self.view.see(sentence).row)
