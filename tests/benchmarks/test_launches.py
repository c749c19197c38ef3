"""The counts are of what they say, and the measurement runs."""

import torch

from readouts.heads import HEADS
from tests.benchmarks.launches import Calls, measure


def test_views_are_no_calls() -> None:
    values = torch.zeros(4, 6, device="meta")
    with Calls() as calls:
        values.mT.unflatten(0, (2, 3))[0].detach()
    assert calls.n == 0
    with calls:
        torch._foreach_add_([values, values], 1.0)
        values.sum()
    assert calls.n == 2


def test_it_measures() -> None:
    claims = measure(small=True)
    calls, memory = claims[: len(HEADS)], claims[len(HEADS) :]
    assert [claim.what for claim in calls] == list(HEADS)
    assert all(claim.met is not False for claim in claims)
    assert [claim.what for claim in memory] == ["tracking", "dpt", "correlation"]
