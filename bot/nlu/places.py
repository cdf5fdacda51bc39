"""The component that finds place mentions: maximal spans such as "经开区山阳小区南门进去那段路", and the one to send people to.

A character-level conditional random field over the character window, word borders, place suffixes and the gazetteer's names
(given by the importer). What a span's parts are (district, street, estate …) is bot.gazetteer's work.
"""
from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ahocorasick
import jieba
import pycrfsuite
from rasa.engine.recipes.default_recipe import DefaultV1Recipe
from rasa.engine.storage.resource import Resource
from rasa.shared.nlu.constants import TEXT
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData

from bot.nlu import corpus
from bot.nlu.component import ModelPart
from bot.text import fold

PLACES_FOUND = "place_spans"
MAX_CHARACTERS = 1200

SUFFIXES = (
    "路街巷弄道桥村组队屯湾坝镇乡县市区省州旗楼栋幢号室层座单元门口园苑府里庄家院城厦场店"
    "馆所站校学局厅湖河江渠塘库山岭坡沟港码头厂矿铺寺庙亭台口角侧边旁对面后前内外东西南北"
)
_DIGITS = frozenset("0123456789一二三四五六七八九十百零〇两幺")
_EDGE = re.compile(r"^[\s，。！？；：、,.!?;:~～“”\"'（）()]+|[\s，。！？；：、,.!?;:~～“”\"'（）()]+$")


@DefaultV1Recipe.register(DefaultV1Recipe.ComponentType.ENTITY_EXTRACTOR, is_trainable=True)
class PlaceReader(ModelPart):
    """Sets `place_spans`: [{start, end, text, confidence}], in order of the text."""

    tagger: pycrfsuite.Tagger
    names: ahocorasick.Automaton
    model: bytes

    def get_state(self) -> dict[str, Any]:
        return {"model": self.model, "names": list(self.names.items())}

    def set_state(self, state: dict[str, Any]) -> None:
        self.model = state["model"]
        self.names = _automaton(state["names"])
        self.tagger = pycrfsuite.Tagger()
        self.tagger.open_inmemory(self.model)

    def train(self, training_data: TrainingData) -> Resource:
        elements = [name for message in training_data.training_examples for name in message.get(corpus.PLACE_NAMES) or ()]
        names = _automaton([(name, (len(name), level)) for level, name in (element.split(":", 1) for element in elements)])
        trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
        trainer.set_params({"c1": 0.05, "c2": 0.02, "max_iterations": 70, "feature.possible_transitions": True})
        for message in corpus.texts_in(training_data):
            spans = message.get(corpus.PLACES)
            if spans is None:
                continue
            text = fold(message.get(TEXT))[:MAX_CHARACTERS]
            trainer.append(character_features(text, names), tags_from_spans(len(text), spans))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "places.crfsuite"
            trainer.train(str(path))
            model = path.read_bytes()
        self.set_state({"model": model, "names": list(names.items())})
        return self.persist()

    def process(self, messages: list[Message]) -> list[Message]:
        for message in messages:
            message.set(PLACES_FOUND, self.find(message.get(TEXT) or ""), add_to_output=True)
        return messages

    def find(self, text: str) -> list[dict[str, Any]]:
        folded = fold(text)[:MAX_CHARACTERS]
        if not folded.strip():
            return []
        tags = self.tagger.tag(character_features(folded, self.names))
        found = []
        for start, end in join_over_blanks(folded, spans_from_tags(tags)):
            start, end = _trim(text, start, end)
            if end - start >= 2:
                confidence = sum(self.tagger.marginal(tags[i], i) for i in range(start, end)) / (end - start)
                found.append({"start": start, "end": end, "text": text[start:end], "confidence": round(confidence, 3)})
        return found


def _automaton(items: Sequence[tuple[str, tuple[int, str]]]) -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for name, value in items:
        automaton.add_word(name, value)
    automaton.make_automaton()
    return automaton


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    stripped = _EDGE.sub("", piece)
    lead = piece.find(stripped) if stripped else 0
    return start + lead, start + lead + len(stripped)


def tags_from_spans(length: int, spans: Sequence[Sequence[int]]) -> list[str]:
    tags = ["O"] * length
    for start, end in spans:
        for position in range(start, min(end, length)):
            tags[position] = "B" if position == start else "I"
    return tags


def spans_from_tags(tags: Sequence[str]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start: int | None = None
    for position, tag in enumerate([*tags, "O"]):
        if tag != "I" and start is not None:
            spans.append((start, position))
            start = None
        if tag == "B" or tag == "I" and start is None:
            start = position
    return spans


def join_over_blanks(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """"芝罘区 毓璜顶街道 大海阳社区" is one place: chat residents put blanks where a letter would have none."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and 0 <= start - joined[-1][1] <= 2 and not text[joined[-1][1] : start].strip():
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def character_features(text: str, names: ahocorasick.Automaton) -> list[list[str]]:
    """One list of feature strings per character of a folded text."""
    word_tags = _word_tags(text)
    name_tags = _name_tags(text, names)
    kinds = [_kind(character) for character in text]
    padded = f"\x02\x02{text}\x03\x03"
    features: list[list[str]] = []
    for i in range(len(text)):
        c2, c1, c, n1, n2 = list(padded[i : i + 5])
        word, word_tag = word_tags[i]
        row = [
            f"0{c}", f"1{c1}", f"2{n1}", f"3{c2}", f"4{n2}", f"5{c1}{c}", f"6{c}{n1}", f"7{c2}{c1}", f"8{n1}{n2}",
            f"9{c1}{c}{n1}", f"k{kinds[i]}", f"s{word_tag}", f"g{name_tags[i]}", f"w{word}",
        ]  # fmt: skip
        if i:
            row += [f"K{kinds[i - 1]}{kinds[i]}", f"G{name_tags[i - 1]}", f"W{word_tags[i - 1][0]}"]
        if i + 1 < len(text):
            row += [f"h{kinds[i + 1]}", f"H{name_tags[i + 1]}", f"V{word_tags[i + 1][0]}"]
        if i + 2 < len(text):
            row += [f"j{kinds[i + 1]}{kinds[i + 2]}"]
        features.append(row)
    return features


def _kind(character: str) -> str:
    if character in _DIGITS:
        return "d"
    if character in SUFFIXES:
        return "x"
    if character.isalpha():
        return "h" if ord(character) > 0x2E80 else "a"
    return "p"


def _word_tags(text: str) -> list[tuple[str, str]]:
    tags: list[tuple[str, str]] = []
    for word in jieba.cut(text, HMM=True):
        size = len(word)
        tags += [(word, "S")] if size == 1 else [(word, "B"), *[(word, "M")] * (size - 2), (word, "E")]
    return tags


def _name_tags(text: str, names: ahocorasick.Automaton) -> list[str]:
    tags = ["-"] * len(text)
    for end, (size, level) in names.iter_long(text):
        start = end - size + 1
        for position in range(start, end + 1):
            tags[position] = level + ("b" if position == start else "e" if position == end else "m")
    return tags
