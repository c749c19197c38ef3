"""Errors of a predicted pressure series, step by step, in hPa (REFERENCE: Typhoon).

A few numbers a clip, kept in float64 on the host whatever the outputs' device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from readouts.metrics.base import PerClip, Weights, refuse_divergence, shares

SCORE_STEPS = (0, 1, 2, 5, 11)
"""The steps, from 0, that the score averages over: 1, 2, 3, 6 and 12 hours ahead."""

_PER_STEP = ("abs_error", "reative_abs_error", "rmse")
"""Result keys of a step; the second is misspelt in the reference."""


@torch.no_grad()
def per_clip(predicted: Float[Tensor, "B O"], true: Float[Tensor, "B O"]) -> dict[str, np.ndarray]:
    """`absolute`, `relative` and `squared` errors [B O] of series in hPa, the training's offset added.

    Raises:
        TrainingError: an error is not finite.
    """
    truth = true.cpu().double()
    error = (predicted.cpu().double() - truth).abs()
    refuse_divergence(error, "predicted series")
    errors = {"absolute": error, "relative": error / truth.abs(), "squared": error.square()}
    return {name: values.numpy() for name, values in errors.items()}


def scores(
    statistics: PerClip, weights: Weights | None = None, *, score_steps: Sequence[int] = SCORE_STEPS
) -> dict[str, float]:
    """`pressure/t=<step>/<error>` of every step, and `pressure/rmse`, the mean RMSE of `score_steps`.

    Args:
        statistics: of a split, as `per_clip` gives them.
        weights: how often each clip counts; None: once.
        score_steps: from 0.
    """
    parts = shares(len(statistics["squared"]), weights)
    absolute, relative, squared = (parts @ statistics[name] for name in ("absolute", "relative", "squared"))
    rmse = np.sqrt(squared)
    results = {
        f"pressure/t={step}/{name}": float(error)
        for step, errors in enumerate(zip(absolute, relative, rmse, strict=True))
        for name, error in zip(_PER_STEP, errors, strict=True)
    }
    return {**results, "pressure/rmse": float(rmse[list(score_steps)].mean())}
