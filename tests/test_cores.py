"""Processes of ours keep to one core each, and share none; work of seconds is spread over all."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from bot.processes import together
from tests.servers import PROJECT_ROOT

HOLD = """
import os, sys, threading
from bot.cores import keep_to_one_core
core = keep_to_one_core()
seen = []
thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
thread.start(); thread.join()
print(core, len(seen[0]), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core only")
def test_every_process_has_a_core_of_its_own_until_none_is_left(tmp_path: os.PathLike[str]) -> None:
    count = len(os.sched_getaffinity(0))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT, env=environment
        )
        for _ in range(count + 1)
    ]
    try:
        said = [process.stdout.readline().split() for process in running if process.stdout]
        assert sorted(core for core, _ in said) == sorted([*map(str, os.sched_getaffinity(0)), "None"])
        assert {(core == "None", int(size)) for core, size in said} == {(False, 1), (True, count)}
    finally:
        for process in running:
            process.communicate()


def test_works_done_together_come_back_in_order_from_processes_of_their_own() -> None:
    texts = ["甲", "乙", "丙"]
    made = together([lambda text=text: (text, os.getpid()) for text in texts])
    assert [text for text, _ in made] == texts
    assert (os.getpid() in {process for _, process in made}) == (len(os.sched_getaffinity(0)) < 2)


def test_it_is_told_of_each_as_it_is_done() -> None:
    done: list[int] = []
    together([lambda: time.sleep(0.3), lambda: None], done=done.append)
    assert done == ([0, 1] if len(os.sched_getaffinity(0)) < 2 else [1, 0])


def test_a_process_that_has_company_does_works_of_its_own_by_itself() -> None:
    pairs = together([lambda: (os.getpid(), together([os.getpid, os.getpid]))] * 2)
    assert all(inner == [outer, outer] for outer, inner in pairs)


def test_what_goes_wrong_in_a_process_is_told_here() -> None:
    with pytest.raises(ZeroDivisionError):
        together([lambda: 1, lambda: 1 // 0])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core only: the work is done in this process")
def test_a_process_that_is_killed_is_no_endless_wait() -> None:
    with pytest.raises(MemoryError):
        together([lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: None])
