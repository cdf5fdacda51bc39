"""What is suspicious about training data before anything is trained: wrong labels in bulk, a class that vanished, copies. Pure.

Nothing here refuses: a person sees what was found and decides. A model trained on bad data is caught by the gate as well, but
only where the frozen test set of the same import is not bad too.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# From this confidence on the serving model is wrong only about as often as its confidence says.
CONFIDENT = 0.8
# Contradictions beyond what confidence explains, as a share of the confident readings; and the fewest rows that say anything.
TOO_MANY, LEAST_ROWS = 0.12, 50
# One class that was put under another is too small a share of the whole to be seen there: most of so many rows of it, and more of
# them than so many times what confidence explains in the whole.
LEAST_OF_CLASS, MOST_OF_CLASS, BEYOND = 15, 0.5, 2
TOLD_PAIRS = 3
# Of a class an import should have so many rows if it were like the others, and has less than this share of them. Where it lacks
# more than half of what the others are about it is a file about something else.
EXPECTED, LEFT, ELSEWHERE = 20, 0.1, 0.5
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


def contradicted_sources(
    readings: Sequence[Reading], names: Mapping[str, str], classes: Mapping[str, str] | None = None
) -> list[Suspicion]:
    """Imports whose labels the serving model contradicts much oftener than it is wrong itself, as a whole or in one class.

    `names`: source → what people call it; `classes`: first level → its name."""
    found = []
    for source in dict.fromkeys(reading.source for reading in readings):
        sure = [reading for reading in readings if reading.source == source and reading.confidence >= CONFIDENT]
        if len(sure) < LEAST_ROWS:
            continue
        said = _said_against(sure, classes or {})
        if said:
            found.append(Suspicion("contradicted", f"“{names.get(source, source)}”：{said}", source))
    return found


def _said_against(sure: Sequence[Reading], classes: Mapping[str, str]) -> str:
    """What the serving model has against the labels of one import; nothing where it has not much."""
    against = sum(reading.label != reading.read for reading in sure) / len(sure)
    expected = sum(1 - reading.confidence for reading in sure) / len(sure)
    if against - expected > TOO_MANY:
        told = f"正在使用的模型很有把握的 {len(sure)} 条里，{against:.0%} 和标注不一致，平时大约 {expected:.0%}"
        return f"{told}；{_pairs(sure, classes)}。标注可能有成批的错误"
    return "；".join(_said_of_classes(sure, BEYOND * expected * len(sure), classes))


def _said_of_classes(sure: Sequence[Reading], least: float, classes: Mapping[str, str]) -> Iterator[str]:
    for kind, verb, doubt in (("read", "读作", "这一类可能被并到了别的类"), ("label", "标成", "这一类里可能混进了别的类")):
        for code in sorted({getattr(reading, kind) for reading in sure}):
            own = [reading for reading in sure if getattr(reading, kind) == code]
            wrong = [reading for reading in own if reading.label != reading.read]
            if len(own) >= LEAST_OF_CLASS and len(wrong) > max(MOST_OF_CLASS * len(own), least):
                told = f"正在使用的模型很有把握、{verb}“{classes.get(code, code)}”的 {len(own)} 条里，{len(wrong)} 条和标注不一致"
                yield f"{told}；{_pairs(wrong, classes)}。{doubt}"


def _pairs(sure: Sequence[Reading], classes: Mapping[str, str]) -> str:
    """Which classes are exchanged oftenest."""
    pairs = Counter((reading.read, reading.label) for reading in sure if reading.read != reading.label).most_common(TOLD_PAIRS)
    told = (f"读作“{classes.get(read, read)}”、标成“{classes.get(label, label)}” {count} 条" for (read, label), count in pairs)
    return f"最多的是{'，'.join(told)}"


def emptied_classes(
    counts: Mapping[str, Mapping[str, int]], new: Iterable[str], names: Mapping[str, str], classes: Mapping[str, str]
) -> list[Suspicion]:
    """Imports that have next to nothing of a class that the others are full of. `counts`: import → first level → rows; `new`: the
    imports that nobody has seen a model of."""
    found = []
    for source in new:
        own, others = counts.get(source, {}), Counter[str]()
        for other, rows in counts.items():
            others.update(rows if other != source else {})
        share = sum(own.values()) / max(1, others.total())
        expected = {code: share * count for code, count in others.items() if share * count >= EXPECTED}
        lacking = [code for code in sorted(expected) if own.get(code, 0) < LEFT * expected[code]]
        if lacking and sum(expected[code] for code in lacking) <= ELSEWHERE * sum(own.values()):
            told = "，".join(_lack(classes.get(code, code), own.get(code, 0), others[code], expected[code]) for code in lacking)
            sentence = f"“{names.get(source, source)}”共 {sum(own.values())} 条，其中{told}。这一类可能被漏掉或并到了别的类"
            found.append(Suspicion("emptied", sentence, source))
    return found


def _lack(name: str, has: int, others: int, expected: float) -> str:
    return f"“{name}”{has} 条（别的导入里有 {others} 条，照那个比例应有约 {expected:.0f} 条）"


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


def copied_texts(sizes: Sequence[int], total: int, *, of_largest: str = "") -> list[Suspicion]:
    """`sizes`: how many rows say nearly the same, for each text that is said more than once; `of_largest`: whose and what they are."""
    large = [size for size in sizes if size >= max(COPIES, COPIES_SHARE * total)]
    if not large:
        return []
    more = f"，另有 {len(large) - 1} 句也大量重复" if len(large) > 1 else ""
    about = f"（{of_largest}）" if of_largest else ""
    return [Suspicion("copies", f"有一句话几乎一字不差地出现了 {max(large)} 次{about}{more}。重复太多会让模型偏向它")]


@dataclass
class Repeat:
    """A text that a file says again and again, word for word; `row`: where it stands first, `labels`: first level → times."""

    row: int
    text: str
    count: int
    labels: Counter[str]


@dataclass
class Repeats:
    """Counts repeats row by row; of what is said once it keeps two numbers, so that 100,000 rows fit in."""

    _once: dict[int, tuple[int, str]] = field(default_factory=dict)
    _again: dict[int, Repeat] = field(default_factory=dict)

    def add(self, row: int, text: str, label: str) -> None:
        key = hash(text)
        if key not in self._once:
            self._once[key] = row, label
            return
        first_row, first_label = self._once[key]
        repeat = self._again.setdefault(key, Repeat(first_row, text, 1, Counter({first_label: 1})))
        repeat.count += 1
        repeat.labels[label] += 1

    def large(self) -> list[Repeat]:
        """The most repeated first."""
        return sorted((one for one in self._again.values() if one.count >= COPIES), key=lambda one: -one.count)
