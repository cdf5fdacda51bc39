"""How urgent a call is: read as a whole, turn by turn where somebody names a danger, and once more as the core of its story.

A call is long and tells much by the way; the cry in it is short. The readers judge a short message as a cry and a long one as a
letter, so the turns that cry are given to them by themselves. Pure but for the reading it is handed.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bot.call import AGENT, Call
from bot.catalogue import URGENCIES
from bot.nlu.urgency import find_dangers
from bot.story import Story
from bot.text import fold

Urgency = dict[str, Any]
# The readers' urgency of a text by itself.
Read = Callable[[str], Mapping[str, Any]]
MOST_WINDOWS, CORE_LENGTH, CORE_PIECES = 3, 148, 10
_CALLS_HELP = re.compile(
    r"(?:赶紧|马上|立即|立刻|现在就|快|先|帮您|给您|我)[^，。吗]{0,6}(?:打|拨|转接?|联系|叫)[^，。吗]{0,4}(?:110|119|120|122|幺幺[零九]|幺[二两]零|一一[零九]|一[二两]零|救护车|消防|急救)|请(?:大家)?(?:马上)?(?:远离|撤离|离开)"
)
# What was bad last night and is well now is no need any more.
_ALL_WELL = re.compile(r"(?:现在|已经|都|后来|早就?)(?:没事|好|缓过来|恢复|不碍事|退烧)了|没事了|没啥事|不碍事|不要紧|没伤着|没受伤")
_FRAUD_LINE = re.compile(r"96110|九六幺幺零|反诈")


def read_urgency(call: Call, story: Story, whole: Mapping[str, Any], read: Read) -> Urgency:
    """The highest level found, with its words as spans of `call.said.text`. `whole`: the urgency read from all of it."""
    found = [dict(whole), *_windows(call, read)]
    if not any(urgency["emergency"] for urgency in found) and not _ALL_WELL.search(call.text):
        found.append(_core(call, story, read))
    highest = max(found, key=lambda urgency: (URGENCIES.index(urgency["level"]), urgency["confidence"]))
    if not highest["emergency"] and highest["level"] != URGENCIES[0] and _agent_calls_help(call):
        return {**highest, "level": URGENCIES[-1], "emergency": True, "kind": highest["kind"] or "unknown"}
    return highest


def _windows(call: Call, read: Read) -> Iterator[Urgency]:
    """Turns that name a danger, each as a message of its own; none after the first emergency."""
    told = 0
    for start, end in call.said.turns:
        text = call.said.text[start:end]
        if told == MOST_WINDOWS or not find_dangers(fold(text)):
            continue
        told += 1
        urgency = dict(read(text))
        yield {**urgency, "spans": [[first + start, last + start] for first, last in urgency.get("spans", ())]}
        if urgency["emergency"]:
            return


def _core(call: Call, story: Story, read: Read) -> Urgency:
    """The weightiest pieces in the order they were told, as short as a message."""
    text = story.core(CORE_PIECES, CORE_LENGTH)
    urgency = dict(read(text)) if text else {"level": URGENCIES[0], "confidence": 0.5, "emergency": False, "kind": None, "reasons": []}
    places = [(call.said.text.find(reason), reason) for reason in urgency["reasons"]]
    return {**urgency, "spans": [[at, at + len(reason)] for at, reason in places if at >= 0]}


def _agent_calls_help(call: Call) -> bool:
    """An agent who sends for rescuers has heard an emergency, whatever the recogniser made of it."""
    return any(turn.speaker == AGENT and _CALLS_HELP.search(turn.text) and not _FRAUD_LINE.search(turn.text) for turn in call.turns)
