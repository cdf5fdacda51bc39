"""What is suspicious about training data before anything is trained: wrong labels in bulk, a class that vanished, copies. Pure.

Nothing here refuses: a person sees what was found and decides. A model trained on bad data is caught by the gate as well, but
only where the frozen test set of the same import is not bad too.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# From this confidence on the serving model is wrong only about as often as its confidence says.
CONFIDENT = 0.8
# Contradictions beyond what confidence explains, as a share of the confident readings; and the fewest rows that say anything.
TOO_MANY, LEAST_ROWS = 0.12, 50
# A class that the serving model finds so often and nobody labelled; or one that the last training had so often.
VANISHED = 20
COPIES, COPIES_SHARE = 20, 0.01


@dataclass(frozen=True)
class Reading:
    """A labelled row as the serving model reads it: first-level codes, and the confidence of the reading."""

    source: str
    label: str
    read: str
    confidence: float


@dataclass(frozen=True)
class Suspicion:
    """Something for a person to look at. `source`: the import it is about, where it is about one."""

    kind: str
    sentence: str
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def contradicted_sources(readings: Sequence[Reading], names: Mapping[str, str]) -> list[Suspicion]:
    """Imports whose labels the serving model contradicts much oftener than it is wrong itself. `names`: source → what people call it."""
    found = []
    for source in dict.fromkeys(reading.source for reading in readings):
        sure = [reading for reading in readings if reading.source == source and reading.confidence >= CONFIDENT]
        if len(sure) < LEAST_ROWS:
            continue
        against = sum(reading.label != reading.read for reading in sure) / len(sure)
        expected = sum(1 - reading.confidence for reading in sure) / len(sure)
        if against - expected > TOO_MANY:
            sentence = (
                f"“{names.get(source, source)}”：正在使用的模型很有把握的 {len(sure)} 条里，{against:.0%} 和标注不一致，"
                f"平时大约 {expected:.0%}。标注可能有成批的错误"
            )
            found.append(Suspicion("contradicted", sentence, source))
    return found


def vanished_classes(
    now: Mapping[str, int], before: Mapping[str, int], readings: Sequence[Reading], names: Mapping[str, str]
) -> list[Suspicion]:
    """First levels that the last training had and this one has not, or that the serving model finds though nobody labelled them."""
    found = []
    read = Counter(reading.read for reading in readings if reading.confidence >= CONFIDENT)
    for code in sorted({*before, *read}):
        if now.get(code):
            continue
        name = names.get(code, code)
        if before.get(code, 0) >= VANISHED:
            found.append(Suspicion("vanished", f"“{name}”上次训练有 {before[code]} 条标注，这次一条也没有"))
        elif read[code] >= VANISHED:
            sentence = f"“{name}”没有一条标注，但正在使用的模型在这些工单里认出了 {read[code]} 条。这一类可能被漏掉或并到了别的类"
            found.append(Suspicion("vanished", sentence))
    return found


def copied_texts(sizes: Sequence[int], total: int) -> list[Suspicion]:
    """`sizes`: how many rows say nearly the same, for each text that is said more than once."""
    large = [size for size in sizes if size >= max(COPIES, COPIES_SHARE * total)]
    if not large:
        return []
    more = f"，另有 {len(large) - 1} 句也大量重复" if len(large) > 1 else ""
    return [Suspicion("copies", f"有一句话几乎一字不差地出现了 {max(large)} 次{more}。重复太多会让模型偏向它")]
