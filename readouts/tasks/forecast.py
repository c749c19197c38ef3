"""Forecast of fields: the next ones from the last ones (PROTOCOL: weather).

A head predicts residuals to the last input fields in units of their standard deviation, so one that gives
zero is the persistence forecast.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32
from torch import Tensor

from featcache.errors import CallError, StoreError
from featcache.manifest import Manifest
from featcache.store.targets import Targets
from readouts.heads.dpt import add_residual
from readouts.metrics import fields
from readouts.metrics.area import latitude_weights, row_weights
from readouts.metrics.base import PerClip, Weights
from readouts.tasks.base import Baseline, ManifestTask, Numbers, Recipe, Rng, Rows
from readouts.tasks.losses import area_weighted_l1

RESIDUAL_STD = {"Z500": 404.18805465281133, "T850": 2.457512144662011, "Q700": 0.0012086132599619071}
"""Of the change from frame to frame, in m2/s2, K and kg/kg; its mean is taken as 0."""

SHORT_NAMES = {"geopotential_500": "Z500", "temperature_850": "T850", "specific_humidity_700": "Q700"}
"""The benchmark's names of the variables."""


@dataclass(frozen=True, kw_only=True)
class Forecast(ManifestTask):
    """A task of the next fields of a series; see `readouts.tasks.base.Task` for the contract."""

    variables: tuple[str, ...]
    rows: int
    columns: int
    n_frames: int
    """To forecast."""
    step_hours: int
    """From one to the next."""
    residual_std: tuple[float, ...]
    """Of each variable's change in that time, in its unit."""
    units: tuple[str, ...] = ()
    """Of the variables, where they are known."""
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=10_000, batch=16, clip_update=1.0))
    readouts: tuple[str, ...] = ("dpt",)
    takes: str = "fields"
    higher_is_better: bool = False
    predictions_kept: int | None = 4

    @classmethod
    def of(cls, manifest: Manifest, name: str) -> "Forecast":
        """The forecast called `name` in the manifest, with the benchmark's recipe.

        Raises:
            CallError: its data set has no windows of fields, or a variable without known statistics.
        """
        entry = manifest.task(name)
        dataset, split = entry.source_of("train")
        data = manifest.dataset(dataset)
        windows = data.split(split).windows
        variables = tuple(SHORT_NAMES.get(variable, variable) for variable in data.variables)
        known = data.residual_std or all(variable in RESIDUAL_STD for variable in variables)
        if windows is None or data.frame_size is None or not variables or not known:
            raise CallError(
                f"manifest, tasks.{name}: a forecast needs a data set with frame_size, windows and variables "
                f"of {', '.join(SHORT_NAMES)}, whose statistics are known, or `residual_std` of its own, "
                "which `scivid data init` computes."
            )
        rows, columns = data.frame_size
        return cls(
            name=name,
            variables=variables,
            rows=rows,
            columns=columns,
            n_frames=windows.n_frames - entry.clip.n_frames,
            step_hours=windows.step_hours,
            residual_std=data.residual_std or tuple(RESIDUAL_STD[variable] for variable in variables),
            units=data.units,
        )

    @property
    def score(self) -> str:
        """The first variable's error, as the paper's table has it."""
        return f"{self.variables[0]}/rmwse"

    @property
    def n_outputs(self) -> int:
        """Maps a head gives."""
        return self.n_frames * len(self.variables)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The variables."""
        return self.variables

    def identity(self) -> Mapping[str, Any]:
        """The values that define score and loss."""
        return {
            "variables": list(self.variables),
            "shape": [self.n_frames, self.rows, self.columns],
            "residual_std": list(self.residual_std),
            "score": self.score,
        }

    def head_config(self, readout: str) -> dict[str, Any]:
        """The benchmark's settings of a head."""
        if readout not in ("dpt", "dpt_layers"):
            return {}
        shape = {"n_frames": self.n_frames, "n_variables": len(self.variables)}
        return {
            **shape,
            "out_rows": self.rows,
            "out_columns": self.columns,
            "features": 1024,
            "head_channels": 512,
        }

    def select(self, targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
        """`last` [B Y X C], the last input fields, and `future` [B F Y X C], in physical units.

        Where the rows are not even ones from pole to pole, also `areas` [B Y], by their latitudes, of mean 1.
        """
        wanted = (self.rows, self.columns, len(self.variables))
        if "fields" not in targets or targets.shape("fields")[1:] != wanted:
            raise StoreError(
                f"{targets.path} does not hold fields {list(wanted)}: run the same `scivid extract` again "
                "with the manifest that you train with."
            )
        places = targets.rows("places", clips)[:, : self.n_frames + 1].astype(np.int64)
        future = targets.rows("fields", rearrange(places[:, 1:], "b f -> (b f)"))
        selected = {
            "last": targets.rows("fields", places[:, 0]),
            "future": rearrange(future, "(b f) y x c -> b f y x c", b=len(clips)),
        }
        areas = self._areas(targets)
        return selected if areas is None else {**selected, "areas": np.tile(areas, (len(clips), 1))}

    def predicted(
        self, outputs: Float[Tensor, "B F Y X C"], last: Float[Tensor, "B Y X C"]
    ) -> Float[Tensor, "B F Y X C"]:
        """Fields in physical units: last input plus scaled residual (`UnnormalizePredAndAddInput`)."""
        return add_residual(last, outputs, std=self._constants(outputs)[1])

    def loss(self, outputs: Float[Tensor, "B F Y X C"], targets: Rows) -> Float[Tensor, ""]:
        """Absolute error, weighted by area, variable and lead."""
        weights, std = self._constants(outputs)
        if "areas" in targets:
            weights = targets["areas"][0]
        predicted = self.predicted(outputs, targets["last"])
        return area_weighted_l1(predicted, targets["future"], latitude_weights=weights, residual_std=std).mean

    def per_clip(self, outputs: Float[Tensor, "B F Y X C"], targets: Rows) -> PerClip:
        """`squares` [B F C], mean squared errors in physical units, weighted by area."""
        predicted = self.predicted(outputs, targets["last"])
        weights = targets["areas"][0] if "areas" in targets else latitude_weights(self.rows)
        return fields.per_clip(predicted, targets["future"], latitude_weights=weights.float())

    def scores(self, per_clip: PerClip, weights: Weights | None = None) -> dict[str, float]:
        """Root mean squared errors of each variable and lead, and their means."""
        return fields.scores(per_clip, weights, variables=self.variables)

    def baselines(self, train: Targets) -> Mapping[str, Baseline]:
        """Persistence: the weather stays as it is."""
        return {"persistence": lambda rows: torch.zeros_like(rows["future"])}

    def _areas(self, targets: Targets) -> Float32[np.ndarray, " Y"] | None:
        """Weights of the rows by their latitudes, None where they are those of `latitude_weights`."""
        if "latitude" not in targets:
            return None
        weights = row_weights(targets.rows("latitude", np.arange(self.rows)))
        return None if torch.equal(weights, latitude_weights(self.rows)) else weights.float().numpy()

    def _constants(self, like: Tensor) -> tuple[Float[Tensor, " Y"], Float[Tensor, " C"]]:
        return _constants(self.rows, self.residual_std, like.device, like.dtype)


@cache
def _constants(
    rows: int, residual_std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, " Y"], Float[Tensor, " C"]]:
    """Latitude weights and residual deviations on a device, copied there once."""
    # The first to ask may be an evaluation, and training can do nothing with inference tensors.
    with torch.inference_mode(False):
        weights = latitude_weights(rows).float().to(device)
        return weights, torch.tensor(residual_std, dtype=dtype, device=device)
