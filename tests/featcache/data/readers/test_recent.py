"""Values kept for the next use: the last few, each made once, also where threads and forks meet."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from featcache.data.readers.recent import Recent


def test_values_that_are_used_longest_ago_are_dropped() -> None:
    decoded = list[int]()

    def decode(step: int) -> np.ndarray:
        decoded.append(step)
        return np.full(2, step)

    cache = Recent(decode, capacity=2)
    for step in (1, 2, 1, 3, 1, 2):
        assert cache.get(step).tolist() == [step, step]
    # 3 takes the place of 2, for 1 was used since; then 2 that of 3.
    assert decoded == [1, 2, 3, 2]


def test_a_failure_is_not_kept() -> None:
    attempts = list[int]()

    def decode(step: int) -> np.ndarray:
        attempts.append(step)
        if len(attempts) == 1:
            raise OSError("not now")
        return np.zeros(1)

    cache = Recent(decode, capacity=2)
    with pytest.raises(OSError, match="not now"):
        cache.get(7)
    assert cache.get(7).tolist() == [0]


def _waiting() -> tuple[Callable[[int], np.ndarray], Event, Event, list[int]]:
    """A decoder that says when it has begun, and ends when it is told to."""
    begun, end, decoded = Event(), Event(), list[int]()

    def decode(step: int) -> np.ndarray:
        decoded.append(step)
        begun.set()
        assert end.wait(10)
        return np.full(1, step)

    return decode, begun, end, decoded


def test_threads_wait_for_the_one_that_decodes() -> None:
    decode, begun, end, decoded = _waiting()
    cache = Recent(decode, capacity=2)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(cache.get, 4) for _ in range(3)]
        assert begun.wait(10)
        end.set()
        assert [future.result(10).tolist() for future in waiting] == [[4]] * 3
    assert decoded == [4]


def test_a_fork_does_not_wait_for_a_thread_it_does_not_have() -> None:
    decode, begun, end, _ = _waiting()
    cache = Recent(decode, capacity=2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.get, 4)
        assert begun.wait(10)
        child = os.fork()
        if child == 0:
            end.set()
            os._exit(0 if cache.get(4).tolist() == [4] else 1)
        assert os.waitpid(child, 0)[1] == 0
        end.set()
        assert waiting.result(10).tolist() == [4]
