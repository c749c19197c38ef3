"""Tokens that say which clip and view they are of."""

import numpy as np
import torch

from readouts.features.batches import Batch
from readouts.tokens.prepared import Native, QuantizedTokens, ScatteredTokens


def numbered(n_clips: int, n_views: int) -> np.ndarray:
    """Tokens [clip, view, 2, 2, 2, 3] whose every value is 10 * clip + view."""
    value = 10 * np.arange(n_clips)[:, None] + np.arange(n_views)
    return np.broadcast_to(value[:, :, None, None, None, None], (n_clips, n_views, 2, 2, 2, 3)).astype(
        np.float32
    )


def one_hot(n_clips: int) -> np.ndarray:
    return np.eye(7, dtype=np.int64)[np.arange(n_clips) % 7]


def whole(tokens: Native) -> torch.Tensor:
    """Tokens of a batch in one tensor, int8 ones without their scales."""
    values = tokens.values if isinstance(tokens, QuantizedTokens) else tokens
    return values.together() if isinstance(values, ScatteredTokens) else values


def first_numbers(batch: Batch) -> list[float]:
    """The first number of every clip."""
    return whole(batch.tokens)[:, 0, 0, 0].tolist()


def same_numbers(mine: Native, theirs: Native) -> list[str]:
    """What was compared, which is the same: the tokens, and the scales of int8 ones."""
    assert torch.equal(whole(mine), whole(theirs)) and whole(mine).dtype == whole(theirs).dtype
    if not isinstance(mine, QuantizedTokens):
        return ["tokens"]
    assert isinstance(theirs, QuantizedTokens) and torch.equal(mine.scales, theirs.scales)
    return ["tokens", "scales"]
