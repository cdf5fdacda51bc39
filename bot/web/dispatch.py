"""Status events coming back from the dispatch system: POST /dispatch/events (DESIGN §7).

Verifies, validates, and hands a StatusEvent to bot.tickets. The blueprint must be exempt from CSRF protection: its callers
are machines and every request is signed.
"""
from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import RequestEntityTooLarge

from bot.db import StorageError, parse_iso
from bot.services import Services
from bot.signing import SignatureError, signing_keys, verify
from bot.ticket import STATUS_FROM_DISPATCH, StatusEvent
from bot.tickets import TicketNotFound

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
MAX_NOTE, MAX_DEPARTMENT, MAX_WEBHOOK_ID = 4000, 80, 120
_TICKET_NUMBER = re.compile(r"[0-9]{8}-[0-9]{4,10}")
# What ISO 8601 allows and Python 3.10's fromisoformat() does not: any number of decimals, "+0800", "+08".
_ISO_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:[.,]([0-9]{1,12}))?(?:([Zz])|([+-][0-9]{2}):?([0-9]{2})?)"
)


class Counter(Protocol):
    def inc(self) -> None: ...


class Counters(Protocol):
    @property
    def forged_signatures(self) -> Counter: ...


class EventError(ValueError):
    """A signed event that does not meet the contract; `field` is the path to what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def create_blueprint(services: Services, counters: Counters) -> Blueprint:
    """Raises SettingsError when the signing secret cannot work."""
    signing_keys(services.settings.dispatch_secret)
    blueprint = Blueprint("dispatch", __name__)

    @blueprint.post("/dispatch/events")
    def receive_event() -> ResponseReturnValue:
        request.max_content_length = MAX_BODY
        try:
            body = request.get_data(cache=False)
        except RequestEntityTooLarge:
            return jsonify(error=f"body larger than {MAX_BODY} bytes"), 413
        try:
            return jsonify(status=record_signed_event(services, dict(request.headers), body))
        except SignatureError:
            counters.forged_signatures.inc()
            return jsonify(error="forbidden"), 403
        except EventError as error:
            return jsonify(error=str(error), field=error.field), 422
        except TicketNotFound:
            return jsonify(error="data.ticket_number: unknown ticket", field="data.ticket_number"), 404
        except (StorageError, SQLAlchemyError) as error:
            logger.error("status event not stored", extra={"error": type(error).__name__})
            return jsonify(error="temporarily unavailable, send again"), 503

    return blueprint


def record_signed_event(services: Services, headers: Mapping[str, str], body: bytes) -> str:
    """Apply a signed status event: "recorded", or "duplicate" when its webhook-id was recorded before.

    Raises SignatureError, EventError, TicketNotFound, StorageError; nothing is written then.
    """
    verify(services.settings.dispatch_secret, headers, body, services.now())
    webhook_id = next(value for name, value in headers.items() if name.lower() == "webhook-id")
    event = parse_event(webhook_id, body)
    recorded = services.tickets.record_status(event)
    logger.info(
        "status event",
        extra={"ticket_number": event.ticket_number, "webhook_id": event.webhook_id, "status": event.status, "recorded": recorded},
    )
    return "recorded" if recorded else "duplicate"


def parse_event(webhook_id: str, body: bytes) -> StatusEvent:
    """Unknown extra fields are allowed. Raises EventError naming the first field that is wrong, TicketNotFound."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise EventError("body", "must be JSON in UTF-8") from None
    if not isinstance(event, dict):
        raise EventError("body", "must be a JSON object")
    if event.get("type") != "ticket.status":
        raise EventError("type", "must be ticket.status")
    if isinstance(event.get("timestamp"), str):  # not used: what orders events is data.at; some senders write Unix time
        _checked(event, "timestamp", "timestamp", _time)
    data = event.get("data")
    if not isinstance(data, dict):
        raise EventError("data", "must be an object")
    parsed = StatusEvent(
        webhook_id=_short_id(webhook_id),
        ticket_number=_checked(data, "ticket_number", "data.ticket_number", str.strip),
        status=_checked(data, "status", "data.status", _status),
        at=_checked(data, "at", "data.at", _time),
        department=_text(data, "department", MAX_DEPARTMENT) or None,
        note=_text(data, "note", MAX_NOTE),
    )
    if not _TICKET_NUMBER.fullmatch(parsed.ticket_number):  # no such ticket can exist, and no odd character reaches a query
        raise TicketNotFound
    return parsed


def _checked(data: Mapping[str, Any], name: str, path: str, check: Callable[[str], Any]) -> Any:
    value = data.get(name)
    if not isinstance(value, str) or not value.strip():
        raise EventError(path, "is required and must be text")
    try:
        return check(value)
    except ValueError as error:
        raise EventError(path, str(error)) from None


def _status(value: str) -> str:
    if value not in STATUS_FROM_DISPATCH:
        raise ValueError("must be one of " + ", ".join(STATUS_FROM_DISPATCH))
    return value


def _time(value: str) -> datetime:
    problem = "must be an ISO 8601 time with a zone, such as 2026-11-21T09:30:00+08:00"
    match = _ISO_TIME.fullmatch(value.strip())
    if match is None:
        raise ValueError(problem)
    day, minute, second, decimals, zulu, hours, minutes = match.groups()
    zone = "+00:00" if zulu else f"{hours}:{minutes or '00'}"
    try:
        return parse_iso(f"{day}T{minute}{second or ':00'}.{(decimals or '')[:6]:0<6}{zone}")
    except (ValueError, OverflowError):
        raise ValueError(problem) from None


def _text(data: Mapping[str, Any], name: str, limit: int) -> str:
    """Optional text; null counts as absent. Half a surrogate pair or NUL could not be stored."""
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise EventError(f"data.{name}", "must be text")
    if len(value) > limit:
        raise EventError(f"data.{name}", f"must have at most {limit} characters")
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise EventError(f"data.{name}", "contains characters that are no text")
    return value.strip()


def _short_id(webhook_id: str) -> str:
    """The id as it is remembered; a very long one by its digest, since the column is not endless."""
    if len(webhook_id) <= MAX_WEBHOOK_ID:
        return webhook_id
    return "sha256:" + hashlib.sha256(webhook_id.encode()).hexdigest()
