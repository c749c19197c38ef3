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
from dataclasses import dataclass, replace
from math import inf, sqrt
from statistics import fmean

import numpy as np
from jaxtyping import Float64, Int64

from featcache.errors import CallError, DamagedFileError, StoreError
from featcache.manifest import OWN_VIDEOS
from featcache.store.feature_store import find_stores
from featcache.store.targets import CLIP_UNITS, SUBJECT, Targets
from readouts.metrics.base import PerClip, Weights
from readouts.tasks.base import ScoresDraws, Task

FEWEST_CLUSTERS = 3
"""Below it there is no interval: of two clusters, 95 % would be 12.7 errors, guessed from one difference."""

FEW_CLUSTERS = 10
"""Below it an interval is a rough guide, and says so."""

SAME = 1e-9
"""Resamples agree that spread over no more than this share of the score: sums round in their own order."""

MOST_COUNTS = 2**24
"""Counts of clusters in memory at a time: 128 MB."""

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
    """What is independent in a split: subjects, sequences, videos, stretches of time, or else single clips.

    Clips of a user's own videos belong to whom the manifest says the video is of, or else to the file that
    they were cut from. Forecasts of the same days share
    fields: their cluster is a stretch as long as a forecast. Two initial times of one stretch overlap, those
    of stretches with another between them do not.

    Raises:
        StoreError: the targets are damaged.
        DamagedFileError: so are the lists of clips of all stores that have them.
    """
    for kind in (SUBJECT, *CLIP_UNITS):
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


@dataclass(frozen=True, slots=True)
class MeanScore:
    """The mean of several runs' scores on the same draws of clips."""

    task: Task
    runs: Sequence[PerClip]
    """The statistics of each run."""

    def __call__(self, weights: Weights) -> float:
        """With clip i counted `weights[i]` times."""
        return fmean(self.task.scores(per_clip, weights)[self.task.score] for per_clip in self.runs)

    def drawn(
        self, of_clip: Int64[np.ndarray, " n"], counts: Float64[np.ndarray, "draws clusters"]
    ) -> Float64[np.ndarray, " draws"]:
        """Of many resamples of clusters, at once where the task knows how."""
        if not isinstance(self.task, ScoresDraws):
            return np.array([self(drawn[of_clip]) for drawn in counts])
        each = [self.task.drawn_scores(per_clip, of_clip, counts) for per_clip in self.runs]
        mean: np.ndarray = np.stack(each).mean(axis=0)
        return mean


_SHARES = ("mean_AP", "macro_F1", "average_over_thresholds")
"""Scores from 0 to 1."""


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

    def of_score(self, name: str) -> "Interval":
        """The part of it that a score of this name can have: what is left out holds no true value."""
        least, most = (0.0, 1.0) if name in _SHARES else (0.0, inf) if name.endswith("rmse") else (-inf, inf)
        return replace(self, low=max(self.low, least), high=min(self.high, most))


