"""What one process works with: settings, database, catalogue, gazetteer, tickets. Built once, handed to everything else.

Rasa's executor creates our actions without arguments, in this process or in `rasa run actions`; they reach the services
through current_services(), which builds them from the environment when nobody installed any.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy.engine import Engine

from bot.catalogue import Catalogue, load_catalogue
from bot.db import open_engine
from bot.gazetteer import Gazetteer, load_gazetteer
from bot.handover import Handovers
from bot.petition import Lanes
from bot.settings import PROJECT_ROOT, Settings, settings_from_environment
from bot.tickets import Tickets
from bot.vault import Vault

DATA_DIR = PROJECT_ROOT / "nlu_data"


@dataclass(frozen=True)
class Services:
    settings: Settings
    engine: Engine
    vault: Vault
    catalogue: Catalogue
    gazetteer: Gazetteer
    tickets: Tickets
    handovers: Handovers
    now: Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def build_services(settings: Settings, *, now: Callable[[], datetime] = utc_now) -> Services:
    """Raises CatalogueError. Opens no connection yet."""
    catalogue = load_catalogue(DATA_DIR, settings.city)
    return services_of(settings, now, catalogue, load_gazetteer(DATA_DIR, settings.city, catalogue.city))


def services_of(settings: Settings, now: Callable[[], datetime], catalogue: Catalogue, gazetteer: Gazetteer) -> Services:
    engine, vault = open_engine(settings), Vault(settings.secret_key)
    lanes = Lanes(settings.lane_file, settings.lane_suggest)
    tickets = Tickets(engine, vault, catalogue, now, lanes, frozenset(gazetteer.home_districts()))
    return Services(settings, engine, vault, catalogue, gazetteer, tickets, Handovers(engine, vault, now), now)


_installed: Services | None = None
_building = threading.Lock()


def install_services(services: Services) -> None:
    global _installed
    _installed = services


def current_services() -> Services:
    with _building:
        if _installed is None:
            install_services(build_services(settings_from_environment()))
    assert _installed is not None
    return _installed
