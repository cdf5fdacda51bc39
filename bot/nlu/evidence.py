"""Which words carry a decision: spans of the text whose features speak most for the chosen class."""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bot.nlu.features import FIRST_MARK, PAIR_MARK, WORD_MARK, Row, Vectorizer, words_of
from bot.nlu.linear import LinearReader
from bot.text import fold

MAX_SPANS = 5
# The rest of a long text's features weigh next to nothing and would cost most of the time.
MAX_FEATURES = 120
_MARKS = re.compile(f"[{WORD_MARK}{PAIR_MARK}{FIRST_MARK}]")


def evidence_spans(
    text: str, tokens: Sequence[str], vectorizer: Vectorizer, reader: LinearReader, row: Row, label: str
) -> list[dict[str, Any]]:
    """Up to five non-overlapping word spans with their share of the score for `label`, heaviest first."""
    numbers, shares = reader.contributions(row, label)
    heaviest = np.argsort(-np.abs(shares))[:MAX_FEATURES]
    share = dict(zip(numbers[heaviest].tolist(), shares[heaviest].tolist()))
    folded = fold(text)
    weight = np.zeros(len(text) + 1, np.float32)
    for token in set(tokens):
        value = share.get(vectorizer.vocabulary.get(token, -1))
        if value is None:
            continue
        pieces = [piece for piece in _MARKS.split(token) if piece]
        for piece in pieces:
            start = folded.find(piece)
            if start >= 0:
                weight[start : start + len(piece)] += value / len(piece) / len(pieces)
    spans: list[dict[str, Any]] = []
    position = 0
    for word in words_of(folded):
        start = folded.find(word, position)
        if start < 0:
            continue
        position = start + len(word)
        total = float(weight[start:position].sum())
        if total > 0 and len(word) > 1:
            spans.append({"text": text[start:position], "start": start, "end": position, "weight": round(total, 4)})
    return sorted(spans, key=lambda span: -span["weight"])[:MAX_SPANS]
