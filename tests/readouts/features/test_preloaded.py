"""A split in memory gives the batches that reading gives, and is refused where it does not fit."""

from collections.abc import Callable
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.store.feature_store import FeatureStore
from featcache.system.console import silent
from readouts.features import preloaded
from readouts.features.batches import training_batches
from readouts.features.preloaded import preload, preloaded_batches, preloaded_bytes
from readouts.features.splits import draws_of, split_of
from readouts.tasks.base import clip_rows
from readouts.tokens.prepared import QuantizedTokens
from readouts.training.loop import train
from readouts.training.run import Run

CPU = torch.device("cpu")


def test_the_batches_are_those_that_reading_gives(make_split: Callable[..., FeatureStore]) -> None:
    tokens = np.random.default_rng(0).standard_normal((40, 3, 2, 2, 2, 4)).astype(np.float16)
    split = split_of(make_split("train", tokens, np.eye(7, dtype=int)[np.arange(40) % 7]))
    draws = draws_of(split, batch=16, seed=3)
    held = preload(split, CPU, "yes", silent)
    assert held is not None
    ours = preloaded_batches(held, split, clip_rows, draws, range(5))
    for mine, theirs in zip(ours, training_batches(split, clip_rows, draws, range(5), CPU), strict=True):
        assert torch.equal(mine.tokens, theirs.tokens)
        np.testing.assert_array_equal(mine.clips, theirs.clips)
        assert torch.equal(mine.targets["labels"], theirs.targets["labels"])


def test_int8_tokens_stay_as_they_are_stored(make_split: Callable[..., FeatureStore]) -> None:
    """Widened to float16 they would be other numbers than those that reading gives, in twice the memory."""
    tokens = np.random.default_rng(0).standard_normal((40, 3, 2, 2, 2, 4)).astype(np.float16)
    labels = np.eye(7, dtype=int)[np.arange(40) % 7]
    split = split_of(make_split("train", tokens, labels, dtype="int8"))
    draws = draws_of(split, batch=16, seed=3)
    held = preload(split, CPU, "yes", silent)
    assert held is not None
    assert sum(part.nbytes for part in held.stored) == preloaded_bytes(split) == 40 * 3 * 8 * (4 + 4)
    ours = preloaded_batches(held, split, clip_rows, draws, range(5))
    for mine, theirs in zip(ours, training_batches(split, clip_rows, draws, range(5), CPU), strict=True):
        assert isinstance(mine.tokens, QuantizedTokens) and isinstance(theirs.tokens, QuantizedTokens)
        assert torch.equal(mine.tokens.values, theirs.tokens.values)
        assert torch.equal(mine.tokens.scales, theirs.tokens.scales)


def test_what_torch_holds_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"mem_get_info": (10, 80), "memory_reserved": 60, "memory_allocated": 5}
    for name, value in facts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert preloaded.free_memory(torch.device("cuda")) == 10 + 60 - 5


def test_training_from_memory_gives_the_same_scores(run: Run, tmp_path: Path) -> None:
    read, held = (
        train(run, results_dir=tmp_path / wish, device=CPU, resident=wish) for wish in ("no", "yes")
    )
    assert [row["val"] for row in read] == [row["val"] for row in held]


def test_what_does_not_fit_is_read_or_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloaded, "free_memory", lambda device: 2 * preloaded_bytes(run.training) - 1)
    assert preload(run.training, CPU, "auto", silent) is None
    with pytest.raises(CallError, match="half of which may be used: read it from disk"):
        preload(run.training, CPU, "yes", silent)
    with pytest.raises(CallError, match="--resident perhaps: one of auto, yes, no"):
        unwrap(preload)(run.training, CPU, "perhaps", silent)
