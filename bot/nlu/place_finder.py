"""Finds the places of a text with what a model has learned: the part of bot.nlu.places that needs no Rasa.

So a file of thousands of messages can be searched for places without loading Rasa, which takes longer than reading them.
"""
from __future__ import annotations

import gzip
import math
import pickle
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ahocorasick
import numpy as np
import numpy.typing as npt
import pycrfsuite

from bot.nlu.features import MAX_CHARACTERS as READ_CHARACTERS
from bot.nlu.features import cut
from bot.nlu.place_spans import Span, is_division, main_features, tidy, title_end
from bot.text import fold

MAX_CHARACTERS = 1200
# A text in which no place is likeliest may still name one: characters that are inside a place with at least this share.
UNSURE = 0.3
# Beside a surer place, one that is inside with less than this share on average is a stray.
SURE = 0.6
LEAST = 0.01
_STATE = re.compile(r"bot\.nlu\.component\.PetitionParser\d*/PlaceReader\.pkl\.gz$")
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


class PlaceFinder:
    def __init__(self, model: bytes, names: ahocorasick.Automaton, main_weights: Sequence[float]) -> None:
        self._names, self._main_weights, self._model = names, np.array(main_weights), model
        self._tagger = pycrfsuite.Tagger()
        self._tagger.open_inmemory(model)

    def find(self, text: str) -> list[dict[str, Any]]:
        """{start, end, text, confidence, weight} of each place, in order of the text; the scene has the greatest weight."""
        whole = fold(text)
        folded = whole[:MAX_CHARACTERS]
        if not folded.strip():
            return []
        words = words_of(whole)
        tags = self._tagger.tag(character_features(folded, words, self._names))
        inside = [1 - self._tagger.marginal("O", i) for i in range(len(folded))]
        spans = spans_from_tags(tags) or spans_from_tags(["I" if share > UNSURE else "O" for share in inside])
        found: list[dict[str, Any]] = []
        divisions = divisions_in(folded, self._names)
        kept = tidy(folded, spans, words, divisions)
        for start, end in kept:
            confidence = sum(inside[start:end]) / (end - start)
            # The odds of being the scene, once it is a place at all.
            weight = float(main_row(folded, (start, end), kept, divisions) @ self._main_weights) + math.log(max(confidence, LEAST))
            found.append({
                "start": start, "end": end, "text": text[start:end], "confidence": round(confidence, 3), "weight": round(weight, 3),
            })  # fmt: skip
        sure = [place for place in found if place["confidence"] >= SURE]
        return sure or found


def load_place_finder(archive: Path) -> PlaceFinder:
    """The finder of a trained model, without the rest of it. Raises ValueError when the archive cannot be used."""
    try:
        with tarfile.open(archive) as files:
            member = next((member for member in files if _STATE.search(member.name)), None)
            packed = files.extractfile(member) if member else None
            if packed is None:
                raise ValueError("it has no reader of places")
            with gzip.open(packed, "rb") as file:
                state = pickle.load(file)  # our own archive: whoever can replace it can replace the code too
                return PlaceFinder(state["model"], automaton(state["names"]), state["main_weights"])
    except (OSError, EOFError, KeyError, pickle.UnpicklingError, tarfile.TarError, ValueError) as error:
        raise ValueError(f"model {archive.name} cannot be used: {error}") from error


def is_readable(archive: Path) -> bool:
    """Whether it holds a model in the form that this version reads, as far as a look at one part of it tells."""
    try:
        load_place_finder(archive)
    except ValueError:
        return False
    return True


def main_row(text: str, span: Span, spans: Sequence[Span], divisions: Sequence[Span]) -> Floats:
    return np.array(main_features(text, span, spans, bare=is_division(span, divisions)))


def words_of(folded: str) -> list[Span]:
    """Words of the beginning that is searched for places, cut together with what the other components read."""
    return [(start, min(end, MAX_CHARACTERS)) for start, end in cut(folded[:READ_CHARACTERS]) if start < MAX_CHARACTERS]


def automaton(items: Sequence[tuple[str, tuple[int, str]]]) -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for name, value in items:
        automaton.add_word(name, value)
    automaton.make_automaton()
    return automaton


def divisions_in(text: str, names: ahocorasick.Automaton) -> list[Span]:
    """The provinces, cities and counties that a folded text names."""
    return [(end - size + 1, end + 1) for end, (size, level) in names.iter_long(text) if level in "PCD"]


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
