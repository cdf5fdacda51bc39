"""The place of a call's matter, put together from what was said in several turns: division, name, number, corrected by later turns. Pure.

The place reader finds names anywhere; a bare answer to "where" is a place even where it finds none. Every part keeps its words.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.call import AGENT, PLACE, Call, Piece

COARSE, NAMED, GUESSED, FINE = "coarse", "named", "guessed", "fine"
_NUMERAL = r"[0-9a-zA-Z零〇一二两三四五六七八九十百幺]"
_DIVISION = r"(?:省|自治[区州县]|(?<![超夜菜早集门])市(?!场|政)|(?<![小社园校景厂])区(?!域|政)|县(?!城)|旗|(?<![古小])镇|乡|街道|开发区|新区|高新区|经开区)"
_COARSE = re.compile(rf"(?!一个|[这那哪该我本])(?:[\u4e00-\u9fff]{{1,7}}?{_DIVISION})+的?(?:人|下面|这边)?")
# Kinds of numbers below a name; of each the last one told holds.
_KINDS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_NUMERAL}{{1,4}}(?:栋|幢|座|号楼|#楼?)",
        rf"{_NUMERAL}{{1,3}}单元",
        rf"{_NUMERAL}{{1,3}}(?:楼|层)(?!道|上|下|梯)",
        rf"{_NUMERAL}{{3,5}}(?:室|房)?$|{_NUMERAL}{{1,5}}(?:室|户)$",
        rf"第?{_NUMERAL}{{1,3}}(?:组|队|社)(?!织|长)",
        rf"{_NUMERAL}{{1,5}}号(?!楼|线|桥)",
        r"[东西南北中前后左右]{1,2}(?:门|侧|边|面|头|角|区|广场|出口)|门口|路口|对面|[旁边]边?|附近|楼[上下]|[村沟桥]口|交叉口|一带|里头|那一?片",
    )
)
_FINE = re.compile(
    rf"(?:第?{_NUMERAL}{{1,5}}(?:栋|幢|座|号楼|#楼?|单元|楼|层|室|房|组|队|社|号|户)?)+|.{{0,8}}(?:[东西南北中前后左右]{{1,2}}(?:门|侧|边|面|头|角|广场|出口)(?:边上|外|口)?|门口|路口|对面|旁边|边上|附近|[村沟桥]口|交叉口|里头|那一?片)"
)
# What is told rather than named: no answer to "where".
_TALE = re.compile(r"地址|[逛买我你爸妈他她它谁啥哪怎咋吗呢吧了着]|不|没|说|找|打|去|来|过|给|叫|让|有|是|就|反正|那个|多|要|能|会|知道|记得|短信|办|弄|看|的$|全|都")
_OWN_WAY = re.compile(r"^(?:我?(?:们)?(?:就)?(?:是|在|住在?|家住|家在|家是|位于)?(?:我们)?(?:那个|这个)?|叫|位置是|地址是)(?=.{2})")
_NAMED = (
    r"[\u4e00-\u9fffa-zA-Z0-9]{1,12}?(?:火车站|高铁站|汽车站|客运站|地铁站|公交站|车站|服务中心|服务大厅|政务大厅|社区|小区|花园|家园|新村|公寓|[苑府城湾园庭里庄寨屯洼坪沟岭]|村|大厦|广场|商场|超市|市场|菜场|医院|卫生院|学校|[中小]学|大学|学院|幼儿园|公园|"
    r"派出所|支行|银行|工地|工业园|[路街巷弄道]|大道|桥|厂|公司)|火车站|高铁站|汽车站|客运站"
)
_NAME = re.compile(_NAMED)
_AT_NAME = re.compile(rf"(?:(?P<start>从)|在|到|去|住|位于|就是|^)(?:我们|那个|这个|咱)?(?P<name>{_NAMED})")
_WAY_THERE = re.compile(r"(?:到|往|回|去|开往)$")
_SIDE = re.compile(r"[东南西北中前后]{1,2}(?:广场|站房|门)")
_YES = re.compile(r"^(?:嗯+|对+|是+的?|没错|哎|就是)")
_CONFIRMED = re.compile(r"(?:是吗|是吧|对吗|对吧|吗|吧)$")
_ONE_DIVISION = re.compile(rf"(?:^|[是在的那您，\s])((?![是在的那您])[\u4e00-\u9fff]{{1,4}}?{_DIVISION})(?=[的是在，\s]|吗|吧|$)")
# Where the caller is or works is not where the matter is.
_TO_NAME = re.compile(rf"(?:从|在|到|位于|通往|开往)(?P<name>{_NAMED})")
_HEAD = re.compile(r"[\u4e00-\u9fff]{2,6}?(?:大道|[路街巷村镇苑园]|小区|社区|花园|家园)")
_AWAY_BEFORE = re.compile(r"(?:人在|我在|还在|人都在|跑到|来自|老家(?:是|在)?)$")
_BESIDE_WHAT = re.compile(r"(?:(?<=旁边)|(?<=边上)|(?<=对面)|(?<=附近)|(?<=隔壁)|(?:旁边|边上|对面|附近|隔壁))(?:那个|那家|的)?(?P<name>[\u4e00-\u9fff]{2,8})$")
_AWAY_IN = re.compile(r"(?:我?人|我|还|都)在")
_AWAY_BEHIND = re.compile(r"^(?:那边|这边)?(?:打工|上班|出差|做生意|读书|上学|务工)")
_INSIDE = re.compile(r"^(?:.*(?:就是|我们|咱们)|院子里|院里|楼里|里面|小区里)(?=.{2})")
_FROM_WHERE = re.compile(rf"(?:我|俺|我们|咱)(?:是|这边是|家是|在)(?:[\u4e00-\u9fff]{{2,6}}?{_DIVISION})+的?")
_BARE = re.compile(r"超市|小区|村里?|单位|公司|学校|医院|工地|门口|楼上|楼下|家里|店里?|厂里?|银行|路上|街上|[市县镇村]里头?")
_CORRECTS = re.compile(r"不对|不是|错了|不不|应该是|改成")
ASKED, ANSWER, WAY_THERE = 2.0, 1.0, 3.0


@dataclass(frozen=True)
class Mention:
    """A place named in one piece. `start` and `end` are offsets into the turn; `weight` is how much speaks for it as the scene."""

    text: str
    level: str
    turn: int
    start: int
    end: int
    weight: float
    asked: bool
    corrects: bool


@dataclass(frozen=True)
class CallPlace:
    """`value`: the place in one writing, in the caller's words; `core`: the stretch that names it; `mentions`: all it was put together from."""

    value: str
    core: Mention
    mentions: tuple[Mention, ...]
    confidence: float


