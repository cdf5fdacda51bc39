"""Logging of a process: one line per event on standard error, and nothing that quotes a resident."""
from __future__ import annotations

import logging
import warnings

import structlog


def set_up_logging() -> None:
    """Rasa's per-turn debug lines would quote residents, and its libraries warn of their own ageing: both stay off."""
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    for name in ("rasa", "rasa_sdk", "alembic", "urllib3", "waitress.queue", "jieba", "matplotlib", "apscheduler"):
        logging.getLogger(name).setLevel(logging.ERROR)
