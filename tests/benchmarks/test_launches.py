"""The counts are of what they say, and the measurement runs."""

import pytest
import torch

from readouts.heads import HEADS
from tests.benchmarks.launches import Calls, LiveBytes, launches, measure


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


def test_bytes_are_those_of_live_tensors() -> None:
    known = torch.empty(10, device="meta", requires_grad=True)
    with LiveBytes([known]) as held:
        kept = known.view(2, 5).relu()
        assert held.live == held.peak == 40, "a view of what was there is nothing new"
        kept.tanh().sum()
        assert (held.live, held.peak) == (40, 84)
        del kept
    assert held.live == 0


def test_it_measures() -> None:
    claims = measure(small=True)
    calls, memory = claims[: len(HEADS)], claims[len(HEADS) :]
    assert [claim.what for claim in calls] == list(HEADS)
    assert all(claim.met is not False for claim in claims)
    assert [claim.what for claim in memory] == ["tracking", "dpt", "correlation"]
