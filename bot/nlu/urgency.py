"""Urgency and emergency: words of danger judged clause by clause, beside the trained reader.

The words (bot/nlu/dangers.py) are for the cases a trained reader must not miss and for saying which number to ring; the reader
is for emergencies that no word names. A message is as urgent as its most urgent sentence. Levels after the public rule of
several hotlines: 特急 life or public safety now, 紧急 harm or loss soon, 一般 the rest.
"""
from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.nlu.dangers import DANGERS, LOOK_ALIKES, NEEDS, PLAIN_NEEDS, SCOPES, compile_patterns
from bot.text import fold

ROUTINE, URGENT, CRITICAL = "一般", "紧急", "特急"

_DANGERS = {kind: compile_patterns(patterns) for kind, patterns in DANGERS.items()}
_NEEDS = {kind: compile_patterns(patterns) for kind, patterns in NEEDS.items()}
_PLAIN_NEEDS = {kind: compile_patterns(patterns) for kind, patterns in PLAIN_NEEDS.items()}
_SCOPES = {scope: compile_patterns(patterns) for scope, patterns in SCOPES.items()}
_LOOK_ALIKES = compile_patterns(LOOK_ALIKES)

# What nearly happened is no danger any more, but it shows a hazard.
DANGER_QUIET, NEED_QUIET = ("told", "over", "near"), ("told", "over")
NEVER = 1.1
# How sure the reader must be where what sounds like danger is a saying or a name.
SAID_ONLY = 0.9
# "都摆好了" in somebody's goodbye does not mean that it is over.
_QUIETING = {"suicide": ("told",)}
# A lift that keeps trapping people ("三天两头把人关在里头") traps nobody right now; what stands behind the word tells of something else.
_HABITUAL = ("trapped",)
# A clause taken out of what was told needs a sure reader.
CLAUSE = 0.6

_SENTENCE = re.compile(r"[^。！？!?；;\n]{1,120}[。！？!?；;\n]*")
_CLAUSE_END = re.compile(r"[，。！？；!?;\n、, ]")
# How far before a word of danger "没", "如果" or "去年" still speaks of it, in characters.
DENIAL_REACH, SUPPOSITION_REACH, CLAUSE_REACH = 6, 14, 30

# Up to this many characters a message is judged as one; a longer one sentence by sentence, at most so many of them.
WHOLE_LENGTH, MOST_SENTENCES = 150, 6
# A letter names its matter in its first words, before it tells the story.
OPENING = 60
# What is plainly a need takes no more than this.
PLAINLY = 0.05
# Without a word of danger or need fewer characters than this tell nothing ("在家", "三楼"), whatever a reader makes of them.
LEAST_TOLD = 8
# A cry this short with one of these needs no reader's opinion.
SHORT_CRY = 24
_PLAIN_CRY = re.compile(r"落水|持刀|着火了|起火了|失火|救命|晕倒|昏迷|触电|溺水|跳楼|跳江|跳河|砍人|捅人|泄漏|漏气|煤气中毒|没呼吸|不想活")


@dataclass(frozen=True)
class Thresholds:
    """Least probability of a level with a word for it, without one, and where the sentence asks, thanks or looks back."""

    critical: tuple[float, float, float]
    urgent: tuple[float, float]


# Chosen on held-out folds of our own texts: no emergency missed at the price of few false alarms.
SHORT = Thresholds((0.05, 0.6, 0.6), (0.1, 0.45))
# Who writes more than a cry has time to name the danger.
CRY_LENGTH = 70
REPORT = Thresholds((0.05, 0.6, 0.7), (0.15, 0.6))
# A letter tells of much that is over, and one sentence out of it is one of many: both need more.
LETTER = Thresholds((0.25, 0.7, 0.9), (0.35, 0.6))
SENTENCE = Thresholds((0.6, 1.1, 1.1), (0.6, 1.1))
Read = Callable[[str], Mapping[str, float]]


@dataclass(frozen=True)
class Sign:
    """A word of danger or need in a folded text. `quiet`: its sentence asks, thanks, teaches or tells of what is over."""

    kind: str
    start: int
    end: int
    quiet: bool


