"""A phone call as the recogniser wrote it down: who speaks, what was asked last, and what the citizen says without fillers.

Labels of speakers are a hint: where words and order speak plainly against one, the words win. Pure; every piece of cleaned
text knows where it stands in the turn it was taken from.
"""
from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

AGENT, CITIZEN = "agent", "citizen"

# -- who speaks ------------------------------------------------------------------------------------------------------------

_CUES: tuple[tuple[float, int, re.Pattern[str]], ...] = tuple(
    (weight, most, re.compile(pattern))
    for weight, most, pattern in (
        (
            3.0, 1,
            r"请[讲说]|请问[您有是]|您请|您[慢继]|贵姓|[给为帮替]您|您的(?:诉求|联系|电话|手机|姓名|称呼|要求|意思|建议|地址|姓)|怎么称呼|感谢(?:您的)?来电|"
            r"高兴为您|(?:政务|服务|一二三四五|12345)(?:服务)?热线|^您好(?:一二三四五|热线|这里是)|工作日内|请稍|稍等一下|节哀|理解您|保持电话畅通|"
            r"留(?:一?下|一?个|您)[^，]{0,4}(?:电话|联系方式|姓名|手机)|(?:我|这边)[^，]{0,4}(?:登记|记录|转给|转到|转接|转交|联系.{0,6}(?:局|部门))|您(?:放心|先别急)",
        ),
        (0.8, 2, r"您|^好的|^收到|^嗯$"),
        (0.7, 1, r"(?:吗|呢|是吧|对吧|是吗)$|^(?:哪|什么|具体|有没有|是哪|多久|一共)"),
        (
            -2.5, 1,
            r"我(?:家|们(?:家|村|小区|单位|厂|学校|楼|那|这几|几个|好多|都)|妈|爸|儿|女|老婆|老公|老屋|孩|姓|叫|要|想|投诉|举报|咨询|反映|建议|问|买|办|去|打|说|跟他|上班|住|在[^帮])|"
            r"[俺咱]|^喂|你们(?:管|到底|赶紧|快|能不能|怎么)|免贵|没人管|不对是|^姓.(?:$|\s)|拜托|辛苦[你您]",
        ),
        (-0.8, 2, r"[他她]|嘛|咧|哎|啊$|反正|就是|谢谢"),
    )
)  # fmt: skip
LONG_TURN = 24
# What a label is worth, what it costs to speak twice in a row, to speak on after one's own question, to swap all labels.
LABEL, AGAIN, AFTER_QUESTION, SWAPPED = 2.0, 0.6, 1.0, 5.0
_QUESTION = re.compile(r"(?:[吗呢么]|是吧|对吧|什么|哪里|哪儿|哪家|多少|多久|贵姓|几个人|几级|电话|称呼|诉求|位置|地址)\s*$|^(?:哪|什么|有没有|怎么|具体)|请问")


def read_speakers(turns: Sequence[Mapping[str, str]]) -> list[str]:
    """Who speaks in each turn: the likeliest sequence under labels, words and the taking of turns."""
    leanings = [_leaning(turn["text"]) for turn in turns]
    asks = [bool(_QUESTION.search(turn["text"])) for turn in turns]
    labels = [1.0 if turn["speaker"] == AGENT else -1.0 for turn in turns]
    straight, cost = _likeliest(leanings, asks, labels)
    swapped, swapped_cost = _likeliest(leanings, asks, [-label for label in labels])
    return swapped if swapped_cost + SWAPPED < cost else straight


def _leaning(text: str) -> float:
    """Above 0 an agent's words, below 0 a citizen's."""
    found = sum(weight * min(len(cue.findall(text)), most) for weight, most, cue in _CUES)
    return found - (1.0 if len(text) > LONG_TURN else 0.0)


