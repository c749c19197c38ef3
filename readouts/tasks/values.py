"""Regression of what a clip shows: a number a frame, or one a video, of a user's own table.

Heads predict it standardised, by mean and deviation of the training clips, which the manifest keeps. What
nobody measured is unknown: it counts in no loss and no score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError, StoreError
from featcache.manifest import Manifest
from featcache.store.targets import Targets
from readouts.metrics import values
from readouts.metrics.base import PerClip, Weights
from readouts.tasks.base import Baseline, ManifestTask, Numbers, Recipe, Rng, Rows
from readouts.tasks.losses import squared_error


@dataclass(frozen=True, kw_only=True)
class ShownValues(ManifestTask):
    """A task of values that a clip's own frames show; see `readouts.tasks.base.Task` for the contract."""

    quantity: str
    """What is measured."""
    n_outputs: int
    """One a frame of the clip, or one for all of it."""
    offset: float
    """Mean of the training clips' values, in their unit."""
    scale: float
    """Their standard deviation."""
    unit: str = ""
    recipe: Recipe = field(default_factory=lambda: Recipe(clip_update=1.0))
    readouts: tuple[str, ...] = ("linear", "attention")
    takes: str = "vector"
    higher_is_better: bool = False

    @classmethod
    def of(cls, manifest: Manifest, name: str) -> "ShownValues":
        """The regression called `name` in the manifest, with the benchmark's recipe.

        Raises:
            CallError: its data set does not say what the values are.
        """
        entry = manifest.task(name)
        data = manifest.dataset(entry.source_of("train")[0])
        if data.values is None or "series" not in data.features:
            raise CallError(
                f"manifest, tasks.{name}: a regression needs `starts` with its span of steps, or a data set "
                "with `values` and a `series` among its `features`."
            )
        return cls(
            name=name,
            quantity=data.features["series"],
            n_outputs=entry.clip.n_frames if data.values.of == "frame" else 1,
            offset=data.values.mean,
            scale=data.values.std,
            unit=data.values.unit,
        )

    @property
    def of_frames(self) -> bool:
        """Whether each output is of a frame of the clip."""
        return self.n_outputs > 1

    @property
    def score(self) -> str:
        """The root mean squared error, in the values' unit."""
        return f"{self.quantity}/rmse"

    @property
    def output_names(self) -> tuple[str, ...]:
        """The frames of a clip, or what is measured."""
        if not self.of_frames:
            return (self.quantity,)
        return tuple(f"frame {frame}" for frame in range(self.n_outputs))

    def identity(self) -> Mapping[str, Any]:
        """The values that define score and loss."""
        return {
            "n_outputs": self.n_outputs, "offset": self.offset, "scale": self.scale, "score": self.score
        }  # fmt: skip

    def head_config(self, readout: str) -> dict[str, Any]:
        """The benchmark's settings of a regression's head: no dropout."""
        return {"width": 1024, "heads": 16, "dropout": 0.0} if readout == "attention" else {}

    def select(self, targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
        """`values` [B O] in their unit, and whether each is `known` [B O]: an unknown one is the mean."""
        if "series" not in targets or targets.shape("series")[1:] != (1, self.n_outputs):
            raise StoreError(
                f"{targets.path} does not hold {self.n_outputs} values a clip: run the same `scivid extract` "
                "again with the manifest that you train with."
            )
        found = targets.rows("series", clips)[:, 0]
        known = np.isfinite(found)
        return {"values": np.where(known, found, np.float32(self.offset)), "known": known.astype(np.float32)}

    def predicted(self, outputs: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        """Values in their unit."""
        return self.offset + self.scale * outputs

    def loss(self, outputs: Float[Tensor, "B O"], targets: Rows) -> Float[Tensor, ""]:
        """Mean squared error of the known values, standardised."""
        wanted = (targets["values"] - self.offset) / self.scale
        return squared_error(outputs, wanted, mask=targets["known"]).mean

    def per_clip(self, outputs: Float[Tensor, "B O"], targets: Rows) -> PerClip:
        """Errors, and deviations from the training mean, of the known values in their unit."""
        return values.per_clip(
            self.predicted(outputs), targets["values"], known=targets["known"], centre=self.offset
        )

    def scores(self, per_clip: PerClip, weights: Weights | None = None) -> dict[str, float]:
        """`rmse`, `mae` and `r2` over all known values."""
        return values.scores(per_clip, weights, quantity=self.quantity)

    def baselines(self, train: Targets) -> Mapping[str, Baseline]:
        """The training clips' mean."""
        return {"training mean": lambda rows: torch.zeros_like(rows["values"])}
