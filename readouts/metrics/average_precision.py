"""The benchmark's scores of a split, accumulated batch by batch under the reference's own names.

Plain numpy on outputs as they leave the head. `mean_AP`, `<class>_AP`, `count` and the rest are the
reference's result keys, so that its logs and ours can be laid side by side.

A score is computed from its evidence, a row a clip, with every clip counted once. Counted as often as a
resample drew it, the same function gives the bootstrap its numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32, Integer

from featcache.errors import CallError, TrainingError


def average_precision(
    scores: Float[np.ndarray, "clips O"], labels: Integer[np.ndarray, "clips O"]
) -> Float[np.ndarray, "O"]:
    """Area under the precision-recall steps of each output, as scikit-learn has it: ties are one threshold.

    An output without a positive clip counts 0, as it does in the reference, which warns about it.
    """
    return ranked_precision(ranks_of(scores), labels, np.ones(len(scores)))


def ranks_of(scores: Float[np.ndarray, "clips O"]) -> Int32[np.ndarray, "clips O"]:
    """Place of each clip among an output's distinct values, the highest first; ties share one."""
    places = [np.unique(-column, return_inverse=True)[1] for column in scores.T]
    return np.stack(places, axis=1).astype(np.int32)


def ranked_precision(
    ranks: Int32[np.ndarray, "clips O"],
    labels: Integer[np.ndarray, "clips O"],
    weights: Float64[np.ndarray, "clips"],
) -> Float64[np.ndarray, "O"]:
    """Average precision of each output with clip i counted `weights[i]` times; linear in the clips."""
    columns = zip(ranks.T, labels.T != 0, strict=True)
    return np.array([_area(of_class, carrying, weights) for of_class, carrying in columns])


def _area(
    ranks: Int32[np.ndarray, "clips"],
    carrying: Bool[np.ndarray, "clips"],
    weights: Float64[np.ndarray, "clips"],
) -> float:
    """Precision at every rank that brings recall, weighted by what it brings."""
    gained = np.bincount(ranks[carrying], weights[carrying])
    steps = np.flatnonzero(gained)
    if not len(steps):
        return 0.0
    gained, taken = gained[steps], np.bincount(ranks, weights).cumsum()[steps]
    found = gained.cumsum()
    return float((found / taken * gained).sum() / found[-1])


@dataclass(kw_only=True, slots=True)
class MeanAveragePrecision:
    """Mean over classes of the average precision of raw outputs (REFERENCE: mAP)."""

    class_names: Sequence[str] = ()
    """Named classes get entries of their own, the background and skipped ones too."""
    skip_background: bool = False
    background_class_index: int = -1
    """Left out of every mean where `skip_background` is set."""
    skip_classes: Sequence[int] = ()
    """Left out of a second mean; columns of what is left when the background has gone."""
    _scores: list[Float[np.ndarray, "B O"]] = field(default_factory=list, init=False, repr=False)
    _labels: list[Integer[np.ndarray, "B O"]] = field(default_factory=list, init=False, repr=False)

    def update(self, scores: Float[np.ndarray, "B O"], labels: Integer[np.ndarray, "B O"]) -> None:
        """Take one batch of outputs and multi-hot labels.

        Raises:
            CallError: the outputs are not as many as the class names.
            TrainingError: an output is not finite.
        """
        if self.class_names and len(self.class_names) != scores.shape[1]:
            names = ", ".join(self.class_names)
            raise CallError(f"{scores.shape[1]} outputs cannot be scored as the classes {names}.")
        if not np.isfinite(scores).all():
            raise TrainingError("outputs are not finite: training diverged, lower the learning rate.")
        self._scores.append(scores)
        self._labels.append(labels)

    def compute(self) -> dict[str, float]:
        """`mean_AP`, `count`, one `<class>_AP` a named class, and the mean without `skip_classes`.

        Raises:
            CallError: nothing was taken yet.
        """
        evidence = self.evidence()
        return self.results_of(evidence, np.ones(len(evidence["ranks"])))

    def evidence(self) -> dict[str, np.ndarray]:
        """What the scores need of each clip: `ranks` and `labels` [clips O]; outputs count by order only.

        Raises:
            CallError: nothing was taken yet.
        """
        if not self._scores:
            raise CallError("there is no mean average precision of no clips: evaluate at least one batch.")
        return {"ranks": ranks_of(np.concatenate(self._scores)), "labels": np.concatenate(self._labels)}

    def results_of(
        self, evidence: Mapping[str, np.ndarray], weights: Float64[np.ndarray, "clips"]
    ) -> dict[str, float]:
        """As `compute`, with clip i of the evidence counted `weights[i]` times."""
        per_class = ranked_precision(evidence["ranks"], evidence["labels"], weights)
        results = {f"{name}_AP": float(ap) for name, ap in zip(self.class_names, per_class, strict=False)}
        averaged = np.delete(per_class, self.background_class_index) if self.skip_background else per_class
        results["mean_AP"] = float(averaged.mean())
        if self.skip_classes:
            results[self._skipping_key] = float(np.delete(averaged, list(self.skip_classes)).mean())
        return {**results, "count": float(weights.sum())}

    @property
    def _skipping_key(self) -> str:
        names = [self.class_names[i] if self.class_names else str(i) for i in self.skip_classes]
        return f"mean_AP_when_skipping_classes:{','.join(names)}"


@dataclass(kw_only=True, slots=True)
class LabelCounts:
    """How many clips there are, and how many carry each class (the reference's Count)."""

    class_names: Sequence[str]
    _total: int = field(default=0, init=False)
    _carrying: Integer[np.ndarray, "O"] = field(init=False)

    def __post_init__(self) -> None:
        self._carrying = np.zeros(len(self.class_names), np.int64)

    def update(self, labels: Integer[np.ndarray, "B O"]) -> None:
        """Take one batch of multi-hot labels."""
        self._total += len(labels)
        self._carrying += labels.sum(axis=0, dtype=np.int64)

    def compute(self) -> dict[str, float]:
        """`total`, and one entry a class."""
        per_class = zip(self.class_names, self._carrying.tolist(), strict=True)
        return {"total": float(self._total), **{name: float(count) for name, count in per_class}}


def frequency_scores(
    label_counts: Sequence[int], *, counted_over: int, n_clips: int
) -> Float[np.ndarray, "clips O"]:
    """The control row: every clip gets the training set's label frequencies, so AP is the positive rate.

    Args:
        label_counts: training clips that carry each class.
        counted_over: training clips in all.
        n_clips: clips to be scored.
    """
    frequencies = np.asarray(label_counts, np.float32) / np.float32(counted_over)
    return np.broadcast_to(frequencies, (n_clips, len(frequencies)))
