"""How far a score, or the difference of two runs, is from luck: a bootstrap over what is independent.

Clips of one video are right and wrong together, so it is the videos that are drawn again, with all their
clips. Two runs are compared on the same draws: what makes a video hard for both cancels in the difference.

The interval is score +- t x standard error: the standard error is that of the resampled scores, times
sqrt(n / (n - 1)) as a resample of n clusters varies too little, and t is Student's with n - 1 degrees of
freedom (Hesterberg, What Teachers Should Know About the Bootstrap, 2015). Simulated with 5 to 100 clusters,
quantiles of the resampled scores cover less than they say (of 95 %, 82 with 5 clusters and 91 with 30).
Widened ones and BCa are, within the noise of the simulation, no nearer on means, shares and average
precision; BCa needs a jackknife besides.
`python -m tests.benchmarks.coverage` gives the table of what is used here. It is symmetric, so it falls short
where few clusters carry most of the error: for an RMSE over clusters of log-normal error (sigma 0.5) it
covers 87 % with 30 clusters and 92 % with 100; only one 60 % longer (bootstrap-t) covers 90 % with 30.

One or two clusters have none, and neither has a score that all resamples agree on: a perfect one is not known
to the last digit. Were it a share of clusters, at the most about 3 / n of others would be missed (95 %);
average precision and errors are no such shares.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Float64, Int64

from featcache.errors import CallError, DamagedFileError, StoreError
from featcache.manifest import OWN_VIDEOS
from featcache.store.feature_store import find_stores
from featcache.store.targets import CLIP_UNITS, Targets
from readouts.metrics.base import PerClip, Weights
from readouts.tasks.base import Task

FEWEST_CLUSTERS = 3
"""Below it there is no interval: of two clusters, 95 % would be 12.7 errors, guessed from one difference."""

FEW_CLUSTERS = 10
"""Below it an interval is a rough guide, and says so."""

SAME = 1e-9
"""Resamples agree that spread over no more than this share of the score: sums round in their own order."""

WeightedScore = Callable[[Weights], float]
"""A score with clip i counted `weights[i]` times."""


CLIPS = "clips"
"""What is drawn where nothing says which clips belong together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Which clips are drawn together."""

    of_clip: Int64[np.ndarray, " n"]
    """A number of the cluster of each clip; clips of one cluster are not independent."""
    kind: str
    """What the clusters are, in the plural."""

    def __len__(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.of_clip))


def clusters_of(targets: Targets, clips: Int64[np.ndarray, " n"]) -> Clusters:
    """What is independent in a split: sequences, videos, stretches of time, or else single clips.

    Clips of a user's own videos belong to the file that they were cut from. Forecasts of the same days share
    fields: their cluster is a stretch as long as a forecast. Two initial times of one stretch overlap, those
    of stretches with another between them do not.

    Raises:
        StoreError: the targets are damaged.
        DamagedFileError: so are the lists of clips of all stores that have them.
    """
    for kind in CLIP_UNITS:
        if kind in targets:
            return Clusters(of_clip=targets.rows(kind, clips).astype(np.int64), kind=f"{kind}s")
    if "places" in targets:
        hours = targets.read("time")[targets.rows("places", clips)]
        span = max(1, int(np.ptp(hours, axis=1).max()))
        return Clusters(of_clip=(hours[:, 0] - hours[:, 0].min()) // span, kind=f"stretches of {span} h")
    files = _video_files(targets)
    if files is not None:
        return Clusters(of_clip=files[clips], kind="videos")
    return Clusters(of_clip=clips.astype(np.int64), kind=CLIPS)


def _video_files(targets: Targets) -> Int64[np.ndarray, " n"] | None:
    """A number of the video file that each clip of a split is from; None where that is not known.

    Targets name no files, but belong to one list of clips, and any store that has them holds it.
    """
    split, damaged = targets.path.parent, list[DamagedFileError]()
    for store in find_stores(split.parents[1], split.parent.name, split.name):
        named = store.header.targets
        from_videos = store.parts.get("decoding", {}).get("reader") == OWN_VIDEOS
        if from_videos and named is not None and named.fingerprint == targets.fingerprint:
            # A list that cannot be read in one store may be whole in another.
            try:
                sources = store.clip_table.column("source")
            except StoreError as problem:
                damaged.append(DamagedFileError(str(problem)))
            else:
                return np.unique(sources.to_numpy(), return_inverse=True)[1].astype(np.int64)
    # That clips are independent must not be believed for want of a file.
    if damaged:
        raise damaged[0]
    return None


class NoIntervalError(CallError):
    """Too little was seen for an interval; says what, and what would do."""


def mean_score(task: Task, runs: Sequence[PerClip]) -> WeightedScore:
    """The mean of several runs' scores on the same draws of clips, given the statistics of each run."""
    return lambda weights: fmean(task.scores(per_clip, weights)[task.score] for per_clip in runs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A confidence interval, in the unit of the score."""

    low: float
    high: float
    level: float
    """Share of such intervals that hold the true value."""
    clusters: str
    """What was resampled, and how many there are."""
    caution: str = ""
    """Why it may be narrower than it should be."""

    def __str__(self) -> str:
        said = f"{self.low:.4g} to {self.high:.4g} ({100 * self.level:g} %, {self.clusters})"
        return f"{said}; {self.caution}" if self.caution else said

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """By how much run A's score is above run B's on the same clips."""

    value: float
    interval: Interval
    flips: float
    """Share of resamples in which the other run is ahead, a tie counting half."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return 0.0 not in self.interval

    def __str__(self) -> str:
        verdict = "differs" if self.is_clear else "could be luck"
        return f"{self.value:+.4g}, {self.interval}; sign flips in {self.flips:.1%} of resamples: {verdict}"


def interval(
    score: WeightedScore, clusters: Clusters, *, n: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The confidence interval of a score.

    Args:
        score: a function of how often each clip counts.
        clusters: which of these clips are drawn together.
        n: how many resamples to draw.
        seed: names the draws; the same one gives the same interval.
        level: share of such intervals that hold the true value, between 0 and 1.

    Raises:
        NoIntervalError: fewer than three clusters, or all resamples agree.
        CallError: an argument out of range, or a task of the user's own that does not say how to resample its
            score.
    """
    return _around(*_resampled(score, clusters, n, seed), clusters, level)


def paired_difference(
    score_a: WeightedScore,
    score_b: WeightedScore,
    clusters: Clusters,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Score of A minus score of B, both on the same resamples of the same clips.

    Raises:
        NoIntervalError: as `interval`.
        CallError: as `interval`.
    """
    value, resampled = _resampled(lambda weights: score_a(weights) - score_b(weights), clusters, n, seed)
    ahead = np.sign(value) * resampled
    return Difference(
        value=value,
        interval=_around(value, resampled, clusters, level),
        flips=float(np.mean(ahead < 0) + np.mean(ahead == 0) / 2),
    )


def resamples(clusters: Clusters, n: int, seed: int) -> Iterator[Float64[np.ndarray, " n"]]:
    """How often each clip counts in each of `n` draws of as many clusters as there are, with replacement."""
    _, of_clip = np.unique(clusters.of_clip, return_inverse=True)
    n_clusters = len(clusters)
    rng = np.random.default_rng(seed)
    for _ in range(n):
        drawn = np.bincount(rng.integers(n_clusters, size=n_clusters), minlength=n_clusters)
        yield drawn[of_clip].astype(np.float64)


def _resampled(
    score: WeightedScore, clusters: Clusters, n: int, seed: int
) -> tuple[float, Float64[np.ndarray, " resamples"]]:
    """The score as it is, and of every resample."""
    if len(clusters) < FEWEST_CLUSTERS:
        seen = {1: "one", 2: "two"}[len(clusters)]
        raise NoIntervalError(
            f"no interval: {len(clusters.of_clip)} clips are of {seen} of the {clusters.kind}, and there is "
            f"no telling how others would score. Evaluate on more: {FEWEST_CLUSTERS} at least, "
            f"{FEW_CLUSTERS} or more for an interval to be trusted."
        )
    if n < 2:
        raise CallError(f"n={n} resamples say nothing of a spread: take at least 2, better 2,000.")
    found = [score(weights) for weights in resamples(clusters, n, seed)]
    return float(score(np.ones(len(clusters.of_clip)))), np.array(found, np.float64)


def _around(
    value: float, resampled: Float64[np.ndarray, " resamples"], clusters: Clusters, level: float
) -> Interval:
    """Student's interval with the bootstrap's standard error (see the top of the file)."""
    # Here and not above: loading it takes longer than all else that a table of results needs.
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    if not 0 < level < 1:
        raise CallError(f"level={level} must be between 0 and 1, such as 0.95.")
    if np.ptp(resampled) <= SAME * max(1.0, abs(value)):
        raise NoIntervalError(
            f"no interval: all resamples agree on {value:.4g}, so {len(clusters)} {clusters.kind} do not "
            "tell how far off it is. Evaluate on more of them, or on harder ones."
        )
    n_clusters = len(clusters)
    error = float(resampled.std(ddof=1)) * (n_clusters / (n_clusters - 1)) ** 0.5
    reach = float(stdtrit(n_clusters - 1, (1 + level) / 2)) * error
    return Interval(
        low=value - reach,
        high=value + reach,
        level=level,
        clusters=f"{n_clusters} {clusters.kind}",
        caution=_caution(clusters),
    )


def _caution(clusters: Clusters) -> str:
    said = []
    if len(clusters) < FEW_CLUSTERS:
        said.append(f"only {len(clusters)} of them, a rough guide")
    if clusters.kind == CLIPS:
        said.append("clips taken as independent, too narrow where several are of one video")
    return "; ".join(said)
