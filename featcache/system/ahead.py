"""Work that a pool does a bounded way ahead of whoever takes it, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
