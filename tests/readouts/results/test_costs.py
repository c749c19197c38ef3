"""Costs: bytes from the shape, seconds and joules from what extraction logged."""

import os
from collections.abc import Callable

import numpy as np
import pytest

from featcache.store.feature_store import FeatureStore
from featcache.system.sealed import json_sealed
from readouts.results.costs import cost_of

MakeSplit = Callable[..., FeatureStore]


def test_sums_over_runs_and_stores(make_split: MakeSplit) -> None:
    stores = [
        make_split(role, np.zeros((n, 1, 2, 2, 2, 8)), np.zeros((n, 7), int))
        for role, n in (("train", 4), ("val", 2))
    ]
    unlogged = cost_of(stores)
    assert (unlogged.n_bytes, unlogged.seconds, unlogged.joules) == (6 * 8 * 8 * 2, None, None)
    (stores[0].path / "runs.jsonl").write_text('{"seconds": 1.5, "joules": 3}\n{"seconds": 2}\n')
    (stores[1].path / "runs.jsonl").write_text('{"seconds": 4.0}\n')
    assert cost_of(stores).seconds == 7.5  # of before lines were sealed
    assert cost_of(stores).joules is None
    (stores[1].path / "runs.jsonl").write_text('{"seconds": 4.0, "joules": 5}\n')
    assert cost_of(stores[1:]).joules == 5


@pytest.mark.parametrize("damage", ["torn", "a flipped bit", "a pipe"])
def test_a_cost_is_unknown_where_a_line_of_the_log_is_not_whole(make_split: MakeSplit, damage: str) -> None:
    """A sum without the part of one process would be too small."""
    store = make_split("train", np.zeros((4, 1, 2, 2, 2, 8)), np.zeros((4, 7), int))
    log = store.path / "runs.jsonl"
    content = json_sealed({"seconds": 1.5}) + json_sealed({"seconds": 2.5})
    log.write_bytes(content)
    assert cost_of([store]).seconds == 4
    if damage == "a pipe":
        log.unlink()
        os.mkfifo(log)
    else:
        log.write_bytes(content[:-30] if damage == "torn" else content.replace(b"1.5", b"1.4"))
    assert cost_of([store]).seconds is None
