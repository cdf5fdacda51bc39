"""Threads for tasks that belong to people: one person's tasks run one after another, different people's side by side."""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class OrderedPool:
    """At most `threads` tasks at once; tasks of one key never overlap and keep the order they were submitted in."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}

    def submit(self, key: str, task: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            queue = self._waiting.get(key)
            if queue is not None:
                queue.append((future, task))
                return future
            self._waiting[key] = deque([(future, task)])
        self._pool.submit(self._run_next, key)
        return future

    def _run_next(self, key: str) -> None:
        with self._lock:
            future, task = self._waiting[key][0]
        try:
            result = task()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        with self._lock:
            queue = self._waiting[key]
            queue.popleft()
            if not queue:
                del self._waiting[key]
                return
        self._pool.submit(self._run_next, key)  # not at once: others have waited longer
