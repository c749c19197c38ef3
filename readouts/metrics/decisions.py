"""Yes or no, where a score reaches a threshold: counts of right and wrong ones, and F1.

Unlike average precision these need a threshold a class. One is chosen where F1 is best on the clips that
select (val); on other clips it is given, for one chosen there would flatter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import einsum
from jaxtyping import Bool, Float, Float64, Int64, Integer

from readouts.metrics.base import Weights, counted


def best_thresholds(
    scores: Float[np.ndarray, "clips O"], labels: Integer[np.ndarray, "clips O"]
) -> Float64[np.ndarray, " O"]:
    """For each output the threshold of the best F1, halfway between the two scores that it parts.

    NaN of an output without a positive clip: nothing is known of it.
    """
    columns = zip(scores.T, labels.T > 0, strict=True)
    return np.array([_best_threshold(column.astype(np.float64), positive) for column, positive in columns])


def _best_threshold(scores: Float64[np.ndarray, "clips"], positive: Bool[np.ndarray, "clips"]) -> float:
    if not positive.any():
        return np.nan
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.append(np.diff(falling) != 0, True))
    hits = np.cumsum(positive[order])[ends]
    f1 = 2 * hits / (ends + 1 + positive.sum())
    best = int(f1.argmax())
    last = falling[ends[best]]
    below = falling[ends[best + 1]] if best + 1 < len(ends) else last
    return float((last + below) / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """How often each output was rightly and wrongly said to be there, weighted."""

    hits: Float64[np.ndarray, " O"]
    """Said to be there, and there."""
    false_alarms: Float64[np.ndarray, " O"]
    misses: Float64[np.ndarray, " O"]

    @classmethod
    def of(
        cls,
        said: Bool[np.ndarray, "clips O"],
        labels: Integer[np.ndarray, "clips O"],
        weights: Weights | None = None,
    ) -> "Decisions":
        """Counted over clips, clip i `weights[i]` times (None: once)."""
        counts, there = counted(len(said), weights), labels > 0
        hits = einsum(counts, (said & there).astype(np.float64), "n, n o -> o")
        return cls(
            hits=hits,
            false_alarms=einsum(counts, said.astype(np.float64), "n, n o -> o") - hits,
            misses=einsum(counts, there.astype(np.float64), "n, n o -> o") - hits,
        )

    @property
    def precision(self) -> Float64[np.ndarray, " O"]:
        """Of those said to be there the share that is; NaN where none was."""
        return _share(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> Float64[np.ndarray, " O"]:
        """Of those that are there the share that was found; NaN where none is."""
        return _share(self.hits, self.hits + self.misses)

    @property
    def f1(self) -> Float64[np.ndarray, " O"]:
        """The harmonic mean of both; NaN where nothing is there and nothing was said."""
        return _share(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)


def macro_f1(f1: Float64[np.ndarray, " O"], left_out: Sequence[int] = ()) -> float:
    """The mean over outputs that have one, without some."""
    kept = np.delete(f1, list(left_out))
    known = kept[~np.isnan(kept)]
    return float(known.mean()) if len(known) else np.nan


def confusion(
    said: Int64[np.ndarray, " clips"], true: Int64[np.ndarray, " clips"], n: int
) -> Int64[np.ndarray, "n n"]:
    """Clips by their true class (row) and the one that was said (column)."""
    return np.bincount(true * n + said, minlength=n * n).reshape(n, n)


def _share(part: Float64[np.ndarray, " O"], of: Float64[np.ndarray, " O"]) -> Float64[np.ndarray, " O"]:
    found: np.ndarray = np.divide(part, of, out=np.full(len(of), np.nan), where=of > 0)
    return found
