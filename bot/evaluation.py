"""Measures: the serving model on labelled messages, and the category reader on given training and test files.

Changes nothing. Reports carry ids, labels and offsets, never the text of a message.
"""
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jieba
import numpy as np
from sklearn.metrics import f1_score, precision_recall_fscore_support

from bot.assistant import Assistant
from bot.batch import open_table
from bot.nlu.features import MAX_CHARACTERS, Vectorizer, tokens_from_words, tokens_of, words_of
from bot.nlu.linear import LinearReader
from bot.parse import build_parse
from bot.services import Services
from bot.text import fold

MAX_MISTAKES = 30
ECE_BINS = 10
# A stop word of the tokenised texts: in at least this share (and number) of raw texts, and ten times rarer among the words.
MIN_STOP_SHARE, MIN_STOP_TEXTS, STOP_RATIO = 0.002, 5, 0.1
Span = tuple[int, int]


# -- evaluate -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """One gold row beside what the model read."""

    id: str
    gold: Mapping[str, Any]
    text: str
    parse: Mapping[str, Any]
    confidence: float  # of the first-level category

    def labels(self, task: str) -> list[Any]:
        """Every label given by anybody; each of them is right. Empty: this row has none for the task."""
        value = self.gold.get(task, [])
        return value if isinstance(value, list) else [value]


def evaluate_file(gold: Path, assistant: Assistant, services: Services) -> dict[str, Any]:
    """Scores between 0 and 1, flat (None where the file has no labels for it), and `mistakes`: the first 30 of each task.

    Macro-F1 is the mean over every label that was given or predicted. Raises ValueError when the file cannot be used.
    """
    rows: list[Judged] = []
    started = time.perf_counter()
    for number, row in open_table(gold).open_rows():
        if not isinstance(row.get("text"), str) or not row["text"].strip():
            raise ValueError(f"{gold.name} line {number} has no text")
        rows.append(_judge(str(row.get("id", number)), row, assistant, services))
    if not rows:
        raise ValueError(f"{gold.name} has no rows")
    seconds = time.perf_counter() - started
    report: dict[str, Any] = {"rows": len(rows), "model": assistant.serving_model(), "seconds_per_row": round(seconds / len(rows), 5)}
    mistakes: dict[str, list[dict[str, Any]]] = {}
    for task, predict in _LABEL_TASKS.items():
        report.update(_score_labels(rows, task, predict, mistakes))
    report["category_ece"] = _category_ece(rows)
    report.update(_score_emergencies(rows))
    report.update(_score_places(rows, mistakes))
    report["mistakes"] = {task: found[:MAX_MISTAKES] for task, found in mistakes.items()}
    return report


def _judge(name: str, gold: Mapping[str, Any], assistant: Assistant, services: Services) -> Judged:
    data = assistant.parse(gold["text"])
    parse = build_parse(gold["text"], data, assistant.serving_model(), services.catalogue, services.gazetteer)
    return Judged(name, gold, gold["text"], parse, float(data["reading"]["first_level_confidence"]))


def _district(row: Judged) -> str | None:
    main = row.parse["main_location"]
    return row.parse["locations"][main]["district"] if main is not None else None


_LABEL_TASKS: dict[str, Callable[[Judged], Any]] = {
    "category": lambda row: row.parse["categories"][0]["path"][0],
    "request_type": lambda row: row.parse["request_type"]["name"],
    "urgency": lambda row: row.parse["urgency"]["level"],
    "emergency": lambda row: row.parse["urgency"]["emergency"],
    "district": _district,
    "appeals": lambda row: len(row.parse["parts"]),
}
_WITH_F1 = ("category", "request_type", "urgency")


