"""Training: what nlu_data and the city's annotations hold → a model archive. Which model serves is decided in bot/models.py."""
from __future__ import annotations

import contextlib
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bot.dataset import Dataset, write_dataset
from bot.settings import PROJECT_ROOT, Settings

logger = logging.getLogger(__name__)

# Where a training works, beside the archives so that the last step is a rename; and where its texts lie meanwhile, masked and
# readable by the service's own user only.
_WORKSHOP, _TEXTS = ".training-", "training"
_LONGEST = 3600.0  # seconds
_LOGS = ("rasa.engine.training.hooks", "bot.nlu.component")
_NEWS = re.compile(r"Starting to train component '(\w+)'|(learned \w+)")
# What each piece of news means, and the share of the time that the learning it ends has taken: parts learn side by side.
STEPS = {
    "PetitionParser": (0.05, "学习：类别、诉求类型、紧急程度、地点和分件"),
    "learned PetitionReader": (0.3, "学会了：类别、诉求类型和紧急程度"),
    "learned AppealSplitter": (0.15, "学会了：一段话里有几件事"),
    "learned PlaceReader": (0.4, "学会了：地点"),
    "RulePolicy": (0.02, "学习：对话规则"),
}
Tell = Callable[[float, str], None]


class TrainingError(Exception):
    """No model came out; the message says why."""


def train_model(
    settings: Settings, dataset: Dataset, *, version: str, tell: Tell = lambda share, step: None, root: Path = PROJECT_ROOT
) -> Path:
    """Train on this data and write `models/<version>.tar.gz`. Takes some minutes. Raises TrainingError.

    `root` holds config.yml, domain.yml and nlu_data. Killed at any moment it leaves no half archive, and nothing that a later
    training does not remove.
    """
    lying = settings.var_dir / _TEXTS
    lying.mkdir(mode=0o700, parents=True, exist_ok=True)
    texts = write_dataset(dataset, lying / version, root=root)
    try:
        return _train(settings, texts, version, tell)
    finally:
        shutil.rmtree(texts, ignore_errors=True)


def _train(settings: Settings, texts: Path, version: str, tell: Tell) -> Path:
    from rasa.model_training import train  # takes seconds: only when a model is really trained

    workshop = settings.models_dir / f"{_WORKSHOP}{version}"
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(parents=True)
    started = time.monotonic()
    try:
        with _listening(tell):
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
        shutil.rmtree(workshop, ignore_errors=True)
    logger.info("model %s trained in %.0f s", version, time.monotonic() - started)
    return path


def remove_leftovers(settings: Settings) -> None:
    """What killed trainings left behind: anything older than any training takes."""
    for leftover in [*settings.models_dir.glob(f"{_WORKSHOP}*"), *(settings.var_dir / _TEXTS).glob("*")]:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _LONGEST:
                shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _listening(tell: Tell) -> Iterator[None]:
    """How far it is stands only in the logs of what trains, which we keep quiet."""
    logs, listener = [logging.getLogger(name) for name in _LOGS], _Listener(tell)
    before = [(log.level, log.propagate) for log in logs]
    for log in logs:
        log.addHandler(listener)
        log.setLevel(logging.INFO)
        log.propagate = False
    try:
        yield
    finally:
        for log, (level, propagate) in zip(logs, before, strict=True):
            log.removeHandler(listener)
            log.setLevel(level)
            log.propagate = propagate


class _Listener(logging.Handler):

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self._tell, self._share = tell, 0.0

    def emit(self, record: logging.LogRecord) -> None:
        found = _NEWS.search(record.getMessage())
        news = found and (found.group(1) or found.group(2))
        if news in STEPS:
            share, step = STEPS[news]
            self._share += share
            self._tell(self._share, step)
