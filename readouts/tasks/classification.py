"""Multi-label classification of clips: sigmoid cross-entropy, mean average precision without background.

Both behaviour tasks are of this kind, and so is any task of a user's manifest that says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError
from featcache.manifest import Dataset, Manifest
from readouts.losses import sigmoid_cross_entropy
from readouts.metrics import MeanAveragePrecision, frequency_scores
from readouts.tasks.base import Control, Recipe


@dataclass(frozen=True, kw_only=True)
class Classification:
    """A task of multi-hot labels; see `readouts.tasks.base.Task` for the contract."""

    name: str
    dataset: Dataset
    recipe: Recipe
    attention: Mapping[str, Any]
    """The cross-attention head's width, heads and dropout."""
    readouts: tuple[str, ...] = ("linear", "attention")
    score: str = "mean_AP"
    higher_is_better: bool = True

    @classmethod
    def of(
        cls, manifest: Manifest, name: str, *, recipe: Recipe, attention: Mapping[str, Any]
    ) -> "Classification":
        """The classification called `name` in the manifest, with the classes of its training data."""
        dataset, _ = manifest.task(name).source_of("train")
        return cls(name=name, dataset=manifest.dataset(dataset), recipe=recipe, attention=attention)

    @property
    def spec(self) -> str:
        """Its name in the manifest."""
        return self.name

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
        return dict(self.attention) if readout == "attention" else {}

    def loss(self, outputs: Float[Tensor, "B O"], targets: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Mean sigmoid cross-entropy over clips and classes."""
        return sigmoid_cross_entropy(outputs, targets["labels"]).mean

    def metric(self) -> "_LabelScores":
        """MAP over all classes but the background, and again without the rare ones."""
        classes, background = self.dataset.classes, self.dataset.background
        return _LabelScores(
            MeanAveragePrecision(
                class_names=classes,
                skip_background=background is not None,
                background_class_index=classes.index(background) if background else -1,
                skip_classes=self._rare_columns(),
            )
        )

    def controls(self, train: Mapping[str, np.ndarray], evaluated: Mapping[str, np.ndarray]) -> list[Control]:
        """The training split's label frequencies as every clip's prediction."""
        if "labels" not in train or "labels" not in evaluated:
            return []
        labels = evaluated["labels"]
        outputs = frequency_scores(
            train["labels"].sum(axis=0, dtype=np.int64).tolist(),
            counted_over=len(train["labels"]),
            n_clips=len(labels),
        )
        metric = self.metric()
        metric.update(outputs, evaluated)
        return [Control(name="label frequency", scores=metric.compute())]

    def _rare_columns(self) -> list[int]:
        """Columns of the rare classes once the background's has gone."""
        kept = [name for name in self.dataset.classes if name != self.dataset.background]
        if any(name not in kept for name in self.dataset.rare):
            raise CallError(
                f"data set {self.dataset.name}: its background cannot be one of its rare classes."
            )
        return [kept.index(name) for name in self.dataset.rare]


@dataclass(frozen=True, slots=True)
class _LabelScores:
    """Average precision fed from the targets of a batch."""

    precision: MeanAveragePrecision

    def update(self, outputs: Float[np.ndarray, "B O"], targets: Mapping[str, np.ndarray]) -> None:
        self.precision.update(outputs, targets["labels"])

    def compute(self) -> dict[str, float]:
        return self.precision.compute()
