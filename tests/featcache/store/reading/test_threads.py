"""One list of work, any number of threads; problems are told when all have stopped."""

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from featcache.store.reading.threads import Threads


def test_the_calling_thread_takes_part_and_all_stop_before_a_problem_is_told() -> None:
    done = list[int]()
    both, caller = threading.Barrier(2, timeout=10), threading.get_ident()

    def drain(work: Iterator[int]) -> None:
        both.wait()
        if threading.get_ident() == caller:
            raise OSError("is missing")
        for piece in work:
            time.sleep(0.001)
            done.append(piece)

    with pytest.raises(OSError, match="is missing"):
        Threads().share(range(50), drain, threads=2)
    assert done == list(range(50))


def test_helpers_problems_are_told_too() -> None:
    both = threading.Barrier(2, timeout=10)
    caller = threading.get_ident()

    def drain(work: Iterator[int]) -> None:
        both.wait()
        next(work)
        if threading.get_ident() != caller:
            raise OSError("is missing")

    with pytest.raises(OSError, match="is missing"):
        Threads().share(range(2), drain, threads=2)


def test_threads_that_come_when_others_take_the_last_piece() -> None:
    """Each piece is taken once, and who finds nothing left has nothing to say."""
    threads, before = Threads(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for n_pieces in (1, 2, 3, 4) * 100:
            done = list[int]()
            threads.share(range(n_pieces), done.extend, threads=8)
            assert sorted(done) == list(range(n_pieces))
    finally:
        sys.setswitchinterval(before)