def find_place(call: Call, spans: Sequence[Mapping[str, Any]], within: tuple[int, int] | None = None) -> CallPlace | None:
    """`spans` of the place reader point into `call.said.text`; `within`: only what is said between these offsets of it."""
    first, last = within or (0, len(call.said.text))
    told = list(_mentions(call, spans))
    mentions = [mention for mention, start in told if first <= start < last]
    if not any(mention.level == NAMED for mention in mentions):
        names = [mention.text for mention, _ in told if mention.level == NAMED]
        mentions += [mention for mention, start in _by_the_way(call, names) if first <= start < last]
    if not mentions:
        return None
    core = max(mentions, key=_rank)
    above = _above(core, mentions) if core.level != COARSE else [m for m in mentions if m.level == COARSE and _joins(m, core)]
    below = _below(core, mentions) if core.level != FINE else []
    value = core.text
    for mention in below:
        value = _with_number(value, mention)
    used = {*above, core, *below}
    heads = "".join(_without_repeats([m.text for m in sorted(above, key=_division_rank)], value))
    confidence = min(0.97, (0.6 if core.level == FINE else 0.7 if core.level == COARSE else 0.8) + (0.15 if core.asked else 0.0))
    return CallPlace(heads + value, core, tuple(sorted(used, key=lambda m: (m.turn, m.start))), confidence)


