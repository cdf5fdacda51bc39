"""Work spread over processes that are forked from this one, so that they share the memory of what was loaded."""
from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from bot.assistant import AssistantError
from bot.cores import core_count
from bot.orphans import die_with_parent

# Items that go to a process at a time, and how many such batches may wait: order is kept, memory stays small.
BATCH, WAITING = 32, 4

Item = TypeVar("Item")
Sent = TypeVar("Sent")
Made = TypeVar("Made")
_work_here: Callable[[Any], Any] | None = None  # what a working process runs: set in it when it starts


def spread(
    work: Callable[[list[Sent]], list[Made]], items: Iterable[Item], send: Callable[[Item], Sent], *, processes: int
) -> Iterator[tuple[Item, Made]]:
    """Each item with what `work` made of it, in order; `send` says what of an item travels. Raises AssistantError."""
    if processes < 2:
        for batch in _batches(items):
            yield from zip(batch, work(list(map(send, batch))), strict=True)
        return
    waiting: deque[tuple[list[Item], Future[list[Made]]]] = deque()
    with _forked(processes, work) as pool:
        try:
            for batch in _batches(items):
                waiting.append((batch, pool.submit(_do, list(map(send, batch)))))
                if len(waiting) >= WAITING * processes:
                    first, made = waiting.popleft()
                    yield from zip(first, made.result(), strict=True)
            for first, made in waiting:
                yield from zip(first, made.result(), strict=True)
        except BrokenProcessPool:
            raise AssistantError("a reading process died, perhaps for want of memory; nothing was written") from None


def together(works: Sequence[Callable[[], Made]], *, done: Callable[[int], None] = lambda number: None) -> list[Made]:
    """What each of these returns, in their order, worked out at the same time on as many cores as this process may use.

    `done` hears the number of each as it is done. For work of seconds: what it returns is copied between processes. In a process
    that has such work already it is done one after another. Raises whatever the work raises, and MemoryError where a process
    dies without a word.
    """
    processes = min(len(works), core_count())
    if processes < 2 or _work_here:  # a forked process works beside others, which have the other cores
        return [_told(number, work(), done) for number, work in enumerate(works)]
    with _forked(processes, lambda number: works[number]()) as pool:
        try:
            running = {pool.submit(_do, number): number for number in range(len(works))}
            for future in as_completed(running):
                _told(running[future], future.result(), done)
            return [future.result() for future in running]
        except BrokenProcessPool:
            raise MemoryError("a working process died, perhaps for want of memory") from None


def _told(number: int, made: Made, done: Callable[[int], None]) -> Made:
    done(number)
    return made


def _forked(processes: int, work: Callable[[Any], Any]) -> ProcessPoolExecutor:
    """A pool whose _do() is `work`, which need not travel: it is there when the processes fork."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork"), initializer=_start, initargs=(work,))


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    items = iter(items)
    while batch := list(islice(items, BATCH)):
        yield batch


def _start(work: Callable[[Any], Any]) -> None:
    global _work_here
    _work_here = work
    die_with_parent()


def _do(sent: Any) -> Any:
    assert _work_here is not None
    return _work_here(sent)
