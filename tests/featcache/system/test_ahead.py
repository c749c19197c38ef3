"""Work done ahead: in order, a bounded way, with the errors where they belong."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from featcache.system.ahead import map_ahead, threads_by_cores


@pytest.mark.parametrize("window", [1, 3, 100])
def test_items_come_in_order_and_no_more_than_the_window_is_begun(window: int) -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            begun.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        for item, square in map_ahead(pool, lambda item: item**2, items(), window=window):
            assert square.result() == item**2
            assert len(begun) == min(10, item + window)
    assert begun == list(range(10))


def test_an_error_is_that_of_its_item() -> None:
    with ThreadPoolExecutor(2) as pool:
        futures = dict(map_ahead(pool, lambda item: 1 // item, [1, 0, 2], window=2))
    assert [futures[item].exception() is None for item in (1, 0, 2)] == [True, False, True]


@pytest.mark.parametrize(("cores", "threads"), [(1, 4), (6, 6), (64, 16)])
def test_threads_follow_the_cores_within_bounds(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert threads_by_cores() == threads
