"""What is kept: the last few, each made once, and no failure."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.kept import Kept


def test_what_is_used_longest_ago_is_let_go() -> None:
    decoded = list[int]()

    def decode(step: int) -> np.ndarray:
        decoded.append(step)
        return np.full(2, step)

    cache = Kept(decode, capacity=2)
    for step in (1, 2, 1, 3, 1, 2):
        assert cache.get(step).tolist() == [step, step]
    # 3 takes the place of 2, for 1 was used since; then 2 that of 3.
    assert decoded == [1, 2, 3, 2]


def test_a_failure_is_not_kept() -> None:
    attempts = list[int]()

    def decode(step: int) -> np.ndarray:
        attempts.append(step)
        if len(attempts) == 1:
            raise UnreadableError("not now")
        return np.zeros(1)

    cache = Kept(decode, capacity=2)
    with pytest.raises(UnreadableError, match="not now"):
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


def test_threads_wait_for_the_one_that_makes_it() -> None:
    decode, begun, end, decoded = _waiting()
    cache = Kept(decode, capacity=2)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(cache.get, 4) for _ in range(3)]
        assert begun.wait(10)
        end.set()
        assert [future.result(10).tolist() for future in waiting] == [[4]] * 3
    assert decoded == [4]


def test_what_is_forgotten_is_made_anew() -> None:
    made = list[int]()
    kept = Kept(lambda key: made.append(key), capacity=2)
    kept.get(1)
    kept.forget(1)
    kept.forget(5)
    kept.get(1)
    assert made == [1, 1]