def _rank(mention: Mention) -> float:
    level = {NAMED: 4.0, GUESSED: 2.0, COARSE: 1.0, FINE: 0.0}[mention.level]
    if mention.weight < -1:
        level -= 2.5
    return level + min(max(mention.weight, 0.0), 5.0) / 2 + (ASKED if mention.asked else 0.0) + len(mention.text) / 100


def _joins(mention: Mention, core: Mention) -> bool:
    return mention is not core and mention.text not in core.text and mention.asked


def _above(core: Mention, mentions: Sequence[Mention]) -> list[Mention]:
    """Divisions told of the same place, and a larger named place told right before it."""
    found = [m for m in mentions if m.level == COARSE and m.text not in core.text and (m.asked or m.turn == core.turn)]
    beside = [
        m for m in mentions
        if m.level == NAMED and m.turn == core.turn and m is not core and 0 < core.start - m.start <= 24 and re.search(r"(?:园|区|村|社区|[路街巷道]|市场|广场|商场|[站城])$", m.text)
        and m.text not in core.text and core.text not in m.text
    ]  # fmt: skip
    return found + beside[-1:]


def _below(core: Mention, mentions: Sequence[Mention]) -> list[Mention]:
    """Numbers and sides told of the place: with it, or in answer to "where" later."""
    found = []
    for mention in mentions:
        here = mention.turn == core.turn and mention.start > core.start
        later = mention.turn > core.turn and (mention.asked or mention.corrects)
        if mention.level == FINE and mention.text not in core.text and (here or later):
            found.append(mention)
    return found


def _with_number(value: str, mention: Mention) -> str:
    """"云锦苑七栋" and "十七栋": of one kind of number the one told last holds, what stands below it goes too."""
    for kind in _KINDS[:-1]:
        told = kind.match(mention.text)
        if not told:
            continue
        before = kind.search(value)
        return (value[: before.start()] if before else value) + mention.text
    return value if value.endswith(mention.text) else value + mention.text


def _division_rank(mention: Mention) -> int:
    ends = ("省", "市", "区县旗", "镇乡道")
    return next((rank for rank, last in enumerate(ends) if mention.text.rstrip("的")[-1] in last), len(ends))


def _without_repeats(heads: Sequence[str], value: str) -> Iterator[str]:
    for number, head in enumerate(heads):
        rest = "".join(heads[number + 1 :]) + value
        if head not in rest and not any(head in other and other != head for other in heads):
            yield head


# -- what names a place ------------------------------------------------------------------------------------------------------


def _mentions(call: Call, spans: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mention, int]]:
    """Every mention with its offset in the cleaned text, in the order of the call."""
    turns = {turn.number: turn for turn in call.citizen}
    confirmed = _confirmed_divisions(call)
    known: dict[str, float] = {}
    for piece, start in zip(call.pieces, call.said.starts):
        turn = turns[piece.turn]
        asked, corrects = PLACE in turn.asked or bool(_FROM_WHERE.fullmatch(piece.text)), bool(_CORRECTS.search(turn.text))
        for first, last, weight in _read(piece, start, spans) or _again(piece, known) or _unread(piece, asked, corrects):
            first, last, text = _whole(piece.text, first, last)
            if len(text) < 2:
                continue
            level = _level(text, read=weight != ANSWER)
            known.update({text: weight} if level == NAMED else {})
            places = piece.places[first:last]
            yield Mention(text, level, piece.turn, places[0], places[-1] + 1, weight, asked or text in confirmed, corrects), start + first
    yield from ((Mention(text, COARSE, number, at, at + len(text), 0.0, True, False), 0) for text, (number, at) in confirmed.items() if at >= 0)


def _by_the_way(call: Call, names: Sequence[str]) -> Iterator[tuple[Mention, int]]:
    """Where no place was named: what a name's ending gives away ("到职业技术学院方向的"), and the beginning of a name told elsewhere."""
    heads = [head.group() for head in map(_HEAD.match, names) if head]
    known = re.compile("|".join(map(re.escape, heads))) if heads else None
    for piece, start in zip(call.pieces, call.said.starts):
        again, match = known.search(piece.text) if known else None, _TO_NAME.search(piece.text)
        if again is None and (match is None or _TALE.search(match.group("name"))):
            continue
        first, last = again.span() if again else match.span("name") if match else (0, 0)
        yield Mention(piece.text[first:last], NAMED, piece.turn, piece.places[first], piece.places[last - 1] + 1, 0.0, False, False), start + first


