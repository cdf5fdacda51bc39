"""Promotion and rollback while residents talk: two servers on one database change their model again and again under about 50 turns a second.

`python -m tests.promote_soak` ends with 0 when no turn failed, every turn names the one model that read and answered it, every
conversation that was under way came to its ticket, and all processes served the promoted model within ten seconds.
`--postgres URL` uses that empty database instead of SQLite.
"""
from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import func, select

from bot.conversation import APOLOGY_FAILURE, APOLOGY_STORAGE
from bot.db import reading
from bot.models import find_archives, keep_report, promote_model, promoted_model, rollback_model
from bot.schema import inbound_messages, tickets
from bot.services import Services, build_services
from bot.serving import list_serving
from bot.settings import PROJECT_ROOT, load_settings
from tests.servers import Server, settings_as_variables

MODELS = ("20260101-000000", "20260102-000000")
CONVERGED = 10.0
SCRIPT = ("小区门口的路灯坏了三天了，晚上黑漆漆的", "经开区山阳小区{n}号楼旁边", "确认提交", "不留电话", "查进度")
GOOD = {"macro_f1": 0.9, "accuracy": 0.9, "per_class": {}, "emergency": {"recall": 0.95}, "must_pass": {"total": 1, "passed": 1}}


@dataclass(frozen=True)
class Size:
    residents: int
    turns_per_second: float  # of all residents together
    swaps: int  # every second one goes back
    between: float  # seconds of talk between two of them


SHORT, FULL = Size(6, 10.0, 2, 3.0), Size(24, 50.0, 10, 12.0)


@dataclass
class Talk:
    """What all residents share, and what became of their turns."""

    servers: list[Server]
    pace: float  # seconds between two turns of one resident
    over: threading.Event = field(default_factory=threading.Event)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    senders: list[str] = field(default_factory=list)
    filed: Counter[str] = field(default_factory=Counter)

    def talk(self, resident: int) -> None:
        """One conversation after the other, each turn at any of the servers; the last one is brought to its end."""
        chance, session, number = random.Random(resident), requests.Session(), 0
        while not self.over.is_set():
            number += 1
            sender = f"r{resident}-{number}"
            self.senders.append(sender)
            for turn, text in enumerate(SCRIPT):
                started = time.monotonic()
                self._turn(session, chance.choice(self.servers), sender, f"{sender}-{turn}", text.format(n=chance.randrange(1, 60)))
                time.sleep(max(0.0, self.pace * chance.uniform(0.5, 1.5) - (time.monotonic() - started)))

    def _turn(self, session: requests.Session, server: Server, sender: str, message_id: str, text: str) -> None:
        started = time.monotonic()
        try:
            answer = session.post(f"{server.url}/api/chat", json={"sender": sender, "text": text, "message_id": message_id}, timeout=30)
        except requests.RequestException as error:
            self.faults.append(f"{message_id}: {type(error).__name__}")
            return
        self.seconds.append(time.monotonic() - started)
        said = "".join(bubble["text"] for bubble in answer.json().get("messages", ())) if answer.status_code == 200 else ""
        if not said or APOLOGY_FAILURE in said or APOLOGY_STORAGE in said:
            self.faults.append(f"{message_id}: HTTP {answer.status_code} {said[:40]}")
        elif answer.json()["tickets"]:
            self.filed[sender] += 1


def swap(services: Services, back: bool) -> float:
    """Promote the other model, or go back to it; the seconds until every process serves it."""
    serving = promoted_model(services)
    started = time.monotonic()
    if back:
        wanted = rollback_model(services)
    else:
        wanted = next(version for version in MODELS if version != serving)
        keep_report(services, wanted, {"candidate": GOOD, "serving": GOOD, "serving_model": serving})
        promote_model(services, wanted)
    while time.monotonic() - started < 120:
        seen = [process.model for process in list_serving(services)]
        if len(seen) == 2 and set(seen) == {wanted}:
            return time.monotonic() - started
        time.sleep(0.1)
    raise TimeoutError(f"after two minutes the processes serve {seen}, not {wanted}")


