"""Real utterances and calls become review items: by looking at what is new, never inside a turn.

Everything filed becomes an item, and everything that went wrong: corrected by an agent, returned by a department, not understood,
read differently by two models or by a model and a person. What is confidential or restricted is never kept here. Texts are masked
and sealed; the same words are one item.
"""
from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from bot import db
from bot.annotations import CATEGORY, REQUEST_TYPE, URGENCY, agree, text_digest
from bot.assistant import Assistant
from bot.parse import parse_text
from bot.petition import mask, matter_of, petition_from_dict
from bot.review_index import ReviewIndex
from bot.review_labels import CORRECTED, certainty, labels_of, slim_prediction
from bot.schema import conversations, inbound_messages, misunderstandings, ticket_events, tickets
from bot.services import Services
from bot.staff_schema import annotation_rows, call_turns, corrections, review_items, review_marks
from bot.vault import VaultError

logger = logging.getLogger(__name__)

# Why a text is worth a reviewer's minute, and how likely the reading is wrong where this is all that is known.
LOW, CORRECTED_BY_AGENT, RETURNED, FALLBACK, DISAGREEMENT, RANDOM = "low", "corrected", "returned", "fallback", "disagreement", "random"
DOUBTS = {CORRECTED_BY_AGENT: 0.9, RETURNED: 0.7, DISAGREEMENT: 0.6, FALLBACK: 0.5, RANDOM: 0.3, LOW: 0.0}
REASON_NAMES = {
    CORRECTED_BY_AGENT: "坐席改过", RETURNED: "部门退回", DISAGREEMENT: "读法不一", FALLBACK: "没听懂", LOW: "把握低", RANDOM: "抽查",
}  # fmt: skip
REOPENING = frozenset({CORRECTED_BY_AGENT, RETURNED, DISAGREEMENT})  # news that a judged item must be looked at again

OPEN, ACCEPTED, FIXED, SKIPPED, DISPUTED = "open", "accepted", "fixed", "skipped", "disputed"

BATCH_ROWS = 40  # readings of one round: a tenth of a core while there is a backlog
LEASE = timedelta(seconds=120)
SAMPLE_ONE_IN = 50
KEPT_OPEN, TRIM_EVERY = 100_000, 500
PROPOSED_FIELDS = frozenset({CATEGORY, REQUEST_TYPE, URGENCY})


@dataclass(frozen=True)
class Utterance:
    """What somebody said, on its way to a reviewer."""

    text: str  # masked
    channel: str  # wechat | web | api | hotline | import
    subject: str
    district: str | None
    at: str
    reasons: frozenset[str] = frozenset()
    proposed: Mapping[str, str] = field(default_factory=dict)  # field → what a colleague made of it
    read_before: tuple[str, str] | None = None  # (model, category it read) when it was filed


def priority_of(confidence: float, reasons: Iterable[str]) -> float:
    """1 − confidence · Π(1 − doubt): how likely the reading is wrong, taking each reason as one more independent sign."""
    right = confidence
    for reason in reasons:
        right *= 1.0 - DOUBTS[reason]
    return round(1.0 - right, 4)


