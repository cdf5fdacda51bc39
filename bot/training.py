"""Training: what nlu_data and the city's annotations hold → a model archive. Which model serves is decided in bot/models.py."""
from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from bot.settings import Settings

logger = logging.getLogger(__name__)

# Where a training works, beside the archives so that the last step is a rename; and where its texts lie meanwhile.
_WORKSHOP, _TEXTS = ".training-", "training"
_RASA_LOG = "rasa.engine.training.hooks"
_STARTING = re.compile(r"Starting to train component '(\w+)'")
# What each component learns, and how much of the time has passed when it begins.
STEPS = {
    "AppealSplitter": (0.05, "学习：一段话里有几件事"),
    "PetitionReader": (0.25, "学习：类别、诉求类型和紧急程度"),
    "PlaceReader": (0.55, "学习：地点"),
    "RulePolicy": (0.9, "学习：对话规则"),
}
Tell = Callable[[float, str], None]


class TrainingError(Exception):
    """No model came out; the message says why."""


def train_model(settings: Settings, texts: Path, *, version: str, tell: Tell = lambda share, step: None) -> Path:
    """Train on the directory `texts` (bot.dataset.write_dataset) and write `models/<version>.tar.gz`. Takes about two minutes.

    Killed at any moment it leaves no half archive and nothing that the next training does not remove. Raises TrainingError.
    """
    from rasa.model_training import train  # imports TensorFlow: only when a model is really trained

    workshop = settings.models_dir / f"{_WORKSHOP}{version}"
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(parents=True)
    started, listener = time.monotonic(), _Listener(tell)
    logging.getLogger(_RASA_LOG).addHandler(listener)
    try:
        result = train(
            domain=str(texts / "domain.yml"),
            config=str(texts / "config.yml"),
            training_files=[str(texts / "nlu_data" / "rules.yml")],
            output=str(workshop),
            fixed_model_name=version,
            force_training=True,
        )
        if not result.model:
            raise TrainingError("Rasa wrote no model archive; its log above says why")
        # One rename: a server that looks for models never sees half an archive.
        path = Path(result.model).replace(settings.models_dir / f"{version}.tar.gz")
    finally:
        logging.getLogger(_RASA_LOG).removeHandler(listener)
        shutil.rmtree(workshop, ignore_errors=True)
    logger.info("model %s trained in %.0f s", version, time.monotonic() - started)
    return path


def texts_dir(settings: Settings, data_hash: str) -> Path:
    """Where the texts of a training lie while it runs: masked, readable by the service's own user only."""
    directory = settings.var_dir / _TEXTS
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / data_hash[:16]


def remove_leftovers(settings: Settings) -> None:
    """What killed trainings left behind. Only while no training runs."""
    for leftover in [*settings.models_dir.glob(f"{_WORKSHOP}*"), *(settings.var_dir / _TEXTS).glob("*")]:
        shutil.rmtree(leftover, ignore_errors=True)


class _Listener(logging.Handler):
    """Rasa says which component it trains only in its log."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        found = _STARTING.search(record.getMessage())
        if found and found.group(1) in STEPS:
            self._tell(*STEPS[found.group(1)])
