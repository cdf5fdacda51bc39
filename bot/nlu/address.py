"""Parts of a written postal address: conditional random fields over its tokens, which vote. Learns from tagged addresses only.

A token is one character, one run of digits or one run of letters; tags are BIO (`B-road`, `I-road`). The service itself reads
places with bot.nlu.places and bot.gazetteer: this reader shows what tagged addresses of a city would add.
"""
from __future__ import annotations

import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ahocorasick
import jieba
import pycrfsuite

Entity = tuple[str, int, int]
Tagged = tuple[Sequence[str], Sequence[str]]
Rows = list[list[str]]

ITERATIONS = 7
# What each voter does without, by the first letter of a feature: voters that err differently outvote each other's errors.
WITHOUT = ("", "5Flm", "6Ick", "56ex", "Aeny", "3GKn", "4BHf", "9Dgw")

_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+|.", re.DOTALL)
_NUMERALS = frozenset("一二三四五六七八九十百零〇两")
_CHAIN = frozenset("-_#/—－一二三四五六七八九十")
# What ends a part, longest first; the nearest one on either side says more than the characters between.
_ENDINGS = (
    "工业区 工业园 开发区 交叉口 街道 大道 社区 小区 新村 大厦 广场 公寓 花园 园区 市场 商场 公司 中心 单元 门市 店面 商铺 宿舍"
    " 对面 旁边 门口 路口 省 市 区 县 镇 乡 村 路 街 巷 弄 道 号 幢 栋 座 楼 层 室 苑 园 城 厂 店 院 期 里 庄 府 铺 桥 旁 口 排 组 门"
).split()
_KINDS = frozenset(ending for ending in _ENDINGS if len(ending) == 1)


def tokens_of(text: str) -> list[str]:
    return _TOKEN.findall(text)


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """(part, start, end) in tokens; an I that follows nothing of its kind opens a part, as the usual scorers read it."""
    found: list[Entity] = []
    for position, tag in enumerate(tags):
        if tag == "O":
            continue
        kind = tag[2:]
        if tag[0] == "I" and found and found[-1][0] == kind and found[-1][2] == position:
            found[-1] = (kind, found[-1][1], position + 1)
        else:
            found.append((kind, position, position + 1))
    return found


@dataclass
class AddressReader:
    features: Features
    voters: list[pycrfsuite.Tagger]

    @classmethod
    def fit(cls, rows: Sequence[Tagged], divisions: Iterable[tuple[str, str]]) -> AddressReader:
        """`divisions` are (level, name) of the country. Some fifteen seconds for each voter on nine thousand addresses."""
        features = Features(Lexicon(rows), division_automaton(divisions))
        pool: dict[str, str] = {}  # one string for equal features: a tenth of the memory
        read = [[[pool.setdefault(name, name) for name in row] for row in features.of(tokens, tags)] for tokens, tags in rows]
        return cls(features, [_fit_voter(read, rows, number) for number in range(len(WITHOUT))])

    def tags(self, tokens: Sequence[str]) -> list[str]:
        """The parts that most voters see; O where they agree on none."""
        rows = self.features.of(tokens)
        ballots = [voter.tag(_without(rows, letters)) for voter, letters in zip(self.voters, WITHOUT, strict=True)]
        return elect(ballots, len(tokens))


def _fit_voter(read: Sequence[Rows], rows: Sequence[Tagged], number: int) -> pycrfsuite.Tagger:
    trainer = pycrfsuite.Trainer(algorithm="pa", verbose=False)
    trainer.set_params({"max_iterations": ITERATIONS})
    order = list(range(len(rows)))
    random.Random(number).shuffle(order)
    for row in order:
        trainer.append(_without(read[row], WITHOUT[number]), rows[row][1])
    tagger = pycrfsuite.Tagger()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "voter.crfsuite"
        trainer.train(str(path))
        tagger.open(str(path))
    return tagger


