"""Suspicious labels as rows: found by a job, shown until somebody accepts the suggestion, keeps the label or removes the text.

Every decision is an annotation of its own, so that it can be traced and outranks the import that brought the label.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.engine import Connection, Row

from bot import db
from bot.annotations import CATEGORY, SUSPECT, effective_annotations, judgements_of, new_annotation, settle, undo_annotation
from bot.jobs import JobRun
from bot.label_errors import LIKELY, Labelled, Suspect, find_suspects
from bot.review_queue import label_of
from bot.services import Services
from bot.staff_schema import annotation_rows, label_suspects

OPEN, ACCEPTED, KEPT, REMOVED = "open", "accepted", "kept", "removed"
DECISIONS = {"accept": ACCEPTED, "keep": KEPT, "remove": REMOVED}
MOST = 5000
PAGE_ROWS = 30
SHOWN_TEXT = 400


class SuspectGone(LookupError):
    """The case was decided meanwhile, or its text is no longer annotated."""


def run_label_errors(job: JobRun) -> Mapping[str, Any]:
    """Looks through all labelled texts anew; cases that people decided stay decided while their label stands."""
    job.tell(0.0, "读取标注")
    with db.reading(job.services.engine) as connection:
        effective = [one for one in effective_annotations(connection) if CATEGORY in one.labels]
    rows = [Labelled(one.digest, str(job.services.vault.open(one.text)), str(one.labels[CATEGORY])) for one in effective]
    if len(rows) < 2:
        return {"rows": len(rows), "suspects": 0}
    found = find_suspects(rows, lambda share: job.tell(0.05 + 0.9 * share, "逐条比对"))
    job.tell(0.96, "写入")
    kept = _keep(job.services, rows, found[:MOST])
    return {"rows": len(rows), "suspects": kept}


def _keep(services: Services, rows: list[Labelled], found: list[Suspect]) -> int:
    now = db.iso(services.now())
    with db.transaction(services.engine) as connection:
        connection.execute(delete(label_suspects).where(label_suspects.c.state == OPEN))
        decided = set(connection.execute(select(label_suspects.c.digest)).scalars())
        values = [
            {
                "at": now, "digest": rows[one.number].digest, "kind": one.kind, "label": rows[one.number].category, "state": OPEN,
                "suggested": one.suggested, "score": one.score, "twin": rows[one.twin].digest if one.twin is not None else None,
            }
            for one in found
            if rows[one.number].digest not in decided
        ]  # fmt: skip
        if values:
            connection.execute(label_suspects.insert(), values)
    return len(values)


@dataclass(frozen=True)
class Suspects:
    services: Services

    def counts(self) -> dict[str, int]:
        """`likely` and `possible` of the open cases, and how many were decided."""
        likely = (label_suspects.c.score >= LIKELY).label("likely")
        with db.reading(self.services.engine) as connection:
            grouped = select(label_suspects.c.state, likely, func.count()).group_by(label_suspects.c.state, likely)
            rows = connection.execute(grouped).fetchall()
        counts = {"likely": 0, "possible": 0, "decided": 0}
        for state, is_likely, count in rows:
            counts["decided" if state != OPEN else "likely" if is_likely else "possible"] += count
        return counts

    def page(self) -> list[dict[str, Any]]:
        """The likeliest open cases whose label still stands."""
        with db.reading(self.services.engine) as connection:
            wanted = select(label_suspects).where(label_suspects.c.state == OPEN)
            rows = connection.execute(wanted.order_by(label_suspects.c.score.desc(), label_suspects.c.id).limit(PAGE_ROWS)).fetchall()
            judged = judgements_of(connection, {digest for row in rows for digest in (row.digest, row.twin) if digest})
            texts = self._texts(connection, judged)
        return [self._view(row, texts) for row in rows if judged[row.digest]]

    def decide(self, suspect_id: int, decision: str, *, username: str, suggested: str | None = None) -> None:
        """`suggested`: another class than the suggested one. Raises SuspectGone."""
        with db.transaction(self.services.engine) as connection:
            row = connection.execute(select(label_suspects).where(label_suspects.c.id == suspect_id).with_for_update()).first()
            if row is None or row.state != OPEN:
                raise SuspectGone
            judged = judgements_of(connection, [row.digest])[row.digest]
            if not judged:
                raise SuspectGone
            if decision == "remove":
                for one in judged:
                    undo_annotation(connection, one.id, author=username, at=self.services.now())
            else:
                category = row.label if decision == "keep" else suggested or row.suggested
                labels = {**settle(judged).labels, CATEGORY: category}
                first = connection.execute(select(annotation_rows).where(annotation_rows.c.id == judged[0].id)).one()
                text = str(self.services.vault.open(first.text))
                values = new_annotation(
                    self.services.vault, text, labels, author=username, source=SUSPECT, at=self.services.now(), digest=row.digest,
                    item_id=judged[0].item_id,
                )  # fmt: skip
                connection.execute(annotation_rows.insert().values(**values))
            decided = {"state": DECISIONS[decision], "username": username, "judged_at": db.iso(self.services.now())}
            connection.execute(update(label_suspects).where(label_suspects.c.id == suspect_id).values(**decided))

    def _texts(self, connection: Connection, judged: Mapping[str, Any]) -> dict[str, str]:
        firsts = {judgements[0].id: digest for digest, judgements in judged.items() if judgements}
        rows = connection.execute(select(annotation_rows.c.id, annotation_rows.c.text).where(annotation_rows.c.id.in_(list(firsts))))
        return {firsts[row.id]: str(self.services.vault.open(row.text)) for row in rows}

    def _view(self, row: Row, texts: Mapping[str, str]) -> dict[str, Any]:
        text, twin = texts[row.digest], texts.get(row.twin or "", "")
        catalogue = self.services.catalogue
        return {
            "id": row.id,
            "kind": row.kind,
            "text": text[:SHOWN_TEXT] + ("…" if len(text) > SHOWN_TEXT else ""),
            "label": label_of(row.label, catalogue),
            "suggested": row.suggested,
            "suggested_label": label_of(row.suggested, catalogue),
            "likely": row.score >= LIKELY,
            "twin": twin[:SHOWN_TEXT],
        }