def reach_of(*errors: tuple[float, int | float], level: float = 0.95) -> float:
    """How far Student's interval reaches, where independent errors add up in quadrature.

    Args:
        errors: of each its variance, and the degrees of freedom that it was estimated with.
        level: share of such intervals that hold the true value.
    """
    # Here and not above: loading it takes longer than all else that a table of results needs.
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    squares = (float(stdtrit(freedom, (1 + level) / 2)) ** 2 * variance for variance, freedom in errors)
    return sqrt(sum(squares))


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampled:
    """A score, or the difference of two, and what it was in every resample of the clusters."""

    value: float
    drawn: Float64[np.ndarray, " resamples"]
    n_clusters: int
    kind: str
    """What the clusters are, in the plural."""

    def __sub__(self, other: "Resampled") -> "Resampled":
        """By how much one is above another of the same draws."""
        return replace(self, value=self.value - other.value, drawn=self.drawn - other.drawn)

    @property
    def variance(self) -> float:
        """The squared standard error: a resample of n clusters varies too little, by n - 1 in n."""
        return float(self.drawn.var(ddof=1)) * self.n_clusters / (self.n_clusters - 1)

    def interval(self, level: float = 0.95, *, more: float = 0.0, freedom: float = 1.0) -> Interval:
        """Student's interval with the bootstrap's standard error (see the top of the file).

        Args:
            level: share of such intervals that hold the true value, between 0 and 1.
            more: a variance of another origin, such as that of trainings, which adds to that of the clusters.
            freedom: degrees of freedom that `more` was estimated with. The reaches of both are added in
                quadrature: joined as Welch and Satterthwaite do, up to 8 % of equals would differ.

        Raises:
            NoIntervalError: all resamples agree.
            CallError: a level out of range.
        """
        if not 0 < level < 1:
            raise CallError(f"level={level} must be between 0 and 1, such as 0.95.")
        if np.ptp(self.drawn) <= SAME * max(1.0, abs(self.value)):
            raise NoIntervalError(
                f"no interval: all resamples agree on {self.value:.4g}, so {self.n_clusters} {self.kind} do "
                "not tell how far off it is. Evaluate on more of them, or on harder ones."
            )
        reach = reach_of((self.variance, self.n_clusters - 1), (more, freedom), level=level)
        return Interval(
            low=self.value - reach,
            high=self.value + reach,
            level=level,
            clusters=f"{self.n_clusters} {self.kind}",
            caution=_caution(self.n_clusters, self.kind),
        )


def mean_of(several: Sequence[Resampled]) -> Resampled:
    """The mean of scores on the same draws."""
    drawn: Float64[np.ndarray, " resamples"] = np.mean([one.drawn for one in several], axis=0)
    return replace(several[0], value=fmean(one.value for one in several), drawn=drawn)


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
    return resampled(score, clusters, n=n, seed=seed).interval(level)


def resampled(score: WeightedScore, clusters: Clusters, *, n: int = 2000, seed: int = 0) -> Resampled:
    """The score as it is, and of `n` draws of as many clusters as there are, with replacement.

    Scores of the same clusters, `n` and `seed` are of the same draws.

    Raises:
        NoIntervalError: fewer than three clusters.
        CallError: too few draws, or a task that does not say how to resample its score.
    """
    if len(clusters) < FEWEST_CLUSTERS:
        seen = {1: "one", 2: "two"}[len(clusters)]
        raise NoIntervalError(
            f"no interval: {len(clusters.of_clip)} clips are of {seen} of the {clusters.kind}, and there is "
            f"no telling how others would score. Evaluate on more: {FEWEST_CLUSTERS} at least, "
            f"{FEW_CLUSTERS} or more for an interval to be trusted."
        )
    if n < 2:
        raise CallError(f"n={n} resamples say nothing of a spread: take at least 2, better 2,000.")
    _, of_clip = np.unique(clusters.of_clip, return_inverse=True)
    found = [
        score.drawn(of_clip, counts)
        if isinstance(score, MeanScore)
        else np.array([score(drawn[of_clip]) for drawn in counts])
        for counts in _draws(len(clusters), n, seed)
    ]
    return Resampled(
        value=float(score(np.ones(len(of_clip)))),
        drawn=np.concatenate(found).astype(np.float64),
        n_clusters=len(clusters),
        kind=clusters.kind,
    )


def _draws(n_clusters: int, n: int, seed: int) -> Iterator[Float64[np.ndarray, "draws clusters"]]:
    """How often each cluster counts in each of `n` draws, some draws at a time."""
    rng = np.random.default_rng(seed)
    for some in np.array_split(np.arange(n), 1 + n * n_clusters // MOST_COUNTS):
        drawn = [np.bincount(rng.integers(n_clusters, size=n_clusters), minlength=n_clusters) for _ in some]
        yield np.array(drawn, np.float64)


def _caution(n_clusters: int, kind: str) -> str:
    said = []
    if n_clusters < FEW_CLUSTERS:
        said.append(f"only {n_clusters} of them, a rough guide")
    if kind == CLIPS:
        said.append("clips taken as independent, too narrow where several are of one video")
    return "; ".join(said)
