"""Fixtures every test may use: settings and services on a database of their own, a clock that stands still until it is moved."""
from __future__ import annotations

import copy
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What the developer set for their own service must not leak into tests.
for name in [name for name in os.environ if name.startswith("MINSHENG_")]:
    del os.environ[name]

expect.set_options(timeout=30_000)  # a page may wait for a process that starts while every core is busy

from bot import db
from bot.catalogue import Catalogue, load_catalogue
from bot.gazetteer import Gazetteer, load_gazetteer
from bot.models import models_to_serve
from bot.services import DATA_DIR, Services, build_services, services_of
from bot.settings import Settings, load_settings

if TYPE_CHECKING:
    from bot.embedded import EmbeddedAssistant


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 1, 0, tzinfo=timezone.utc)  # a Friday, nine in the morning in China

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    # A key of its own each time would draw another sample of texts for the reviewers each time.
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "secret_key").write_text("the same in every test", encoding="utf-8")
    return load_settings({"MINSHENG_VAR_DIR": str(tmp_path / "var")})


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that went through every migration, to be copied: once a session instead of once a test."""
    settings = load_settings({"MINSHENG_VAR_DIR": str(tmp_path_factory.mktemp("migrated"))})
    db.migrate(settings)
    return settings.var_dir / "minsheng.db"


@pytest.fixture(scope="session")
def shipped_city() -> tuple[Catalogue, Gazetteer]:
    catalogue = load_catalogue(DATA_DIR, Settings().city)
    return catalogue, load_gazetteer(DATA_DIR, Settings().city, catalogue.city)


@pytest.fixture
def services(settings: Settings, clock: Clock, migrated: Path, shipped_city: tuple[Catalogue, Gazetteer]) -> Iterator[Services]:
    shutil.copyfile(migrated, settings.var_dir / migrated.name)
    catalogue, gazetteer = map(copy.copy, shipped_city)  # a test may exchange what is in them
    built = services_of(settings, clock, catalogue, gazetteer)
    yield built
    built.engine.dispose()


@pytest.fixture(scope="session")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedAssistant:
    """The trained model in this process, loaded once for all tests; it keeps nothing between turns."""
    from bot.embedded import EmbeddedAssistant  # takes seconds, so only for tests that talk

    settings = load_settings({"MINSHENG_VAR_DIR": str(tmp_path_factory.mktemp("assistant"))})
    db.migrate(settings)
    return EmbeddedAssistant(models_to_serve(build_services(settings))[0])


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL cluster of our own, thrown away afterwards."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    as_owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if not found:
        pytest.skip("PostgreSQL is not installed")
    home = Path(tempfile.mkdtemp(prefix="minsheng-pg-", dir="/tmp"))
    if as_owner:
        shutil.chown(home, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binaries, options = found[-1].parent, f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": home}
    subprocess.run([*as_owner, binaries / "initdb", "-D", home / "data", "-U", "tester", "-A", "trust"], **quiet)  # type: ignore[call-overload]
    control = [*as_owner, binaries / "pg_ctl", "-D", home / "data", "-w", "-l", home / "log"]
    subprocess.run([*control, "-o", options, "start"], **quiet)  # type: ignore[call-overload]
    try:
        yield f"postgresql+psycopg2://tester@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]
        shutil.rmtree(home, ignore_errors=True)
