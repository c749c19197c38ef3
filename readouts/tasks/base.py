"""What a task is to stage two: heads, loss, scores, recipe and baselines.

A task knows nothing of stores and devices; it turns outputs and targets into numbers. A user's own task
is a file with such an object in it: `--task my_task.py:TASK`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from featcache.errors import CallError
from featcache.store.targets import Targets
from readouts.metrics.base import PerClip, Weights, concatenated

_LEAST = {
    "steps": 1, "batch": 1, "minival_every": 1, "minival_clips": 1, "val_every": 1,
    "warmup": 0, "weight_decay": 0, "order_seed": 0, "train_views": 0, "mix_shards": 0,
}  # fmt: skip
"""The smallest values of a recipe."""


PRECISIONS = ("float32", "tf32", "bfloat16")
"""How far factors are rounded: not, as in the benchmark, or to ten bits (on a GPU), or to seven."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How readouts are trained; the defaults are the benchmark's (PROTOCOL: shared recipe)."""

    steps: int = 40_000
    batch: int = 32
    lr: float = 3e-4
    """Peak of the cosine."""
    warmup: int = 1_000
    """Steps from 0 to the peak, steps - 1 at the most: a run as short as its warm-up never slows down."""
    weight_decay: float = 1e-4
    clip_update: float | None = None
    """Largest global norm of a finished update (not of the gradient), as the reference does."""
    minival_every: int = 1_000
    """Steps between points of the curve, each over the first `minival_clips` of val."""
    minival_clips: int = 4_096
    val_every: int = 10_000
    """Steps between points that score the whole of val as well: a multiple of `minival_every`."""
    order_seed: int = 0
    """Names the order of training clips and views, and what is drawn of their targets. The run's own seed is
    for initial weights and dropout, so runs of several seeds share one pass over the data.
    """
    train_fraction: float = 1.0
    """Share of the training clips; smaller shares are parts of larger ones."""
    train_views: int = 0
    """Frozen views to draw from, the first ones; 0 for all that the store holds."""
    mix_shards: int = 0
    """Shards whose clips are shuffled together, for disks that seek slowly; 0 shuffles the whole split."""

    precision: str = "float32"
    """Of products, one of `PRECISIONS`; sums, norms and the optimiser are float32 in any case."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise CallError(f"recipe precision={self.precision} must be one of {', '.join(PRECISIONS)}.")
        for name, least in _LEAST.items():
            # Not `< least`: NaN is no weight either.
            if not getattr(self, name) >= least:
                raise CallError(f"recipe {name}={getattr(self, name)} must be at least {least}.")
        if not 0 < self.train_fraction <= 1:
            raise CallError(
                f"recipe train_fraction={self.train_fraction} must be above 0 and at most 1: the share of "
                "the training clips."
            )
        if self.clip_update is not None and not self.clip_update > 0:
            raise CallError(
                f"recipe clip_update={self.clip_update} must be above 0: the largest norm of an update."
            )
        # Past the last step the whole pass at the end is the only one, and any number will do.
        if self.val_every < self.steps and self.val_every % self.minival_every:
            raise CallError(
                f"recipe val_every={self.val_every} must be a multiple of minival_every="
                f"{self.minival_every}: the whole of val is scored at some of the minival steps."
            )


def parse_number(setting: str, text: object, default: Any) -> Any:
    """The value in `text`, of the type of `default` (None: a float); `setting` is how messages name it.

    Raises:
        CallError: it has to be a number and is none.
    """
    kind = float if default is None else type(default)
    try:
        return kind(str(text))
    except ValueError:
        raise CallError(f"{setting}: {text!r} is not {'a whole' if kind is int else 'a'} number.") from None


Rows = Mapping[str, Tensor]
"""What of the targets one batch needs, by name: a row a clip."""

Numbers = Int64[np.ndarray, " B"]
"""A number for each clip of a batch: its own in the split, or that of its view."""

Rng = np.random.Generator | None
"""What training draws from; None elsewhere."""

TAKES = ("vector", "tracks", "fields")
"""Forms of a head's outputs: numbers, points in every frame, maps of every lead."""

Baseline = Callable[[Rows], Tensor]
"""A prediction that needs no features: outputs of the form a head gives, from the targets of a batch."""

Evidence, Control = PerClip, Baseline
"""What they were called before: a user's file may import them."""


