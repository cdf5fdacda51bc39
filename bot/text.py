"""Text folding shared by every component: one character in, one character out, so that offsets stay true."""
from __future__ import annotations

import functools
import re

import opencc

# Marks of place spans in the training texts, see docs/decisions/0003-training-texts.md.
MARK_OPEN, MARK_CLOSE = "【", "】"

MOST_CHARACTERS = 20_000

_CLAUSE = re.compile(r"[^，。！？；!?;\n、,]+[，。！？；!?;\n、,]*")


@functools.lru_cache(maxsize=1)
def _simplifier() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


class _Folding(dict[int, str]):
    """A table for str.translate that fills itself: translating runs in C, a message is folded by every component."""

    def __missing__(self, code: int) -> str:
        if len(self) > MOST_CHARACTERS:
            self.clear()
        folded = self[code] = _fold_character(chr(code))
        return folded


_FOLDING = _Folding()


def _fold_character(character: str) -> str:
    code = ord(character)
    if character == "著":  # 著火: opencc leaves it, because 著作 keeps it
        return "着"
    if 0xFF01 <= code <= 0xFF5E:
        return chr(code - 0xFEE0).lower() if chr(code - 0xFEE0).isalnum() else character
    if code == 0x3000:
        return " "
    if 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF:
        simple: str = _simplifier().convert(character)
        return simple if len(simple) == 1 else character
    return character.lower() if len(character.lower()) == 1 else character


def fold(text: str) -> str:
    """Traditional to simplified, full-width letters and digits to ASCII, lower case; same length as `text`."""
    return text.translate(_FOLDING)


def clauses(text: str) -> list[tuple[int, int]]:
    """(start, end) of the clauses of `text`, punctuation included, in order and without gaps of content."""
    return [match.span() for match in _CLAUSE.finditer(text)]


def strip_marks(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """A training text without its place marks, and the (start, end) spans that were marked.

    Raises ValueError on unbalanced marks.
    """
    plain: list[str] = []
    spans: list[tuple[int, int]] = []
    start: int | None = None
    for character in marked:
        if character == MARK_OPEN:
            if start is not None:
                raise ValueError(f"nested place mark in {marked!r}")
            start = len(plain)
        elif character == MARK_CLOSE:
            if start is None:
                raise ValueError(f"place mark closed before it opened in {marked!r}")
            if len(plain) > start:
                spans.append((start, len(plain)))
            start = None
        else:
            plain.append(character)
    if start is not None:
        raise ValueError(f"place mark not closed in {marked!r}")
    return "".join(plain), spans
