"""Reading the review queue: lists with filters and search, one item with all that is known of it, similar examples, groups.

Nothing is changed here. A reviewer sees the items of their districts, and those whose district nobody knows.
"""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.engine import Row
from sqlalchemy.sql import ColumnElement

from bot import db
from bot.annotations import BULK, CATEGORY, FINAL, Judgement, judgements_of, settle
from bot.catalogue import Catalogue
from bot.review_index import ReviewIndex
from bot.review_labels import CORRECTED, INTENT_NAMES, labels_of, proposed_labels
from bot.reviews import ACCEPTED, DISPUTED, DOUBTS, FIXED, OPEN, SKIPPED
from bot.services import Services
from bot.staff import StaffMember
from bot.staff_schema import annotation_rows, review_items, users

# What the page offers as states → states of items.
DONE = "done"
STATES = {OPEN: (OPEN,), DISPUTED: (DISPUTED,), SKIPPED: (SKIPPED,), DONE: (ACCEPTED, FIXED)}
PAGE_ROWS, MOST_FOUND = 60, 5000
SNIPPET = 80
SIMILAR = 6
LEAST_CLUSTER, MOST_CLUSTERS, MOST_MEMBERS = 3, 30, 200


class ItemNotFound(LookupError):
    """There is no such item for this person."""


@dataclass(frozen=True)
class Filters:
    """Empty = whatever. `category` is a code or the prefix of one; times are ISO, UTC."""

    state: str = OPEN
    reason: str = ""
    category: str = ""
    channel: str = ""
    district: str = ""
    model: str = ""
    since: str = ""
    until: str = ""
    words: str = ""


