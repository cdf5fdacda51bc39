"""What can be seen at one possible border between two appeals: how the second side opens, whether both sides speak of the
same field, share words, and how the whole message is built. Numbers only; bot.nlu.splitter learns what they mean.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bot.text import fold

Floats = npt.NDArray[np.float32]

MIN_PART = 5
# How much of the text beside a border is "near" it, in characters.
NEAR = 70
# Up to this length residents divide appeals by commas and blanks as well as by full stops.
SHORT = 220
SMOOTHING, SHARP = 0.5, 2.0
RARE = 3

# Opens another matter, whatever it is; then words that may as well carry on with the same one.
ANOTHER = re.compile(
    r"^[\s，,。、]*(?:(?:哎|哦|嗯|然后|那个|还有)[呢啊，, ]*)?(?:"
    r"(?:还有|再有|另有|另外|再说|再反映|再讲|再报|再问|我(?:还|再)(?:要|想)?(?:说|讲|问|反映|投诉)?(?:你)?)(?:一|个|件|另外"
    r"|最后)*(?:[个件桩样]|问题|事)"
    r"|对了|顺(?:便|带)|除此之外|(?:另外|此外|同时)?，?(?:我|本人)?(?:也|还|再|同时)(?:想|要)?(?:请教|咨询|投诉|举报|反映|打听|了解|问"
    r"|表扬|建议)"
    r"|跟你说另外|说到这个|[再最](?:就是|后说)|其[二三]|另(?:一|外一)[个件]|(?:第|头)?[二三两](?:件|个|样|桩)(?:事|问题|情况|呢|，)"
    r"|另一(?:方面|件|个))"
)
ALSO = re.compile(
    r"^[\s，,。、]*(?:哎|哦|嗯|然后|那个)?[呢啊，, ]*(?:还有|另外|此外|再有|再者|再就是|再一个"
    r"|同时|其次|以及|[也又再]|还(?![我老给清款钱]))"
)
NUMBER = re.compile(
    r"^[\s，,。、]*(?:[（(]?[二三四五六2-6][）)、.．，:：]|第[二三四五六](?![次趟年天期季名遍回家户])|[②③④⑤]|[二三四五六]是|其[二三四]"
    r"|(?:烦恼|问题|建议|事项)之?[二三四])"
)
_SECOND_NUMBER = re.compile(
    r"(?:^|[\s，,。、；;！!？?])(?:[（(]?[二2][）)、.．，:：](?!\d)|第二(?![次趟年天期季名遍回家户])|②|二是|其二|二样)"
)
FIRST_NUMBER = re.compile(r"(?:[（(]?(?<!\d)[一1][）)、.．，:：](?!\d)|第一|①|一是|其一|之一|一方面|头一)")
SEVERAL = re.compile(
    r"(?:[两二三四几仨俩2-4]|以下)(?:个|件|条|点|样|方面|处|项)?小?(?:事|问题|建议|意见|情况|诉求|困难|烦恼|隐患|业务)|有几点|[仨俩]事"
)
# Who says exactly how many matters there are counts them as separate; "several problems" may be one.
COUNTED = re.compile(r"(?:[两二三四2-4](?:个|件|条|点|样|桩)|[仨俩])(?:不同的)?小?(?:事|问题|建议|意见|情况|困难)")
# A list that numbers what speaks for one demand, or what is demanded of one side.
REASONS = re.compile(
    r"(?:理由|原因|诉求|要求|请求|请问|依据|希望|条件|疑问|答复|事实|想问|想请教|现象|情形|违反|承诺|规定)[^。！？\n]{0,14}$"
)
CLOSING = re.compile(
    r"^[\s，,。、]*(?:特此|此致|敬礼|盼|望|恳请|恳求|请求|希望|谢谢|感谢|多谢|拜托|麻烦|请(?!问|教)|我(?:们)?(?:的|就)?(?:诉求|要求|希望)"
    r"|强烈|要求|求|联系|祝|以上"
    r"|电话|落款|就(?:想|是想|这)|如不|如果|否则|妥否|何去何从|一位|好的?|行|嗯|对|姓|我姓|我叫|幺|一[三五八九])"
)
REFERRING = re.compile(
    r"^[\s，,。、]*(?:但|可是?|而且|而|所以|因此|因为|结果|后来|现在|如今|于是|然后就|他|她|它|该|此|这|那|其(?!次|[二三])|并|却|就|才|都|只"
    r"|说|找|问|去|打|报|来)"
)
DEMAND = re.compile(
    r"[?？吗]|请(?!柬|假|客)|希望|望|建议|要求|求|怎么|能不能|可否|能否|想(?:问|知道|了解|请教|咨询)|什么时候|多少|投诉|举报|反映|管管|管一管"
    r"|查|给个说法|谁管|盼"
)


@dataclass(frozen=True)
class Fields:
    """How each pair of characters speaks for the first-level fields. Sums over any run of them tell what the run is about."""

    position: dict[str, int]
    weights: Floats
    idf: Floats

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str]) -> Fields:
        """From folded texts; the last row of `weights` and `idf` stands for pairs that are rare or unknown."""
        documents = [set(pairs(text)) for text in texts]
        frequency = Counter(pair for found in documents for pair in found)
        kept = sorted(pair for pair, count in frequency.items() if count >= RARE)
        position = {pair: number for number, pair in enumerate(kept)}
        names = sorted(set(labels))
        counts = np.zeros((len(kept), len(names)), np.float32)
        for found, label in zip(documents, labels):
            counts[[position[pair] for pair in found if pair in position], names.index(label)] += 1
        weights = np.log((counts + SMOOTHING) / (counts.sum(axis=0) + SMOOTHING * len(kept)))
        weights -= weights.mean(axis=1, keepdims=True)
        idf = np.log(len(documents) / np.array([*(frequency[pair] for pair in kept), RARE], np.float32))
        return cls(position, np.vstack([weights, np.zeros(len(names))]).astype(np.float32), idf.astype(np.float32))

    def numbers(self, text: str) -> npt.NDArray[np.int64]:
        unknown = len(self.position)
        return np.array([self.position.get(pair, unknown) for pair in pairs(text)], np.int64)


def pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(len(text) - 1)]


class Outline:
    """What of a message is the same for all its borders; sums run from its beginning, so that any stretch is one subtraction."""

    def __init__(self, text: str, fields: Fields) -> None:
        self.text = fold(text)
        self.numbers = fields.numbers(self.text)
        weights = fields.weights[self.numbers]
        self.sums = np.vstack([np.zeros((1, weights.shape[1]), np.float32), np.cumsum(weights, axis=0)])
        self.idf = fields.idf[self.numbers]
        _, self.own = np.unique(self.numbers, return_inverse=True)  # the pairs of this text, numbered from 0
        self.several = bool(SEVERAL.search(self.text))
        first = FIRST_NUMBER.search(self.text)
        self.first_number = first.start() if first else len(text)
        self.counted = bool(COUNTED.search(self.text))
        self.reasons = bool(first and REASONS.search(self.text[: first.start()].rstrip("：:，, ")))
        self.numbered = bool(first and _SECOND_NUMBER.search(self.text, first.end()))

    def field(self, start: int, end: int) -> Floats:
        last = len(self.sums) - 1
        scores: Floats = self.sums[min(end, last)] - self.sums[min(start, last)]
        return scores

    def shared(self, start: int, border: int, end: int) -> float:
        """Weight of the pairs after the border that stood before it, as a share."""
        weights = self.idf[border:end]
        total = float(weights.sum())
        before = np.zeros(len(self.own) + 1, np.bool_)
        before[self.own[start:border]] = True
        known = before[self.own[border:end]]
        return float(weights[known].sum()) / total if total else 0.0


_ENDS = re.compile(r"[。！？!?；;\n…]+[”\"』」）)]*\s*|(?<=\S)\s+(?=\S)")
_COMMAS = re.compile(r"[，,、：:]")
_OPENERS = re.compile(
    r"(?:然后|哎|哦)?(?:还有(?!吗|没有)|对了)|另外|顺[便带]|再一个|再就是|[二三]是|再说|此外|其次|第[二三]|还想|也想|[①②③]"
    r"|[（(]?[二三四2-4][、.．）)]"
)


def candidate_borders(text: str) -> list[int]:
    """Where a border may stand, in order: behind ends of sentences and blanks, before connectives, in short texts behind commas."""
    borders = {match.end() for match in _ENDS.finditer(text)}
    borders |= {match.start() for match in _OPENERS.finditer(text)}
    if len(text) <= SHORT:
        borders |= {match.end() for match in _COMMAS.finditer(text)}
    return sorted(border for border in borders if MIN_PART <= border <= len(text) - MIN_PART)


def wording(text: str, border: int) -> list[str]:
    """Tokens of the words around a border of a folded text."""
    left, right = text[max(0, border - 40) : border], text[border : border + 26]
    opening = right.lstrip(" \n，,。")
    size = "long" if len(text) > SHORT else "short"
    match = ANOTHER.match(right) or ALSO.match(right)
    last = left.rstrip(" ")[-1:]
    stop = left[-1:] if left[-1:] in " \n" else last if last in "。！？!?；;，,、：:" else "-"
    said = f"c{match.group().strip(' ，,。')}" if match else "c-"
    tokens = [said, f"c{bool(match)}{stop}{size}", f"e{stop}{size}", f"E{left[-2:]}", f"E{left[-3:]}"]
    tokens += [f"o{opening[:1]}", f"o{opening[:2]}", f"o{opening[:3]}", f"O{opening[:4]}"]
    tokens += [f"r{opening[i : i + 2]}" for i in range(min(len(opening) - 1, 20))]
    tokens += [f"l{left[-i - 2 : len(left) - i]}" for i in range(min(len(left) - 1, 14))]
    return tokens


def alike(first: Floats, second: Floats) -> float:
    size = float(np.sqrt(first @ first) * np.sqrt(second @ second))
    return float(first @ second) / size if size else 0.5


def apart(first: Floats, second: Floats, counts: tuple[int, int]) -> float:
    """How little the likely fields of two runs of words overlap, 0..1."""
    (p, q) = (_posterior(scores, count) for scores, count in zip((first, second), counts))
    return 1.0 - float(np.sqrt(p * q).sum())


def _posterior(scores: Floats, count: int) -> Floats:
    sharp = np.exp((scores - scores.max()) * (SHARP / np.sqrt(max(count, 4))))
    return sharp / sharp.sum()  # type: ignore[no-any-return]


NAMES = (
    "another", "also", "number", "number_several", "number_reasons", "several", "closing", "referring",
    "sentence", "semicolon", "line", "blank", "inside", "alike", "apart", "apart_near", "apart_another", "apart_number", "apart_also",
    "shared", "shared_near", "left", "right", "length", "long", "left_short", "right_short", "numbered", "unnumbered", "part",
    "left_asks", "right_asks", "both_ask", "referring_long", "apart_both", "apart_sentence",
    "number_counted", "reasons", "before_list", "bare_list",
)


def measures(outline: Outline, start: int, border: int, end: int) -> list[float]:
    """One number for each of NAMES, about 0..1, for the border within the stretch start..end of the message."""
    text = outline.text
    left, right = text[start:border], text[border:end]
    head, last, stop = right[:24], left.rstrip(" ")[-1:], left[-1:]
    another = bool(ANOTHER.match(head))
    also = not another and bool(ALSO.match(head))
    number = outline.first_number < border and bool(NUMBER.match(head))
    referring = bool(REFERRING.match(head))
    sentence, long = last in "。！？!?…", len(text) > SHORT
    near_start, near_end = max(start, border - NEAR), min(end, border + NEAR)
    before, after = outline.field(start, border), outline.field(border, end)
    far = apart(before, after, (border - start, end - border))
    near = apart(outline.field(near_start, border), outline.field(border, near_end), (border - near_start, near_end - border))
    asks, asked = bool(DEMAND.search(left[-36:])), bool(DEMAND.search(right))
    return [
        another, also, number, number and outline.several, number and outline.reasons, outline.several, bool(CLOSING.match(head)),
        referring,
        sentence, last in "；;", last == "\n", stop == " ", not sentence and last not in "；;\n，,、：:" and stop != " ",
        alike(before, after), far, near, near * another, near * number, near * also,
        outline.shared(start, border, end), outline.shared(near_start, border, near_end),
        min(len(left), 300) / 300, min(len(right), 300) / 300, min(len(text), 600) / 600, long, len(left) < 15, len(right) < 15,
        outline.numbered, outline.numbered and not number, start > 0, asks, asked, asks and asked, referring and long,
        near * (asks and asked), near * (sentence or last in "；;"),
        number and outline.counted and not outline.reasons, outline.numbered and outline.reasons,
        outline.numbered and border <= outline.first_number + 1, number and not outline.several,
    ]
