"""A month of made-up tickets for looking at staff pages: `python -m tests.seed_tickets` writes into MINSHENG_VAR_DIR; also accounts.

Texts come from the project's own training texts; people, numbers and dates are made up.
"""
from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

from bot.db import iso, migrate, transaction
from bot.nlu.corpus import read_petitions
from bot.petition import Petition
from bot.schema import tickets
from bot.services import DATA_DIR, build_services
from bot.settings import settings_from_environment
from tests.staff_pages import PASSWORD, add_people


def main(count: int = 600) -> None:
    settings = settings_from_environment()
    migrate(settings)
    services = build_services(settings)
    add_people(services)
    chance, now = random.Random(7), services.now()
    districts = services.gazetteer.home_districts()
    files = sorted((DATA_DIR / "petitions").glob("[0-9]*.txt"))
    rows = [row for path in files for row in read_petitions(path) if len(row.text) > 15]
    for number in range(count):
        row = chance.choice(rows)
        filed = now - timedelta(days=chance.random() ** 1.5 * 40, hours=chance.random() * 10)
        petition = Petition(
            id=f"s{number}", texts=(row.text,), category=row.category, request_type=row.request_type, urgency=row.urgency,
            place={"text": chance.choice(["淮海南路", "翔宇大道", "山阳小区"]), "district": chance.choice(districts)},
            name="李女士", phone=f"1380000{number:04d}", source=chance.choice(["wechat", "wechat", "web", "hotline"]),
        )  # fmt: skip
        ticket = services.tickets.open_ticket(petition, request_key=f"seed:{number}", conversation_id=None)
        due = filed + timedelta(days=chance.choice([3, 5, 13]))
        closed = filed + timedelta(days=chance.random() * 12)
        done = closed < now
        values = {
            "filed_at": iso(filed), "due_at": iso(due), "responded_at": iso(filed + timedelta(hours=chance.random() * 26)),
            "closed_at": iso(closed) if done else None, "state": "closed" if done else chance.choice(["accepted", "in_progress", "filed"]),
            "score": chance.choice([5, 5, 4, 4, 3, 2, None]) if done else None, "confidence": chance.betavariate(5, 1.5),
            "district": petition.place["district"] if petition.place else None,
        }  # fmt: skip
        with transaction(services.engine) as connection:
            connection.execute(tickets.update().where(tickets.c.number == ticket.number).values(**values))
    print(f"{count} tickets in {Path(settings.var_dir)}; log in as agent, supervisor or admin with the password {PASSWORD}")


if __name__ == "__main__":
    main()