@dataclass
class Reviews:
    """`index` is kept in step with what is written here."""

    services: Services
    assistant: Assistant
    index: ReviewIndex
    _until_trim: int = TRIM_EVERY

    def make_items(self) -> int:
        """One round over everything new; how many items were made or changed. Raises AssistantError, StorageError: tried again."""
        self.index.refresh()
        made = 0
        for name, source in _SOURCES.items():
            made += self._take_round(name, source)
        self._until_trim -= made
        if self._until_trim <= 0:
            self._until_trim = TRIM_EVERY
            self.trim(KEPT_OPEN)
        return made

    def _take_round(self, name: str, source: _Source) -> int:
        claimed = self._claim(name, source)
        if claimed is None:
            return 0
        position, seen, newest = claimed
        with db.reading(self.services.engine) as connection:
            wanted = select(source.table).where(source.table.c.id > position, source.table.c.id <= seen)
            rows = connection.execute(wanted.order_by(source.table.c.id).limit(BATCH_ROWS)).fetchall()
        made = 0
        for row in rows:
            utterance = self._utterance(source, row)
            made += utterance is not None and self.keep(utterance)
        more = len(rows) == BATCH_ROWS
        done = {"position": rows[-1].id if more else seen, "seen": newest, "lease_until": None}
        with db.transaction(self.services.engine, durable=False) as connection:
            connection.execute(update(review_marks).where(review_marks.c.name == name).values(**done))
        return made

    def _claim(self, name: str, source: _Source) -> tuple[int, int, int] | None:
        """(position, seen, newest) of a source for this process alone, until done or for the length of the lease.

        Ids are committed out of their order: a row is read one round after its id was first seen, not before.
        """
        now = self.services.now()
        free = or_(review_marks.c.lease_until.is_(None), review_marks.c.lease_until <= db.iso(now))
        with db.transaction(self.services.engine, durable=False) as connection:
            row = connection.execute(select(review_marks).where(review_marks.c.name == name)).first()
            newest = connection.execute(select(func.coalesce(func.max(source.table.c.id), 0))).scalar_one()
            if row is None:
                connection.execute(review_marks.insert().values(name=name, position=0, seen=newest))
                return None
            if row.position == row.seen == newest:
                return None
            taken = update(review_marks).where(review_marks.c.name == name, review_marks.c.position == row.position, free)
            claimed = connection.execute(taken.values(lease_until=db.iso(now + LEASE))).rowcount
        return (row.position, row.seen, newest) if claimed else None

    def _utterance(self, source: _Source, row: Row) -> Utterance | None:
        try:
            with db.reading(self.services.engine) as connection:
                return source.read(connection, self.services, row)
        except VaultError:  # of another SECRET_KEY: it must not block everything after it
            logger.warning("a row cannot be opened and is not reviewed", extra={"row": row.id})
            return None

    # -- items ----------------------------------------------------------------------------------------------------

    def keep(self, utterance: Utterance, parse: Mapping[str, Any] | None = None) -> bool:
        """Read by the serving model (unless `parse` is given) and kept as an item, or added to the item of the same words.

        False for what says nothing. Raises AssistantError, StorageError."""
        if not any(map(str.isalnum, utterance.text)):
            return False
        parse = parse or parse_text(utterance.text, self.assistant, self.services.catalogue, self.services.gazetteer)
        district = utterance.district or _district_in(parse)
        prediction, digest = slim_prediction(parse), text_digest(self.services.vault, utterance.text)
        prediction[CORRECTED] = dict(utterance.proposed)
        reasons = utterance.reasons | _found_by_reading(utterance, prediction, str(parse["model"]))
        if prediction["intent"]["name"] == "nlu_fallback":
            reasons |= {FALLBACK}
        reasons |= {LOW} if certainty(prediction) < self.services.settings.lane_file else set()
        reasons |= {RANDOM} if int(digest[:8], 16) % SAMPLE_ONE_IN == 0 else set()
        near = self.index.near_items(utterance.text)  # before the write: it may take a tenth of a second
        with db.transaction(self.services.engine, durable=False) as connection:
            key, new = self._write(connection, replace(utterance, district=district), prediction, digest, str(parse["model"]), reasons)
            if new:
                cluster = self._find_cluster(connection, near, prediction["categories"][0]["code"]) or key
                connection.execute(update(review_items).where(review_items.c.id == key).values(cluster=cluster))
        self.index.add_item(key, utterance.text)
        return True

    def _write(
        self, connection: Connection, utterance: Utterance, prediction: dict[str, Any], digest: str, model: str, reasons: frozenset[str]
    ) -> tuple[int, bool]:
        """The item's id, and whether it is new."""
        earlier = connection.execute(select(review_items).where(review_items.c.digest == digest).with_for_update()).first()
        if earlier is None:
            try:
                with connection.begin_nested():
                    return self._insert(connection, utterance, prediction, digest, model, reasons), True
            except IntegrityError:  # another process kept the same words at this moment
                earlier = connection.execute(select(review_items).where(review_items.c.digest == digest).with_for_update()).one()
        before = json.loads(earlier.prediction)
        prediction[CORRECTED] = {**before.get(CORRECTED, {}), **prediction[CORRECTED]}
        known = frozenset(filter(None, earlier.reasons.split(",")))
        values = _values(self.services, prediction, model, known | reasons)
        reopened = earlier.state in (ACCEPTED, FIXED, SKIPPED) and bool((reasons - known) & REOPENING)
        changed = update(review_items).where(review_items.c.id == earlier.id)
        connection.execute(changed.values(**values, state=OPEN if reopened else earlier.state))
        return int(earlier.id), False

    def _insert(
        self, connection: Connection, utterance: Utterance, prediction: dict[str, Any], digest: str, model: str, reasons: frozenset[str]
    ) -> int:
        values = {
            **_values(self.services, prediction, model, reasons),
            "at": utterance.at, "channel": utterance.channel, "subject": utterance.subject[:64], "district": utterance.district,
            "text": self.services.vault.seal(utterance.text), "digest": digest, "state": OPEN,
        }  # fmt: skip
        return int(connection.execute(review_items.insert().values(**values)).inserted_primary_key[0])

    def _find_cluster(self, connection: Connection, near: Iterable[int], category: str) -> int | None:
        """The group of the likest earlier item that was read as the same first level."""
        for key in near:
            row = connection.execute(select(review_items.c.cluster, review_items.c.category_code).where(review_items.c.id == key)).first()
            if row is not None and row.cluster and row.category_code[:2] == category[:2]:
                return int(row.cluster)
        return None

    def trim(self, kept: int) -> int:
        """Forget the least urgent open items beyond this number; they are copies, and nobody would come to them."""
        never_judged = review_items.c.id.notin_(select(annotation_rows.c.item_id).where(annotation_rows.c.item_id.isnot(None)))
        with db.transaction(self.services.engine) as connection:
            # The newest stays: SQLite would give its number again, and other processes know that number by its words.
            newest = select(func.max(review_items.c.id)).scalar_subquery()
            wanted = select(review_items.c.id).where(review_items.c.state == OPEN, never_judged, review_items.c.id < newest)
            beyond = wanted.order_by(review_items.c.priority.desc(), review_items.c.id.desc()).offset(kept)
            gone = list(connection.execute(beyond).scalars())
            for start in range(0, len(gone), 500):
                connection.execute(delete(review_items).where(review_items.c.id.in_(gone[start : start + 500])))
        self.index.discard_items(gone)
        return len(gone)