def _likeliest(leanings: Sequence[float], asks: Sequence[bool], labels: Sequence[float]) -> tuple[list[str], float]:
    """Viterbi over two speakers; the cost of the best sequence tells it from that of swapped labels."""
    costs = {AGENT: 0.0, CITIZEN: 0.0}
    back: list[dict[str, str]] = []
    for number, (leaning, label) in enumerate(zip(leanings, labels)):
        own = {AGENT: -leaning / 2 - LABEL * label / 2, CITIZEN: leaning / 2 + LABEL * label / 2}
        again = (AGAIN + (AFTER_QUESTION if asks[number - 1] else 0.0)) if number else 0.0
        chosen = {who: min((AGENT, CITIZEN), key=lambda before: costs[before] + (again if before == who else 0.0)) for who in own}
        costs = {who: costs[chosen[who]] + (again if chosen[who] == who else 0.0) + own[who] for who in own}
        back.append(chosen)
    who = min(costs, key=costs.__getitem__)
    speakers = [who]
    for chosen in reversed(back[1:]):
        who = chosen[who]
        speakers.append(who)
    return speakers[::-1], min(costs.values())


# -- what was asked --------------------------------------------------------------------------------------------------------

NAME, PHONE, PLACE, WHEN, AMOUNT, PERSONS, WISH, OTHERS = "name", "phone", "place", "when", "amount", "persons", "wish", "others"
_ASKS = {
    kind: re.compile(pattern)
    for kind, pattern in (
        (OTHERS, r"(?:支书|书记|老板|老师|医生|司机|师傅|负责人|包工头|经理|店|公司|学校|物业|对方|那个?人|他|她|工人|孩子|老人)[^，]{0,5}(?:姓|叫)(?:什么|啥)|(?:叫|姓)什么(?:名字)?[^，]{0,2}(?:店|公司|老板)|车牌|店名"),
        (NAME, r"贵姓|称呼|[您你]姓|您叫|姓名|的姓(?![^，]{0,3}什么)|什么姓"),
        (PHONE, r"(?<!打)(?<!打了)(?<!打过)(?:联系)?电话(?!联系|占线|录音|打)|手机号?|联系方式|号码|座机"),
        (PLACE, r"哪里|哪儿|在哪|位置|地址|哪[个一](?:小区|村|镇|区|街道|县|乡|路|学校|工地|医院|地方|社区|段|市|便民|单位|店|厂)|几号楼|几栋|哪家|哪一?段|哪栋|哪所|住在"),
        (WHEN, r"什么时[候间]|几点|多久|哪一?天|哪年|几时|多长时间|开始的|几号(?!楼)"),
        (AMOUNT, r"多少钱|金额|[欠花收交扣价值共]了?多少|多少[元块]"),
        (PERSONS, r"多少[个名]?[人户]|几个人|几户|[几多]少?[位名]|涉及"),
        (WISH, r"诉求|希望|要求|想要|怎么处理|您是想|建议是"),
    )
}  # fmt: skip
# Such a turn asks for nothing new: an agent nods, or repeats the number that was told.
_NODS = re.compile(r"^(?:嗯+|好的?|[0-9幺〇零一二两三四五六七八九]{3,}(?:是吗|对吗|对吧|是吧|对不对|吗)?|您(?:说|请说|讲|继续)|请[说讲]|哦|对|是的|知道了|明白|可以听到|没关系|收到|我在听|[\s，。])+$")


def kinds_asked(text: str) -> frozenset[str]:
    """Which facts a question asks for; asking what somebody else is called is not asking for the caller's name."""
    kinds = {kind for kind, pattern in _ASKS.items() if pattern.search(text)}
    return frozenset(kinds - {NAME} if OTHERS in kinds and "您" not in text else kinds)


# -- what the citizen says -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A fact with the words it was taken from: `start` and `end` are offsets into the text of turn `turn`."""

    value: str
    turn: int
    start: int
    end: int
    confidence: float

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "confidence": round(self.confidence, 3)}


@dataclass(frozen=True)
class Turn:
    """`asked`: what the agent asked for last; `start`: where the turn begins in the citizen's text, None for an agent's turn."""

    number: int
    speaker: str
    text: str
    asked: frozenset[str] = frozenset()
    question: str = ""
    start: int | None = None


@dataclass(frozen=True)
class Piece:
    """A stretch of a citizen's turn without the fillers around and inside it; `places` are where its characters stand in the turn."""

    turn: int
    text: str
    places: tuple[int, ...]

    @property
    def span(self) -> tuple[int, int]:
        return self.places[0], self.places[-1] + 1


