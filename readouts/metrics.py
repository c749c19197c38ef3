"""The benchmark's scores of a split, accumulated batch by batch under the reference's own names.

Plain numpy on outputs as they leave the head. `mean_AP`, `<class>_AP`, `count` and the rest are the
reference's result keys, so that its logs and ours can be laid side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Integer

from featcache.errors import CallError, ScividError


def average_precision(
    scores: Float[np.ndarray, "clips O"], labels: Integer[np.ndarray, "clips O"]
) -> Float[np.ndarray, "O"]:
    """Area under the precision-recall steps of each output, by scikit-learn: ties are one threshold.

    An output without a positive clip counts 0, as it does in the reference, which warns about it.
    """
    # Here and not above: it would double the time that `import readouts.metrics` takes.
    from sklearn.metrics import average_precision_score

    return np.array(
        [average_precision_score(y, s) if y.any() else 0.0 for y, s in zip(labels.T, scores.T, strict=True)]
    )


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
            ScividError: an output is not finite.
        """
        if self.class_names and len(self.class_names) != scores.shape[1]:
            names = ", ".join(self.class_names)
            raise CallError(f"{scores.shape[1]} outputs cannot be scored as the classes {names}.")
        if not np.isfinite(scores).all():
            raise ScividError("outputs are not finite: training diverged, lower the learning rate.")
        self._scores.append(scores)
        self._labels.append(labels)

    def compute(self) -> dict[str, float]:
        """`mean_AP`, `count`, one `<class>_AP` a named class, and the mean without `skip_classes`.

        Raises:
            CallError: nothing was taken yet.
        """
        if not self._scores:
            raise CallError("there is no mean average precision of no clips: evaluate at least one batch.")
        per_class = average_precision(np.concatenate(self._scores), np.concatenate(self._labels))
        results = {f"{name}_AP": float(ap) for name, ap in zip(self.class_names, per_class, strict=False)}
        averaged = np.delete(per_class, self.background_class_index) if self.skip_background else per_class
        results["mean_AP"] = float(averaged.mean())
        if self.skip_classes:
            results[self._skipping_key] = float(np.delete(averaged, list(self.skip_classes)).mean())
        return {**results, "count": float(sum(map(len, self._labels)))}

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
