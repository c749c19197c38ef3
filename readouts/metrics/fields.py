"""Root mean squared errors of predicted global fields, weighted by area (REFERENCE: WB2 RMSE).

A batch of fields is hundreds of megabytes, its statistics a few numbers. Each clip is reduced to row sums
where it lies, in the fields' own float32 (within 1e-6 of the sum: the terms are squares, and torch adds them
in a tree); only these travel to the host, where all the rest is float64.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from readouts.metrics.base import PerClip, Weights, refuse_divergence, shares


@torch.no_grad()
def per_clip(
    predicted: Float[Tensor, "B F Y X C"],
    target: Float[Tensor, "B F Y X C"],
    *,
    latitude_weights: Float[Tensor, "Y"],
) -> dict[str, np.ndarray]:
    """`squares` [B F C], the area-weighted mean squared error of each clip, frame and variable.

    Args:
        predicted: fields in their own units, on any one device.
        target: the true ones.
        latitude_weights: of mean 1 (`readouts.metrics.area.latitude_weights`).

    Raises:
        TrainingError: an error is not finite.
    """
    # One clip after the other: the largest temporary is one clip.
    sums = [(one - other).square_().sum(dim=2) for one, other in zip(predicted, target, strict=True)]
    rows = torch.stack(sums).cpu().double()
    weights = latitude_weights.cpu().double() / (rows.shape[2] * predicted.shape[3])
    squares = einsum(rows, weights, "b f y c, y -> b f c")
    refuse_divergence(squares, "predicted fields")
    return {"squares": squares.numpy()}


def scores(
    statistics: PerClip, weights: Weights | None = None, *, variables: Sequence[str]
) -> dict[str, float]:
    """`<variable>/t=<frame>/rmwse`, `<variable>/rmwse`, and `rmwse` over everything, in mixed units.

    The mean over clips is of squares, the root comes last; means over frames and variables are of roots.

    Args:
        statistics: of a split, as `per_clip` gives them.
        weights: how often each clip counts; None: once.
        variables: names of the channels.
    """
    squares = statistics["squares"]
    rmse = np.sqrt(np.tensordot(shares(len(squares), weights), squares, axes=1))
    named = list(zip(variables, rmse.T, strict=True))
    results = {f"{name}/t={t}/rmwse": float(e) for name, errors in named for t, e in enumerate(errors)}
    results |= {f"{name}/rmwse": float(errors.mean()) for name, errors in named}
    return {**results, "rmwse": float(rmse.mean())}