@dataclass(frozen=True)
class Call:
    """A call as it is read. `text`: the citizen's turns joined by newlines, exactly as they came."""

    turns: tuple[Turn, ...]
    text: str

    @cached_property
    def citizen(self) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.turns if turn.start is not None)

    @property
    def speakers(self) -> list[str]:
        return [turn.speaker for turn in self.turns]

    @cached_property
    def _starts(self) -> list[int]:
        return [turn.start or 0 for turn in self.citizen]

    def locate(self, position: int) -> tuple[int, int]:
        """(turn number, offset in that turn) of a position in `text`."""
        turn = self.citizen[max(0, bisect_right(self._starts, position) - 1)]
        return turn.number, position - (turn.start or 0)

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """What the citizen says, in order, without fillers, repetitions, courtesies and words taken back."""
        return tuple(piece for turn in self.citizen for piece in _pieces(turn))

    @cached_property
    def said(self) -> Said:
        return _join(self)


@dataclass(frozen=True)
class Said:
    """The cleaned text for the readers: pieces of a turn divided by a blank, turns by a full stop and a newline.

    `places` say where its characters stand in `Call.text`.
    """

    text: str
    places: tuple[int, ...]
    starts: tuple[int, ...]  # where each piece of `Call.pieces` begins
    turns: tuple[tuple[int, int], ...]  # where each turn that says anything begins and ends

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span of the cleaned text in the citizen's own text."""
        if not self.places or start >= end:
            return 0, 0
        return self.places[min(start, len(self.places) - 1)], self.places[min(end, len(self.places)) - 1] + 1


def read_call(turns: Sequence[Mapping[str, str]]) -> Call:
    read: list[Turn] = []
    start = 0
    asked: frozenset[str] = frozenset()
    question = ""
    for number, (turn, speaker) in enumerate(zip(turns, read_speakers(turns), strict=True)):
        text = turn["text"]
        if speaker == AGENT:
            if not _NODS.match(text):
                before = asked if read and read[-1].speaker == AGENT else frozenset()
                asked, question = kinds_asked(text) | before, text
            read.append(Turn(number, speaker, text))
        else:
            read.append(Turn(number, speaker, text, asked, question, start))
            start += len(text) + 1
    return Call(tuple(read), "\n".join(turn.text for turn in read if turn.speaker == CITIZEN))