def _read(piece: Piece, start: int, spans: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, float]]:
    """What the place reader found in a piece; the end of a way is seldom the scene; a side ("南广场") with the name told before it."""
    found = []
    for span in spans:
        first, last, weight = max(0, int(span["start"]) - start), min(len(piece.text), int(span["end"]) - start), float(span["weight"])
        if first >= last:
            continue
        if _AWAY_BEFORE.search(piece.text[:first]) or _AWAY_BEHIND.match(piece.text[last:]):
            continue
        if _WAY_THERE.search(piece.text[:first]):
            weight -= WAY_THERE
        beyond = _BESIDE_WHAT.match(piece.text, last)
        last = beyond.end() if beyond and not _TALE.search(beyond.group("name")) else last
        inside = _INSIDE.match(piece.text[first:last])
        if _AWAY_IN.match(piece.text[first:last]) or _BARE.fullmatch(piece.text[first + (inside.end() if inside else 0) : last]):
            continue
        found.append((first + (inside.end() if inside else 0), last, weight))
    return found


def _again(piece: Piece, known: Mapping[str, float]) -> list[tuple[int, int, float]]:
    """A name found before, told again: the reader gives each place once."""
    for name, weight in known.items():
        if name in piece.text:
            return [(piece.text.find(name), piece.text.find(name) + len(name), weight)]
    return []


def _whole(text: str, first: int, last: int) -> tuple[int, int, str]:
    """A span that stops inside a short piece takes the rest of it: "锦华" of "锦华里"."""
    if first and text[first - 1] in "小新老大" and (first == 1 or text[first - 2] in "上在到去了是的"):
        first -= 1
    if first == 0 and 0 < len(text) - last <= 1 and not re.search(r"[的了上下里是有在那]$", text) or text[last:] in ("里", "村"):
        last = len(text)
    return first, last, text[first:last]


def _unread(piece: Piece, asked: bool, corrects: bool) -> list[tuple[int, int, float]]:
    """Places in a piece in which the reader found none."""
    lead = _OWN_WAY.match(piece.text)
    first = lead.end() if lead else 0
    text = piece.text[first:]
    division = _COARSE.match(text)
    if division and (division.end() == len(text) or text[division.end() - 1] == "的"):
        return [(first, first + len(division.group().rstrip("的人")), ANSWER)]
    if corrects and _FINE.fullmatch(text) and not text.isnumeric():
        return [(first, first + len(text), ANSWER)]
    if _AWAY_IN.match(text) or _BARE.fullmatch(text):
        return []
    if asked and len(text) <= 14 and not _TALE.search(text) and (_NAME.fullmatch(text) or _FINE.fullmatch(text) or 3 <= len(text) <= 8):
        return [(first, first + len(text), ANSWER)]
    match = _AT_NAME.search(text)
    if match and (asked or match.group("start")) and not _TALE.search(match.group("name")):
        return [(first + match.start("name"), first + match.end("name"), ANSWER / 2)]
    return []


def _level(text: str, *, read: bool) -> str:
    if _COARSE.fullmatch(text):
        return COARSE
    if _FINE.fullmatch(text) and (_SIDE.fullmatch(text) or not _NAME.match(text)):
        return FINE
    return NAMED if read or _NAME.search(text) else GUESSED


def _confirmed_divisions(call: Call) -> dict[str, tuple[int, int]]:
    """Divisions that the agent asked about and the caller said yes to, with the agent's turn and where it stands there."""
    found: dict[str, tuple[int, int]] = {}
    for turn, following in zip(call.turns, call.turns[1:]):
        if turn.speaker != AGENT or following.speaker == AGENT or not _YES.match(following.text):
            continue
        if _CONFIRMED.search(turn.text):
            found.update({match.group(1): (turn.number, match.start(1)) for match in _ONE_DIVISION.finditer(turn.text)})
    return found
