"""Measures on tagged addresses: what an address reader trained on them finds, and what the shipped rules find untrained.

Files are jsonl with `text` and BIO `tags`, one for each token as published with "Neural Chinese Address Parsing" (NAACL 2019):
a token is a character or a run of digits or letters, now and then a run with its hyphen (34-2) or a part of a run.
"""
from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jieba
import numpy as np

from bot.gazetteer import Gazetteer
from bot.nlu.address import AddressReader, Tagged, entities_of, tokens_of
from bot.tables import open_table
from bot.text import fold

MAX_READINGS, MAX_GAP = 200, 8
# Their parts → ours. `subpoi` may stand behind its poi, `roadno` belongs to its road.
PART_OF_TAG = {
    "prov": "province", "city": "city", "district": "district", "town": "street", "community": "community", "road": "road", "poi": "poi",
}  # fmt: skip
IN_BUILDING = frozenset(("houseno", "cellno", "floorno", "roomno"))
PARTS = (*PART_OF_TAG.values(), "building")
_JOINABLE = re.compile(r"[0-9A-Za-z]*-+[0-9A-Za-z]*")
_ENDING = re.compile(r"(?:维吾尔自治区|壮族自治区|回族自治区|自治区|省|市|区|县|街道|镇|乡)$")


def benchmark_address(train: Sequence[Path], test: Path, gazetteer: Gazetteer) -> dict[str, Any]:
    """Fit the address reader on `train` and score it on `test`; `shipped_parts` scores Gazetteer.resolve on the same test rows.

    An entity is right when its part, start and end are. Rows whose tags fit no way to cut the text are left out and counted.
    Times are per address. Raises ValueError when a file cannot be used.
    """
    jieba.initialize()
    started = time.perf_counter()
    examples, unread = _align(row for path in train for row in _read(path))
    reader = AddressReader.fit(examples, gazetteer.division_names())
    train_seconds = time.perf_counter() - started
    rows, unread_test = _align(_read(test))
    predicted, seconds = _timed(reader.tags, [tokens for tokens, _ in rows])
    places, resolve_seconds = _timed(gazetteer.resolve, ["".join(tokens) for tokens, _ in rows])
    gold = [tags for _, tags in rows]
    return {
        **_entity_scores(gold, predicted),
        "token_f1": _f1(*_token_counts(gold, predicted)),
        "train_seconds": round(train_seconds, 1),
        "predict_ms_p50": round(float(np.percentile(seconds, 50)) * 1000, 3),
        "rows": len(rows),
        "rows_left_out": unread_test,
        "train_rows": len(examples),
        "train_rows_left_out": unread,
        "shipped_parts": {
            **_part_scores(rows, [place.as_dict() for place in places]),
            "resolve_ms_p50": round(float(np.percentile(resolve_seconds, 50)) * 1000, 3),
        },
    }


def _timed(work: Callable[[Any], Any], items: Iterable[Any]) -> tuple[list[Any], list[float]]:
    results, seconds = [], []
    for item in items:
        started = time.perf_counter()
        results.append(work(item))
        seconds.append(time.perf_counter() - started)
    return results, seconds


# -- reading --------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Iterator[tuple[str, list[str]]]:
    found = False
    for number, row in open_table(path).open_rows():
        text, tags = row.get("text"), row.get("tags")
        if not isinstance(text, str) or not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise ValueError(f"{path.name} line {number} needs a text and a list of tags")
        found = True
        yield text, tags
    if not found:
        raise ValueError(f"{path.name} has no rows")


def _align(rows: Iterable[tuple[str, list[str]]]) -> tuple[list[Tagged], int]:
    """Rows as (tokens, tags), in order, and how many could not be cut into as many tokens as they have tags.

    Of several ways to cut a row the one that gives most tokens a tag they have in rows without doubt.
    """
    given = [(tokens_of(text), tags) for text, tags in rows]
    usual: dict[str, set[str]] = defaultdict(set)
    for tokens, tags in given:
        if len(tokens) == len(tags):
            for token, tag in zip(tokens, tags, strict=True):
                usual[_class_of(token)].add(tag)
    aligned: list[Tagged] = []
    for tokens, tags in given:
        ways = cut_to(tokens, len(tags))
        if ways:
            fits = [sum(tag in usual[_class_of(token)] for token, tag in zip(way, tags, strict=True)) for way in ways]
            aligned.append((ways[fits.index(max(fits))], tags))
    return aligned, len(given) - len(aligned)


