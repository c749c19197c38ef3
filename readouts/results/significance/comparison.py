"""Two configurations of a table on one split: their scores, the difference, what it says."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from featcache.errors import CallError
from featcache.store.targets import Targets
from readouts.results.configurations import Configuration
from readouts.results.formatting import counted, format_mean
from readouts.results.per_clip import EVALUATED, paired_per_clip
from readouts.results.significance.bootstrap import MeanScore, NoIntervalError, clusters_of, resampled
from readouts.results.significance.differences import MEANING, difference
from readouts.results.significance.kept import trainings_of
from readouts.tasks.base import Task

UNKNOWN = "no verdict"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What is to be said of A and B."""

    first: str
    second: str
    """The mean scores in words, with the intervals of the clips."""
    difference: str
    verdict: str
    meaning: str
    higher_is_better: bool


def common_role(a: Configuration, b: Configuration, asked: str | None = None) -> str:
    """The split that two configurations are compared on: what is asked for, else test where both have it.

    Raises:
        CallError: it is none that runs are scored on, or one of the two was not.
    """
    role = asked or ("test" if a.scores("test") and b.scores("test") else "val")
    if role not in EVALUATED:
        raise CallError(f"--role {role}: runs are scored on {' or '.join(EVALUATED)}, name one of them.")
    for one in (a, b):
        if not one.scores(role):
            raise CallError(
                f"{one.best['backbone']} {one.best['readout']} was not scored on {role}: run its command "
                "with --test, or compare on val (--role val)."
            )
    return role


def compared(
    a: Configuration,
    b: Configuration,
    role: str,
    *,
    task: Task,
    targets: Targets | None,
    results_dir: Path,
    level: float = 0.95,
    resamples: int = 2_000,
) -> Comparison:
    """The mean scores of two configurations on the clips of `role`, and their paired difference.

    Raises:
        CallError: as `common_role`; or the task has no targets, or an argument is out of range.
        StoreError: a run kept no statistics, or they were scored on other clips or labels.
    """
    role = common_role(a, b, role)
    if targets is None:
        raise CallError(f"{task.name} has no targets: nothing to resample.")
    rows = [one.scored(role) for one in (a, b)]
    first = rows[0][0]
    pairs = [[paired_per_clip(results_dir, first, row, role) for row in of_one] for of_one in rows]
    clusters = clusters_of(targets, pairs[0][0][0])
    scores, drawn = list[str](), []
    for one, of_one in zip((a, b), pairs, strict=True):
        said = f"{format_mean(one, role)} ({counted(len(of_one), 'seed')})"
        try:
            score = MeanScore(task, [per_clip for *_, per_clip in of_one])
            drawn.append(resampled(score, clusters, n=resamples))
            scores.append(f"{said}, {drawn[-1].interval(level).of_score(task.score)}")
        except NoIntervalError as none:
            scores.append(f"{said}; {none}")
    try:
        if len(drawn) < len(rows):
            raise NoIntervalError("no interval: too few clusters.")
        found = difference(drawn[0], drawn[1], trainings_of(rows[0], rows[1], role), level=level)
        text, verdict = str(found), found.verdict(role)
        meaning = MEANING[verdict]
    except NoIntervalError as none:
        gap = fmean(row[role] for row in rows[0]) - fmean(row[role] for row in rows[1])
        text, verdict, meaning = f"{gap:+.4g}", UNKNOWN, str(none)
    return Comparison(
        first=scores[0], second=scores[1], difference=text, verdict=verdict, meaning=meaning,
        higher_is_better=task.higher_is_better,
    )  # fmt: skip
