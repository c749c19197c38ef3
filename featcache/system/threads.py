"""Threads for work that is already split among them, where torch would split each piece once more."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def single_threaded_pool(n_threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose torch calls each stay on their thread.

    So what it computes does not depend on how many threads torch would take, which to some kernels matters.
    """
    ready = Barrier(n_threads + 1)
    common = torch.get_num_threads()

    def begin() -> None:
        # torch gives a thread the common number when it first asks, and would overwrite ours.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(n_threads, name, initializer=begin)
    for _ in range(n_threads):
        pool.submit(int)
    ready.wait()
    # Each thread has its own number, but all share what a new thread begins with: give that back.
    torch.set_num_threads(common)
    return pool


def parallel_map(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`work` of every item, in order: side by side on as many threads as torch has, each item on one of them.

    A single item too: its numbers do not depend on how many there are. `work` may not call `parallel_map`.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        return [work(item) for item in items]
    return list(_common_pool(n_threads).map(work, items))


@cache
def _common_pool(n_threads: int) -> ThreadPoolExecutor:
    """The process's own."""
    return single_threaded_pool(n_threads, "parallel-map")
