"""Regression of a series: its next values, from frames alone (PROTOCOL: typhoon)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError, StoreError
from featcache.manifest import Manifest
from featcache.store.targets import Targets
from readouts.metrics import series
from readouts.metrics.base import PerClip, Weights
from readouts.tasks.base import Baseline, ManifestTask, Numbers, Recipe, Rng, Rows
from readouts.tasks.losses import squared_error


@dataclass(frozen=True, kw_only=True)
class Regression(ManifestTask):
    """A task of the next values of a series; see `readouts.tasks.base.Task` for the contract."""

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
    def output_names(self) -> tuple[str, ...]:
        """The hours ahead."""
        return tuple(f"+{hour} h" for hour in range(1, self.n_outputs + 1))

    def identity(self) -> Mapping[str, Any]:
        """The values that define score and loss."""
        return {
            "n_inputs": self.n_inputs,
            "n_outputs": self.n_outputs,
            "offset": self.offset,
            "score_steps": list(self._score_steps),
            "score": self.score,
        }

    @property
    def _score_steps(self) -> tuple[int, ...]:
        """The benchmark's steps that this series has, the first at least."""
        return tuple(step for step in series.SCORE_STEPS if step < self.n_outputs)

    def head_config(self, readout: str) -> dict[str, Any]:
        """The benchmark's settings of a head: no dropout in a regression."""
        return {"width": 1024, "heads": 16, "dropout": 0.0} if readout == "attention" else {}

    def select(self, targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
        """`past` [B I] and `future` [B O] of the series, in its unit, from each view's own start."""
        if "series" not in targets or targets.shape("series")[-1] != self.n_inputs + self.n_outputs:
            raise StoreError(
                f"{targets.path} does not hold series of {self.n_inputs} + {self.n_outputs} steps: run the "
                "same `scivid extract` again with the manifest that you train with."
            )
        values = targets.rows("series", clips)[np.arange(len(clips)), views]
        return {"past": values[:, : self.n_inputs], "future": values[:, self.n_inputs :]}

    def loss(self, outputs: Float[Tensor, "B O"], targets: Rows) -> Float[Tensor, ""]:
        """Mean squared error relative to the offset."""
        return squared_error(outputs, targets["future"] - self.offset).mean

    def per_clip(self, outputs: Float[Tensor, "B O"], targets: Rows) -> PerClip:
        """`absolute`, `relative` and `squared` errors [B O], in the unit of the series."""
        return series.per_clip(outputs + self.offset, targets["future"])

    def scores(self, per_clip: PerClip, weights: Weights | None = None) -> dict[str, float]:
        """Errors of every step, and the mean RMSE over some."""
        return series.scores(per_clip, weights, score_steps=self._score_steps)

    def baselines(self, train: Targets) -> Mapping[str, Baseline]:
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
