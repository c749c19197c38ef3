"""Threads that torch does not split further, and that change nothing for others."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from featcache.threads import lone_threads


@pytest.fixture
def three_torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_torch_stays_on_a_thread_and_elsewhere_is_as_it_was(three_torch_threads) -> None:
    with lone_threads(4, "lone") as pool:
        assert set(pool.map(lambda _: torch.get_num_threads(), range(40))) == {1}
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3
