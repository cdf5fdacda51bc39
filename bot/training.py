"""Training: nlu_data → a model archive → its place in the list of models. Promotion is one row, see promote()."""
from __future__ import annotations

import logging
import tempfile
import time
from datetime import datetime
from pathlib import Path

from bot.settings import PROJECT_ROOT, Settings

logger = logging.getLogger(__name__)


class TrainingError(Exception):
    """No model came out; the message says why."""


def train_model(settings: Settings, *, now: datetime) -> Path:
    """Train on nlu_data and write `models/<version>.tar.gz`. Takes about two minutes. Raises TrainingError."""
    from rasa.model_training import train  # imports TensorFlow: only when a model is really trained

    settings.models_dir.mkdir(parents=True, exist_ok=True)
    version = now.strftime("%Y%m%d-%H%M%S")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=settings.models_dir) as workshop:
        result = train(
            domain=str(PROJECT_ROOT / "domain.yml"),
            config=str(PROJECT_ROOT / "config.yml"),
            training_files=[str(PROJECT_ROOT / "nlu_data" / "rules.yml")],
            output=workshop,
            fixed_model_name=version,
            force_training=True,
        )
        if not result.model:
            raise TrainingError("Rasa wrote no model archive; its log above says why")
        # One rename: a server that looks for models never sees half an archive.
        path = Path(result.model).replace(settings.models_dir / f"{version}.tar.gz")
    logger.info("model %s trained in %.0f s", version, time.monotonic() - started)
    return path