def _values(services: Services, prediction: Mapping[str, Any], model: str, reasons: frozenset[str]) -> dict[str, Any]:
    confidence = certainty(prediction)
    return {
        "prediction": json.dumps(prediction, ensure_ascii=False),
        "model": model,
        "category_code": prediction["categories"][0]["code"],
        "confidence": confidence,
        "reasons": ",".join(reason for reason in DOUBTS if reason in reasons),
        "priority": priority_of(confidence, reasons),
        "updated_at": db.iso(services.now()),
    }


def _district_in(parse: Mapping[str, Any]) -> str | None:
    """Of the place that somebody would be sent to, where the text names one."""
    district = parse["locations"][parse["main_location"]]["district"] if parse["main_location"] is not None else None
    return str(district) if district else None


def _found_by_reading(utterance: Utterance, prediction: Mapping[str, Any], model: str) -> frozenset[str]:
    """Disagreement: of the model that filed it with the one that serves now, or of that one with what a person made of it."""
    read = labels_of(prediction)
    if any(name in read and not agree(str(read[name]), value) for name, value in utterance.proposed.items()):
        return frozenset({DISAGREEMENT})
    if utterance.read_before:
        earlier, category = utterance.read_before
        if earlier != model and category[:2] != str(read[CATEGORY])[:2]:
            return frozenset({DISAGREEMENT})
    return frozenset()


