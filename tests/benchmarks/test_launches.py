"""The counts are of what they say, and the measurement runs."""

import pytest
import torch

from readouts.heads import HEADS
from tests.benchmarks.launches import Calls, launches, measure


def test_views_are_no_calls() -> None:
    values = torch.zeros(4, 6, device="meta")
    with Calls() as calls:
        values.mT.unflatten(0, (2, 3))[0].detach()
    assert calls.n == 0
    with calls:
        torch._foreach_add_([values, values], 1.0)
        values.sum()
    assert calls.n == 2


@pytest.mark.parametrize("kind", ["tracking", "dpt"])
def test_those_that_go_one_by_one_share_little(kind: str) -> None:
    one, three = (launches(kind, n, small=True) for n in (1, 3))
    assert 2 * one < three < 3 * one


def test_it_measures() -> None:
    *calls, memory = measure(small=True)
    assert [claim.what for claim in calls] == list(HEADS)
    assert all(claim.met is not False for claim in calls)
    assert memory.what == "dpt"
