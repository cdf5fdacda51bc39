"""A linear classifier with probabilities and evidence, light enough to call many times per message."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, vstack
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import ComplementNB
from sklearn.svm import LinearSVC

from bot.nlu.features import Row

Floats = npt.NDArray[np.float32]
# Weights rest as bytes, in steps of a 127th of the heaviest of their class: a sum of hundreds of them is off by less than two
# readers of a text differ, and the archive is a quarter of what half floats need.
Bytes = npt.NDArray[np.int8]
STEPS = 127
Aids = tuple[csr_matrix, Sequence[str]]
# A sharpness that suits one-vs-rest scores of small classes, where held-out folds would be too small to tell.
UNCALIBRATED = 3.0
SMOOTHING = 0.3
MIXING_C = 0.3
# What liblinear itself stops at: half the time of scikit-learn's 1e-4, scores equal to the second digit.
TOLERANCE = 0.1


@dataclass(frozen=True)
class LinearReader:
    """One-vs-rest hyperplanes and a temperature that turns their scores into probabilities.

    `weights` is (own features, classes), in units of `unit` of each class: one message touches only the rows of its own features,
    and a reader of few texts keeps only the features they have. `position` maps a feature's number to its row, -1 where the reader
    never saw it.
    """

    classes: tuple[str, ...]
    weights: Bytes
    unit: Floats
    bias: Floats
    temperature: float
    position: npt.NDArray[np.int32]

    @classmethod
    def fit(
        cls,
        matrix: csr_matrix,
        labels: Sequence[str],
        *,
        C: float = 1.0,
        calibrate: bool = True,
        blend: bool = False,
        aids: Aids | None = None,
        counts: Floats | None = None,
        held_out: Floats | None = None,
    ) -> LinearReader:
        """Fits in seconds on some thousand texts. The temperature comes from out-of-fold scores, never from training scores.

        `aids` are rows and labels to learn from that are no texts: they say nothing of how sure to be. Their labels occur in `labels`.
        `counts`: for how many texts each row counts; None = one each. `held_out`: Fitting.held_out_scores(), where they are known already.
        """
        truth = np.array(labels)
        classes = np.unique(truth)
        if len(classes) == 1:
            nothing = np.full(matrix.shape[1], -1, np.int32)
            return cls((str(classes[0]),), np.zeros((0, 1), np.int8), np.ones(1, np.float32), np.zeros(1, np.float32), 1.0, nothing)
        position = _own_features(matrix, *([aids[0]] if aids else []))
        matrix, aids = _narrowed(matrix, position), (_narrowed(aids[0], position), aids[1]) if aids else None
        fitting = Fitting(C, blend, aids, counts)
        if calibrate and held_out is None:
            held_out = fitting.held_out_scores(matrix, truth)
        temperature = UNCALIBRATED if held_out is None else _fit_temperature(held_out, truth, classes)
        weights, bias = fitting.hyperplanes(matrix, truth)
        return cls.at_rest(tuple(map(str, classes)), weights, bias, temperature, position)

    @classmethod
    def at_rest(
        cls, classes: tuple[str, ...], weights: Floats, bias: Floats, temperature: float, position: npt.NDArray[np.int32]
    ) -> LinearReader:
        unit = np.maximum(np.abs(weights).max(axis=0, initial=0.0), 1e-9).astype(np.float32) / STEPS
        return cls(classes, np.round(weights / unit).astype(np.int8), unit, bias, temperature, position)

    def _own(self, row: Row) -> tuple[npt.NDArray[np.int32], Row]:
        """The rows of `weights` that a text touches, and the part of the text they belong to."""
        numbers, values = row
        rows = self.position[numbers]
        known = rows >= 0
        return rows[known], (numbers[known], values[known])

    def scores(self, row: Row) -> Floats:
        rows, (_, values) = self._own(row)
        scores: Floats = (values @ self.weights[rows].astype(np.float32)) * self.unit + self.bias
        return scores

    def scores_for(self, label: str, matrix: csr_matrix) -> Floats:
        """scores() of every row, of one class only."""
        column, rows = self.classes.index(label), self.position[matrix.indices]
        shares = matrix.data * self.weights[rows, column] * (rows >= 0)
        owners = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        summed = np.bincount(owners, shares, minlength=matrix.shape[0])
        return (summed * self.unit[column] + self.bias[column]).astype(np.float32)  # type: ignore[no-any-return]

    def probabilities(self, row: Row) -> Floats:
        """Aligned with `classes`, summing to 1."""
        return softmax(self.scores(row)[None, :] * self.temperature)[0]

    def best(self, row: Row) -> tuple[str, float]:
        probabilities = self.probabilities(row)
        winner = int(probabilities.argmax())
        return self.classes[winner], float(probabilities[winner])

    def contributions(self, row: Row, label: str) -> Row:
        """Feature numbers, and their shares of the score that speaks for `label` against the mean of the other classes."""
        column = self.classes.index(label)
        own, (numbers, values) = self._own(row)
        rows = self.weights[own].astype(np.float32) * self.unit
        others = (rows.sum(axis=1) - rows[:, column]) / max(1, len(self.classes) - 1)
        return numbers, values * (rows[:, column] - others)


def softmax(scores: Floats) -> Floats:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Fitting:
    """How hyperplanes are fitted: LinearReader.fit() names the parts."""

    C: float = 1.0
    blend: bool = False
    aids: Aids | None = None
    counts: Floats | None = None

    def hyperplanes(
        self, matrix: csr_matrix, truth: npt.NDArray[np.str_], rows: npt.NDArray[np.int64] | None = None
    ) -> tuple[Floats, Floats]:
        """Weights and bias, learned from these rows (None = all) and the aids."""
        counts = self.counts
        if rows is not None:
            matrix, truth, counts = matrix[rows], truth[rows], counts[rows] if counts is not None else None
        if self.aids is not None:
            counts = np.concatenate([counts, np.ones(len(self.aids[1]), np.float32)]) if counts is not None else None
            matrix, truth = vstack([matrix, self.aids[0]]).tocsr(), np.concatenate([truth, np.array(self.aids[1])])
        model = LinearSVC(C=self.C, class_weight="balanced", tol=TOLERANCE, random_state=0)
        model.fit(matrix, truth, sample_weight=counts)
        weights, bias = model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)
        if len(model.classes_) == 2:  # scikit-learn keeps one hyperplane for two classes
            weights, bias = np.hstack([-weights, weights]), np.array([-bias[0], bias[0]], np.float32)
        if self.blend:
            weights = weights + _complement(matrix, truth, counts, like=weights)
        return np.ascontiguousarray(weights), bias

    def held_out_scores(self, matrix: csr_matrix, truth: npt.NDArray[np.str_]) -> Floats | None:
        """Scores of texts that the hyperplanes have not seen; None where a class has too few texts to hold any out."""
        classes, sizes = np.unique(truth, return_counts=True)
        folds = min(3, int(sizes.min()))
        if folds < 2:
            return None
        scores = np.zeros((len(truth), len(classes)), np.float32)
        for train, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(matrix, truth):
            weights, bias = self.hyperplanes(matrix, truth, train)
            scores[held_out] = matrix[held_out] @ weights + bias
        return scores


def _complement(matrix: csr_matrix, truth: npt.NDArray[np.str_], counts: Floats | None, *, like: Floats) -> Floats:
    """Complement naive Bayes as hyperplanes whose scores spread as wide as those of `like`.

    Words that the training texts use once in one class say little to a margin and much to a count: the sum of both reads
    texts of other writers better than either.
    """
    counted = ComplementNB(alpha=SMOOTHING).fit(matrix, truth, sample_weight=counts).feature_log_prob_.T
    counted = (counted - counted.mean(axis=1, keepdims=True)).astype(np.float32)
    spread = float((matrix @ counted).std())
    return counted * (float((matrix @ like).std()) / spread if spread else 0.0)


def _fit_temperature(scores: Floats, truth: npt.NDArray[np.str_], classes: npt.NDArray[np.str_]) -> float:
    answers = np.searchsorted(classes, truth)
    candidates = np.arange(1.0, 12.01, 0.25)
    losses = [
        -np.log(np.maximum(softmax(scores * temperature)[np.arange(len(truth)), answers], 1e-9)).mean()
        for temperature in candidates
    ]
    return float(candidates[int(np.argmin(losses))])


@dataclass(frozen=True)
class StackedReader:
    """Reads a text as a whole and its opening on its own, and adds up what both say.

    A logistic regression over held-out scores learns how far to trust each view about each class, and so which classes a
    view takes for which. Being linear it is folded into the hyperplanes: reading costs nothing more, and the sum is calibrated.
    """

    whole: LinearReader
    opening: LinearReader

    @classmethod
    def fit(cls, whole: csr_matrix, opening: csr_matrix, labels: Sequence[str]) -> StackedReader:
        views = (whole, opening)
        truth = np.array(labels)
        classes = np.unique(truth)
        if len(classes) == 1:
            return cls(LinearReader.fit(whole, labels), LinearReader.fit(opening, labels))
        mixing, bias = fit_mixing([Fitting().held_out_scores(view, truth) for view in views], truth, len(classes))
        readers = []
        for view, mix in zip(views, mixing):
            weights, own_bias = Fitting().hyperplanes(view, truth)
            mixed, mixed_bias = weights @ mix, own_bias @ mix + bias / len(views)
            every = np.arange(view.shape[1], dtype=np.int32)
            readers.append(LinearReader.at_rest(tuple(map(str, classes)), mixed, mixed_bias, 1.0, every))
        return cls(*readers)

    def probabilities(self, whole: Row, opening: Row) -> Floats:
        """Aligned with the classes of both readers, summing to 1."""
        return softmax((self.whole.scores(whole) + self.opening.scores(opening))[None, :])[0]

    def best(self, whole: Row, opening: Row) -> tuple[str, float]:
        probabilities = self.probabilities(whole, opening)
        winner = int(probabilities.argmax())
        return self.whole.classes[winner], float(probabilities[winner])


def fit_mixing(held_out: Sequence[Floats | None], truth: npt.NDArray[np.str_], classes: int) -> tuple[list[Floats], Floats]:
    """For each view the matrix that turns its scores into its share of the logits, and the bias of the sum."""
    scores = [view for view in held_out if view is not None]
    if not scores:
        return [np.eye(classes, dtype=np.float32) * UNCALIBRATED] * len(held_out), np.zeros(classes, np.float32)
    spreads = [float(view.std()) for view in scores]
    rows = np.hstack([view / spread for view, spread in zip(scores, spreads)])
    mixer = LogisticRegression(C=MIXING_C, max_iter=500).fit(rows, truth)
    weights, bias = mixer.coef_.T.astype(np.float32), mixer.intercept_.astype(np.float32)
    if classes == 2:  # scikit-learn keeps one hyperplane for two classes
        weights, bias = np.hstack([-weights, weights]) / 2, np.array([-bias[0], bias[0]], np.float32) / 2
    borders = np.cumsum([view.shape[1] for view in scores])[:-1]
    return [part / spread for part, spread in zip(np.split(weights, borders), spreads)], bias


def _own_features(*matrices: csr_matrix) -> npt.NDArray[np.int32]:
    """For every feature its place among those that occur, or -1."""
    kept = np.unique(np.concatenate([matrix.indices for matrix in matrices]))
    position = np.full(matrices[0].shape[1], -1, np.int32)
    position[kept] = np.arange(len(kept), dtype=np.int32)
    return position


def _narrowed(matrix: csr_matrix, position: npt.NDArray[np.int32]) -> csr_matrix:
    """The same rows over the features that have a position."""
    return csr_matrix((matrix.data, position[matrix.indices], matrix.indptr), shape=(matrix.shape[0], int(position.max()) + 1))
