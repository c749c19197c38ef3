"""Work that a pool does a bounded way ahead of whoever takes it, in order; and how many threads it has."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


FEWEST_THREADS, MOST_THREADS = 4, 16
"""Four keep a local disk busy where there are fewer cores; more than sixteen gain nothing."""


def usable_cores() -> int:
    """Those that this process may use, which a cluster's scheduler may make fewer than there are."""
    return len(os.sched_getaffinity(0))


def threads_by_cores() -> int:
    """As many as there are usable cores, within bounds."""
    return min(max(usable_cores(), FEWEST_THREADS), MOST_THREADS)


def map_ahead(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], *, window: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Each item with the future of `work` on it, in order; `window` of them are begun when one is taken."""
    left = iter(items)
    ahead: deque[tuple[Item, Future[Result]]] = deque()
    while True:
        for item in islice(left, window - len(ahead)):
            ahead.append((item, pool.submit(work, item)))
        if not ahead:
            return
        yield ahead.popleft()
