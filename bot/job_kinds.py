"""What kinds of jobs there are: name → function. Each imports what it needs when it runs."""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from bot.jobs import JobError, JobRun


def _probe(job: JobRun) -> Mapping[str, Any]:
    """Shows that jobs run here, and how a job looks that takes its time: `steps` of a tenth of a second."""
    if job.params.get("refuse"):
        raise JobError(str(job.params["refuse"]))
    steps = int(job.params.get("steps", 1))
    for number in range(1, steps + 1):
        job.tell(number / steps, f"第 {number} 步")
        time.sleep(0.1)
    return {"steps": steps}


def _batch(job: JobRun) -> Mapping[str, Any]:
    from bot.batch_job import run_batch

    return run_batch(job)


def _hot_spots(job: JobRun) -> Mapping[str, Any]:
    from bot.hotspot_job import run_hot_spots

    return run_hot_spots(job)


def _train(job: JobRun) -> Mapping[str, Any]:
    from bot.train_job import run_training

    return run_training(job)


def _compare(job: JobRun) -> Mapping[str, Any]:
    from bot.train_job import run_comparison

    return run_comparison(job)


KINDS: dict[str, Callable[[JobRun], Mapping[str, Any]]] = {
    "probe": _probe,
    "batch": _batch,
    "hotspots": _hot_spots,
    "train": _train,
    "compare": _compare,
}
