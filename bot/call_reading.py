"""Calls as the model reads them, kept up with while people talk: one reading at a time for each call, the newest turns only.

A reading is a suggestion and nothing but a copy of one: it lives in this process, and any other process reads the same turns
again. While the model is away or slow, the last reading stays and says so; nobody who writes a ticket waits for it.
"""
from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bot.assistant import Assistant, AssistantError, Reader
from bot.calls import PhoneCall
from bot.parse import parse_turns
from bot.services import Services

logger = logging.getLogger(__name__)

SLOW_SECONDS, RETRY_SECONDS = 2.0, 3.0
MOST_KEPT, MOST_TEXTS, MOST_CHARACTERS, MOST_THREADS = 500, 300, 20_000, 8

NONE, READY, WORKING, SLOW, AWAY = "none", "ready", "working", "slow", "away"

Said = tuple[tuple[str, str], ...]  # (speaker, text) of each turn


@dataclass(frozen=True)
class Reading:
    """The newest parse of a call and of which turns it is. `state` is one of the five above; `serial` grows with the parse."""

    state: str = NONE
    serial: int = 0
    parse: Mapping[str, Any] | None = None
    said: Said = ()


@dataclass
class _Slot:
    said: Said = ()
    parse: Mapping[str, Any] | None = None
    serial: int = 0
    wanted: Said | None = None  # newer turns, not read yet
    wanted_at: float = 0.0
    failed_at: float | None = None
    running: bool = False

    def seen(self, moment: float) -> Reading:
        if self.failed_at is not None:
            state = AWAY
        elif self.wanted is not None:
            state = SLOW if moment - self.wanted_at > SLOW_SECONDS else WORKING
        else:
            state = READY if self.parse is not None else NONE
        return Reading(state, self.serial, self.parse, self.said)


class Remembering:
    """Reads the same words once: a call is read again with every turn, and what only the agent said changes nothing of them."""

    def __init__(self, assistant: Reader) -> None:
        self._assistant = assistant
        self._known: OrderedDict[tuple[str, str], Mapping[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def parse(self, text: str) -> Mapping[str, Any]:
        key = self._assistant.serving_model(), text
        with self._lock:
            known = self._known.get(key)
        return known or self._remember(key, self._assistant.parse(text))

    def _remember(self, key: tuple[str, str], data: Mapping[str, Any]) -> Mapping[str, Any]:
        with self._lock:
            self._known[key] = data
            while len(self._known) > MOST_TEXTS:
                self._known.popitem(last=False)
        return data

    def serving_model(self) -> str:
        return self._assistant.serving_model()


class CallReader:
    """`changed(call_id)` is called from a reading thread whenever a reading has changed."""

    def __init__(self, services: Services, assistant: Assistant, changed: Callable[[str], None]) -> None:
        self._services, self._assistant, self._changed = services, Remembering(assistant), changed
        self._pool = ThreadPoolExecutor(min(assistant.concurrency, MOST_THREADS), thread_name_prefix="call-reading")
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def follow(self, call: PhoneCall) -> Reading:
        """The newest reading there is; where it is not of these turns, they are read soon."""
        said, moment = said_in(call), time.monotonic()
        with self._lock:
            slot = self._slots.setdefault(call.id, _Slot())
            self._slots.move_to_end(call.id)
            while len(self._slots) > MOST_KEPT:
                self._slots.popitem(last=False)
            if said and said != slot.said and said != slot.wanted:
                slot.wanted_at = slot.wanted_at if slot.wanted is not None else moment
                slot.wanted = said
            due = slot.failed_at is None or moment - slot.failed_at > RETRY_SECONDS
            start = slot.wanted is not None and not slot.running and due
            slot.running = slot.running or start
            reading = slot.seen(moment)
        if start:
            self._pool.submit(self._read, call.id, slot)
        return reading

    def _read(self, call_id: str, slot: _Slot) -> None:
        with self._lock:
            said = slot.wanted
        parse = self._parse(said or ())
        with self._lock:
            slot.failed_at = None if parse is not None else time.monotonic()
            if parse is not None:
                slot.said, slot.parse, slot.serial = said or (), parse, slot.serial + 1
            slot.wanted = None if parse is not None and slot.wanted == said else slot.wanted
            again = slot.running = slot.wanted is not None and parse is not None
        self._changed(call_id)
        if again:  # not at once: others have waited longer
            self._pool.submit(self._read, call_id, slot)

    def _parse(self, said: Said) -> Mapping[str, Any] | None:
        """None when the model cannot read now, whatever the reason: the form works by hand then."""
        turns = [{"speaker": speaker, "text": text} for speaker, text in said]
        try:
            return parse_turns(turns, self._assistant, self._services.catalogue, self._services.gazetteer)
        except AssistantError as error:
            logger.warning("a call could not be read: %s", error)
        except Exception as error:  # a fault of ours must cost suggestions, never the call; str(error) may quote the caller
            logger.error("reading a call failed: %s\n%s", type(error).__qualname__, "".join(traceback.format_tb(error.__traceback__)))
        return None


def said_in(call: PhoneCall) -> Said:
    """The turns as they are read, up to as much as one parse takes."""
    said: list[tuple[str, str]] = []
    room = MOST_CHARACTERS
    for turn in call.turns:
        room -= len(turn.text)
        if room < 0:
            break
        said.append((turn.speaker, turn.text))
    return tuple(said)
