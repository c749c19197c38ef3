"""Per-clip statistics: how those of batches become those of a split, and means over clips."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from featcache.errors import CallError, TrainingError

PerClip = Mapping[str, np.ndarray]
"""Statistics that scores follow from, by name: a row a clip, in the order of the clips."""

Weights = Float64[np.ndarray, " n"]
"""How often each clip counts: once for the score of a split, as often as it was drawn in a resample."""


def concatenated(batches: Sequence[PerClip]) -> dict[str, np.ndarray]:
    """The statistics of a split, given those of its batches.

    Raises:
        CallError: there is no batch.
    """
    if not batches:
        raise CallError("there are no scores of no clips: evaluate at least one batch.")
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def counted(n_clips: int, weights: Weights | None) -> Weights:
    """The weights of `n_clips`, where None counts each once."""
    return np.ones(n_clips) if weights is None else weights


def shares(n_clips: int, weights: Weights | None) -> Weights:
    """The part of each of `n_clips` in a weighted mean over them."""
    counts = counted(n_clips, weights)
    parts: Weights = counts / counts.sum()
    return parts


def refuse_divergence(values: Tensor, what: str) -> None:
    """Refuse to score what is no number.

    Raises:
        TrainingError: some value is not finite; says of `what`.
    """
    if not values.isfinite().all():
        raise TrainingError(f"{what} are not finite: training diverged, lower the learning rate.")
