"""The profile names what a step does."""

from collections.abc import Iterator

import pytest
import torch

from tests.benchmarks.profile_step import tables


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_profiles_one_readout_and_sixteen() -> None:
    found = tables(small=True, rows=400)
    assert list(found) == ["one readout", "16 readouts"]
    assert all("_softmax_backward_data" in table and "_fused_adamw_" in table for table in found.values())
