"""What each resident sees on the phone, in order, with times; and what the service did against the platform's rules."""
from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

FAULT_SENTENCE = "该公众号提供的服务出现故障，请稍后再试"


@dataclass(frozen=True)
class Seen:
    """One line on the phone. `way`: said (by the resident) | passive | push | typing | fault. `choices`: id and words of each answer to tap."""

    number: int
    at: float
    way: str
    text: str
    choices: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Phones:
    """Thread-safe. `strict` also counts every violation with its reason; residents see the same either way."""

    strict: bool = True
    now: Callable[[], float] = time.time
    violations: Counter[str] = field(default_factory=Counter)
    _seen: dict[str, list[Seen]] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def show(self, openid: str, way: str, text: str, choices: tuple[tuple[str, str], ...] = ()) -> None:
        with self._changed:
            lines = self._seen.setdefault(openid, [])
            lines.append(Seen(len(lines) + 1, self.now(), way, text, choices))
            self._changed.notify_all()

    def of(self, openid: str, *, after: int = 0) -> list[Seen]:
        with self._changed:
            return self._seen.get(openid, [])[after:]

    def texts(self, openid: str, *ways: str) -> list[str]:
        return [seen.text for seen in self.of(openid) if seen.way in (ways or ("passive", "push", "fault"))]

    def wait(self, openid: str, wanted: Callable[[list[Seen]], bool], *, seconds: float) -> bool:
        """Until what the resident sees is as wanted, or time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: wanted(self._seen.get(openid, [])), seconds)

    def wait_for_more(self, openid: str, known: int, *, seconds: float) -> bool:
        return self.wait(openid, lambda seen: len(seen) > known, seconds=seconds)

    def violate(self, reason: str) -> None:
        if self.strict:
            with self._changed:
                self.violations[reason] += 1
