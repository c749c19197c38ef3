"""Costs: bytes from the shape, seconds and joules from what extraction logged."""

from collections.abc import Callable

import numpy as np

from featcache.store.feature_store import FeatureStore
from readouts.results.costs import cost_of

MakeSplit = Callable[..., FeatureStore]


def test_sums_over_runs_and_stores(make_split: MakeSplit) -> None:
    stores = [
        make_split(role, np.zeros((n, 1, 2, 2, 2, 8)), np.zeros((n, 7), int))
        for role, n in (("train", 4), ("val", 2))
    ]
    unlogged = cost_of(stores)
    assert (unlogged.n_bytes, unlogged.seconds, unlogged.joules) == (6 * 8 * 8 * 2, None, None)
    # Killed once, in the middle of a line.
    (stores[0].path / "runs.jsonl").write_text('{"seconds": 1.5, "joules": 3}\n{"seco\n{"seconds": 2}\n')
    (stores[1].path / "runs.jsonl").write_text('{"seconds": 4.0}\n')
    assert cost_of(stores).seconds == 7.5
    assert cost_of(stores).joules is None
    (stores[1].path / "runs.jsonl").write_text('{"seconds": 4.0, "joules": 5}\n')
    assert cost_of(stores[1:]).joules == 5
