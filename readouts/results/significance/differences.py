"""Is one configuration better than another: the paired difference, what it counts, and the verdict.

Clips are a sample, and so is a training: of a difference between configurations the spread over seeds adds to
that over clips. Where each has one seed the spread is not known, and no difference is called clear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

import numpy as np

from readouts.results.significance.bootstrap import Clusters, Interval, Resampled, WeightedScore, resampled

CLEAR, LUCK, ONE_SEED, SELECTED = "clear", "could be luck", "too few seeds", "val selected"
"""Verdicts, in a word or two; what each means stands in `MEANING`."""

MEANING = {
    CLEAR: "the interval, of clips and seeds, leaves out 0",
    LUCK: "the interval holds 0",
    ONE_SEED: "the interval of the clips leaves out 0, and another seed might not: train more",
    SELECTED: "the split that was selected on does not judge: score test",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainings:
    """The scores of two configurations over seeds, on one split."""

    first: Sequence[float]
    second: Sequence[float]
    fitted: tuple[bool, bool] = (False, False)
    """Whether each is fitted at once (a probe), so that a seed changes nothing."""

    @property
    def spread(self) -> tuple[float, float] | None:
        """The variance of the difference of means, and its degrees of freedom; None where it is not known.

        Seeds of both are pooled, as one number is all that three of them give.
        """
        every = zip((self.first, self.second), self.fitted, strict=True)
        trained = [scores for scores, fitted in every if not fitted]
        freedom = sum(len(scores) - 1 for scores in trained)
        if not trained:
            return 0.0, 1.0
        if not freedom:
            return None
        pooled = sum(variance(scores) * (len(scores) - 1) for scores in trained if len(scores) > 1) / freedom
        return pooled * sum(1 / len(scores) for scores in trained), float(freedom)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """By how much A's score is above B's on the same clips."""

    value: float
    interval: Interval
    flips: float
    """Share of resamples of clips in which the other is ahead, a tie counting half."""
    counts_seeds: bool
    """Whether the interval is of trainings as well as of clips."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return 0.0 not in self.interval

    def verdict(self, role: str) -> str:
        """What it says of the two configurations, on a split: a key of `MEANING`."""
        if role == "val":
            return SELECTED
        if not self.is_clear:
            return LUCK
        return CLEAR if self.counts_seeds else ONE_SEED

    def __str__(self) -> str:
        return f"{self.value:+.4g}, {self.interval}; sign flips in {self.flips:.1%} of resamples"


def difference(
    a: Resampled, b: Resampled, trainings: Trainings | None = None, *, level: float = 0.95
) -> Difference:
    """Score of A minus score of B, both on the same resamples of the same clips.

    Args:
        a: the mean over the seeds of A.
        b: that of B.
        trainings: the single scores; None leaves trainings out of the interval.
        level: share of such intervals that hold the true value.

    Raises:
        NoIntervalError: all resamples agree.
        CallError: a level out of range.
    """
    found = a - b
    ahead = np.sign(found.value) * found.drawn
    spread = None if trainings is None else trainings.spread
    more, freedom = spread or (0.0, 1.0)
    return Difference(
        value=found.value,
        interval=found.interval(level, more=more, freedom=freedom),
        flips=float(np.mean(ahead < 0) + np.mean(ahead == 0) / 2),
        counts_seeds=spread is not None,
    )


def paired_difference(
    score_a: WeightedScore,
    score_b: WeightedScore,
    clusters: Clusters,
    trainings: Trainings | None = None,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """The difference of two scores that were not resampled yet.

    Raises:
        NoIntervalError: fewer than three clusters, or all resamples agree.
        CallError: an argument out of range, or a task of the user's own that does not say how to resample its
            score.
    """
    first, second = (resampled(score, clusters, n=n, seed=seed) for score in (score_a, score_b))
    return difference(first, second, trainings, level=level)
