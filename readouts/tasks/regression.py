"""Regression of a series: its next values, from frames alone (PROTOCOL: typhoon)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from featcache.errors import CallError, StoreError
from featcache.manifest import Manifest
from featcache.store.targets import Targets
from readouts.metrics.series import PressureErrors
from readouts.tasks.base import Control, Evidence, Recipe, Rows
from readouts.tasks.losses import squared_error

SCORE_STEPS = (0, 1, 2, 5, 11)
"""The hours ahead that the score averages over: 1, 2, 3, 6 and 12."""


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A task of the next values of a series; see `readouts.tasks.base.Task` for the contract."""

    name: str
    n_inputs: int
    """Steps of the series that belong to the input frames."""
    n_outputs: int
    """Steps to predict."""
    offset: float = 0.0
    """Added to the heads' outputs, in the unit of the series."""
    recipe: Recipe = field(default_factory=lambda: Recipe(clip_update=1.0))
    readouts: tuple[str, ...] = ("linear", "attention")
    takes: str = "vector"
    score: str = "pressure/rmse"
    higher_is_better: bool = False
    predictions_kept: int | None = None

    @classmethod
    def of(cls, manifest: Manifest, name: str, *, offset: float = 0.0) -> "Regression":
        """The regression called `name` in the manifest, with the benchmark's recipe.

        Raises:
            CallError: the manifest does not say how many steps there are to predict.
        """
        entry = manifest.task(name)
        if entry.starts is None:
            raise CallError(f"manifest, tasks.{name}: a regression needs `starts` with its span of steps.")
        n_inputs = entry.clip.n_frames
        return cls(name=name, n_inputs=n_inputs, n_outputs=entry.starts.span - n_inputs, offset=offset)

    @property
    def spec(self) -> str:
        """Its name in the manifest."""
        return self.name

    @property
    def output_names(self) -> tuple[str, ...]:
        """The hours ahead."""
        return tuple(f"+{hour} h" for hour in range(1, self.n_outputs + 1))

    def identity(self) -> Mapping[str, Any]:
        """What defines score and loss."""
        return {
            "n_inputs": self.n_inputs,
            "n_outputs": self.n_outputs,
            "offset": self.offset,
            "score_steps": list(self._score_steps),
            "score": self.score,
        }

    @property
    def _score_steps(self) -> tuple[int, ...]:
        """Those of `SCORE_STEPS` that there are; the first always is."""
        return tuple(step for step in SCORE_STEPS if step < self.n_outputs)

    def head_config(self, readout: str) -> dict[str, Any]:
        """The benchmark's settings of a head: no dropout in a regression."""
        return {"width": 1024, "heads": 16, "dropout": 0.0} if readout == "attention" else {}

    def select(
        self,
        targets: Targets,
        clips: Int64[np.ndarray, " B"],
        views: Int64[np.ndarray, " B"],
        rng: np.random.Generator | None,
    ) -> dict[str, np.ndarray]:
        """`past` [B I] and `future` [B O] of the series, in its unit, from each view's own start."""
        if "series" not in targets or targets.shape("series")[-1] != self.n_inputs + self.n_outputs:
            raise StoreError(
                f"{targets.path} does not hold series of {self.n_inputs} + {self.n_outputs} steps: run the "
                "same `scivid extract` again with the manifest that you train with."
            )
        series = targets.rows("series", clips)[np.arange(len(clips)), views]
        return {"past": series[:, : self.n_inputs], "future": series[:, self.n_inputs :]}

    def inputs(self, targets: Rows) -> dict[str, Tensor]:
        """Nothing beside the tokens: the past of the series is not shown."""
        return {}

    def loss(self, outputs: Float[Tensor, "B O"], targets: Rows) -> Float[Tensor, ""]:
        """Mean squared error relative to the offset."""
        return squared_error(outputs, targets["future"] - self.offset).mean

    def metric(self) -> "_SeriesErrors":
        """Errors a step, and the mean RMSE over some."""
        errors = PressureErrors(pred_len=self.n_outputs, score_steps=self._score_steps)
        return _SeriesErrors(errors, self.offset)

    def score_of(self, evidence: Evidence, weights: Float64[np.ndarray, " n"]) -> float:
        """The score with clip i of the evidence counted `weights[i]` times."""
        return self.metric().errors.results_of(evidence, weights)[self.score]

    def controls(self, train: Targets) -> Mapping[str, Control]:
        """The last input value, and the training split's mean of each step."""
        blocks = (
            block[:, 0, self.n_inputs :].sum(axis=0, dtype=np.float64) for block in train.blocks("series")
        )
        mean = torch.from_numpy(sum(blocks, np.zeros(self.n_outputs))).float() / train.shape("series")[0]
        return {
            "last input value": lambda rows: repeat(
                rows["past"][:, -1] - self.offset, "b -> b o", o=self.n_outputs
            ),
            "training mean": lambda rows: repeat(mean - self.offset, "o -> b o", b=len(rows["future"])),
        }


@dataclass(frozen=True, slots=True)
class _SeriesErrors:
    """Errors fed from outputs relative to the offset."""

    errors: PressureErrors
    offset: float

    def update(self, outputs: Float[Tensor, "B O"], targets: Rows) -> None:
        self.errors.update(outputs + self.offset, targets["future"])

    def compute(self) -> dict[str, float]:
        return self.errors.compute()

    def evidence(self) -> dict[str, np.ndarray]:
        return self.errors.evidence()
