"""The one view of a text that every linear reader shares: weighted feature tokens, and which telling words stand where."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.sparse import csr_matrix

from bot.nlu.features import MAX_CHARACTERS, Row, Vectorizer, tokens_of
from bot.nlu.lexicon import LEXICON_MARK, Hit, Lexicon
from bot.nlu.linear import Aids
from bot.text import fold


@dataclass(frozen=True)
class Seen:
    """One text as the readers see it."""

    text: str
    tokens: list[str]
    row: Row
    hits: list[Hit]


@dataclass(frozen=True)
class View:
    vectorizer: Vectorizer
    lexicon: Lexicon

    def see(self, text: str) -> Seen:
        hits = self.lexicon.hits(fold(text[:MAX_CHARACTERS]))
        tokens = _tokens(text, hits)
        return Seen(text, tokens, self.vectorizer.row(tokens), hits)


def fit_view(texts: Sequence[str], lexicon: Lexicon) -> tuple[View, csr_matrix, Aids | None]:
    """The view that training texts give, their rows in it, and the rows and leaf codes of the lexicon's documents."""
    documents = lexicon.documents()
    tokens = [_tokens(text, lexicon.hits(fold(text[:MAX_CHARACTERS]))) for text in texts] + [own for _, own in documents]
    vectorizer, matrix = Vectorizer.fit_matrix(tokens)
    aids = (matrix[len(texts) :], [code for code, _ in documents]) if documents else None
    return View(vectorizer, lexicon), matrix[: len(texts)], aids


def _tokens(text: str, hits: Sequence[Hit]) -> list[str]:
    return [*tokens_of(text), *(LEXICON_MARK + hit.first_level for hit in hits)]
