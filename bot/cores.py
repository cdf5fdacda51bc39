"""Keeping a process to one core.

Threads under one interpreter lock never compute at the same time. Spread over cores they hand the lock and their data from
cache to cache: a turn then takes a third more processor time (`make bench-chat`).
"""
from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

_held: list[IO[str]] = []  # an open file holds its lock for as long as the process lives


def keep_to_one_core() -> int | None:
    """The core that this thread, and every thread it starts from now on, keeps to; one that no other process of ours has.

    None, and nothing changes, where there is only one, where each is taken, or where the system cannot do it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0), reverse=True)  # the first one has most interrupts to serve
    for core in cores if len(cores) > 1 else ():
        try:
            mark = (Path(tempfile.gettempdir()) / f"minsheng-core-{core}").open("a")
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.sched_setaffinity(0, {core})
        except OSError:
            continue
        _held.append(mark)
        return core
    return None


def core_count() -> int:
    """On how many cores this process may run; 1 where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def use_all_cores() -> None:
    """For a process started by one that keeps to a single core: its work is its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