def _without(rows: Rows, letters: str) -> Rows:
    return [[name for name in row if name[0] not in letters] for row in rows] if letters else rows


def elect(ballots: Sequence[Sequence[str]], size: int) -> list[str]:
    """The parts without overlap that win the largest majorities together (those seen by more than half of the voters)."""
    votes = Counter(entity for ballot in ballots for entity in entities_of(ballot))
    ending: dict[int, list[tuple[str, int, float]]] = defaultdict(list)
    for (kind, start, end), count in votes.items():
        ending[end].append((kind, start, count - len(ballots) / 2))
    best, chosen = [0.0] * (size + 1), [("", position - 1) for position in range(size + 1)]
    for end in range(1, size + 1):
        best[end] = best[end - 1]
        for kind, start, majority in ending[end]:
            if best[start] + majority > best[end]:
                best[end], chosen[end] = best[start] + majority, (kind, start)
    tags, end = ["O"] * size, size
    while end > 0:
        kind, start = chosen[end]
        if kind:
            tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
        end = start
    return tags


# -- features -------------------------------------------------------------------------------------------------------------


class Lexicon:
    """The names that training addresses gave to each part, found again in other addresses."""

    def __init__(self, rows: Iterable[Tagged]) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for tokens, tags in rows:
            for kind, name in _names(tokens, tags):
                counts[name][kind] += 1
        self._automaton = ahocorasick.Automaton()
        for name, kinds in counts.items():
            self._automaton.add_word(name, (len(name), kinds))
        self._automaton.make_automaton()

    def matches(self, text: str, own: Counter[tuple[str, str]]) -> Iterator[tuple[int, int, list[tuple[str, int]]]]:
        """(start, end, [(part, count)]) in characters. What only this address (`own`) taught is not known: no leak in training."""
        if not len(self._automaton):
            return
        for last, (size, kinds) in self._automaton.iter(text):
            start, end = last + 1 - size, last + 1
            known = [(kind, count - own[kind, text[start:end]]) for kind, count in kinds.items()]
            if known := [(kind, count) for kind, count in known if count > 0]:
                yield start, end, known