def _score_labels(
    rows: Sequence[Judged], task: str, predict: Callable[[Judged], Any], mistakes: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    pairs = []
    for row in rows:
        right = row.labels(task)
        if not right:
            continue
        predicted = predict(row)
        pairs.append((predicted if predicted in right else right[0], predicted))
        if predicted not in right:
            mistakes.setdefault(task, []).append({"id": row.id, "gold": right, "predicted": predicted})
    if not pairs:
        return {f"{task}_accuracy": None, **({f"{task}_macro_f1": None} if task in _WITH_F1 else {})}
    truth, found = zip(*pairs, strict=True)
    scores = {f"{task}_accuracy": _share(sum(t == p for t, p in pairs), len(pairs))}
    if task in _WITH_F1:
        scores[f"{task}_macro_f1"] = round(float(f1_score(truth, found, average="macro", zero_division=0)), 4)
    return scores


def _category_ece(rows: Sequence[Judged]) -> float | None:
    labelled = [row for row in rows if row.labels("category")]
    right = [_LABEL_TASKS["category"](row) in row.labels("category") for row in labelled]
    return calibration_error([row.confidence for row in labelled], right) if labelled else None


def _score_emergencies(rows: Sequence[Judged]) -> dict[str, float | None]:
    """Recall over what everybody called an emergency, false alarms over what nobody did."""
    labelled = [(row.labels("emergency"), bool(row.parse["urgency"]["emergency"])) for row in rows]
    real = [rung for labels, rung in labelled if labels and all(labels)]
    quiet = [rung for labels, rung in labelled if labels and not any(labels)]
    return {"emergency_recall": _share(sum(real), len(real)), "emergency_false_alarms": _share(sum(quiet), len(quiet))}


def _score_places(rows: Sequence[Judged], mistakes: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """Spans are compared as text, once each; of several annotators the one nearest to the model counts."""
    hits = found = wanted = 0
    for row in rows:
        if "locations" not in row.gold:
            continue
        predicted = {place["text"] for place in row.parse["locations"]}
        nearest = max(_place_sets(row.gold["locations"]), key=lambda given: _f1(len(given & predicted), len(predicted), len(given)))
        hits, found, wanted = hits + len(nearest & predicted), found + len(predicted), wanted + len(nearest)
        if nearest != predicted:
            spans = {"gold": _offsets(nearest, row.text), "predicted": _offsets(predicted, row.text)}
            mistakes.setdefault("locations", []).append({"id": row.id, **spans})
    scores = {
        "location_precision": _share(hits, found),
        "location_recall": _share(hits, wanted),
        "location_f1": round(_f1(hits, found, wanted), 4) if wanted else None,
    }
    return {**scores, **_score_main_places(rows, mistakes)}


def _score_main_places(rows: Sequence[Judged], mistakes: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """`main_location_*` over all rows (no place is right where there is none), `…_named` over rows where everybody names one."""
    scores: list[tuple[bool, bool, bool]] = []  # exact, overlapping, named by everybody
    for row in rows:
        if "main_location" not in row.gold:
            continue
        right, predicted = row.labels("main_location"), _main(row)
        exact = predicted in right
        scores.append((exact, exact or any(_overlap(label, row, predicted) for label in right), all(right)))
        if not exact:
            spans = {"gold": _offsets(filter(None, right), row.text), "predicted": _offsets(filter(None, [predicted]), row.text)}
            mistakes.setdefault("main_location", []).append({"id": row.id, **spans})
    named = [score for score in scores if score[2]]
    return {
        "main_location_exact": _share(sum(exact for exact, _, _ in scores), len(scores)),
        "main_location_overlap": _share(sum(overlap for _, overlap, _ in scores), len(scores)),
        "main_location_exact_named": _share(sum(exact for exact, _, _ in named), len(named)),
        "main_location_overlap_named": _share(sum(overlap for _, overlap, _ in named), len(named)),
    }


def _main(row: Judged) -> str | None:
    number = row.parse["main_location"]
    return str(row.parse["locations"][number]["text"]) if number is not None else None


def _overlap(label: str | None, row: Judged, predicted: str | None) -> bool:
    if not label or not predicted:
        return False
    here = row.parse["locations"][row.parse["main_location"]]
    return any(start < here["end"] and here["start"] < end for start, end in _occurrences(label, row.text))


def _place_sets(value: Sequence[Any]) -> list[set[str]]:
    """One set for each annotator, from a list of lists or from one plain list."""
    if value and all(isinstance(given, list) for given in value):
        return [set(given) for given in value]
    return [set(value)]


def _occurrences(piece: str, text: str) -> Iterator[Span]:
    start = text.find(piece)
    while start >= 0:
        yield start, start + len(piece)
        start = text.find(piece, start + 1)


def _offsets(pieces: Iterable[str], text: str) -> list[Span]:
    return sorted({next(_occurrences(piece, text), (-1, -1)) for piece in pieces})


def _f1(hits: int, found: int, wanted: int) -> float:
    return 2 * hits / (found + wanted) if found + wanted else 1.0


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error over ten equal bins of confidence."""
    confidence, correct = np.array(confidences, float), np.array(right, float)
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [abs(confidence[bins == n].sum() - correct[bins == n].sum()) for n in range(ECE_BINS)]
    return round(float(sum(gaps) / len(confidence)), 4)


# -- benchmark ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """One row of a training or test file, as words of our own tokeniser; `text` is None for a row that came as words."""

    label: str
    words: list[str]
    text: str | None


def benchmark_category(train: Sequence[Path], test: Path) -> dict[str, Any]:
    """Fit the category reader on `train` and score it on `test`: csv files with the columns `text,label` or `tokens,label`.

    Times are per text and include tokenising. Raises ValueError when a file cannot be used.
    """
    jieba.initialize()
    started = time.perf_counter()
    examples = [example for path in train for example in _read_labelled(path)]
    space = WordSpace.of(examples)
    pool: dict[str, str] = {}  # one string for equal tokens: a tenth of the memory
    documents = [[pool.setdefault(token, token) for token in space.tokens(example)] for example in examples]
    vectorizer = Vectorizer.fit(documents)
    reader = LinearReader.fit(vectorizer.matrix(documents), [example.label for example in examples])
    train_seconds = time.perf_counter() - started
    truth, predicted, confidences, seconds = [], [], [], []
    for label, read in _unread_rows(test):
        started = time.perf_counter()
        name, confidence = reader.best(vectorizer.row(space.tokens(read())))
        seconds.append(time.perf_counter() - started)
        truth.append(label)
        predicted.append(name)
        confidences.append(confidence)
    return {
        **_class_scores(truth, predicted),
        "ece": calibration_error(confidences, [t == p for t, p in zip(truth, predicted, strict=True)]),
        "train_seconds": round(train_seconds, 2),
        "predict_ms_p50": round(float(np.percentile(seconds, 50)) * 1000, 3),
        "predict_ms_p99": round(float(np.percentile(seconds, 99)) * 1000, 3),
        "rows": len(truth),
        "train_rows": len(examples),
    }


def _class_scores(truth: Sequence[str], predicted: Sequence[str]) -> dict[str, Any]:
    """Macro-F1 over the classes of the test file, as scikit-learn computes it for them."""
    names = sorted(set(truth))
    columns = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    per_class = {
        name: {"precision": round(float(p), 4), "recall": round(float(r), 4), "f1": round(float(f), 4), "support": int(n)}
        for name, p, r, f, n in zip(names, *columns, strict=True)
    }
    return {
        "macro_f1": round(float(np.mean(columns[2])), 4),
        "accuracy": round(float(np.mean([t == p for t, p in zip(truth, predicted, strict=True)])), 4),
        "per_class": per_class,
    }


def _read_labelled(path: Path) -> list[Labelled]:
    return [read() for _, read in _unread_rows(path)]


def _unread_rows(path: Path) -> list[tuple[str, Callable[[], Labelled]]]:
    """(label, what tokenises the row) of every row: tokenising belongs to the time of a prediction."""
    table = open_table(path)
    text, tokens, label = table.key("text"), table.key("tokens"), table.key("label")
    if label is None or (text is None and tokens is None):
        raise ValueError(f"{path.name} needs the columns text,label or tokens,label")
    rows: list[tuple[str, Callable[[], Labelled]]] = []
    for number, row in table.open_rows():
        given, name = str(row[text or tokens or ""] or ""), str(row[label] or "").strip()
        if not name:
            raise ValueError(f"{path.name} row {number} has no label")
        rows.append((name, partial(_from_text if text else _from_tokens, given, name)))
    if not rows:
        raise ValueError(f"{path.name} has no rows")
    return rows


def _from_text(text: str, label: str) -> Labelled:
    return Labelled(label, words_of(fold(text[:MAX_CHARACTERS])), text)


def _from_tokens(tokens: str, label: str) -> Labelled:
    """Somebody else's words, cut once more by our dictionary, so that both kinds of file use one vocabulary."""
    return Labelled(label, words_of(fold(tokens[: 2 * MAX_CHARACTERS])), None)


@dataclass(frozen=True)
class WordSpace:
    """One token space for raw texts and for texts that came as words.

    Published word lists lack stop words. Where training texts come as words, raw texts lose the same stop words before
    anything is made of them: what is frequent in raw texts and rare among the words of texts with the same labels.
    """

    mixed: bool
    stop_words: frozenset[str] = frozenset()

    @classmethod
    def of(cls, examples: Sequence[Labelled]) -> WordSpace:
        raw = [example for example in examples if example.text is not None]
        given = [example for example in examples if example.text is None]
        shared = {example.label for example in raw} & {example.label for example in given}
        in_raw, raw_count = _document_shares([example.words for example in raw if example.label in shared])
        in_given, _ = _document_shares([example.words for example in given if example.label in shared])
        least = max(MIN_STOP_SHARE, MIN_STOP_TEXTS / raw_count) if raw_count else 1.0
        stop = (word for word, share in in_raw.items() if share >= least and in_given.get(word, 0.0) < STOP_RATIO * share)
        return cls(bool(given), frozenset(stop))

    def tokens(self, example: Labelled) -> list[str]:
        if not self.mixed and example.text is not None:
            return tokens_of(example.text)
        return tokens_from_words([word for word in example.words if word not in self.stop_words])


def _document_shares(documents: Sequence[Sequence[str]]) -> tuple[dict[str, float], int]:
    """Word → share of the documents it occurs in, and how many documents there are."""
    counts = Counter(word for words in documents for word in set(words))
    return {word: count / len(documents) for word, count in counts.items()}, len(documents)
