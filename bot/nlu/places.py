"""The component that finds place mentions: maximal spans such as "经开区山阳小区南门进去那段路", and the one to send people to.

A character-level conditional random field over the character window, word borders, cue words, place suffixes and the gazetteer's
names (given by the importer); bot.nlu.place_spans mends its spans. What a span's parts are (district, street …) is bot.gazetteer's work.
"""
from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ahocorasick
import numpy as np
import numpy.typing as npt
import pycrfsuite
from rasa.engine.recipes.default_recipe import DefaultV1Recipe
from rasa.engine.storage.resource import Resource
from rasa.shared.nlu.constants import TEXT
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData
from sklearn.linear_model import LogisticRegression

from bot.nlu import corpus
from bot.nlu.component import ModelPart
from bot.nlu.features import MAX_CHARACTERS as READ_CHARACTERS
from bot.nlu.features import cut
from bot.nlu.place_spans import Span, is_division, main_features, tidy, title_end, without_repeats
from bot.text import fold

PLACES_FOUND = "place_spans"
MAX_CHARACTERS = 1200
MAX_ITERATIONS = 60
# What only one or two texts show is chance: without it training is shorter and places of other writers are found as well.
MIN_FREQUENCY = 3
LETTER_WEIGHT = 2
# A text in which no place is likeliest may still name one: characters that are inside a place with at least this share.
UNSURE = 0.3
# Beside a surer place, one that is inside with less than this share on average is a stray.
SURE = 0.6
Floats = npt.NDArray[np.float64]

SUFFIXES = (
    "路街巷弄道桥村组队屯湾坝镇乡县市区省州旗楼栋幢号室层座单元门口园苑府里庄家院城厦场店"
    "馆所站校学局厅湖河江渠塘库山岭坡沟港码头厂矿铺寺庙亭台口角侧边旁对面后前内外东西南北"
)
_DIGITS = frozenset("0123456789一二三四五六七八九十百零〇两幺")
LETTER_LENGTH = 150
# What stands before a scene ("位于"), an office ("请"), a home town ("来自"); it counts for the next REACH characters of its clause.
_BEFORE = re.compile(
    "(?P<at>位于|地处|坐落|住在|家住|住址|地址|地点|居住)|(?P<dear>尊敬的|致|敬爱的)|(?P<home>来自|老家|户籍|籍|籍贯|毕业|嫁到|过来)|"
    "(?P<other>隔壁|不如|相比|学习|例如|包括)|(?P<to>找到|找|打给|拨打|联系|恳请|请求|请|希望|望|建议|咨询|打|问|回复|答复|督促)|"
    "(?P<about>投诉|举报|反映|关于|对|就|由于)|(?P<in>在|到|去|从|至|往)|(?P<by>被|由|向|给|跟|和|与)|(?P<law>根据|按照|依据)"
)
# What a name ends in, seen from its beginning: 长沙市 before 人社局 is an office, before 望江路 a place.
_AHEAD = re.compile(
    "(?P<office>[局委厅署]|政府|法院|检察院|办事处|领导|书记|[市县区镇乡省]长|部门|热线|信访|电视台|大队|支队|派出所|管委会|人大)|"
    "(?P<company>公司|集团|银行|开发商|物业|地产|置业)|(?P<estate>小区|花园|家园|新村|公寓|广场|大厦|[苑府庭园])|"
    "(?P<road>[路街巷弄]|大道|国道|省道|高速)|(?P<village>[村组屯庄社队])|"
    "(?P<institution>学校|小学|中学|大学|学院|医院|幼儿园|市场|超市|公园|工地|厂|店|馆|站|桥|酒店)|(?P<water>[河湖江渠溪港]|水库)|"
    "(?P<number>[0-9一二三四五六七八九十]+[号栋幢楼室])|(?P<division>[省市县区镇乡])|(?P<people>居民|业主|村民|市民|农民|老百姓|户口|政策|标准|出租车)"
)
_CLAUSE_END = frozenset("，。！？；：、,.!?;:“”\" \n\t")
REACH = 10


