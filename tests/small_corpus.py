"""A slice of nlu_data that trains in seconds: every kind of text, a few of each; the readers learn little from it, but everything runs."""
from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from bot.settings import PROJECT_ROOT

PETITIONS = ("01", "04", "13")  # first levels
TEXTS_OF_LEAF, TEXTS_OF_INTENT, LINES = 2, 6, 60


def small_root(directory: Path) -> Path:
    """config.yml, domain.yml and nlu_data, as bot.dataset reads them."""
    data = PROJECT_ROOT / "nlu_data"
    for name in ("config.yml", "domain.yml"):
        shutil.copyfile(PROJECT_ROOT / name, directory / name)
    for name in ("catalogue", "cities"):
        shutil.copytree(data / name, directory / "nlu_data" / name)
    for name in ("divisions", "petitions", "intents", "lexicon"):
        (directory / "nlu_data" / name).mkdir()
    shutil.copyfile(data / "rules.yml", directory / "nlu_data" / "rules.yml")
    for path in sorted((data / "divisions").glob("*.csv")):
        lines = path.read_text(encoding="utf-8").splitlines()
        write(directory / "nlu_data" / "divisions" / path.name, [lines[0], *(line for line in lines[1:] if "32" in line[:4])])
    for code in PETITIONS:
        for folder, count in (("petitions", TEXTS_OF_LEAF), ("lexicon", 1)):
            write(directory / "nlu_data" / folder / f"{code}.txt", headed(data / folder / f"{code}.txt", count))
    write(directory / "nlu_data" / "intents" / "intents.txt", headed(data / "intents" / "intents.txt", TEXTS_OF_INTENT))
    for path in sorted((data / "intents").glob("[usp]*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        write(directory / "nlu_data" / "intents" / path.name, lines[:: max(1, len(lines) // LINES)])
    return directory


def headed(path: Path, count: int) -> list[str]:
    """The first lines under each heading."""
    kept: list[str] = []
    left = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        left = count if line.startswith("#") else left - 1
        if line.startswith("#") or left >= 0:
            kept.append(line)
    return kept


def write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
