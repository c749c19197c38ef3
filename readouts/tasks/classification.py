"""Multi-label classification of clips: sigmoid cross-entropy, mean average precision without background.

Both behaviour tasks are of this kind, and so is any task of a user's manifest that says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from featcache.errors import CallError, StoreError
from featcache.manifest import Dataset, Manifest
from featcache.store.targets import Targets
from readouts.metrics import average_precision
from readouts.metrics.base import PerClip, Weights
from readouts.tasks.base import Baseline, ManifestTask, Numbers, Rng, Rows
from readouts.tasks.losses import sigmoid_cross_entropy

ATTENTION: Mapping[str, Any] = MappingProxyType({"width": 1024, "heads": 16, "dropout": 0.5})
"""The benchmark's cross-attention head where a task has no settings of its own."""


@dataclass(frozen=True, kw_only=True)
class Classification(ManifestTask):
    """A task of multi-hot labels; see `readouts.tasks.base.Task` for the contract."""

    dataset: Dataset
    attention: Mapping[str, Any] = field(default_factory=lambda: ATTENTION)
    """The cross-attention head's width, heads and dropout."""
    readouts: tuple[str, ...] = ("linear", "attention")
    takes: str = "vector"
    score: str = "mean_AP"
    higher_is_better: bool = True

    @classmethod
    def of(cls, manifest: Manifest, name: str, **settings: Any) -> "Classification":
        """The classification called `name` in the manifest, with the classes of its training data."""
        dataset, _ = manifest.task(name).source_of("train")
        return cls(name=name, dataset=manifest.dataset(dataset), **settings)

    def identity(self) -> Mapping[str, Any]:
        """The classes in their order, and those that the score leaves out."""
        return {
            "classes": list(self.dataset.classes),
            "background": self.dataset.background,
            "rare": list(self.dataset.rare),
            "n_outputs": self.n_outputs,
        }

    @property
    def n_outputs(self) -> int:
        """One output a class, the background included."""
        return len(self.dataset.classes)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.dataset.classes

    def head_config(self, readout: str) -> dict[str, Any]:
        """The benchmark's settings of a head; other heads start from their own defaults."""
        return dict(self.attention) if readout in ("attention", "attention_multi", "attention_layers") else {}

    def select(self, targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
        """`labels` [B O], multi-hot."""
        if "labels" not in targets or targets.shape("labels")[1:] != (self.n_outputs,):
            columns = " x ".join(map(str, targets.shape("labels")[1:])) if "labels" in targets else "no"
            raise StoreError(
                f"the labels {targets.path} have {columns} columns, but task {self.name} has "
                f"{self.n_outputs} outputs: its classes changed after the extraction. Run the same "
                "`scivid extract` again with the manifest that you train with."
            )
        return {"labels": targets.rows("labels", clips)}

    def loss(self, outputs: Float[Tensor, "B O"], targets: Rows) -> Float[Tensor, ""]:
        """Mean sigmoid cross-entropy over clips and classes."""
        return sigmoid_cross_entropy(outputs, targets["labels"]).mean

    def per_clip(self, outputs: Float[Tensor, "B O"], targets: Rows) -> PerClip:
        """`outputs` and `labels` [B O]."""
        return average_precision.per_clip(outputs, targets["labels"])

    def join(self, batches: Sequence[PerClip]) -> PerClip:
        """`ranks` and `labels` [clips O]."""
        return average_precision.join(batches)

    def scores(self, per_clip: PerClip, weights: Weights | None = None) -> dict[str, float]:
        """Mean average precision over all classes but the background, and again without the rare ones."""
        return average_precision.scores(
            per_clip,
            weights,
            class_names=self.dataset.classes,
            background=self._background,
            skip_classes=self._rare_columns(),
        )

    def drawn_scores(
        self,
        per_clip: PerClip,
        of_clip: Int64[np.ndarray, " n"],
        counts: Float64[np.ndarray, "draws clusters"],
    ) -> Float64[np.ndarray, " draws"]:
        """Mean average precision of many resamples at once."""
        return average_precision.drawn_mean(per_clip, of_clip, counts, background=self._background)

    def baselines(self, train: Targets) -> Mapping[str, Baseline]:
        """The training split's label frequencies as every clip's prediction: AP is the positive rate."""
        counts = sum(block.sum(axis=0, dtype=np.int64) for block in train.blocks("labels"))
        frequencies = torch.from_numpy(np.float32(counts) / np.float32(train.shape("labels")[0]))
        return {"label frequency": lambda targets: repeat(frequencies, "o -> b o", b=len(targets["labels"]))}

    @property
    def _background(self) -> int | None:
        """The column that no mean includes."""
        name = self.dataset.background
        return self.dataset.classes.index(name) if name else None

    def _rare_columns(self) -> list[int]:
        """Columns of the rare classes once the background's has gone."""
        kept = [name for name in self.dataset.classes if name != self.dataset.background]
        if any(name not in kept for name in self.dataset.rare):
            raise CallError(
                f"data set {self.dataset.name}: its background cannot be one of its rare classes."
            )
        return [kept.index(name) for name in self.dataset.rare]