@DefaultV1Recipe.register(DefaultV1Recipe.ComponentType.ENTITY_EXTRACTOR, is_trainable=True)
class PlaceReader(ModelPart):
    """Sets `place_spans`: [{start, end, text, confidence, weight}], in order of the text; the scene has the greatest weight."""

    tagger: pycrfsuite.Tagger
    names: ahocorasick.Automaton
    model: bytes
    main_weights: list[float]

    def get_state(self) -> dict[str, Any]:
        return {"model": self.model, "names": list(self.names.items()), "main_weights": self.main_weights}

    def set_state(self, state: dict[str, Any]) -> None:
        self.model, self.main_weights = state["model"], state["main_weights"]
        self.names = _automaton(state["names"])
        self.tagger = pycrfsuite.Tagger()
        self.tagger.open_inmemory(self.model)

    def train(self, training_data: TrainingData) -> Resource:
        elements = [name for message in training_data.training_examples for name in message.get(corpus.PLACE_NAMES) or ()]
        self.names = _automaton([(name, (len(name), level)) for level, name in (element.split(":", 1) for element in elements)])
        marked = _with_fewer_placeless([m for m in corpus.texts_in(training_data) if m.get(corpus.PLACES) is not None])
        state = {"model": self._fit_tagger(marked), "names": list(self.names.items()), "main_weights": self._fit_main(marked)}
        self.set_state(state)
        return self.persist()

    def _fit_tagger(self, marked: Sequence[Message]) -> bytes:
        trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
        settings = {"c1": 0.05, "c2": 0.02, "max_iterations": MAX_ITERATIONS, "feature.minfreq": MIN_FREQUENCY}
        trainer.set_params({**settings, "feature.possible_transitions": True})
        for message in marked:
            whole = fold(message.get(TEXT))
            text = whole[:MAX_CHARACTERS]
            features = pycrfsuite.ItemSequence(character_features(text, _words(whole), self.names))
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
            divisions = self._divisions(text)
            rows = {span: _main_row(text, span, spans, divisions) for span in spans}
            pairs += [rows[scene] - row for span, row in rows.items() if scene in rows and span != scene]
        if not pairs:
            return [0.0] * len(main_features("", (0, 0), [(0, 0)], bare=False))
        sides = np.array([*pairs, *(-pair for pair in pairs)])
        model = LogisticRegression(fit_intercept=False).fit(sides, [1] * len(pairs) + [0] * len(pairs))
        return [float(weight) for weight in model.coef_[0]]

    def process(self, messages: list[Message]) -> list[Message]:
        for message in messages:
            message.set(PLACES_FOUND, self.find(message.get(TEXT) or ""), add_to_output=True)
        return messages

    def find(self, text: str) -> list[dict[str, Any]]:
        whole = fold(text)
        folded = whole[:MAX_CHARACTERS]
        if not folded.strip():
            return []
        words = _words(whole)
        tags = self.tagger.tag(character_features(folded, words, self.names))
        inside = [1 - self.tagger.marginal("O", i) for i in range(len(folded))]
        spans = spans_from_tags(tags) or spans_from_tags(["I" if share > UNSURE else "O" for share in inside])
        found: list[dict[str, Any]] = []
        divisions = self._divisions(folded)
        kept = tidy(folded, spans, words, divisions)
        for start, end in kept:
            found.append({
                "start": start, "end": end, "text": text[start:end],
                "confidence": round(sum(inside[start:end]) / (end - start), 3),
                "weight": round(float(_main_row(folded, (start, end), kept, divisions) @ np.array(self.main_weights)), 3),
            })  # fmt: skip
        sure = [place for place in found if place["confidence"] >= SURE]
        return sure or found

    def _divisions(self, text: str) -> list[Span]:
        """The provinces, cities and counties that a folded text names."""
        return [(end - size + 1, end + 1) for end, (size, level) in self.names.iter_long(text) if level in "PCD"]


def _with_fewer_placeless(messages: Sequence[Message]) -> list[Message]:
    """Every third of the short texts without a place: they teach little each, and training time is theirs too."""
    return [
        message
        for number, message in enumerate(messages)
        if message.get(corpus.PLACES) or message.get(corpus.URGENCY) is None or number % 3 == 0
    ]


