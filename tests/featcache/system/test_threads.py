"""Threads that torch does not split further, and that change nothing for others."""

from concurrent.futures import ThreadPoolExecutor
from threading import current_thread

import pytest
import torch

from featcache.system.threads import parallel_map, single_threaded_pool


@pytest.fixture
def three_torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_torch_stays_on_a_thread_and_elsewhere_is_as_it_was(three_torch_threads) -> None:
    with single_threaded_pool(4, "lone") as pool:
        assert set(pool.map(lambda _: torch.get_num_threads(), range(40))) == {1}
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3


def test_items_come_back_in_order_each_from_one_thread(three_torch_threads) -> None:
    def work(item: int) -> tuple[int, int]:
        return item, torch.get_num_threads()

    assert parallel_map(work, range(20)) == [(i, 1) for i in range(20)]
    assert torch.get_num_threads() == 3


def test_an_error_of_one_item_is_raised(three_torch_threads) -> None:
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda item: 1 // item, [1, 0, 2])


def test_a_single_item_has_one_thread_too(three_torch_threads) -> None:
    ((thread, n_threads),) = parallel_map(lambda _: (current_thread(), torch.get_num_threads()), range(1))
    assert thread != current_thread()
    assert n_threads == 1


def test_one_thread_maps_by_itself() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert set(parallel_map(lambda _: current_thread(), range(3))) == {current_thread()}
    finally:
        torch.set_num_threads(before)