def check(services: Services, talk: Talk) -> None:
    with reading(services.engine) as connection:
        unnamed = connection.execute(select(func.count()).where(inbound_messages.c.model.is_(None))).scalar_one()
        unanswered = connection.execute(select(func.count()).where(inbound_messages.c.answered_at.is_(None))).scalar_one()
        models = connection.execute(select(inbound_messages.c.model, func.count()).group_by(inbound_messages.c.model)).fetchall()
        count = connection.execute(select(func.count()).select_from(tickets)).scalar_one()
    if unnamed or unanswered:
        talk.faults.append(f"{unanswered} turns without an answer, {unnamed} without a model")
    if {row.model for row in models} - {*MODELS, None}:
        talk.faults.append(f"unknown models: {models}")
    unfinished = [sender for sender in talk.senders if talk.filed[sender] != 1]
    if unfinished:
        talk.faults.append(f"{len(unfinished)} of {len(talk.senders)} conversations have not exactly one ticket: {unfinished[:5]}")
    if count != len(talk.senders):
        talk.faults.append(f"{count} tickets for {len(talk.senders)} conversations")


def run(size: Size, directory: Path, *, database_url: str = "", say: Callable[[str], None] = print) -> tuple[list[str], list[float]]:
    """(faults, seconds that each swap took); says what it did."""
    (directory / "models").mkdir()
    for version in MODELS:
        (directory / "models" / f"{version}.tar.gz").symlink_to(find_archives(PROJECT_ROOT / "models")[0].resolve())
    shared: dict[str, str] = {"models_dir": str(directory / "models"), "database_url": database_url}
    settings: dict[str, Any] = {**shared, "var_dir": str(directory / "var"), "rate_limit": "0"}
    services = build_services(load_settings(settings_as_variables(settings)))
    with ExitStack() as stack:
        servers = [Server(directory / "var", **shared) for _ in range(2)]
        for server in servers:  # one after the other: the first one makes the tables
            server.start()
            stack.callback(server.stop)
        talk = Talk(servers, size.residents / size.turns_per_second)
        residents = [threading.Thread(target=talk.talk, args=(number,)) for number in range(size.residents)]
        for resident in residents:
            resident.start()
        took, started = [], time.monotonic()
        try:
            for number in range(size.swaps):
                time.sleep(size.between)
                took.append(swap(services, back=number % 2 == 1))
            time.sleep(size.between)
        finally:
            talk.over.set()
            for resident in residents:
                resident.join()
        spent, memory = time.monotonic() - started, [round(server.rss_mb()) for server in servers]
    check(services, talk)
    services.engine.dispose()
    ordered = sorted(talk.seconds) or [0.0]
    say(f"turns           {len(talk.seconds)} in {spent:.0f} s ({len(talk.seconds) / spent:.0f} a second), {len(talk.senders)} conversations")
    say(f"latency         p50 {ordered[len(ordered) // 2] * 1000:.0f} ms, p99 {ordered[int(len(ordered) * 0.99)] * 1000:.0f} ms, worst {ordered[-1]:.1f} s")
    say("converged       " + ", ".join(f"{seconds:.1f} s" for seconds in took) + " (promotions and roll-backs in turn)")
    say(f"memory          {memory} MiB at the end")
    say(f"failed turns    {len(talk.faults)}" + "".join(f"\n  {fault}" for fault in talk.faults[:20]))
    return talk.faults, took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--postgres", default="", metavar="URL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minsheng-promote-") as directory:
        faults, took = run(SHORT if options.short else FULL, Path(directory), database_url=options.postgres)
    late = [seconds for seconds in took if seconds > CONVERGED]
    if late:
        print(f"{len(late)} swaps took longer than {CONVERGED:.0f} s")
    return 1 if faults or late else 0


if __name__ == "__main__":
    sys.exit(main())
