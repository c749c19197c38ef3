"""A split in memory gives the batches that reading gives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from featcache.store.feature_store import FeatureStore
from featcache.store.reading import shard_file
from featcache.system.console import silent
from readouts.features.batches import training_batches
from readouts.features.preloading import Preloads
from readouts.features.splits import draws_of, split_of
from readouts.tasks.base import clip_rows
from tests.readouts.features.numbered import same_numbers

CPU = torch.device("cpu")


@pytest.mark.parametrize(("dtype", "bytes_of_a_token"), [("float16", 8), ("int8", 8)])
@pytest.mark.parametrize("mapped", [True, False])
def test_the_batches_are_those_that_reading_gives(
    make_split: Callable[..., FeatureStore],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    bytes_of_a_token: int,
    mapped: bool,
) -> None:
    """As they are stored: int8 tokens widened to float16 would be other numbers, in twice the memory."""
    monkeypatch.setattr(shard_file, "is_local", lambda path: mapped)
    tokens = np.random.default_rng(0).standard_normal((40, 3, 2, 2, 2, 4)).astype(np.float16)
    split = split_of(make_split("train", tokens, np.eye(7, dtype=int)[np.arange(40) % 7], dtype=dtype))
    draws = draws_of(split, batch=16, seed=3)
    held = Preloads(CPU, "yes").for_pass(split, split, minival_clips=8, progress=silent)["train"]
    assert held.nbytes == 40 * 3 * 8 * bytes_of_a_token
    ours = training_batches(split, clip_rows, draws, range(5), CPU, held)
    for mine, theirs in zip(ours, training_batches(split, clip_rows, draws, range(5), CPU), strict=True):
        assert len(same_numbers(mine.tokens, theirs.tokens)) == 1 + (dtype == "int8")
        np.testing.assert_array_equal(mine.clips, theirs.clips)
        assert torch.equal(mine.targets["labels"], theirs.targets["labels"])


def test_only_what_is_held_is_said_to_be(make_split: Callable[..., FeatureStore]) -> None:
    tokens = np.zeros((6, 2, 1, 2, 2, 4), np.float16)
    split = split_of(make_split("val", tokens, np.eye(7, dtype=int)[:6]))
    held = Preloads(CPU, "yes").for_pass(split, split, minival_clips=6, progress=silent)["val"]
    assert held.holds(np.arange(6), np.zeros(6, int))
    assert not held.holds(np.arange(6), np.ones(6, int))
