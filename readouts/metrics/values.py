"""Errors of values that a clip shows, over those that are known."""

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError
from readouts.metrics.base import PerClip, Weights, counted, refuse_divergence


@torch.no_grad()
def per_clip(
    predicted: Float[Tensor, "B O"],
    true: Float[Tensor, "B O"],
    *,
    known: Float[Tensor, "B O"],
    centre: float,
) -> dict[str, np.ndarray]:
    """Sums over a clip's known values [B]: how many there are, of errors, and of the values.

    `absolute` and `squared` errors, and `deviation` and `spread`, the values' differences from `centre` and
    the squares of these, all in the values' unit.

    Raises:
        TrainingError: a prediction is not finite.
    """
    counts, truth, found = (values.cpu().double() for values in (known, true, predicted))
    refuse_divergence(found, "predicted values")
    error, deviation = (found - truth) * counts, (truth - centre) * counts
    of_each = {
        "known": counts, "absolute": error.abs(), "squared": error.square(),
        "deviation": deviation, "spread": deviation.square(),
    }  # fmt: skip
    return {name: reduce(values, "b o -> b", "sum").numpy() for name, values in of_each.items()}


def scores(statistics: PerClip, weights: Weights | None = None, *, quantity: str) -> dict[str, float]:
    """`<quantity>/rmse`, `/mae` and `/r2`: the share of the variance that is explained.

    That is 0 where all true values are alike, and below it where their mean would be nearer than predictions.

    Args:
        statistics: of a split, as `per_clip` gives them.
        weights: how often each clip counts; None: once.
        quantity: what was measured.

    Raises:
        CallError: no value of the clips that count is known.
    """
    counts = counted(len(statistics["known"]), weights)
    n = float(counts @ statistics["known"])
    if not n:
        raise CallError("there is no error of no value: evaluate clips of which one is known.")
    squared, absolute, deviation, spread = (
        float(counts @ statistics[name]) / n for name in ("squared", "absolute", "deviation", "spread")
    )
    variance = spread - deviation**2
    explained = 1.0 - squared / variance if variance > 1e-12 * spread else 0.0
    return {
        f"{quantity}/rmse": squared**0.5, f"{quantity}/mae": absolute, f"{quantity}/r2": explained
    }  # fmt: skip