@dataclass(frozen=True)
class Urgency:
    """`reasons` are (start, end, text) of the words that say so."""

    level: str
    confidence: float
    emergency: bool
    kind: str | None
    reasons: tuple[tuple[int, int, str], ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "confidence": round(self.confidence, 4),
            "emergency": self.emergency,
            "kind": self.kind,
            "reasons": [text for _, _, text in self.reasons],
            "spans": [[start, end] for start, end, _ in self.reasons],
        }


def judge_urgency(text: str, probabilities: Mapping[str, float], read: Read | None = None) -> Urgency:
    """Level, emergency and the words that say so. `probabilities` by level come from the trained reader for the whole text,
    `read` gives them for one sentence; without it a long letter is judged as a whole only."""
    folded = fold(text)
    dangers, needs = _find(folded, _DANGERS, DANGER_QUIET), _find(folded, _NEEDS, NEED_QUIET)
    short = len(text) <= WHOLE_LENGTH
    whole = _judge(text, folded, dangers, needs, probabilities, SHORT if len(text) <= CRY_LENGTH else REPORT if short else LETTER)
    if whole.level == ROUTINE:
        whole = _judge_plain(text, folded, probabilities, short) or whole
    if whole.level != CRITICAL and read is not None and short:
        whole = _judge_clauses(text, folded, dangers, read) or whole
    if short or whole.level == CRITICAL or read is None:
        return whole
    return max((whole, *_judge_sentences(text, folded, dangers, needs, read)), key=_rank)


def _judge_plain(text: str, folded: str, probabilities: Mapping[str, float], short: bool) -> Urgency | None:
    plain = [sign for sign in _find(folded, _PLAIN_NEEDS, NEED_QUIET) if not sign.quiet and (short or sign.start < OPENING)]
    if plain and (not short or 1.0 - probabilities.get(ROUTINE, 0.0) >= PLAINLY):
        return Urgency(URGENT, 0.5, False, None, _spans(text, plain))
    return None


def _judge_clauses(text: str, folded: str, dangers: Sequence[Sign], read: Read) -> Urgency | None:
    """A clause with a word of danger, read by itself: a cry at the end of a complaint must not drown in it."""
    for sign in dangers:
        if sign.quiet:
            continue
        begin = max((match.end() for match in _CLAUSE_END.finditer(folded, 0, sign.start)), default=0)
        border = _CLAUSE_END.search(folded, sign.end)
        end = border.start() if border else len(folded)
        critical = read(text[begin:end]).get(CRITICAL, 0.0) if end - begin < len(folded) else 0.0
        if critical >= CLAUSE:
            return Urgency(CRITICAL, critical, True, sign.kind, _spans(text, [sign]))
    return None


def _rank(urgency: Urgency) -> tuple[int, float]:
    return (ROUTINE, URGENT, CRITICAL).index(urgency.level), urgency.confidence


def _judge_sentences(text: str, folded: str, dangers: Sequence[Sign], needs: Sequence[Sign], read: Read) -> list[Urgency]:
    """The sentences with most to say, each judged by itself."""
    told = []
    for match in _SENTENCE.finditer(folded):
        start, end = match.span()
        own = [sign for sign in dangers if start <= sign.start < end], [sign for sign in needs if start <= sign.start < end]
        if any(own):
            told.append((len(own[0]) * 2 + len(own[1]), start, end, own))
    told.sort(key=lambda item: -item[0])
    return [
        _judge(text, folded[start:end], *own, read(text[start:end]), SENTENCE) for _, start, end, own in told[:MOST_SENTENCES]
    ]


def _judge(
    text: str, folded: str, dangers: Sequence[Sign], needs: Sequence[Sign], probabilities: Mapping[str, float], least: Thresholds
) -> Urgency:
    if len(folded) < LEAST_TOLD and not dangers and not needs:
        return Urgency(ROUTINE, max(probabilities.get(ROUTINE, 0.0), 0.5), False, None, ())
    critical = probabilities.get(CRITICAL, 0.0)
    urgent = probabilities.get(URGENT, 0.0) + critical
    if critical >= _critical_threshold(folded, dangers, needs, least, critical):
        kinds = Counter(sign.kind for sign in dangers)
        kind = kinds.most_common(1)[0][0] if kinds else "unknown"
        return Urgency(CRITICAL, max(critical, 0.5), True, kind, _spans(text, dangers))
    if urgent >= least.urgent[0 if any(not sign.quiet for sign in (*dangers, *needs)) else 1]:
        return Urgency(URGENT, max(urgent, 0.5), False, None, _spans(text, needs or dangers))
    return Urgency(ROUTINE, max(1.0 - urgent, 0.5), False, None, ())