_SEGMENT = re.compile(r"[^\s，。！？；、,.!?;…~～]+")
# Where a new thought begins in a run without pauses: behind a particle, before a linking word, before who does the next thing.
_SOFT_BORDER = re.compile(
    r"(?<=[啊呀嘛呗哈哦嘞])(?=[^，]{4})|"
    r"(?<=.{4})(?<![让叫给把跟对被和问诉帮替找骂打的是要到在连向骗欠扣占比看等])(?=(?:然后|但是|可是|结果|后来|而且|还有|现在(?!的)|因为|所以|不过|另外|再一个|再就是|就是(?!说)|[他她]们?(?!家|[妈爸的])|我们?(?!家|[妈爸的])|俺|咱们|你说|你们|从(?=[早晚去今昨前上凌])|每(?=[天晚])|天天|第[二三]次)(?=[^，]{4}))"
)
LONG_RUN = 14
# What carries nothing at the head of a piece, inside it, and at its end.
_HEAD = re.compile(
    r"^(?:喂+|嗯呐|嗯+|呃+|额(?!度)|啊|哎[呀哟呦]?|唉|哦+|噢|哟|诶|欸|那个(?!人|女|男|时候|月|店|厂|村|小区|学校)|这个(?!人|女|男|时候|月|事|店|厂|村|小区|学校)|就是说?|然后|反正|完了(?=.{4})|你说说?(?=.{3})|我跟你说|我跟你讲|我给你说|我就?说(?=你)|"
    r"[你您]好|同志|师傅(?!姓|开)|姑娘|闺女|大姐|领导|美女|小姐姐?|怎么说呢|是这样(?:的|子)?|对对?(?=.{4})|好好?(?=那)|那(?=[我就叫么]).|所以说|说白了|实际上|其实|等于说?|叫什么来着|什么来着|哎)+"
)
_INSIDE = re.compile(
    r"(?<=.)(?:那个|这个)(?!人|女|男|时候|月|礼拜|星期|周|小区|村|厂|店|学校|公司|工地|地方|事|问题|老|年|家(?:伙|人|店|$)|意思|样|单位|医院)|(?<=.)(?:嗯+|呃+)(?=.)|(?<=[^了是])就是说(?=.)|啊(?=[\u4e00-\u9fff]{3})"
)
_TAIL = re.compile(r"(?:啊|嘛|哦|呀|哈|咧|哩|撒|呗|诶|哎|是吧|对吧|你知道吧|你知道不|知道吗|那个|这个|就是|然后|嗯|呃)+$")
_NOTHING = re.compile(
    r"(?:对+头?|是的?|行+|好+的?|嗯+|哦+|谢谢(?:啊|你们?|您|了|姑娘)*|再见|拜拜|没事(?:了|儿)?|可以+|没有|有|不用了?|中+|要得|嗯呐|好嘞|喂+|哎+|您好|你好|麻烦(?:你们?|您)?了?|辛苦(?:你们?|您)?了?|"
    r"那敢情好|没麻达|拜托了?|是吗|听得到吗|那|我|他|她|就|在|去|从|先|又|都|也|还|不|的|你说|我说|她说|他说|等一?下啊?|反正|说到哪了|不好意思)"
)
ROOM = 4  # digits of a room number
_NUMBER = re.compile(r"(?:.{0,6}(?:电话|手机|座机|尾号|号码)(?:是|就是|说座机吧)?)?[0-9幺〇零洞一二两三四五六七八九]{3,}")
_DIGITS_ONLY = re.compile(r"[0-9幺〇零洞一二两三四五六七八九]{2,}")
_OWN_NAME = re.compile(r"(?:我叫|我姓|免贵|姓|俺姓|叫).{1,4}$|.{1,5}的.(?:字)?$|.{0,3}字[头底旁].{0,8}$|[^\s]$|.{1,3}(?:先生|女士|阿姨|大爷|师傅|老师)$|[左右上下]边.{0,8}$|姓.{0,3}(?:不说|不留)")
# Who takes a word back says so between the wrong and the right one.
_TAKEN_BACK = re.compile(r"^(?:哦|啊|哎)*(?:不对|不是|不不+|错了|说错了)(?:不对)?$")


def _pieces(turn: Turn) -> list[Piece]:
    segments = [span for match in _SEGMENT.finditer(turn.text) for span in _divided(turn.text, *match.span())]
    kept: list[Piece] = []
    for start, end in segments:
        if _TAKEN_BACK.match(turn.text[start:end]):
            kept.append(Piece(turn.number, "不对", (start,)))
            continue
        piece = _cleaned(turn, start, end)
        if piece is not None and not _is_personal(piece.text, turn.asked):
            kept.append(piece)
    return _without_repeats(_without_mistakes(kept))


def _is_personal(text: str, asked: frozenset[str]) -> bool:
    """Number and name: they have fields of their own and say nothing of the matter."""
    if PLACE in asked and len(text) <= ROOM:
        return False
    if PHONE in asked and _DIGITS_ONLY.fullmatch(text):
        return True
    return bool(_NUMBER.fullmatch(text) or asked & {NAME, PHONE} and OTHERS not in asked and _OWN_NAME.match(text))