@dataclass(frozen=True)
class ReviewQueue:
    services: Services
    index: ReviewIndex

    def page(self, member: StaffMember, filters: Filters, *, after: tuple[float, int] | None = None) -> list[dict[str, Any]]:
        """Up to PAGE_ROWS summaries, most doubtful first; of judged ones the newest judgement first, and only one page."""
        conditions = self._conditions(member, filters)
        order: tuple[Any, ...] = (review_items.c.priority.desc(), review_items.c.id)
        if filters.state == DONE:
            order = (review_items.c.updated_at.desc(), review_items.c.id.desc())
        elif after:
            priority, item_id = after
            same = (review_items.c.priority == priority) & (review_items.c.id > item_id)
            conditions.append((review_items.c.priority < priority) | same)
        with db.reading(self.services.engine) as connection:
            rows = connection.execute(select(review_items).where(*conditions).order_by(*order).limit(PAGE_ROWS)).fetchall()
        return [self.summary(row) for row in rows]

    def facets(self, member: StaffMember) -> dict[str, Any]:
        """How many items there are in each state, and of the open ones by reason, channel, district, model and first level."""
        own = readable(member)
        states: Counter[str] = Counter()
        found: dict[str, Counter[str]] = {name: Counter() for name in ("reason", "channel", "district", "model", "category")}
        first_level = func.substr(review_items.c.category_code, 1, 2)
        columns = (review_items.c.reasons, review_items.c.channel, review_items.c.district, review_items.c.model, first_level)
        with db.reading(self.services.engine) as connection:
            for state, count in connection.execute(select(review_items.c.state, func.count()).where(*own).group_by(review_items.c.state)):
                states[state] = count
            wanted = select(*columns, func.count()).where(review_items.c.state == OPEN, *own).group_by(*columns)
            for reasons, channel, district, model, category, count in connection.execute(wanted):
                for reason in filter(None, reasons.split(",")):
                    found["reason"][reason] += count
                for name, value in (("channel", channel), ("district", district), ("model", model), ("category", category)):
                    if value:
                        found[name][value] += count
        grouped = {name: sum(states[one] for one in members) for name, members in STATES.items()}
        return {"states": grouped, **{name: dict(counts.most_common()) for name, counts in found.items()}}

    def find_row(self, member: StaffMember, item_id: int) -> Row:
        """Raises ItemNotFound."""
        with db.reading(self.services.engine) as connection:
            row = connection.execute(select(review_items).where(review_items.c.id == item_id, *readable(member))).first()
        if row is None:
            raise ItemNotFound
        return row

    def item(self, member: StaffMember, item_id: int) -> dict[str, Any]:
        """Everything the page shows of one item. Raises ItemNotFound."""
        row = self.find_row(member, item_id)
        prediction = json.loads(row.prediction)
        with db.reading(self.services.engine) as connection:
            judged = [one for one in judgements_of(connection, [row.digest])[row.digest] if not one.by_import]
            names = dict(connection.execute(select(users.c.username, users.c.display_name)).fetchall())
        settled = settle(judged)
        return {
            **self.summary(row),
            "text": str(self.services.vault.open(row.text)),
            "version": row.updated_at,
            "model": row.model,
            "subject": row.subject,
            "evidence": prediction["evidence"],
            "alternatives": [{**one, "label": label_of(one["code"], self.services.catalogue)} for one in prediction["categories"]],
            "confidences": {
                "intent": prediction["intent"]["confidence"],
                "request_type": prediction["request_type"]["confidence"],
                "urgency": prediction["urgency"]["confidence"],
            },
            "urgency_reasons": prediction["urgency"]["reasons"],
            "predicted": labels_of(prediction),
            "corrected": prediction.get(CORRECTED, {}),
            "labels": {**proposed_labels(prediction), **settled.labels},
            "disputed": list(settled.disputed),
            "opinions": [self._opinion(one, names, member) for one in judged if one.labels],
            "cluster_size": self._cluster_size(member, row.cluster),
        }

    def similar(self, member: StaffMember, item_id: int) -> list[dict[str, Any]]:
        """The likest other items and annotated texts, with what they were judged or read to be. Raises ItemNotFound."""
        row = self.find_row(member, item_id)
        near = self.index.nearest(str(self.services.vault.open(row.text)), 3 * SIMILAR)
        likeness = dict(near)
        items = [key for key, _ in near if key > 0 and key != item_id]
        annotated = [-key for key, _ in near if key < 0]
        with db.reading(self.services.engine) as connection:
            rows = connection.execute(select(review_items).where(review_items.c.id.in_(items), *readable(member))).fetchall()
            texts = connection.execute(select(annotation_rows).where(annotation_rows.c.id.in_(annotated))).fetchall()
            judged = judgements_of(connection, {*(one.digest for one in (*rows, *texts) if one.digest), row.digest})
        found = [self._similar_item(one, judged[one.digest], likeness[one.id]) for one in rows if one.digest != row.digest]
        shown = {row.digest, *(one.digest for one in rows)}
        found += [
            self._similar_text(one, judged[one.digest], likeness[-one.id])
            for one in texts
            if one.digest and one.digest not in shown and judged[one.digest]
        ]
        return sorted(found, key=lambda one: -one["likeness"])[:SIMILAR]

    def clusters(self, member: StaffMember, filters: Filters) -> list[dict[str, Any]]:
        """Groups of open items that read alike, the largest first."""
        conditions = self._conditions(member, Filters(**{**vars(filters), "state": OPEN}))
        size = func.count().label("size")
        wanted = select(review_items.c.cluster, size).where(review_items.c.cluster.isnot(None), *conditions)
        grouped = wanted.group_by(review_items.c.cluster).having(size >= LEAST_CLUSTER).order_by(size.desc(), review_items.c.cluster)
        with db.reading(self.services.engine) as connection:
            rows = connection.execute(grouped.limit(MOST_CLUSTERS)).fetchall()
            firsts = {row.cluster: self._members(connection, member, row.cluster, 1) for row in rows}
        return [
            {"cluster": row.cluster, "size": row.size, **self.summary(firsts[row.cluster][0])} for row in rows if firsts[row.cluster]
        ]

    def cluster(self, member: StaffMember, cluster: int) -> dict[str, Any]:
        """The open items of one group, and the class that most of them were read as. Raises ItemNotFound."""
        with db.reading(self.services.engine) as connection:
            rows = self._members(connection, member, cluster, MOST_MEMBERS)
        if not rows:
            raise ItemNotFound
        proposed = [proposed_labels(json.loads(row.prediction)) for row in rows]
        category, _ = Counter(str(labels[CATEGORY]) for labels in proposed).most_common(1)[0]
        items = [{**self.summary(row), "text": str(self.services.vault.open(row.text))} for row in rows]
        return {"cluster": cluster, "items": items, "category": category, "label": label_of(category, self.services.catalogue)}

    def _members(self, connection: Any, member: StaffMember, cluster: int, most: int) -> list[Row]:
        conditions = review_items.c.cluster == cluster, review_items.c.state == OPEN, *readable(member)
        rows = connection.execute(select(review_items).where(*conditions).order_by(review_items.c.priority.desc()).limit(most))
        return list(rows)

    def _cluster_size(self, member: StaffMember, cluster: int | None) -> int:
        conditions = review_items.c.cluster == cluster, review_items.c.state == OPEN, *readable(member)
        with db.reading(self.services.engine) as connection:
            return int(connection.execute(select(func.count()).select_from(review_items).where(*conditions)).scalar_one())

    # -- views ----------------------------------------------------------------------------------------------------

    def summary(self, row: Row) -> dict[str, Any]:
        text = str(self.services.vault.open(row.text))
        prediction = json.loads(row.prediction)
        category = str(proposed_labels(prediction)[CATEGORY])
        return {
            "id": row.id,
            "snippet": _beginning(text),
            "category": category,
            "label": label_of(category, self.services.catalogue),
            "short": short_label_of(category, self.services.catalogue),
            "intent_name": INTENT_NAMES.get(str(prediction["intent"]["name"]), "没听懂"),
            "confidence": row.confidence,
            "priority": row.priority,
            "reasons": [reason for reason in row.reasons.split(",") if reason in DOUBTS],
            "state": row.state,
            "channel": row.channel,
            "district": row.district,
            "at": row.at,
        }

    def _opinion(self, one: Judgement, names: Mapping[str, str], member: StaffMember) -> dict[str, Any]:
        return {
            "author": names.get(one.author) or one.author,
            "mine": one.author == member.username,
            "at": one.at,
            "labels": one.labels,
            "label": label_of(str(one.labels.get(CATEGORY, "")), self.services.catalogue),
            "final": one.source == FINAL,
            "bulk": one.source.startswith(BULK),
        }

    def _similar_item(self, row: Row, judged: Sequence[Judgement], likeness: float) -> dict[str, Any]:
        category = settle(judged).labels.get(CATEGORY)
        shown = {"label": label_of(str(category), self.services.catalogue)} if category else {}
        return {**self.summary(row), **shown, "judged": category is not None, "likeness": likeness}

    def _similar_text(self, row: Row, judged: Sequence[Judgement], likeness: float) -> dict[str, Any]:
        text, category = str(self.services.vault.open(row.text)), str(settle(judged).labels.get(CATEGORY, ""))
        label = label_of(category, self.services.catalogue)
        return {"id": None, "snippet": _beginning(text), "label": label, "judged": True, "likeness": likeness}

    def _conditions(self, member: StaffMember, filters: Filters) -> list[ColumnElement[bool]]:
        conditions = [*readable(member), review_items.c.state.in_(STATES.get(filters.state, (OPEN,)))]
        for column, value in ((review_items.c.channel, filters.channel), (review_items.c.model, filters.model)):
            if value:
                conditions.append(column == value)
        if filters.district:
            conditions.append(review_items.c.district == filters.district)
        if filters.reason in DOUBTS:
            conditions.append(review_items.c.reasons.contains(filters.reason))
        if filters.category.isdigit():
            conditions.append(review_items.c.category_code.startswith(filters.category))
        if filters.since:
            conditions.append(review_items.c.at >= filters.since)
        if filters.until:
            conditions.append(review_items.c.at < filters.until)
        if words := filters.words.split():
            conditions.append(review_items.c.id.in_(self.index.items_containing(words)[:MOST_FOUND]))
        return conditions


def _beginning(text: str) -> str:
    return text[:SNIPPET] + ("…" if len(text) > SNIPPET else "")


def readable(member: StaffMember) -> list[ColumnElement[bool]]:
    """Conditions that hold for every item this person may read."""
    if not member.districts:
        return []
    return [or_(review_items.c.district.is_(None), review_items.c.district.in_(member.districts))]


def label_of(code: str, catalogue: Catalogue) -> str:
    """How a class of any level is called: its levels down to the one meant."""
    path = next((category.path for one, category in catalogue.categories.items() if one.startswith(code)), None) if code else None
    return " · ".join(dict.fromkeys(path[: len(code) // 2])) if path else ""


def short_label_of(code: str, catalogue: Catalogue) -> str:
    """The first level and the most telling lower one, for lists."""
    category = catalogue.categories.get(code)
    return category.label if category else label_of(code, catalogue)
