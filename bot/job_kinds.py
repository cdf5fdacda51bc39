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


def _import_look(job: JobRun) -> Mapping[str, Any]:
    from bot.import_jobs import run_look

    return run_look(job)


def _import(job: JobRun) -> Mapping[str, Any]:
    from bot.import_jobs import run_import

    return run_import(job)


def _import_review(job: JobRun) -> Mapping[str, Any]:
    from bot.import_jobs import run_review_import

    return run_review_import(job)


def _label_errors(job: JobRun) -> Mapping[str, Any]:
    from bot.suspects import run_label_errors

    return run_label_errors(job)


KINDS: dict[str, Callable[[JobRun], Mapping[str, Any]]] = {
    "probe": _probe,
    "batch": _batch,
    "import_look": _import_look,
    "import": _import,
    "import_review": _import_review,
    "label_errors": _label_errors,
}
