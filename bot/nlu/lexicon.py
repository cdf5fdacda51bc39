"""Telling words: after which an experienced agent would bet on a category (nlu_data/lexicon, one file per first-level class).

Example letters show how people write, these words what they may write about. They serve twice: a text's words of each class are
features of their own, so that a word no letter used still speaks; and the words of a leaf, some at a time, are short documents
that the category reader learns from beside the letters.
"""
from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import ahocorasick

from bot.nlu.features import FIRST_MARK, tokens_of
from bot.text import fold

# Kind mark of the feature "a word of this first-level class"; a control character, as the marks of bot.nlu.features.
LEXICON_MARK = "\x04"
# A word that so many first-level classes share tells none of them.
MOST_CLASSES = 2
# Each word stands in so many documents of so many words: alone it would teach too little, with all others too much at once.
PASSES, DOCUMENT_WORDS = 2, 15


@dataclass(frozen=True)
class Hit:
    """A telling word in a folded text, and the first-level class it speaks for."""

    start: int
    end: int
    first_level: str


@dataclass(frozen=True)
class Lexicon:
    """`words`: leaf code → its telling words."""

    words: Mapping[str, Sequence[str]]

    @cached_property
    def _automaton(self) -> ahocorasick.Automaton:
        classes: defaultdict[str, set[str]] = defaultdict(set)
        for code, words in self.words.items():
            for word in words:
                classes[fold(word)].add(code[:2])
        automaton = ahocorasick.Automaton()
        for word, named in classes.items():
            if len(named) <= MOST_CLASSES:
                automaton.add_word(word, (len(word), tuple(sorted(named))))
        automaton.make_automaton()
        return automaton

    def hits(self, folded: str) -> list[Hit]:
        """In order of their ends; words inside words count too."""
        if not len(self._automaton):
            return []
        return [Hit(end + 1 - size, end + 1, name) for end, (size, named) in self._automaton.iter(folded) for name in named]

    def documents(self) -> list[tuple[str, list[str]]]:
        """(code, feature tokens) of every document; the same ones each time. No word is the first, and none is beside another."""
        chance = random.Random(0)
        found: list[tuple[str, list[str]]] = []
        for code, words in self.words.items():
            tokens = {word: [token for token in tokens_of(word) if token[0] != FIRST_MARK] for word in words}
            for _ in range(PASSES):
                drawn = chance.sample(list(words), len(words))
                for at in range(0, len(drawn), DOCUMENT_WORDS):
                    found.append((code, [token for word in drawn[at : at + DOCUMENT_WORDS] for token in tokens[word]]))
        return found