def _divided(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A long run without pauses, cut where a new thought begins."""
    soft = _SOFT_BORDER.finditer(text[start:end]) if end - start > LONG_RUN else ()
    borders = [start, *(start + match.start() for match in soft), end]
    return list(zip(borders, borders[1:]))


def _cleaned(turn: Turn, start: int, end: int) -> Piece | None:
    text = turn.text[start:end]
    head = _HEAD.match(text)
    first = head.end() if head else 0
    tail = _TAIL.search(text, first)
    last = tail.start() if tail else len(text)
    if last <= first:
        return None
    gone = {at for match in _INSIDE.finditer(text, first, last) for at in range(*match.span())}
    places = tuple(start + at for at in range(first, last) if at not in gone)
    said = "".join(turn.text[at] for at in places)
    return None if not said or _NOTHING.fullmatch(said) else Piece(turn.number, said, places)


def _without_mistakes(pieces: Iterable[Piece]) -> list[Piece]:
    """"请联系户籍地 不对 请联系居住地": what was taken back goes, where the next piece says it again in other words."""
    kept: list[Piece] = []
    taken_back: Piece | None = None
    for piece in pieces:
        if piece.text == "不对":
            taken_back = kept[-1] if kept else None
            continue
        if taken_back is not None and kept and kept[-1] is taken_back and _says_again(taken_back.text, piece.text):
            kept.pop()
        taken_back = None
        kept.append(piece)
    return kept


def _says_again(wrong: str, right: str) -> bool:
    """The same beginning or the same end, and about as long."""
    return abs(len(wrong) - len(right)) <= 4 and (wrong[:2] == right[:2] or wrong[-1] == right[-1]) and wrong != right


def _without_repeats(pieces: Sequence[Piece]) -> list[Piece]:
    """"高龄 高龄津贴", "未通过 未通过": a piece that the next one begins with, or that the last one ended with, is a stammer."""
    kept: list[Piece] = []
    for number, piece in enumerate(pieces):
        following = pieces[number + 1].text if number + 1 < len(pieces) else ""
        if len(piece.text) <= 8 and following.startswith(piece.text):
            continue
        if kept and len(piece.text) <= 8 and kept[-1].text.endswith(piece.text):
            continue
        if kept and (joined := _taken_up(kept[-1], piece)):
            kept[-1] = joined
            continue
        kept.append(piece)
    return kept


# Words one begins again with; a noun said twice starts a new thought ("去派出所 派出所说").
_BEGUN = re.compile(r"(?:能不能|可不可以|是不是|有没有|要不要|想|要|就|给|让|叫|被|把|还|又|去|来|在|到|我|们|他|她|它|这|那|个|怎么|什么|说|不|没|有|是|跟|和)+")


# "把危房改造那个钱" waits for what was done with it.
_UNFINISHED = re.compile(r"把[^了]{2,10}$")
_GOES_ON = re.compile(r"给|都|全|拿|放|弄|装|挪|报|转|卖|租|占|拆|扔|堆|拉|搬|关|锁|停|倒|排|扣|退|改|修")


def _taken_up(first: Piece, second: Piece) -> Piece | None:
    """"去办 办灵活就业", "放水 放废水": a word begun again goes on where it was begun."""
    a, b = first.text, second.text
    for size in range(min(6, len(a) - 1, len(b) - 1), 1, -1):
        if a.endswith(b[:size]) and _BEGUN.fullmatch(b[:size]):
            return Piece(first.turn, a + b[size:], first.places + second.places[size:])
    if len(a) > 1 and len(b) > 2 and a[-1] == b[0] and b[1] not in "了着过多":
        return Piece(first.turn, a + b[1:], first.places + second.places[1:])
    if _UNFINISHED.search(a) and _GOES_ON.match(b):
        return Piece(first.turn, a + b, first.places + second.places)
    if len(b) <= 4 and len(a) > 3 and a[-2:] == b[0] + b[-1]:
        return Piece(first.turn, a[:-2] + b, first.places[:-2] + second.places)
    return None


def _join(call: Call) -> Said:
    text = ""
    places: list[int] = []
    beginnings: list[int] = []
    turns: list[tuple[int, int]] = []
    starts = {turn.number: turn.start or 0 for turn in call.citizen}
    last: Piece | None = None
    for piece in call.pieces:
        if last is not None:
            between = " " if last.turn == piece.turn else "。\n"
            text += between
            places += [places[-1]] * len(between)
        beginnings.append(len(text))
        begin = turns.pop()[0] if last is not None and last.turn == piece.turn else len(text)
        text += piece.text
        turns.append((begin, len(text)))
        places += [starts[piece.turn] + at for at in piece.places]
        last = piece
    return Said(text, tuple(places), tuple(beginnings), tuple(turns))
