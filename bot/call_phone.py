"""The caller's number as it is told on the phone: spoken digits, in pieces, over several turns, repeated and put right. Pure.

Numbers that are no caller's number stay out: plates, dates, sums, hotline numbers, digits that only look long enough.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bot.call import AGENT, PHONE, Call, Turn
from bot.text import fold

_DIGITS = str.maketrans("幺〇零洞一二两三四五六拐七八九", "100012234567789")
_DIGIT = "0-9幺〇零洞一二两三四五六拐七八九"
_ONE = rf"(?:[两三四五六七八]个(?=[{_DIGIT}](?![个十百千万])))?[{_DIGIT}]"
_RUN = rf"{_ONE}(?:[\s，,、\-—]{{0,2}}{_ONE})*"
_REPEATED = re.compile(rf"([两三四五六七八])个([{_DIGIT}])")
_TOKEN = re.compile(
    rf"(?P<extension>(?:转|分机号?(?:是)?)\s*(?=[{_DIGIT}]{{2,5}}(?![{_DIGIT}])))|"
    rf"(?P<digits>(?<![{_DIGIT}十百千万a-z第]){_RUN}(?![十百千万点月号日天年个块元楼栋单组路岁户人]))|"
    r"(?P<other>也可以|也行|或者|要不|不行就|另外一?个|还有一?个)|(?P<wrong>不对|不是|错了|说错|念错|少了|多了|更正|不不)|"
    r"(?P<tail>尾号|尾数|末尾|(?:最?后|末)[面边]?[两三四]?[位个]|[后末][两三四])|(?P<middle>中间)|(?P<head>(?:开头|前面|前[三四]位|区号))"
)
_MOBILE = re.compile(r"1[3-9]\d{9}")
_LANDLINE = re.compile(r"0\d{9,11}")
_LOCAL = re.compile(r"[2-8]\d{6,7}")
_ABOUT_PHONE = re.compile(r"电话|手机|号码|座机|联系|尾号|打我|念给?你|记一?下|我的号|[幺1一]\s?[3-9三四五六七八九拐]\s?[0-9幺〇零洞一二两三四五六拐七八九]{2}")
_NO_PHONE = re.compile(r"车牌|身份证|银行卡|卡号|单号|工单|订单|合同号|编号|证号")
_YES = re.compile(r"^(?:嗯+|对+|是的?|没错|正确|对头|对的|就这个)")
# So many digits told by one person in a row are a number of their own, not the rest of one.
WHOLE, LEAST_PIECE, MOST_LOST = 7, 2, 2
SURE, CONFIRMED, ECHOED = 0.9, 0.97, 0.75


@dataclass(frozen=True)
class Phone:
    """`digits` may still be short of a number; `turn`, `start`, `end`: where its last piece was said."""

    digits: str
    turn: int
    start: int
    end: int
    confidence: float = SURE
    extension: str | None = None

    @property
    def whole(self) -> bool:
        return is_phone(self.digits)


def is_phone(digits: str) -> bool:
    return any(kind.fullmatch(digits) for kind in (_MOBILE, _LANDLINE, _LOCAL))


def find_phone(call: Call) -> Phone | None:
    """The number to call back, or None while it is not whole. A later number of the caller goes before an earlier one."""
    known: Phone | None = None
    pending: Phone | None = None
    for turn in call.turns:
        if turn.speaker == AGENT:
            known, pending = _echoed(known, pending, turn)
            continue
        if known and known.confidence == SURE and _YES.match(turn.text) and _asked_back(call.turns, turn.number):
            known = replace(known, confidence=CONFIRMED)
        pending = _told(turn, pending, known)
        if pending is not None and pending.whole:
            known, pending = pending, None
    return known


def _asked_back(turns: Sequence[Turn], number: int) -> bool:
    """Whether the turn before repeats a number."""
    return number > 0 and any(is_phone(digits) for digits, _, _ in _runs(turns[number - 1].text))


def _runs(text: str) -> list[tuple[str, int, int]]:
    folded = fold(text)
    return [(_digits(match.group()), *match.span()) for match in _TOKEN.finditer(folded) if match.lastgroup == "digits"]


def _digits(run: str) -> str:
    """"中间四个零" is 0000."""
    spelt = _REPEATED.sub(lambda match: match.group(2) * int(match.group(1).translate(_DIGITS)), run)
    return re.sub(r"\D", "", spelt.translate(_DIGITS))


def _groups(run: str) -> list[str]:
    """A run of digits by its pauses; digits told one by one are one group."""
    groups = re.split(r"[\s，,、\-—]+", run)
    return groups if max(map(len, groups)) > 1 and not is_phone(_digits(run)) else [run]


def _told(turn: Turn, pending: Phone | None, known: Phone | None) -> Phone | None:
    """What this turn makes of the number: a piece more, a piece put right, a new one, or nothing."""
    text = fold(turn.text)
    expected = PHONE in turn.asked or pending is not None or bool(_ABOUT_PHONE.search(text))
    if not expected or _NO_PHONE.search(text) and PHONE not in turn.asked:
        return pending
    mode: str | None = None
    current = pending
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "extension":
            mode = "extension" if current or known else mode
        elif kind == "other":
            if current and current.whole:
                break
        elif kind != "digits":
            mode = kind if kind != "wrong" else mode or ("wrong" if current or known else None)
        else:
            for group in _groups(match.group()):
                current = _joined(_digits(group), mode, current, known, Phone("", turn.number, *match.span()))
            mode = None
    return current


def _joined(digits: str, mode: str | None, current: Phone | None, known: Phone | None, here: Phone) -> Phone | None:
    whole = current or known
    if mode == "extension" and whole:
        return replace(whole, extension=digits)
    if is_phone(digits) and len(digits) >= WHOLE:
        return replace(here, digits=digits)
    if len(digits) < LEAST_PIECE and current is None:
        return current
    if mode == "wrong" and whole and len(digits) >= LEAST_PIECE and whole.digits.endswith(digits):
        return current or whole
    if mode and whole and (mode != "head" or whole.whole) and len(whole.digits) > len(digits):
        return replace(here, digits=_put_right(whole.digits, digits, mode))
    if current is None or current.whole:
        if whole and digits in whole.digits:  # "尾号四四幺七" after the whole number
            return current
        return replace(here, digits=digits) if digits[0] in "01" or known is None else current
    if _fits(current.digits + digits):
        return replace(here, digits=current.digits + digits)
    # What no longer fits repeats the end, or is the number told from its beginning again.
    return replace(here, digits=digits) if digits[0] in "01" and not current.digits.endswith(digits) else current


def _fits(digits: str) -> bool:
    """Whether digits are a number or may still become one."""
    return is_phone(digits) or len(digits) < (11 if digits.startswith("1") else 12 if digits.startswith("0") else 8)


def _put_right(whole: str, digits: str, mode: str) -> str:
    """The number with its tail, head or middle exchanged; plain "不对" means the last digits told."""
    if mode == "head":
        return digits + whole[len(digits) :]
    if mode == "middle":
        return whole[:3] + digits + whole[3 + len(digits) :]
    return whole[: len(whole) - len(digits)] + digits if len(digits) < len(whole) else digits


def _echoed(known: Phone | None, pending: Phone | None, turn: Turn) -> tuple[Phone | None, Phone | None]:
    """An agent who repeats a number of which the recogniser lost a digit completes it: all that was told stands in it."""
    if pending is None or pending.whole:
        return known, pending
    for digits, _, _ in _runs(turn.text):
        if is_phone(digits) and 0 < len(digits) - len(pending.digits) <= MOST_LOST and _stands_in(pending.digits, digits):
            return replace(pending, digits=digits, confidence=ECHOED), None
    return known, pending


def _stands_in(short: str, long: str) -> bool:
    rest = iter(long)
    return all(digit in rest for digit in short)
