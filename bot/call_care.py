"""What a call needs care for: cases a supervisor sees at once and not everybody may read, and callers who called before. Pure."""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bot.call import Call, Found
from bot.call_appeals import Appeal
from bot.catalogue import Matter

MINOR = "minor"
REPORTING = "举报"
_MASS = re.compile(r"堵(?:大?门|路|马路|工地)|拉横幅|集体(?:上访|去|到|找)|聚集|围堵|上访|静坐|罢工|罢课|闹事|去(?:省里|北京|市里)(?:告|找|上)|群殴|打群架")
_SUICIDE = re.compile(r"不想活|跳楼|跳河|跳江|轻生|自杀|寻短见|割腕|喝农药|(?:爬|上)(?:了|到)?(?:塔吊|楼顶|天台)|要跳|往下跳|死给|活不下去|死了算了")
_INSIDER = re.compile(r"(?:我|俺|咱)们?(?:上班|工作|干活)?的?(?:那个)?(?:厂|公司|单位|工厂|车间|项目|村|局|医院|学校)|我在里面|内部(?:人|员工)|我是(?:这个厂|里面|员工)")
_REPEAT = re.compile(
    r"(?:上次|上回|上个?(?:礼拜|星期|月|周)|前几天|之前|昨天|前天|以前|去年)[^，。]{0,8}(?:打过|反映过|反应过|报过|登记过|投诉过|给你们打|就打)|(?:都)?打了[^，。]{1,3}个?(?:电话|遍)|反映过|工单|给你们打过|打过(?:你们|12345|热线|一二三四五)|第[二三四五六]次(?:打|反映|投诉)"
)


def sensitive_cases(call: Call, appeal: Appeal, matter: Matter | None, secrecy: Found | None) -> Iterator[dict[str, Any]]:
    """Cases that a supervisor sees at once and that not everybody may read."""
    insider = _find(call, _INSIDER)
    reports = appeal.request_type == REPORTING or secrecy is not None and insider is not None
    found = {
        MINOR: words_of_matter(call, matter) if matter and matter.kind == MINOR else None,
        "suicide": _find(call, _SUICIDE) if appeal.reading["urgency"]["emergency"] else None,
        "whistleblowing": (insider or secrecy) if reports else None,
        "mass_incident": _find(call, _MASS),
    }
    for kind, words in found.items():
        if words:
            said = call.turns[words.turn].text[words.start : words.end]
            yield {"kind": kind, "turn": words.turn, "start": words.start, "end": words.end, "text": said}


def called_before(call: Call) -> Found | None:
    """The words that say so; the desk then looks for the earlier ticket."""
    return _find(call, _REPEAT)


def _find(call: Call, pattern: re.Pattern[str]) -> Found | None:
    return next((Found(m.group(), turn.number, *m.span(), 0.8) for turn in call.citizen if (m := pattern.search(turn.text))), None)


def words_of_matter(call: Call, matter: Matter) -> Found | None:
    """What of the call makes it a cross-cutting matter, as words of a turn."""
    match = matter.pattern.search(call.said.text)
    if match is None:
        return None
    start, end = call.said.span(*match.span())
    turn, first = call.locate(start)
    return Found(match.group(), turn, first, min(first + end - start, len(call.turns[turn].text)), 0.8)
