"""Full-text search that never sees the text: an index of keyed hashes, and what of a ticket goes into it.

A term is a pair of neighbouring characters, or a whole word of Latin letters or digits, as five characters that only the holder of
SECRET_KEY can compute. Hashes collide now and then and pairs say nothing of order: every hit is compared with the opened text.
The index is append-only (FTS5 without content cannot forget): a ticket whose words change gets one more document, newest first.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, bindparam, column, event, literal_column, table, text
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.selectable import TableClause

from bot.petition import Petition, mask
from bot.schema import metadata
from bot.text import fold
from bot.vault import Vault

# Documents of one ticket: position * REVISIONS + revision.
REVISIONS = 10_000
MAX_WORDS = 12

_CREATE = {
    # ascii: what reaches it is a-z2-7 already. No columnsize and no detail: nothing but which term is in which document.
    "sqlite": (
        "CREATE VIRTUAL TABLE IF NOT EXISTS ticket_search "
        "USING fts5(terms, content='', columnsize=0, detail=none, tokenize='ascii')",
    ),
    "postgresql": (
        "CREATE TABLE IF NOT EXISTS ticket_search (document BIGINT PRIMARY KEY, terms tsvector NOT NULL)",
        "CREATE INDEX IF NOT EXISTS ix_ticket_search_terms ON ticket_search USING gin (terms)",
    ),
}
_ADD = {
    "sqlite": text("INSERT INTO ticket_search (rowid, terms) VALUES (:document, :terms)"),
    "postgresql": text("INSERT INTO ticket_search (document, terms) VALUES (:document, array_to_tsvector(string_to_array(:terms, ' ')))"),
}
_WORD = re.compile(r"[a-z0-9]+|[^\W_a-z0-9]+")


def create_index(connection: Connection) -> None:
    for statement in _CREATE[connection.dialect.name]:
        connection.exec_driver_sql(statement)


@event.listens_for(metadata, "after_create")
def _with_the_tables(_target: Any, connection: Connection, **_options: Any) -> None:
    create_index(connection)


@event.listens_for(metadata, "before_drop")
def _without_the_tables(_target: Any, connection: Connection, **_options: Any) -> None:
    connection.exec_driver_sql("DROP TABLE IF EXISTS ticket_search")


def searchable_text(number: str, title: str, petition: Petition) -> str:
    """What of a ticket may be found, folded: its number, title, place and words, all without personal data."""
    place = str((petition.place or {}).get("text") or "")
    return fold("\n".join((number, title, mask(place), mask(petition.description))))


def add_document(connection: Connection, vault: Vault, position: int, revision: int, words: str) -> None:
    """`words` is the ticket's searchable_text(). In the caller's transaction."""
    document = {"document": position * REVISIONS + min(revision, REVISIONS - 1), "terms": " ".join(terms_of(vault, words))}
    connection.execute(_ADD[connection.dialect.name], document)


def terms_of(vault: Vault, words: str) -> list[str]:
    return sorted({vault.search_term(unit) for run in _WORD.findall(words) for unit in _units(run)})


def _units(run: str) -> Iterable[str]:
    return (run,) if run.isascii() else (run[i : i + 2] for i in range(len(run) - 1))


def query_words(query: str) -> list[str]:
    """What a person typed, as the words that must all occur; a word stands in the text as it is written here."""
    return list(dict.fromkeys(fold(query[:200]).split()))[:MAX_WORDS]


@dataclass(frozen=True)
class Hits:
    """Documents that have all the terms asked for. In the order of `document` FTS5 streams them; sorting by anything else waits for all."""

    index: TableClause
    document: ColumnClause[int]
    match: ColumnElement[bool]

    @property
    def position(self) -> ColumnElement[int]:
        return self.document / REVISIONS


def find_hits(connection: Connection, vault: Vault, words: Iterable[str]) -> Hits | None:
    """Where all pairs of these words stand; None when they are too short to ask the index."""
    terms = sorted({term for word in words for term in terms_of(vault, word)})
    if not terms:
        return None
    if connection.dialect.name == "sqlite":
        index = table("ticket_search", column("rowid", BigInteger))
        match = literal_column("ticket_search").op("MATCH")(bindparam("terms", " AND ".join(terms)))
        return Hits(index, index.c.rowid, match)
    index = table("ticket_search", column("document", BigInteger), column("terms"))
    wanted = text("CAST(:terms AS tsquery)").bindparams(terms=" & ".join(f"'{term}'" for term in terms))
    return Hits(index, index.c.document, index.c.terms.op("@@")(wanted))


def contains(words: Iterable[str], searched: str) -> bool:
    return all(word in searched for word in words)