def _main_row(text: str, span: Span, spans: Sequence[Span], divisions: Sequence[Span]) -> Floats:
    return np.array(main_features(text, span, spans, bare=is_division(span, divisions)))


def _words(folded: str) -> list[Span]:
    """Words of the beginning that is searched for places, cut together with what the other components read."""
    return [(start, min(end, MAX_CHARACTERS)) for start, end in cut(folded[:READ_CHARACTERS]) if start < MAX_CHARACTERS]


def _automaton(items: Sequence[tuple[str, tuple[int, str]]]) -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for name, value in items:
        automaton.add_word(name, value)
    automaton.make_automaton()
    return automaton


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


def character_features(text: str, words: Sequence[Span], names: ahocorasick.Automaton) -> list[list[str]]:
    """One list of feature strings per character of a folded text, whose words are given as spans."""
    word_tags, name_tags = _word_tags(text, words), _name_tags(text, names)
    before, ahead = _tags_before(text), _tags_ahead(text)
    kinds = "".join(map(_kind, text))
    size, title = len(text), title_end(text)
    length = "L" if size > LETTER_LENGTH else "S"
    repeats = Counter(text[i : i + 3] for i in range(size - 2))
    padded, padded_kinds = f"\x02\x02{text}\x03\x03", f"^^{kinds}$$"
    features: list[list[str]] = []
    for i in range(size):
        c2, c1, c, n1, n2 = tuple(padded[i : i + 5])
        word, word_tag = word_tags[i]
        row = [
            f"0{c}", f"5{c1}{c}", f"6{c}{n1}", f"7{c2}{c1}", f"8{n1}{n2}", f"9{c1}{c}{n1}",
            f"k{padded_kinds[i + 1 : i + 4]}", f"K{padded_kinds[i : i + 3]}", f"h{padded_kinds[i + 2 : i + 5]}",
            f"w{word_tag}{word}", f"g{name_tags[i]}", f"q{before[i]}", f"u{ahead[i]}", f"y{before[i]}{ahead[i]}",
            f"t{'T' if i < title else 'B'}{length}{repeats[text[i : i + 3]] > 1}",
        ]  # fmt: skip
        if i:
            row += [f"1{c1}", f"W{word_tags[i - 1][0]}", f"G{name_tags[i - 1]}{name_tags[i]}"]
        if i + 1 < size:
            row += [f"2{n1}", f"V{word_tags[i + 1][0]}", f"H{name_tags[i + 1]}"]
        features.append(row)
    return features


def _tags_before(text: str) -> list[str]:
    tags = ["-"] * len(text)
    for match in _BEFORE.finditer(text):
        for i in range(match.end(), min(match.end() + REACH, len(text))):
            if text[i] in _CLAUSE_END:
                break
            tags[i] = f"{match.lastgroup}{'0' if i == match.end() else ''}"
    return tags


def _tags_ahead(text: str) -> list[str]:
    tags = ["-"] * len(text)
    done = 0
    for match in _AHEAD.finditer(text):
        for i in range(match.end() - 1, max(done, match.end() - REACH - 1) - 1, -1):
            if text[i] in _CLAUSE_END:
                break
            tags[i] = f"{match.lastgroup}{'0' if i >= match.start() else ''}"
        done = match.end()
    return tags


def _kind(character: str) -> str:
    if character in _DIGITS:
        return "d"
    if character in SUFFIXES:
        return "x"
    if character.isalpha():
        return "h" if ord(character) > 0x2E80 else "a"
    return "p"


def _word_tags(text: str, words: Sequence[Span]) -> list[tuple[str, str]]:
    tags: list[tuple[str, str]] = []
    for start, end in words:
        word, size = text[start:end], end - start
        tags += [(word, "S")] if size == 1 else [(word, "B"), *[(word, "M")] * (size - 2), (word, "E")]
    return tags


def _name_tags(text: str, names: ahocorasick.Automaton) -> list[str]:
    tags = ["-"] * len(text)
    for end, (size, level) in names.iter_long(text):
        start = end - size + 1
        for position in range(start, end + 1):
            tags[position] = level + ("b" if position == start else "e" if position == end else "m")
    return tags