def _critical_threshold(folded: str, dangers: Sequence[Sign], needs: Sequence[Sign], least: Thresholds, critical: float) -> float:
    with_word, without, quiet = least.critical
    loud = [sign for sign in dangers if not sign.quiet]
    if len(folded) <= SHORT_CRY and any(_PLAIN_CRY.search(folded, sign.start, sign.end + 2) for sign in loud):
        return 0.0
    if loud:
        return with_word
    if not dangers and _SCOPES["near"].search(folded):
        return NEVER
    if dangers or needs or _is_quiet(folded, DANGER_QUIET):
        return quiet
    # The reader knows the words of a saying or a name from real danger. Looked for only where it decides: most messages are calm.
    if critical >= without and _LOOK_ALIKES.search(folded):
        return max(without, SAID_ONLY)
    return without


def _spans(text: str, signs: Sequence[Sign]) -> tuple[tuple[int, int, str], ...]:
    return tuple((sign.start, sign.end, text[sign.start : sign.end]) for sign in signs)


def find_dangers(folded: str) -> list[tuple[str, int, int]]:
    """(kind, start, end) of words of danger in a folded text that are neither denied, past, supposed nor look-alikes."""
    return [(sign.kind, sign.start, sign.end) for sign in _find(folded, _DANGERS, DANGER_QUIET)]


def _find(folded: str, patterns: Mapping[str, re.Pattern[str]], quieting: Sequence[str]) -> list[Sign]:
    """In order of the text; `quieting` are the scopes that make a sign quiet."""
    found = [(match.start(), match.end(), kind) for kind, pattern in patterns.items() for match in pattern.finditer(folded)]
    if not found:
        return []
    shadows = [match.span() for match in _LOOK_ALIKES.finditer(folded)]
    borders = [0, *(match.end() for match in _CLAUSE_END.finditer(folded))]
    sentences = [match.span() for match in _SENTENCE.finditer(folded)]
    starts = [start for start, _ in sentences]
    signs = []
    for start, end, kind in sorted(found):
        if _in_shadow(shadows, start, end):
            continue
        begin = borders[bisect_right(borders, start) - 1]
        if not _is_set_aside(folded, begin, start, end):
            first, last = sentences[bisect_right(starts, start) - 1] if sentences else (0, len(folded))
            quiet = _is_quiet(folded[first:last], _QUIETING.get(kind, quieting))
            habit = kind in _HABITUAL and bool(_SCOPES["habit"].search(folded, begin, end))
            signs.append(Sign(kind, start, end, quiet or habit))
    return signs


def _in_shadow(shadows: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    """Shadows are in order and do not overlap: only the last that starts before `end` can touch."""
    last = bisect_right(shadows, (end - 1, len(shadows) + end)) - 1
    return last >= 0 and shadows[last][1] > start


def _is_set_aside(folded: str, begin: int, start: int, end: int) -> bool:
    """Whether the clause that begins at `begin` denies, supposes or dates back what stands at start…end."""
    if _SCOPES["denied"].search(folded, max(begin, start - DENIAL_REACH), start):
        return True
    if _SCOPES["hypothetical"].search(folded, max(begin, start - SUPPOSITION_REACH), start):
        return True
    border = _CLAUSE_END.search(folded, end, end + CLAUSE_REACH)
    return bool(_SCOPES["past"].search(folded, max(begin, start - CLAUSE_REACH), border.start() if border else end + CLAUSE_REACH))


def _is_quiet(sentence: str, quieting: Sequence[str]) -> bool:
    return any(_SCOPES[scope].search(sentence) for scope in quieting)
