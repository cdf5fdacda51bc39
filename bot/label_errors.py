"""Labels that are probably wrong: a reader that has not seen the text is sure of another class, or a near-repeat carries another label.

Confident learning: every class has its own threshold, the mean certainty of held-out texts of that class, so that classes that are
hard to read are not all suspected. Pure but for the rows at the end; a person decides each case.
"""
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from bot.annotations import agree
from bot.likeness import find_twins, hash_grams

MODEL, TWINS = "model", "twins"
FOLDS = 5
LIKELY = 0.5
LEAST_OF_CLASS = 5  # a class with fewer texts is not read, only compared
SLOT_BITS = 20
Floats = npt.NDArray[np.float32]
Tell = Callable[[float], None]


@dataclass(frozen=True)
class Labelled:
    digest: str
    text: str
    category: str


@dataclass(frozen=True)
class Suspect:
    """`score`, 0 to 1: from LIKELY on the reader is as sure of the suggestion as it is of that class's own texts, or copies say so."""

    number: int
    kind: str
    suggested: str
    score: float
    twin: int | None = None


def find_suspects(rows: Sequence[Labelled], tell: Tell = lambda share: None) -> list[Suspect]:
    """One for each suspicious row, likeliest errors first. First levels are read against each other, then each class's own below it."""
    twins = _among_twins(rows)
    tell(0.3)
    texts = _weighed([row.text for row in rows])
    tell(0.4)
    above = _by_reading(texts, [row.category[:2] for row in rows], lambda share: tell(0.4 + 0.4 * share))
    below = _by_reading_below(texts, rows, lambda share: tell(0.8 + 0.2 * share))
    found = {suspect.number: suspect for suspect in (*below, *above, *twins)}  # the plainer kind replaces the other
    return sorted(found.values(), key=lambda suspect: -suspect.score)


# -- near-repeats ---------------------------------------------------------------------------------------------------------


def _among_twins(rows: Sequence[Labelled]) -> list[Suspect]:
    """In a group of near-repeats the class that most have is suggested to the others; of two, to the later one."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number, leader in enumerate(find_twins([row.text for row in rows]).tolist()):
        groups[leader].append(number)
    suspects = []
    for members in groups.values():
        counts = Counter(rows[number].category for number in members)
        winner = max(counts, key=counts.__getitem__)  # of equally many the class that came first
        holder = next(number for number in members if rows[number].category == winner)
        for number in members:
            if not agree(rows[number].category, winner):
                share = counts[winner] / len(members)
                suspects.append(Suspect(number, TWINS, winner, round(0.9 + 0.1 * share, 4), holder))
    return suspects


# -- reading --------------------------------------------------------------------------------------------------------------


def _weighed(texts: Sequence[str]) -> csr_matrix:
    """TF-IDF of hashed groups of one to three characters: 100,000 texts in a minute, where words would take ten."""
    matrix = hash_grams(texts, slots=1 << SLOT_BITS)
    frequency = np.bincount(matrix.indices, minlength=matrix.shape[1])
    kept = np.flatnonzero(frequency >= 2)
    matrix = matrix[:, kept].tocsr()
    weights = np.log((1.0 + matrix.shape[0]) / (1.0 + frequency[kept])).astype(np.float32) + 1.0
    matrix.data = (1.0 + np.log(matrix.data)) * weights[matrix.indices]
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix.data /= np.repeat(np.maximum(norms, 1e-9), np.diff(matrix.indptr)).astype(np.float32)
    return matrix


def _by_reading_below(texts: csr_matrix, rows: Sequence[Labelled], tell: Tell) -> list[Suspect]:
    """Within each first level, over the labels that say more than it."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if len(row.category) > 2:
            members[row.category[:2]].append(number)
    suspects = []
    for done, numbers in enumerate(members.values(), 1):
        own = _by_reading(texts[numbers], [rows[number].category for number in numbers], lambda share: None)
        moved = (replace(one, number=numbers[one.number]) for one in own)
        suspects += [one for one in moved if not agree(rows[one.number].category, one.suggested)]
        tell(done / len(members))
    return suspects


def _by_reading(texts: csr_matrix, labels: Sequence[str], tell: Tell) -> list[Suspect]:
    counts = Counter(labels)
    readable = [number for number, label in enumerate(labels) if counts[label] >= LEAST_OF_CLASS]
    classes = sorted({labels[number] for number in readable})
    if len(classes) < 2:
        return []
    truth = np.array([classes.index(labels[number]) for number in readable])
    certain = held_out_certainty(texts[readable], truth, len(classes), tell)
    own = certain[np.arange(len(truth)), truth]
    thresholds = np.array([own[truth == number].mean() for number in range(len(classes))], np.float32)
    best = certain.argmax(axis=1)
    surest = certain[np.arange(len(truth)), best]
    scores = (surest - own) / 2 + np.where(surest >= thresholds[best], LIKELY, 0.0)
    return [Suspect(readable[n], MODEL, classes[best[n]], round(float(scores[n]), 4)) for n in np.flatnonzero(best != truth)]


def held_out_certainty(texts: csr_matrix, truth: npt.NDArray[np.int64], classes: int, tell: Tell) -> Floats:
    """(texts, classes), each row summing to 1: what a reader says of texts that it was not taught."""
    scores = np.zeros((len(truth), classes), np.float32)
    folds = min(FOLDS, int(np.bincount(truth).min()))
    for done, (taught, asked) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=0).split(texts, truth), 1):
        reader = LinearSVC(C=1.0, class_weight="balanced", tol=0.1, random_state=0).fit(texts[taught], truth[taught])
        found = reader.decision_function(texts[asked])
        scores[asked] = np.stack([-found, found], axis=1) if classes == 2 else found
        tell(done / folds)
    return _softmax(scores * _sharpness(scores, truth))


def _softmax(scores: Floats) -> Floats:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]


def _sharpness(scores: Floats, truth: npt.NDArray[np.int64]) -> float:
    """How far to spread margins so that they say how often they are right."""
    candidates = np.arange(1.0, 12.01, 0.5)
    picked = np.arange(len(truth)), truth
    losses = [-np.log(np.maximum(_softmax(scores * one)[picked], 1e-9)).mean() for one in candidates]
    return float(candidates[int(np.argmin(losses))])
