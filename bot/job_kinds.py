"""What kinds of jobs there are: name → where the function stands. Imported only by the process that does the work."""
from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from bot.jobs import JobError, JobRun

KINDS: Mapping[str, str] = {
    "probe": "bot.job_kinds:run_probe",
    "batch": "bot.batch_job:run_batch",
    "hotspots": "bot.hotspot_job:run_hot_spots",
    "train": "bot.train_job:run_training",
    "compare": "bot.train_job:run_comparison",
    "import_look": "bot.import_jobs:run_look",
    "import": "bot.import_jobs:run_import",
    "import_review": "bot.import_jobs:run_review_import",
    "label_errors": "bot.suspects:run_label_errors",
}


def get_kind(name: str) -> Callable[[JobRun], Mapping[str, Any]]:
    """Raises KeyError for a kind that this version does not know."""
    module, _, function = KINDS[name].partition(":")
    return cast(Callable[[JobRun], Mapping[str, Any]], getattr(importlib.import_module(module), function))


def run_probe(job: JobRun) -> Mapping[str, Any]:
    """Shows that jobs run here, and how a job looks that takes its time: `steps` of a tenth of a second."""
    if job.params.get("refuse"):
        raise JobError(str(job.params["refuse"]))
    steps = int(job.params.get("steps", 1))
    for number in range(1, steps + 1):
        job.tell(number / steps, f"第 {number} 步")
        time.sleep(0.1)
    return {"steps": steps}
