"""Which words carry a decision: spans of the text whose features speak most for the chosen class."""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bot.nlu.features import FIRST_MARK, MAX_CHARACTERS, PAIR_MARK, WORD_MARK, Row, Vectorizer, cut
from bot.nlu.lexicon import LEXICON_MARK, Hit
from bot.nlu.linear import LinearReader
from bot.text import fold

MAX_SPANS = 5
# The rest of a long text's features weigh next to nothing and would cost most of the time.
MAX_FEATURES = 120
_MARKS = re.compile(f"[{WORD_MARK}{PAIR_MARK}{FIRST_MARK}]")


def evidence_spans(
    text: str, vectorizer: Vectorizer, reader: LinearReader, row: Row, label: str, hits: Sequence[Hit] = ()
) -> list[dict[str, Any]]:
    """Up to five non-overlapping word spans with their share of the score for `label`, heaviest first.

    The share of a class's telling words is divided among those that the text has (`hits`)."""
    numbers, shares = reader.contributions(row, label)
    heaviest = np.argsort(-np.abs(shares))[:MAX_FEATURES]
    folded = fold(text[:MAX_CHARACTERS])
    weight = np.zeros(len(folded) + 1, np.float32)
    for number, share in zip(numbers[heaviest].tolist(), shares[heaviest].tolist()):
        token = vectorizer.names[number]
        if token[0] == LEXICON_MARK:
            own = [hit for hit in hits if hit.first_level == token[1:]]
            for hit in own:
                weight[hit.start : hit.end] += share / len(own) / (hit.end - hit.start)
            continue
        pieces = [piece for piece in _MARKS.split(token) if piece]
        for piece in pieces:
            start = folded.find(piece)
            if start >= 0:
                weight[start : start + len(piece)] += share / len(piece) / len(pieces)
    sums = np.concatenate([[0.0], np.cumsum(weight)])
    spans: list[dict[str, Any]] = []
    for start, end in cut(folded):
        total = float(sums[end] - sums[start])
        if total > 0 and end - start > 1:
            spans.append({"text": text[start:end], "start": start, "end": end, "weight": round(total, 4)})
    return sorted(spans, key=lambda span: -span["weight"])[:MAX_SPANS]
