"""Jobs in real processes: done, failed, cancelled while running, taken up again after a kill."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from bot.job_kinds import KINDS, get_kind
from bot.jobs import CANCELLED, DONE, FAILED, MAX_ATTEMPTS, RUNNING, Job, JobRunner, cancel_job, find_job, submit_job
from bot.services import Services, build_services
from bot.settings import child_environment

PROBE = "probe"  # a kind of job that the service itself has for checking that jobs run


@pytest.fixture
def running(services: Services) -> Iterator[Services]:
    """A runner as the service has one, on the real clock: leases end by it."""
    real = build_services(services.settings)
    stop = threading.Event()
    thread = threading.Thread(target=JobRunner(real).run_forever, args=(stop,))
    thread.start()
    yield real
    stop.set()
    thread.join(30)
    real.engine.dispose()


def wait_for(services: Services, job_id: int, reached: Callable[[Job], bool], seconds: float = 90) -> Job:
    for _ in range(int(seconds * 10)):
        job = find_job(services, job_id)
        assert job is not None
        if reached(job):
            return job
        time.sleep(0.1)
    raise AssertionError(f"job stays {job}")


def process_of(job_id: int, parent: int) -> int:
    found = subprocess.run(["pgrep", "-P", str(parent), "-f", f"bot job {job_id}$"], capture_output=True, text=True).stdout.split()
    return int(found[0])


def test_job_tells_its_steps_and_gives_a_result(running: Services) -> None:
    job = wait_for(running, submit_job(running, PROBE, {"steps": 2}, username="supervisor"), lambda job: job.ended)
    assert (job.state, job.result, job.progress) == (DONE, {"steps": 2}, 1.0)
    assert "第 1 步" in job.log and "第 2 步" in job.log


def test_job_that_cannot_be_done_says_why(running: Services) -> None:
    job = wait_for(running, submit_job(running, PROBE, {"refuse": "文件里没有内容"}, username="supervisor"), lambda job: job.ended)
    assert (job.state, job.problem) == (FAILED, "文件里没有内容")


def test_running_job_is_cancelled(running: Services) -> None:
    job_id = submit_job(running, PROBE, {"steps": 600}, username="supervisor")
    wait_for(running, job_id, lambda job: bool(job.log))
    cancel_job(running, job_id)
    assert wait_for(running, job_id, lambda job: job.ended).state == CANCELLED


def test_killed_job_is_taken_up_again(running: Services) -> None:
    job_id = submit_job(running, PROBE, {"steps": 100}, username="supervisor")
    wait_for(running, job_id, lambda job: "第 3 步" in job.log)
    os.kill(process_of(job_id, os.getpid()), signal.SIGKILL)
    job = wait_for(running, job_id, lambda job: job.ended)
    assert job.state == DONE and job.log.count("第 1 步\n") == 2


def test_work_ends_with_the_process_that_runs_it(services: Services) -> None:
    job_id = submit_job(services, PROBE, {"steps": 600}, username="supervisor")
    runner = "import threading; from bot.jobs import JobRunner; from bot.services import build_services; " \
        "from bot.settings import settings_from_environment; JobRunner(build_services(settings_from_environment())).run_forever(threading.Event())"
    server = subprocess.Popen([sys.executable, "-c", runner], env=child_environment(services.settings))
    wait_for(services, job_id, lambda job: bool(job.log))
    worker = process_of(job_id, server.pid)
    server.kill()
    server.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    raise AssertionError("the job's process works on")


def test_job_that_always_dies_is_given_up(services: Services) -> None:
    job_id, runner = submit_job(services, PROBE, {}, username="supervisor"), JobRunner(services)
    for _ in range(MAX_ATTEMPTS):
        assert runner._claim() == job_id
        services.now.forward(seconds=timedelta(minutes=1).total_seconds())  # type: ignore[attr-defined]
    assert runner._claim() is None
    job = find_job(services, job_id)
    assert job is not None and job.state == FAILED and job.problem


def test_two_runners_never_take_one_job(services: Services) -> None:
    submit_job(services, PROBE, {}, username="supervisor")
    assert [JobRunner(services)._claim() is not None for _ in range(2)] == [True, False]
    assert find_job(services, 1).state == RUNNING  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_job_is_there(kind: str) -> None:
    assert callable(get_kind(kind))
