"""Which words carry a decision: spans of the text whose features speak most for the chosen class."""
from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from bot.nlu.features import FIRST_MARK, MAX_CHARACTERS, PAIR_MARK, WORD_MARK, Row, Span, Vectorizer, cut
from bot.nlu.lexicon import LEXICON_MARK, Hit
from bot.nlu.linear import LinearReader
from bot.text import fold

MAX_SPANS = 5
# The rest of a long text's features weigh next to nothing and would cost most of the time.
MAX_FEATURES = 120
_KINDS = frozenset((WORD_MARK, PAIR_MARK, FIRST_MARK))
_MARKS = re.compile(f"[{WORD_MARK}{PAIR_MARK}{FIRST_MARK}]")


def evidence_spans(
    text: str, vectorizer: Vectorizer, reader: LinearReader, row: Row, label: str, hits: Sequence[Hit] = ()
) -> list[dict[str, Any]]:
    """Up to five non-overlapping word spans with their share of the score for `label`, heaviest first.

    The share of a class's telling words is divided among those that the text has (`hits`)."""
    numbers, shares = reader.contributions(row, label)
    heaviest = np.argsort(-np.abs(shares))[:MAX_FEATURES]
    folded = fold(text[:MAX_CHARACTERS])
    # How much the weight of a character differs from that of the one before it.
    steps = [0.0] * (len(folded) + 1)
    for number, share in zip(numbers[heaviest].tolist(), shares[heaviest].tolist()):
        token = vectorizer.names[number]
        places = _places_of_class(token[1:], hits) if token[0] == LEXICON_MARK else _places_of_words(token, folded)
        for start, end in places:
            step = share / len(places) / (end - start)
            steps[start] += step
            steps[end] -= step
    sums = [0.0, *accumulate(accumulate(steps))]
    spans: list[dict[str, Any]] = []
    for start, end in cut(folded):
        weight = round(sums[end] - sums[start], 4)  # rounded before it counts: sums of floats leave crumbs
        if weight > 0 and end - start > 1:
            spans.append({"text": text[start:end], "start": start, "end": end, "weight": weight})
    return sorted(spans, key=lambda span: -span["weight"])[:MAX_SPANS]


def _places_of_class(first_level: str, hits: Sequence[Hit]) -> list[Span]:
    return [(hit.start, hit.end) for hit in hits if hit.first_level == first_level]


def _places_of_words(token: str, folded: str) -> list[Span]:
    """Where the words of a feature stand first; a word that folding or the order of features hides is left out."""
    pieces = list(filter(None, _MARKS.split(token))) if token[0] in _KINDS else [token]
    starts = map(folded.find, pieces)
    return [(start, start + len(piece)) for piece, start in zip(pieces, starts) if start >= 0]
