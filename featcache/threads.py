"""Threads for work that is already split among them, where torch would split each piece once more."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch


def lone_threads(n_threads: int, name: str) -> ThreadPoolExecutor:
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
