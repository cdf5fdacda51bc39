"""What a model is trained on: the project's texts and the city's annotations, without what is frozen; written down once, with one hash.

The directory holds everything training reads: config.yml, domain.yml, nlu_data/ and annotations.jsonl (masked texts). It is
removed after training; the same rows of the append-only table and the same software give the same one again.
"""
from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bot import db
from bot.annotations import IMPORT, effective_annotations, text_digest
from bot.catalogue import REQUEST_TYPES, URGENCIES, Catalogue
from bot.city_rules import RulesFollower, current_content, lay_over
from bot.frozen import list_frozen
from bot.leaks import Frozen
from bot.services import Services
from bot.settings import PROJECT_ROOT

CONFIGURATION, TEXTS, EVALUATION, ANNOTATIONS = ("config.yml", "domain.yml"), "nlu_data", "evaluation", "annotations.jsonl"
# A city that imports more still trains within minutes and 4 GiB: the newest of each class, small classes whole.
MOST_TEXTS = 20_000
# Rows of an import stand for what the city gets; what people picked because a model was unsure or wrong does not.
SAMPLED, PICKED = "sampled", "picked"
_HASH_FORMAT = b"1"


@dataclass(frozen=True)
class Annotation:
    """A labelled text."""

    text: str
    digest: str
    labels: Mapping[str, Any]
    source: str
    weight: float
    at: str

    @property
    def origin(self) -> str:
        return SAMPLED if self.source.startswith(IMPORT) else PICKED

    @property
    def first_level(self) -> str:
        return str(self.labels.get("category", ""))[:2]

    def as_line(self) -> str:
        data = {"text": self.text, "origin": self.origin, "weight": self.weight, **self.labels}
        return json.dumps(data, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True)
class Dataset:
    """`counts`: annotated, frozen, repeats, unusable, beyond (too many), used."""

    annotations: tuple[Annotation, ...]
    counts: Mapping[str, int]
    city: str = ""
    rules: Mapping[str, Any] = field(default_factory=dict)  # the city's own words, places and categories (bot.city_rules)
    rules_version: int = 0

    @property
    def by_class(self) -> dict[str, int]:
        return dict(sorted(Counter(row.first_level for row in self.annotations if row.first_level).items()))


def build_dataset(services: Services) -> Dataset:
    """What a model would be trained on now."""
    RulesFollower(services).follow()  # categories that the city has added are labels too
    annotations = read_annotations(services)
    usable = [row for row in annotations if row.labels]
    frozen = list_frozen(services)
    digests = {text_digest(services.vault, item.text) for item in frozen}
    open_rows = [row for row in usable if row.digest not in digests]
    kept = newest_of_each_class(open_rows, MOST_TEXTS)
    gate = Frozen.of([item.text for item in frozen])
    used = tuple(row for row in kept if not gate.is_repeated_by(row.text))
    counts = {
        "annotated": len(annotations),
        "unusable": len(annotations) - len(usable),
        "frozen": len(usable) - len(open_rows),
        "beyond": len(open_rows) - len(kept),
        "repeats": len(kept) - len(used),
        "used": len(used),
    }
    version, rules = current_content(services)
    return Dataset(used, counts, services.settings.city, rules if version else {}, version)


def read_annotations(services: Services) -> list[Annotation]:
    """Every annotated text with the one label set that it has (bot.annotations), as far as a reader can learn from it."""
    with db.reading(services.engine) as connection:
        rows = effective_annotations(connection)
    known = services.catalogue, domain_intents()
    texts = [str(services.vault.open(row.text)) for row in rows]
    return [
        Annotation(text, row.digest, usable_labels(row.labels, text, *known), row.source, row.weight, row.at)
        for text, row in zip(texts, rows, strict=True)
    ]


def domain_intents() -> frozenset[str]:
    domain = yaml.safe_load((PROJECT_ROOT / "domain.yml").read_text(encoding="utf-8"))
    return frozenset(domain["intents"])


def usable_labels(labels: Mapping[str, Any], text: str, catalogue: Catalogue, intents: frozenset[str]) -> dict[str, Any]:
    """The labels a reader can learn from: a class that the catalogue has lost, or a place beyond the text, teaches nothing."""
    kept: dict[str, Any] = {}
    category = str(labels.get("category") or "")
    if category and any(code.startswith(category) for code in catalogue.categories) and len(category) % 2 == 0:
        kept["category"] = category
    if labels.get("request_type") in REQUEST_TYPES:
        kept["request_type"] = labels["request_type"]
    if labels.get("urgency") in URGENCIES:
        kept["urgency"] = labels["urgency"]
    if labels.get("intent") in intents:
        kept["intent"] = labels["intent"]
    places = labels.get("places")
    if isinstance(places, list) and all(_is_span(span, len(text)) for span in places):
        kept["places"] = sorted(places)
    return kept


def _is_span(span: Any, length: int) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(isinstance(end, int) for end in span) and 0 <= span[0] < span[1] <= length


def newest_of_each_class(rows: Sequence[Annotation], most: int) -> list[Annotation]:
    """At most `most` rows: small classes whole, large ones cut to one size, the newest kept. The order stays."""
    if len(rows) <= most:
        return list(rows)
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(rows)), key=lambda number: (rows[number].at, number), reverse=True):
        groups[rows[number].first_level].append(number)
    left, kept = most, set[int]()
    for done, members in enumerate(sorted(groups.values(), key=len)):
        size = left // (len(groups) - done)
        kept |= set(members[:size])
        left -= min(size, len(members))
    return [row for number, row in enumerate(rows) if number in kept]


# -- on disk --------------------------------------------------------------------------------------------------------------


def dataset_hash(dataset: Dataset, *, root: Path = PROJECT_ROOT) -> str:
    """Of everything that makes a model: texts, labels, configuration, the city's knowledge, and the readers' own code."""
    digest = hashlib.sha256(_HASH_FORMAT)
    for path in _sources(root):
        digest.update(f"\n{path.relative_to(root if path.is_relative_to(root) else PROJECT_ROOT)}\n".encode())
        digest.update(path.read_bytes())
    digest.update(f"\n{dataset.city}\n{json.dumps(dataset.rules, ensure_ascii=False, sort_keys=True)}\n".encode())
    digest.update("\n".join(row.as_line() for row in dataset.annotations).encode())
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    yield from (root / name for name in CONFIGURATION)
    yield from sorted(path for path in (root / TEXTS).rglob("*") if path.is_file() and EVALUATION not in path.parts)
    yield from sorted((PROJECT_ROOT / "bot" / "nlu").glob("*.py"))
    yield PROJECT_ROOT / "bot" / "text.py"


def write_dataset(dataset: Dataset, directory: Path, *, root: Path = PROJECT_ROOT) -> Path:
    """`directory` as the importer reads it; what was there before is replaced."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name in CONFIGURATION:
        shutil.copyfile(root / name, directory / name)
    shutil.copytree(root / TEXTS, directory / TEXTS, ignore=shutil.ignore_patterns(EVALUATION))
    if dataset.rules:
        lay_over(dataset.rules, directory / TEXTS, dataset.city)
    lines = "".join(f"{row.as_line()}\n" for row in dataset.annotations)
    (directory / ANNOTATIONS).write_text(lines, encoding="utf-8")
    return directory


def without(dataset: Dataset, sources: Iterable[str]) -> Dataset:
    """The same without the rows of these sources."""
    left_out = set(sources)
    used = tuple(row for row in dataset.annotations if row.source not in left_out)
    return replace(dataset, annotations=used, counts={**dataset.counts, "used": len(used)})
