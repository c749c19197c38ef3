"""How far a score, or the difference of two runs, is from luck: a bootstrap over what is independent.

Clips of one video are right and wrong together, so it is the videos that are drawn again, with all their
clips. Two runs are compared on the same draws: what makes a video hard for both cancels in the difference.

The interval is score +- t x standard error: the standard error is that of the resampled scores, times
sqrt(n / (n - 1)) as a resample of n units varies too little, and t is Student's with n - 1 degrees of freedom
(Hesterberg, What Teachers Should Know About the Bootstrap, 2015). Simulated with 5 to 100 units, quantiles of
the resampled scores cover less than they say (of 95 %, 82 with 5 units and 91 with 30). Widened ones and
BCa are, within the noise of the simulation, no nearer on means, shares and average precision; BCa needs a
jackknife besides.
`python -m tests.benchmarks.coverage` gives the table of what is used here. It is symmetric, so it falls short
where few units carry most of the error: for an RMSE over units of log-normal error (sigma 0.5) it covers 87 %
with 30 units and 92 % with 100, and only an interval 60 % longer (bootstrap-t) covers 90 % with 30.

One or two units have none, and neither has a score that all resamples agree on: a perfect one is not known to
the last digit. Were it a share of units, at the most about 3 / n of others would be missed (95 %); average
precision and errors are no such shares.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from featcache.errors import CallError, StoreError
from featcache.manifest import OWN_VIDEOS
from featcache.store.feature_store import find_stores
from featcache.store.targets import CLIP_UNITS, Targets
from readouts.results.run_folder import RunFolder
from readouts.tasks.base import Evidence

FEWEST_UNITS = 3
"""Below it there is no interval: of two units, 95 % would be 12.7 errors, guessed from one difference."""

FEW_UNITS = 10
"""Below it an interval is a rough guide, and says so."""

EVALUATED = ("val", "test")
"""Splits that runs keep evidence of."""

SAME = 1e-9
"""Resamples agree that spread over no more than this share of the score: sums round in their own order."""

CLIPS = "clips"
"""What is drawn where nothing says which clips belong together."""


class NoIntervalError(CallError):
    """Too little was seen for an interval; says what, and what would do."""


@runtime_checkable
class Resampled(Protocol):
    """What of a task is needed here."""

    def score_of(self, evidence: Evidence, weights: Float64[np.ndarray, " n"]) -> float:
        """Its score with clip i counted `weights[i]` times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Units:
    """Which clips are drawn together."""

    of_clip: Int64[np.ndarray, " n"]
    """A number of the unit of each clip; clips with the same one are not independent."""
    kind: str
    """What they are, in the plural."""

    @property
    def n_units(self) -> int:
        """How many there are."""
        return len(np.unique(self.of_clip))


