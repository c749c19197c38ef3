"""Errors of a predicted time series, step by step, as the typhoon benchmark reports them.

A few numbers a clip, kept in float64 on the host whatever the outputs' device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from featcache.errors import CallError, TrainingError

_PER_STEP = ("abs_error", "reative_abs_error", "rmse")
"""Result keys of a step; the second is misspelt in the reference."""


@dataclass(kw_only=True, slots=True)
class PressureErrors:
    """Mean absolute, mean relative and root mean square error of every step (REFERENCE: Typhoon)."""

    pred_len: int = 12
    """Steps of a series: lead hours."""
    score_steps: Sequence[int] = (0, 1, 2, 5, 11)
    """0-based steps whose RMSE the score averages: 1, 2, 3, 6 and 12 hours ahead."""
    _taken: list[dict[str, np.ndarray]] = field(default_factory=list, init=False, repr=False)
    """The evidence of each batch."""

    def __post_init__(self) -> None:
        outside = [step for step in self.score_steps if not 0 <= step < self.pred_len]
        if outside or not self.score_steps:
            raise CallError(
                f"score_steps={tuple(self.score_steps)} must name some of the {self.pred_len} steps, from 0."
            )

    @torch.no_grad()
    def update(self, predicted: Float[Tensor, "B O"], true: Float[Tensor, "B O"]) -> None:
        """Take one batch of series, in the same unit (hPa) and without the offset of the training target.

        Raises:
            CallError: a series has not `pred_len` steps.
            TrainingError: an error is not finite.
        """
        if predicted.shape[1] != self.pred_len:
            raise CallError(
                f"a series of {predicted.shape[1]} steps cannot be scored as one of {self.pred_len}."
            )
        truth = true.cpu().double()
        error = (predicted.cpu().double() - truth).abs()
        if not error.isfinite().all():
            raise TrainingError(
                "predicted series are not finite: training diverged, lower the learning rate."
            )
        evidence = {"absolute": error, "relative": error / truth.abs(), "squared": error.square()}
        self._taken.append({name: values.numpy() for name, values in evidence.items()})

    def compute(self) -> dict[str, float]:
        """`pressure/t=<step>/<error>` of every step, and `pressure/rmse`, the score.

        Raises:
            CallError: nothing was taken yet.
        """
        evidence = self.evidence()
        return self.results_of(evidence, np.ones(len(evidence["squared"])))

    def evidence(self) -> dict[str, np.ndarray]:
        """What the scores need of each clip: `absolute`, `relative` and `squared` errors [clips O].

        Raises:
            CallError: nothing was taken yet.
        """
        if not self._taken:
            raise CallError("there are no pressure errors of no clips: evaluate at least one batch.")
        return {name: np.concatenate([batch[name] for batch in self._taken]) for name in self._taken[0]}

    def results_of(
        self, evidence: Mapping[str, np.ndarray], weights: Float64[np.ndarray, " n"]
    ) -> dict[str, float]:
        """As `compute`, with clip i of the evidence counted `weights[i]` times."""
        shares = weights / weights.sum()
        absolute, relative, squared = (
            shares @ evidence[name] for name in ("absolute", "relative", "squared")
        )
        rmse = np.sqrt(squared)
        results = {
            f"pressure/t={step}/{name}": float(error)
            for step, errors in enumerate(zip(absolute, relative, rmse, strict=True))
            for name, error in zip(_PER_STEP, errors, strict=True)
        }
        return {**results, "pressure/rmse": float(rmse[list(self.score_steps)].mean())}