def _class_of(token: str) -> str:
    return "0" if token[0].isdigit() else token


def cut_to(tokens: Sequence[str], size: int) -> list[list[str]]:
    """Ways to have `size` tokens: joining at hyphens where there are too many, splitting runs of digits where too few."""
    if abs(len(tokens) - size) > MAX_GAP:
        return []
    ways, reached = {tuple(tokens)}, list[list[str]]()
    while ways and not reached:
        reached = [list(way) for way in sorted(ways) if len(way) == size]
        ways = {other for way in ways for other in _changed(way, size)}
        if len(ways) > MAX_READINGS:
            ways = set(sorted(ways)[:MAX_READINGS])
    return reached


def _changed(way: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    for i, token in enumerate(way):
        if len(way) < size and token.isdigit():
            yield from ((*way[:i], token[:cut], token[cut:], *way[i + 1 :]) for cut in range(1, len(token)))
        for count in (3, 2):
            joined = "".join(way[i : i + count])
            if len(way) - count + 1 >= size and i + count <= len(way) and "-" in joined and _JOINABLE.fullmatch(joined):
                yield (*way[:i], joined, *way[i + count :])


# -- scores ---------------------------------------------------------------------------------------------------------------


def _entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for wanted, found in zip(map(entities_of, gold), map(entities_of, predicted), strict=True):
        for column, entities in enumerate((set(wanted) & set(found), found, wanted)):
            for kind, _, _ in entities:
                counts[kind][column] += 1
    hits, found_count, wanted_count = map(sum, zip(*counts.values(), strict=True))
    per_tag = {kind: {"f1": _f1(*count), "support": count[2]} for kind, count in sorted(counts.items(), key=lambda item: -item[1][2])}
    return {
        "entity_f1": _f1(hits, found_count, wanted_count),
        "precision": _share(hits, found_count),
        "recall": _share(hits, wanted_count),
        "per_tag": per_tag,
    }


def _token_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> tuple[int, int, int]:
    pairs = [pair for wanted, found in zip(gold, predicted, strict=True) for pair in zip(wanted, found, strict=True)]
    hits = sum(wanted == found != "O" for wanted, found in pairs)
    return hits, sum(found != "O" for _, found in pairs), sum(wanted != "O" for wanted, _ in pairs)


def _part_scores(rows: Sequence[Tagged], places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One value of each part a row at most; right when it is any of those tagged. Divisions may differ in their ending (富阳市, 富阳区)."""
    counts = {part: [0, 0, 0] for part in PARTS}
    for (tokens, tags), place in zip(rows, places, strict=True):
        wanted = parts_of_tags(tokens, tags)
        for part, count in counts.items():
            value, right = place[part], wanted.get(part, set())
            count[0] += bool(value) and _plain(part, value) in {_plain(part, other) for other in right}
            count[1] += bool(value)
            count[2] += bool(right)
    hits, found, wanted_count = map(sum, zip(*counts.values(), strict=True))
    return {
        "f1": _f1(hits, found, wanted_count),
        "precision": _share(hits, found),
        "recall": _share(hits, wanted_count),
        "per_part": {part: {"f1": _f1(*count), "support": count[2]} for part, count in counts.items()},
    }


def parts_of_tags(tokens: Sequence[str], tags: Sequence[str]) -> dict[str, set[str]]:
    parts: dict[str, set[str]] = defaultdict(set)
    entities = entities_of(tags)
    for (kind, start, end), (after, _, further) in zip(entities, [*entities[1:], ("", 0, 0)], strict=True):
        if kind not in PART_OF_TAG:
            continue
        longer = "".join(tokens[start:further]) if (kind, after) in (("road", "roadno"), ("poi", "subpoi")) else ""
        name = "".join(tokens[start:end])
        parts[PART_OF_TAG[kind]] |= {longer or name} if kind == "road" else {name, longer or name}
    units = [entity for entity in entities if entity[0] in IN_BUILDING]
    if units:
        parts["building"].add("".join(tokens[units[0][1] : units[-1][2]]))
    return parts


def _plain(part: str, value: str) -> str:
    """As it compares: without the ending of a division, without blanks and hyphens, without 号 (12, 12号)."""
    value = fold(value)
    if part in ("province", "city", "district", "street"):
        return _ENDING.sub("", value) if len(value) > 2 else value
    return re.sub(r"[\s\-_,，号]", "", value)


def _f1(hits: int, found: int, wanted: int) -> float:
    return round(2 * hits / (found + wanted), 4) if found + wanted else 1.0


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
