"""One list of work, any number of threads; problems are told when all have stopped."""

import threading
import time
from collections import deque

import pytest

from featcache.store.reading.threads import Threads


def test_the_calling_thread_takes_part_and_all_stop_before_a_problem_is_told() -> None:
    work, done = deque((n, 0, 0, False) for n in range(50)), []
    both, caller = threading.Barrier(2, timeout=10), threading.get_ident()

    def drain() -> None:
        both.wait()
        if threading.get_ident() == caller:
            raise OSError("is missing")
        while work:
            time.sleep(0.001)
            done.append(work.popleft())

    with pytest.raises(OSError, match="is missing"):
        Threads().share(work, drain, threads=2)
    assert len(done) == 50


def test_helpers_problems_are_told_too() -> None:
    work = deque((n, 0, 0, False) for n in range(2))
    both = threading.Barrier(2, timeout=10)
    caller = threading.get_ident()

    def drain() -> None:
        both.wait()
        work.popleft()
        if threading.get_ident() != caller:
            raise OSError("is missing")

    with pytest.raises(OSError, match="is missing"):
        Threads().share(work, drain, threads=2)