# -- what is looked at ----------------------------------------------------------------------------------------------------


def _of_ticket(connection: Connection, services: Services, number: str) -> Utterance | None:
    row = connection.execute(select(tickets).where(tickets.c.number == number)).first()
    if row is None:
        return None
    petition = petition_from_dict(services.vault.open(row.petition))
    matter = matter_of(petition, services.catalogue)
    if row.confidential or petition.confidential or petition.kind == "minor" or matter is not None and matter.restricted:
        return None
    text = _words_of_call(connection, services, row.request_key) or petition.description
    read_before = (petition.model, petition.alternatives[0][0]) if petition.model and petition.alternatives else None
    channel = petition.source if petition.source in ("wechat", "hotline", "import") else "web"
    district = row.district or (petition.place or {}).get("district")
    return Utterance(mask(text), channel, number, district, row.filed_at, read_before=read_before)


def _words_of_call(connection: Connection, services: Services, request_key: str) -> str:
    """What the caller said, where the call became this one ticket only; of several each has its own words."""
    if not request_key.startswith("call:") or len(numbers_of_call(connection, call_id := request_key.split(":")[1])) > 1:
        return ""
    wanted = select(call_turns.c.text).where(call_turns.c.call_id == call_id, call_turns.c.speaker == "citizen")
    turns = connection.execute(wanted.order_by(call_turns.c.position)).scalars()
    return "\n".join(str(services.vault.open(sealed)) for sealed in turns)


def numbers_of_call(connection: Connection, call_id: str) -> list[str]:
    """The tickets that a call became, the first form's first."""
    keys = [f"call:{call_id}", *(f"call:{call_id}:{number}" for number in range(2, 10))]
    wanted = select(tickets.c.number).where(tickets.c.request_key.in_(keys))
    return list(connection.execute(wanted.order_by(tickets.c.request_key)).scalars())


def _read_event(connection: Connection, services: Services, row: Row) -> Utterance | None:
    if row.kind not in ("filed", "returned"):
        return None
    utterance = _of_ticket(connection, services, row.ticket_number)
    return _with(utterance, RETURNED) if utterance and row.kind == "returned" else utterance


def _read_correction(connection: Connection, services: Services, row: Row) -> Utterance | None:
    """What was changed is proposed to the reviewer, except of a call with several appeals: it is not known of which."""
    numbers = numbers_of_call(connection, row.subject) if row.source == "call" else [row.subject]
    utterance = _of_ticket(connection, services, numbers[0]) if numbers else None
    if utterance is None:
        return None
    value = services.vault.open(row.new)
    proposed = {row.field: value} if row.field in PROPOSED_FIELDS and isinstance(value, str) and value and len(numbers) == 1 else {}
    return _with(utterance, RETURNED if row.source == "returned" else CORRECTED_BY_AGENT, proposed)


def _read_misunderstanding(connection: Connection, services: Services, row: Row) -> Utterance | None:
    same = inbound_messages.c.conversation_id == row.conversation_id, inbound_messages.c.message_id == row.message_id
    message = connection.execute(select(inbound_messages).where(*same)).first()
    channel = connection.execute(select(conversations.c.channel).where(conversations.c.id == row.conversation_id)).scalar()
    if message is None:
        return None
    text = str(services.vault.open(message.body).get("text") or "")
    return Utterance(mask(text), str(channel or "web"), str(message.id), None, message.received_at, frozenset({FALLBACK}))


def _with(utterance: Utterance, reason: str, proposed: Mapping[str, str] | None = None) -> Utterance:
    return replace(utterance, reasons=utterance.reasons | {reason}, proposed=proposed or {})


@dataclass(frozen=True)
class _Source:
    table: Any
    read: Callable[[Connection, Services, Row], Utterance | None]


_SOURCES = {
    "ticket_event": _Source(ticket_events, _read_event),
    "correction": _Source(corrections, _read_correction),
    "misunderstanding": _Source(misunderstandings, _read_misunderstanding),
}
