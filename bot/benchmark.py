"""The category reader on given training and test files. Changes nothing; reports carry labels and times, never a text."""
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jieba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.metrics import precision_recall_fscore_support

from bot.evaluation import calibration_error
from bot.nlu.features import MAX_CHARACTERS, Vectorizer, characters_of, opening_tokens, tokens_from_words, words_of
from bot.nlu.linear import StackedReader
from bot.tables import open_table
from bot.text import fold

# A stop word of the tokenised texts: in at least this share (and number) of raw texts, and ten times rarer among the words.
MIN_STOP_SHARE, MIN_STOP_TEXTS, STOP_RATIO = 0.002, 5, 0.1
# Two texts that alone share this many tokens are one message.
TWIN_TOKENS = 10


@dataclass(frozen=True)
class Labelled:
    """One row of a training or test file, as words of our own tokeniser; `characters` is None for a row that came as words."""

    label: str
    words: list[str]
    characters: str | None


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
    openings = [opening_tokens(tokens) for tokens in documents]
    (whole, matrix), (opening, opening_matrix) = Vectorizer.fit_matrix(documents), Vectorizer.fit_matrix(openings)
    once = np.flatnonzero(~said_twice(matrix, np.array([example.characters is None for example in examples])))
    reader = StackedReader.fit(matrix[once], opening_matrix[once], [examples[number].label for number in once])
    train_seconds = time.perf_counter() - started
    truth, predicted, confidences, seconds = [], [], [], []
    for label, read in _unread_rows(test):
        started = time.perf_counter()
        tokens = space.tokens(read())
        name, confidence = reader.best(whole.row(tokens), opening.row(opening_tokens(tokens)))
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


def said_twice(matrix: csr_matrix, given: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which rows that came as words are a raw text once more: both have many tokens that nobody else has.

    Told twice, a message would be held out from itself when the reader is calibrated.
    """
    rare = matrix[:, np.bincount(matrix.indices, minlength=matrix.shape[1]) == 2].tocsc()
    pairs = rare.indices.reshape(-1, 2).astype(np.int64)
    mixed = pairs[given[pairs].sum(axis=1) == 1]
    words, text = np.where(given[mixed[:, 0]], mixed[:, 0], mixed[:, 1]), np.where(given[mixed[:, 0]], mixed[:, 1], mixed[:, 0])
    shared, counts = np.unique(words * len(given) + text, return_counts=True)
    twice = np.zeros(len(given), np.bool_)
    twice[shared[counts >= TWIN_TOKENS] // len(given)] = True
    return twice


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
    folded = fold(text[:MAX_CHARACTERS])
    return Labelled(label, words_of(folded), characters_of(folded))


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
        raw = [example for example in examples if example.characters is not None]
        given = [example for example in examples if example.characters is None]
        shared = {example.label for example in raw} & {example.label for example in given}
        in_raw, raw_count = _document_shares([example.words for example in raw if example.label in shared])
        in_given, _ = _document_shares([example.words for example in given if example.label in shared])
        least = max(MIN_STOP_SHARE, MIN_STOP_TEXTS / raw_count) if raw_count else 1.0
        stop = (word for word, share in in_raw.items() if share >= least and in_given.get(word, 0.0) < STOP_RATIO * share)
        return cls(bool(given), frozenset(stop))

    def tokens(self, example: Labelled) -> list[str]:
        if not self.mixed and example.characters is not None:
            return tokens_from_words(example.words, example.characters)
        return tokens_from_words([word for word in example.words if word not in self.stop_words])


def _document_shares(documents: Sequence[Sequence[str]]) -> tuple[dict[str, float], int]:
    """Word → share of the documents it occurs in, and how many documents there are."""
    counts = Counter(word for words in documents for word in set(words))
    return {word: count / len(documents) for word, count in counts.items()}, len(documents)