def units_of(targets: Targets, clips: Int64[np.ndarray, " n"]) -> Units:
    """What is independent in a split: sequences, videos, stretches of time, or else single clips.

    Clips of a user's own videos belong to the file that they were cut from. Forecasts of the same days share
    fields: their unit is a stretch as long as a forecast. Two initial times of one stretch overlap, those of
    stretches with another between them do not.

    Raises:
        StoreError: the targets are damaged.
    """
    for kind in CLIP_UNITS:
        if kind in targets:
            return Units(of_clip=targets.rows(kind, clips).astype(np.int64), kind=f"{kind}s")
    if "places" in targets:
        hours = targets.read("time")[targets.rows("places", clips)]
        span = max(1, int(np.ptp(hours, axis=1).max()))
        return Units(of_clip=(hours[:, 0] - hours[:, 0].min()) // span, kind=f"stretches of {span} h")
    files = _video_files(targets)
    if files is not None:
        return Units(of_clip=files[clips], kind="videos")
    return Units(of_clip=clips.astype(np.int64), kind=CLIPS)


def _video_files(targets: Targets) -> Int64[np.ndarray, " n"] | None:
    """A number of the video file that each clip of a split is from; None where that is not known.

    Targets name no files, but belong to one list of clips, and any store that has them holds it.
    """
    split = targets.path.parent
    for store in find_stores(split.parents[1], split.parent.name, split.name):
        named = store.header.targets
        from_videos = store.parts.get("decoding", {}).get("reader") == OWN_VIDEOS
        if from_videos and named is not None and named.fingerprint == targets.fingerprint:
            # A list that cannot be read in one store may be whole in another.
            with suppress(OSError, ValueError):
                sources = pq.read_table(store.path / "clips.parquet", columns=["source"]).column("source")
                return np.unique(sources.to_numpy(), return_inverse=True)[1].astype(np.int64)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A confidence interval, in the unit of the score."""

    low: float
    high: float
    level: float
    """Share of such intervals that hold the true value."""
    units: str
    """What was resampled, and how many there are."""
    caution: str = ""
    """Why it may be narrower than it should be."""

    def __str__(self) -> str:
        said = f"{self.low:.4g} to {self.high:.4g} ({100 * self.level:g} %, {self.units})"
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
    n_units: int

    @property
    def p_value(self) -> float:
        """Two-sided, from the flips: crude with few units, where the interval is the safer guide."""
        return min(1.0, 2 * self.flips)

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return 0.0 not in self.interval

    def __str__(self) -> str:
        verdict = "differs" if self.is_clear else "could be luck"
        return f"{self.value:+.4g}, {self.interval}; sign flips in {self.flips:.1%} of resamples: {verdict}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Mean of a score over seeds."""

    mean: float
    deviation: float | None
    """Standard deviation, with n - 1; None of a single value."""
    n: int

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" ± {self.deviation:.2g}"
        return f"{self.mean:.4g}{spread} (n={self.n})"


def mean_and_spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of a score over runs that differ in their seed only.

    Raises:
        CallError: there are no values.
    """
    if not len(values):
        raise CallError("there is no mean of no runs: give the score of at least one seed.")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), deviation=deviation, n=len(values))


def interval(
    task: Resampled, evidence: Evidence, units: Units, *, n: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The confidence interval of one run's score.

    Args:
        task: whose score it is.
        evidence: of each clip, as the run kept it.
        units: of the same clips.
        n: resamples.
        seed: of the draws.
        level: share of such intervals that hold the true value, between 0 and 1.

    Raises:
        NoIntervalError: fewer than three units, or all resamples agree.
        CallError: other units than clips, an argument out of range, or a task of the user's own that does not
            say how to resample its score.
    """

    def score(weights: Float64[np.ndarray, " n"]) -> float:
        return task.score_of(evidence, weights)

    return _around(*_resampled(score, [evidence], units, n, seed), units, level)


def paired_difference(
    task: Resampled,
    evidence_a: Evidence,
    evidence_b: Evidence,
    units: Units,
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

    def difference(weights: Float64[np.ndarray, " n"]) -> float:
        return task.score_of(evidence_a, weights) - task.score_of(evidence_b, weights)

    value, resampled = _resampled(difference, [evidence_a, evidence_b], units, n, seed)
    ahead = np.sign(value) * resampled
    return Difference(
        value=value,
        interval=_around(value, resampled, units, level),
        flips=float(np.mean(ahead < 0) + np.mean(ahead == 0) / 2),
        n_units=units.n_units,
    )


def resamples(units: Units, n: int, seed: int) -> Iterator[Float64[np.ndarray, " n"]]:
    """How often each clip counts in each of `n` draws of as many units as there are, with replacement."""
    _, place = np.unique(units.of_clip, return_inverse=True)
    n_units = int(place.max()) + 1
    rng = np.random.default_rng(seed)
    for _ in range(n):
        drawn = np.bincount(rng.integers(n_units, size=n_units), minlength=n_units)
        yield drawn[place].astype(np.float64)


def _resampled(
    score_of: Callable[[Float64[np.ndarray, " n"]], float],
    evidence: Sequence[Evidence],
    units: Units,
    n: int,
    seed: int,
) -> tuple[float, Float64[np.ndarray, " resamples"]]:
    """The score as it is, and of every resample."""
    n_clips = {len(rows) for one in evidence for rows in one.values()}
    if n_clips != {len(units.of_clip)}:
        raise CallError(
            f"evidence of {sorted(n_clips)} clips with units of {len(units.of_clip)}: give the evidence of "
            "the same clips, of both runs, and their units."
        )
    if units.n_units < FEWEST_UNITS:
        seen = {1: "one", 2: "two"}[units.n_units]
        raise NoIntervalError(
            f"no interval: {len(units.of_clip)} clips are of {seen} of the {units.kind}, and there is no "
            f"telling how others would score. Evaluate on more: {FEWEST_UNITS} at least, {FEW_UNITS} or more "
            "for an interval to be trusted."
        )
    if n < 2:
        raise CallError(f"n={n} resamples say nothing of a spread: take at least 2, better 2,000.")
    found = [score_of(weights) for weights in resamples(units, n, seed)]
    return float(score_of(np.ones(len(units.of_clip)))), np.array(found, np.float64)


def _around(
    value: float, resampled: Float64[np.ndarray, " resamples"], units: Units, level: float
) -> Interval:
    """Student's interval with the bootstrap's standard error (see the top of the file)."""
    # Here and not above: loading it takes longer than all else that a table of results needs.
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    if not 0 < level < 1:
        raise CallError(f"level={level} must be between 0 and 1, such as 0.95.")
    if np.ptp(resampled) <= SAME * max(1.0, abs(value)):
        raise NoIntervalError(
            f"no interval: all resamples agree on {value:.4g}, so {units.n_units} {units.kind} do not tell "
            "how far off it is. Evaluate on more of them, or on harder ones."
        )
    n_units = units.n_units
    error = float(resampled.std(ddof=1)) * (n_units / (n_units - 1)) ** 0.5
    reach = float(stdtrit(n_units - 1, (1 + level) / 2)) * error
    return Interval(
        low=value - reach,
        high=value + reach,
        level=level,
        units=f"{n_units} {units.kind}",
        caution=_caution(units),
    )


def _caution(units: Units) -> str:
    said = []
    if units.n_units < FEW_UNITS:
        said.append(f"only {units.n_units} of them, a rough guide")
    if units.kind == CLIPS:
        said.append("clips taken as independent, too narrow where several are of one video")
    return "; ".join(said)


def load_evidence(
    results_dir: Path, row: Mapping[str, Any], role: str
) -> tuple[Int64[np.ndarray, " n"], dict[str, np.ndarray]]:
    """Clips, and what the score of one row of the results table needs of each.

    Raises:
        CallError: the split is neither val nor test.
        StoreError: the run kept none of that split, or the file is damaged.
    """
    if role not in EVALUATED:
        raise CallError(f"role {role!r}: runs are scored on {' or '.join(EVALUATED)}, name one of them.")
    file = RunFolder.of(results_dir, row).evidence(role)
    prefix = f"{row['readout']}/"
    try:
        # Opened here: numpy leaves a file open that it cannot read.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith(prefix)]
            evidence = {name.removeprefix(prefix): arrays[name] for name in names}
            clips = arrays["clips"].astype(np.int64)
    except FileNotFoundError:
        raise StoreError(
            f"run {row['run']} kept no evidence of single clips of {role}: {file} is missing. Train it with "
            "--again (and --test for the test split); a task of your own needs score_of and evidence."
        ) from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as problem:
        raise StoreError(f"{file} cannot be read as evidence ({problem}): train with --again.") from problem
    if not evidence:
        raise StoreError(f"{file} holds nothing of readout {row['readout']}: train with --again.")
    return clips, evidence


def paired_evidence(
    results_dir: Path, row_a: Mapping[str, Any], row_b: Mapping[str, Any], role: str
) -> tuple[Int64[np.ndarray, " n"], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Clips, and the evidence of two rows of the results table that were scored on the same ones.

    Raises:
        CallError: the rows are of different tasks or scores; or as `load_evidence`.
        StoreError: of other targets or clips; or as `load_evidence`.
    """
    for column in ("task", "metric"):
        if row_a[column] != row_b[column]:
            raise CallError(
                f"runs {row_a['run']} and {row_b['run']} have {column} {row_a[column]!r} and "
                f"{row_b[column]!r}: only runs of one task and score can be compared."
            )
    targets_a, targets_b = (json.loads(row["targets"]).get(role) for row in (row_a, row_b))
    clips_a, evidence_a = load_evidence(results_dir, row_a, role)
    clips_b, evidence_b = load_evidence(results_dir, row_b, role)
    if targets_a != targets_b or not np.array_equal(clips_a, clips_b):
        shared = len(np.intersect1d(clips_a, clips_b)) if targets_a == targets_b else "none"
        raise StoreError(
            f"runs {row_a['run']} and {row_b['run']} were scored on {len(clips_a)} and {len(clips_b)} clips "
            f"of {role}, {shared} of them the same: extract both backbones from the same files, with the "
            "same clips left out, and train again."
        )
    return clips_a, evidence_a, evidence_b
