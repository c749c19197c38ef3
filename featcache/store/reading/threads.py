"""Threads that share one list of work, and outlive it."""

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TypeVar

from featcache.system.ahead import threads_by_cores, usable_cores

MAX_THREADS = 32

READ_THREADS = threads_by_cores()
"""Threads that read a batch, unless said otherwise."""

COPY_THREADS = usable_cores()
"""Threads that copy one at the most: more than cores are for who waits for a disk."""

Work = TypeVar("Work")


class Threads:
    """Threads that outlive a batch; a forked child makes its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def share(self, work: Collection[Work], drain: Callable[[Iterator[Work]], None], threads: int) -> None:
        """Have up to `threads` threads, one of them this one, do all of `work`.

        Args:
            work: pieces that do not depend on each other.
            drain: called once a thread, with an iterator over what no other thread has taken.
            threads: at the most.

        Raises:
            what `drain` raises, after the others did the rest: nobody fills a buffer after the call.
        """
        left = SimpleQueue[Work]()
        for piece in work:
            left.put(piece)
        helpers = min(threads, len(work)) - 1
        futures = [self._executor().submit(drain, _taken_from(left)) for _ in range(helpers)]
        try:
            drain(_taken_from(left))
        finally:
            # Of the helpers that have not begun none is needed any more, unless this thread gave up.
            running = [future for future in futures if not left.empty() or not future.cancel()]
            failed = [problem for future in running if (problem := future.exception()) is not None]
        if failed:
            raise failed[0]

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = (os.getpid(), ThreadPoolExecutor(MAX_THREADS, "read features"))
            return self._pool[1]


def _taken_from(left: SimpleQueue[Work]) -> Iterator[Work]:
    """The next piece until none is left; other threads take from the same ones."""
    while True:
        try:
            yield left.get_nowait()
        except Empty:
            return
