"""Threads that share one list of work, and outlive it."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from featcache.system.ahead import threads_by_cores

MAX_THREADS = 32

READ_THREADS = threads_by_cores()
"""Threads that read a batch, unless said otherwise."""


class Threads:
    """Threads that outlive a batch; a forked child makes its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def share(self, work: deque[Any], drain: Callable[[], None], threads: int) -> None:
        """Call `drain` in up to `threads` threads, one of them this one; all are done when it returns.

        Raises:
            what `drain` raises, after the others emptied the list: nobody fills a buffer after the call.
        """
        helpers = min(threads, len(work)) - 1
        futures = [self._executor().submit(drain) for _ in range(helpers)]
        try:
            drain()
        finally:
            # Of the helpers that have not begun none is needed any more, unless this thread gave up.
            running = [future for future in futures if work or not future.cancel()]
            failed = [problem for future in running if (problem := future.exception()) is not None]
        if failed:
            raise failed[0]

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = (os.getpid(), ThreadPoolExecutor(MAX_THREADS, "read features"))
            return self._pool[1]
