"""Errors of predicted global fields, accumulated batch by batch, as WeatherBench 2 takes them.

A batch of fields is hundreds of megabytes, its scores a few numbers. Each clip is reduced to row sums where
it lies, in the fields' own float32 (within 1e-6 of the sum: the terms are squares, and torch adds them in a
tree); only these travel to the host, where all the rest is float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log10

import numpy as np
import torch
from einops import einsum, reduce
from jaxtyping import Float, Float64
from torch import Tensor

from featcache.errors import CallError, TrainingError


def squared_row_sums(
    predicted: Float[Tensor, "B F Y X C"], target: Float[Tensor, "B F Y X C"]
) -> Float64[Tensor, "B F Y C"]:
    """Sum of (predicted - target)^2 along each row, on the host; the largest temporary is one clip."""
    rows = [(one - other).square_().sum(dim=2) for one, other in zip(predicted, target, strict=True)]
    return torch.stack(rows).cpu().double()


@dataclass(kw_only=True, slots=True)
class FieldRMSE:
    """Area-weighted RMSE of each variable and frame (REFERENCE: WB2 RMSE).

    The mean over clips is of squares, the root comes last; means over frames and variables are of roots.
    """

    latitude_weights: Float[Tensor, "Y"]
    """Of mean 1 (`readouts.metrics.area.latitude_weights`)."""
    variables: Sequence[str] = ("Z500", "T850", "Q700")
    """Names of the channels."""
    _squares: list[Float64[np.ndarray, "B F C"]] = field(default_factory=list, init=False, repr=False)
    """Mean square of each clip, area by area."""

    @torch.no_grad()
    def update(self, predicted: Float[Tensor, "B F Y X C"], target: Float[Tensor, "B F Y X C"]) -> None:
        """Take one batch of fields in their own units, on any one device.

        Raises:
            CallError: rows or channels are not those of the weights and variables, or frames vary.
            TrainingError: an error is not finite.
        """
        self._check(predicted)
        rows = squared_row_sums(predicted, target)
        weights = self.latitude_weights.cpu().double() / (rows.shape[2] * predicted.shape[3])
        squares = einsum(rows, weights, "b f y c, y -> b f c")
        if not squares.isfinite().all():
            raise TrainingError(
                "predicted fields are not finite: training diverged, lower the learning rate."
            )
        self._squares.append(squares.numpy())

    def compute(self) -> dict[str, float]:
        """`<variable>/t=<frame>/rmwse`, `<variable>/rmwse`, and `rmwse` over everything, in mixed units.

        Raises:
            CallError: nothing was taken yet.
        """
        evidence = self.evidence()
        return self.results_of(evidence, np.ones(len(evidence["squares"])))

    def evidence(self) -> dict[str, np.ndarray]:
        """What the scores need of each clip: `squares` [clips F C], its area-weighted mean squared errors.

        Raises:
            CallError: nothing was taken yet.
        """
        if not self._squares:
            raise CallError("there is no RMSE of no fields: evaluate at least one batch.")
        return {"squares": np.concatenate(self._squares)}

    def results_of(
        self, evidence: Mapping[str, np.ndarray], weights: Float64[np.ndarray, " n"]
    ) -> dict[str, float]:
        """As `compute`, with clip i of the evidence counted `weights[i]` times."""
        rmse = np.sqrt(np.tensordot(weights / weights.sum(), evidence["squares"], axes=1))
        named = list(zip(self.variables, rmse.T, strict=True))
        results = {f"{name}/t={t}/rmwse": float(e) for name, errors in named for t, e in enumerate(errors)}
        results |= {f"{name}/rmwse": float(errors.mean()) for name, errors in named}
        return {**results, "rmwse": float(rmse.mean())}

    def _check(self, predicted: Float[Tensor, "B F Y X C"]) -> None:
        _, n_frames, n_rows, _, n_channels = predicted.shape
        if n_rows != len(self.latitude_weights) or n_channels != len(self.variables):
            raise CallError(
                f"fields of {n_rows} rows and {n_channels} channels cannot be scored with "
                f"{len(self.latitude_weights)} latitude weights as {', '.join(self.variables)}."
            )
        before = {squares.shape[1] for squares in self._squares[:1]} - {n_frames}
        if before:
            raise CallError(f"{n_frames} frames after {before.pop()}: score each length on its own.")


@dataclass(kw_only=True, slots=True)
class PeakSignalToNoise:
    """Mean over frames of each frame's PSNR in dB (kauldron's Psnr)."""

    in_vrange: tuple[float, float] = (0.0, 1.0)
    """Of the values; the reference leaves it so for fields in their own units, which gives about -51 dB."""
    _decibels: float = field(default=0.0, init=False, repr=False)
    _n_frames: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = self.in_vrange
        if not low < high:
            raise CallError(f"in_vrange={self.in_vrange} must be two values, the smaller one first.")

    @torch.no_grad()
    def update(self, predicted: Float[Tensor, "B F Y X C"], target: Float[Tensor, "B F Y X C"]) -> None:
        """Take one batch of frames.

        Raises:
            TrainingError: an error is not finite.
        """
        n_values = predicted[0, 0].numel()
        mean_squares = reduce(squared_row_sums(predicted, target), "b f y c -> b f", "sum") / n_values
        if not mean_squares.isfinite().all():
            raise TrainingError(
                "predicted frames are not finite: training diverged, lower the learning rate."
            )
        low, high = self.in_vrange
        self._decibels += float((20 * log10(high - low) - 10 * mean_squares.log10()).sum())
        self._n_frames += mean_squares.numel()

    def compute(self) -> dict[str, float]:
        """`PSNR`; infinite where a frame was predicted exactly.

        Raises:
            CallError: nothing was taken yet.
        """
        if not self._n_frames:
            raise CallError("there is no PSNR of no frames: evaluate at least one batch.")
        return {"PSNR": self._decibels / self._n_frames}
