"""How fast the desk finds tickets among 100,000: `make bench-search`. Prints a table; nothing of it is a test.

Tickets are filed by the service's own code from the project's training texts, on SQLite, in a directory that is thrown away.
"""
from __future__ import annotations

import argparse
import itertools
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from sqlalchemy import text

from bot import db
from bot.access import Access
from bot.petition import Petition
from bot.services import DATA_DIR, Services, build_services
from bot.settings import load_settings
from bot.staff import StaffMember
from bot.text import strip_marks
from bot.ticket_list import Filters, TicketList

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
ROUNDS, TOGETHER = 20, 100


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickets", type=int, default=100_000)
    parser.add_argument("--database", default="", help="a PostgreSQL URL of an empty database; without it SQLite")
    options = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        settings = load_settings({"MINSHENG_VAR_DIR": directory, "MINSHENG_DATABASE_URL": options.database})
        db.migrate(settings)
        services = build_services(settings, now=clock)
        started = time.perf_counter()
        fill(services, clock, options.tickets)
        took = time.perf_counter() - started
        print(f"{options.tickets} tickets filed in {took:.0f} s ({options.tickets / took:.0f} a second, one thread, {TOGETHER} a transaction, index included)")
        print(sizes(services, directory))
        measure(services, options.tickets)
        services.engine.dispose()
    return 0


def fill(services: Services, clock: Clock, count: int) -> None:
    random.seed(7)
    petitions = itertools.cycle(list(_petitions(services)))
    for first in range(0, count, TOGETHER):
        with db.transaction(services.engine, durable=False):
            for number in range(first, min(first + TOGETHER, count)):
                clock.now = START + timedelta(days=300 * number / count)
                services.tickets.open_ticket(next(petitions), request_key=f"b{number}", conversation_id=None)


def _petitions(services: Services) -> Iterator[Petition]:
    """Two to four training texts in a row are as long as a letter; every place of the city's gazetteer comes up."""
    texts = [strip_marks(line.strip())[0] for path in sorted((DATA_DIR / "petitions").glob("*.txt")) for line in path.open(encoding="utf-8") if _is_text(line)]
    codes, names = sorted(services.catalogue.categories), sorted(services.gazetteer.local)
    random.shuffle(texts)
    for number, first in enumerate(texts * 3):
        others = random.sample(texts, random.choice((0, 1, 1, 2)))
        place = services.gazetteer.resolve(random.choice(names)).as_dict()
        yield Petition(
            id=f"p{number}", texts=(first, *others), place=place, category=random.choice(codes), phone=f"138000{number % 10000:05d}",
            request_type=random.choice(("咨询", "求助", "投诉", "建议")), model="bench", category_confidence=random.random(),
        )  # fmt: skip


def _is_text(line: str) -> bool:
    return len(line.strip()) > 8 and not re.match(r"[#\[]", line)


def sizes(services: Services, directory: str) -> str:
    if services.engine.dialect.name != "sqlite":
        with services.engine.connect() as connection:
            size = connection.execute(text("SELECT pg_total_relation_size('ticket_search')")).scalar_one()
            return f"index {size / 2**20:.0f} MiB"
    with services.engine.connect() as connection:
        index = connection.execute(text("SELECT sum(length(block)) FROM ticket_search_data")).scalar_one()
    whole = sum(path.stat().st_size for path in Path(directory).glob("*.db*"))
    return f"index {index / 2**20:.0f} MiB of a database of {whole / 2**20:.0f} MiB"


def measure(services: Services, count: int) -> None:
    agent = StaffMember("1024", "", "agent", ("清江浦区",), cleared=False, department=None, epoch=0)
    whole = StaffMember("2048", "", "supervisor", (), cleared=True, department=None, epoch=0)
    cases: dict[str, tuple[StaffMember, Filters]] = {
        "newest, whole city": (whole, Filters()),
        "newest, one district": (agent, Filters()),
        "a common word (路灯)": (whole, Filters(q="路灯")),
        "a word most tickets have (没有)": (whole, Filters(q="没有")),
        "two words (路灯 小区)": (whole, Filters(q="路灯 小区")),
        "a common word, district and first class": (agent, Filters(q="没有", category="09")),
        "a word nobody wrote (量子纠缠)": (whole, Filters(q="量子纠缠")),
        "a rare filter (one leaf, urgent)": (agent, Filters(category="1002", urgency="紧急")),
        "overdue": (whole, Filters(overdue=True)),
    }
    print(f"{'':<42}{'first page p50':>16}{'p95':>9}{'with counts p50':>18}")
    for name, (member, filters) in cases.items():
        found = TicketList(Access(services, member))
        page = _times(lambda found=found, filters=filters: found.page(filters))  # type: ignore[misc]
        whole_view = _times(lambda found=found, filters=filters: (found.page(filters), found.count(filters), found.counts(filters)))  # type: ignore[misc]
        print(f"{name:<42}{statistics.median(page):>13.1f} ms{sorted(page)[-2]:>6.1f} ms{statistics.median(whole_view):>15.1f} ms")


def _times(action: Callable[[], object]) -> list[float]:
    action()
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        action()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


if __name__ == "__main__":
    sys.exit(main())