@runtime_checkable
class Metric(Protocol):
    """Scores of a split, accumulated batch by batch: what a file may define for `per_clip` and `scores`."""

    def update(self, outputs: Float[Tensor, "B *O"], targets: Rows) -> None:
        """Take one batch."""

    def compute(self) -> dict[str, float]:
        """Every score of what was taken so far."""


@runtime_checkable
class Task(Protocol):
    """The contract of a task."""

    @property
    def name(self) -> str:
        """Its name in paths and in the results table."""

    @property
    def spec(self) -> str:
        """What `--task` is given for it: its name, or `file.py:OBJECT` (set when the file is read)."""

    def identity(self) -> Mapping[str, Any]:
        """JSON values that define its score and loss (of a task from a file: the file's digest)."""

    @property
    def recipe(self) -> Recipe:
        """The benchmark's recipe for this task."""

    @property
    def readouts(self) -> tuple[str, ...]:
        """The heads that are trained side by side when none is asked for."""

    @property
    def takes(self) -> str:
        """One of `TAKES`: a head whose `gives` is the same can be trained for it."""

    @property
    def n_outputs(self) -> int:
        """O: outputs of a head that is told how many to give."""

    @property
    def score(self) -> str:
        """The key of the score that the benchmark reports."""

    @property
    def higher_is_better(self) -> bool:
        """Whether the better of two values of `score` is the higher one."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The name of each output, as figures show it."""

    @property
    def predictions_kept(self) -> int | None:
        """Clips of a split whose outputs are kept for figures and statistics; None: all."""

    def head_config(self, readout: str) -> dict[str, Any]:
        """The benchmark's settings of a head for this task."""

    def select(self, targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
        """What head, loss and scores need of these clips; `rng` is for what training draws, None elsewhere.

        Raises:
            StoreError: the targets are not this task's.
        """

    def inputs(self, targets: Rows) -> dict[str, Tensor]:
        """What the head is given beside the tokens, by the names of its arguments."""

    def loss(self, outputs: Float[Tensor, "B *O"], targets: Rows) -> Float[Tensor, ""]:
        """The scalar a head minimises."""

    def per_clip(self, outputs: Float[Tensor, "B *O"], targets: Rows) -> PerClip:
        """What the scores need of each clip of a batch, small enough to be kept of all clips of a split.

        Raises:
            TrainingError: an output is not finite.
        """

    def join(self, batches: Sequence[PerClip]) -> PerClip:
        """The statistics of a split, given those of its batches in their order: a row a clip."""

    def scores(self, per_clip: PerClip, weights: Weights | None = None) -> dict[str, float]:
        """Every score of a split by name, with clip i counted `weights[i]` times (None: once)."""

    def baselines(self, train: Targets) -> Mapping[str, Baseline]:
        """The baselines by name, with whatever they learn from the training targets."""


@runtime_checkable
class ScoresDraws(Protocol):
    """A task that scores many resamples of a split at once; of others each is scored by itself."""

    def drawn_scores(
        self,
        per_clip: PerClip,
        of_clip: Int64[np.ndarray, " n"],
        counts: Float64[np.ndarray, "draws clusters"],
    ) -> Float64[np.ndarray, " draws"]:
        """`score` of draws that take all clips of cluster c `counts[:, c]` times; `of_clip` is from 0."""


@dataclass(frozen=True, kw_only=True)
class ManifestTask:
    """What the kinds of tasks of a manifest have in common."""

    name: str
    recipe: Recipe = field(default_factory=Recipe)
    predictions_kept: int | None = None

    @property
    def spec(self) -> str:
        """Its name in the manifest."""
        return self.name

    def inputs(self, targets: Rows) -> dict[str, Tensor]:
        """Nothing beside the tokens."""
        return no_inputs(targets)

    def join(self, batches: Sequence[PerClip]) -> PerClip:
        """The statistics of all batches, one after the other."""
        return concatenated(batches)


def clip_rows(targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
    """The rows of every target that has one a clip: the `select` of a task without further wishes."""
    names = [name for name, entry in targets.metadata.items() if entry["dimension_names"][0] == "clip"]
    return {name: targets.rows(name, clips) for name in names}


def no_inputs(targets: Rows) -> dict[str, Tensor]:
    """The `inputs` of a task whose heads see tokens only."""
    return {}