def _names(tokens: Sequence[str], tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    for kind, start, end in entities_of(tags):
        name = "".join(tokens[start:end])
        if len(name) >= 2 and not any(character.isascii() for character in name):
            yield kind, name


def division_automaton(divisions: Iterable[tuple[str, str]]) -> ahocorasick.Automaton:
    levels: dict[str, set[str]] = defaultdict(set)
    for level, name in divisions:
        levels[name].add(level)
    automaton = ahocorasick.Automaton()
    for name, marks in levels.items():
        automaton.add_word(name, (len(name), sorted(marks)))
    automaton.make_automaton()
    return automaton


@dataclass(frozen=True)
class Features:
    lexicon: Lexicon
    divisions: ahocorasick.Automaton

    def of(self, tokens: Sequence[str], tags: Sequence[str] | None = None) -> Rows:
        """One list of feature strings a token. `tags` are the address's own, given in training only."""
        text = "".join(tokens)
        own = Counter(_names(tokens, tags)) if tags else Counter[tuple[str, str]]()
        at = [number for number, token in enumerate(tokens) for _ in token]
        marks: list[set[str]] = [set() for _ in tokens]
        _mark_words(text, at, marks)
        self._mark_divisions(text, at, marks)
        self._mark_lexicon(text, own, at, marks)
        _mark_endings(tokens, marks)
        _mark_numbers(tokens, marks)
        _mark_repeats(tokens, marks)
        return _window(tokens, marks)

    def _mark_divisions(self, text: str, at: Sequence[int], marks: list[set[str]]) -> None:
        """Level and length of every name of the country, and which levels stand before and after: half of a doubled address."""
        hits = [(last + 1 - size, last + 1, levels) for last, (size, levels) in self.divisions.iter(text)]
        for start, end, levels in hits:
            first, last, name = at[start], at[end - 1], text[start:end]
            before = {level.upper() for _, stop, others in hits if at[stop - 1] < first for level in others}
            after = {level.upper() for begin, _, others in hits if at[begin] > last for level in others}
            twins = [at[b] > last for b, e, _ in hits if not b < end or not start < e if _same(name, text[b:e])]
            twin = ("b" if False in twins else "") + ("a" if True in twins else "")
            for level in levels:
                upper = level.upper()
                seen = f"D{upper}{twin}{upper in before:d}{upper in after:d}{'P' in before:d}"
                order = f"DO{upper}{''.join(sorted(before))}|{''.join(sorted(after))}"
                for i in range(first, last + 1):
                    border = _border(i, first, last)
                    marks[i] |= {seen + border, order, f"d{level}{border}{min(end - start, 5)}"}

    def _mark_lexicon(self, text: str, own: Counter[tuple[str, str]], at: Sequence[int], marks: list[set[str]]) -> None:
        best: list[dict[str, tuple[int, str]]] = [{} for _ in marks]
        for start, end, known in self.lexicon.matches(text, own):
            first, last, size = at[start], at[end - 1], end - start
            total = sum(count for _, count in known)
            for kind, count in known:
                share = "h" if count > 0.8 * total else "m" if count > 0.3 * total else "l"
                for i in range(first, last + 1):
                    key = kind + _border(i, first, last)
                    if size > best[i].get(key, (0, ""))[0]:
                        best[i][key] = (size, f"{share}{min(size, 5)}")
        for mark, found in zip(marks, best, strict=True):
            longest = max((size for size, _ in found.values()), default=0)
            mark |= {f"x{key}{rest}" for key, (_, rest) in found.items()}
            mark |= {f"y{key}{rest[0] == 'h':d}" for key, (size, rest) in found.items() if size == longest}


def _same(name: str, other: str) -> bool:
    return name.startswith(other) or other.startswith(name)


def _border(i: int, first: int, last: int) -> str:
    return "B" if i == first else "E" if i == last else "M"


def _mark_words(text: str, at: Sequence[int], marks: list[set[str]]) -> None:
    position = 0
    for word in jieba.cut(text, HMM=False):
        first, last = at[position], at[position + len(word) - 1]
        for i in range(first, last + 1):
            border = "S" if first == last else _border(i, first, last)
            marks[i] |= {f"w{border}", f"w{border}{'#' if word.isdigit() else word}"}
        position += len(word)


def _ending_at(text: str) -> dict[int, str]:
    """Last position of every ending → the ending."""
    found: dict[int, str] = {}
    position = 0
    while position < len(text):
        ending = next((ending for ending in _ENDINGS if text.startswith(ending, position)), "")
        position += len(ending) or 1
        if ending:
            found[position - 1] = ending
    return found


def _mark_endings(tokens: Sequence[str], marks: list[set[str]]) -> None:
    text = "".join(token if len(token) == 1 else "#" for token in tokens)
    endings = _ending_at(text)
    following, distance = "none", 0
    for i in reversed(range(len(text))):
        if text[i] in "#-_" or i in endings:
            following, distance = endings.get(i, "num"), 0
        marks[i] |= {f"e{following}", f"e{following}{min(distance, 6)}"}
        distance += 1
    earlier, before, distance = "none", "none", 0
    for i in range(len(text)):
        marks[i] |= {f"f{before}", f"f{before}{min(distance, 6)}", f"g{earlier},{before}"}
        distance += 1
        if i in endings or text[i] == "#":
            earlier, before, distance = before, endings.get(i, "num"), 0


def _mark_numbers(tokens: Sequence[str], marks: list[set[str]]) -> None:
    """The chain of numbers (47-6-746) a token stands in and its place there, with the units before and after."""
    i, chains, unit = 0, 0, "^"
    while i < len(tokens):
        end = i
        while end < len(tokens) and _in_chain(tokens[end]):
            end += 1
        if end == i:
            i += 1
            continue
        shape = "".join(_kind(token) for token in tokens[i:end])[:9]
        before, previous = tokens[i - 1] if i else "^", unit
        unit = tokens[end] if end < len(tokens) else "$"
        for p in range(i, end):
            place = f"{shape}@{min(p - i, 8)}"
            marks[p] |= {f"c{place}", f"c{place}{unit}", f"c{before}{place}", f"cs{min(chains, 4)}"}
            marks[p] |= {f"cu{before}_{unit}", f"cl{previous}_{unit}"}
        if end < len(tokens):
            marks[end] |= {f"c${shape}", f"cl${previous}"}
        chains, i = chains + 1, end


def _in_chain(token: str) -> bool:
    return token in _CHAIN or token[0].isascii() and token[0].isalnum()


def _mark_repeats(tokens: Sequence[str], marks: list[set[str]]) -> None:
    """Whether the two tokens here stood here before, or come again."""
    pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i in range(len(tokens) - 1):
        pairs[tokens[i], tokens[i + 1]].append(i)
    for places in pairs.values():
        if len(places) > 1 and not tokens[places[0]][0].isdigit():
            for i in places:
                label = "r1" if i == places[0] else "r2" if i == places[-1] else "rm"
                marks[i].add(label)
                marks[i + 1].add(label + "e")


def _shape(token: str) -> str:
    if not token[0].isascii() or not token[0].isalnum():
        return token
    if token[0].isdigit():
        return f"#{min(len(token), 5)}"
    return token.lower() if len(token) == 1 else f"@{min(len(token), 5)}"


def _kind(token: str) -> str:
    first = token[0]
    if first.isascii():
        return "9" if first.isdigit() else "a" if first.isalpha() else "-"
    if first in _NUMERALS:
        return "n"
    return first if first in _KINDS else "h"


def _window(tokens: Sequence[str], marks: Sequence[set[str]]) -> Rows:
    """Three tokens to either side, in runs of up to four; the marks of this token and, for names, of its neighbours."""
    w = ["<2", "<1", "<0", *map(_shape, tokens), ">0", ">1", ">2"]
    k = ["<", "<", "<", *map(_kind, tokens), ">", ">", ">"]
    size = len(tokens)
    rows: Rows = []
    for i in range(size):
        a3, a2, a1, c, b1, b2, b3 = w[i : i + 7]
        row = [
            "0" + c, "1" + a1, "2" + b1, "3" + a2, "4" + b2, "5" + a3, "6" + b3, "7" + a1 + c, "8" + c + b1, "9" + a2 + a1,
            "A" + b1 + b2, "B" + a1 + b1, "C" + a2 + a1 + c, "D" + a1 + c + b1, "E" + c + b1 + b2, "F" + b1 + b2 + b3,
            "G" + a3 + a2 + a1, "H" + a3 + a2 + a1 + c, "I" + c + b1 + b2 + b3, "J" + a2 + a1 + c + b1, "K" + a1 + c + b1 + b2,
            "k" + "".join(k[i + 2 : i + 5]), "l" + "".join(k[i + 3 : i + 7]), "m" + "".join(k[i : i + 4]), "n" + "".join(k[i + 1 : i + 6]),
            f"p{i if i < 4 else 5 if i < 8 else 9 if i < 15 else 'z'}", f"q{size - i if size - i < 5 else 'x'}", *sorted(marks[i]),
        ]  # fmt: skip
        row += ["^"] if i == 0 else ["-" + mark for mark in sorted(marks[i - 1]) if mark[0] in "wdx"]
        row += ["$"] if i + 1 == size else ["+" + mark for mark in sorted(marks[i + 1]) if mark[0] in "wdx"]
        rows.append(row)
    return rows
