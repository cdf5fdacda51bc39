"""Corrections by staff as annotation proposals: what the model had read, what a person made of it, from which words. Append-only."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bot.db import iso, transaction
from bot.services import Services
from bot.staff_schema import corrections


@dataclass(frozen=True)
class Correction:
    """`evidence` are the words the old value came from, or the reason why it was wrong."""

    field: str
    old: Any
    new: Any
    evidence: str


def keep_corrections(services: Services, found: Iterable[Correction], *, source: str, subject: str, username: str, model: str) -> None:
    """`source`: call | ticket | returned | batch. Joins the caller's transaction."""
    seal = services.vault.seal
    head = {"at": iso(services.now()), "username": username, "source": source, "subject": subject, "model": model}
    rows = [{**head, "field": one.field, "old": seal(one.old), "new": seal(one.new), "evidence": seal(one.evidence)} for one in found]
    if rows:
        with transaction(services.engine) as connection:
            connection.execute(corrections.insert(), rows)
