"""The rows of a task's table on the page: configurations with their runs, and what the script compares.

The differences of any two configurations follow from few numbers: the covariances of their scores over the
resamples of the clips, and the scatter of their seeds. The page holds these, and its script does what
`readouts.results.significance.differences` does.
"""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, pvariance
from typing import Any

import numpy as np

from readouts.results.comparability import Row, identity_text, is_fitted, seconds_of, settings_of
from readouts.results.configurations import Configuration
from readouts.results.formatting import configuration_cells, format_interval, format_score, format_value
from readouts.results.published import KINDS, Figure, by_kind, figure_of
from readouts.results.run_folder import RunFolder
from readouts.results.significance.differences import MEANING
from readouts.results.table import short_name_of
from readouts.results.task_results import TaskResults, stores_of

SHOWN = 8
"""Configurations that are seen at first, beside the best of every other backbone and readout."""

RESAMPLED = 120
"""Configurations of a task that have intervals and can be compared on the page, the best on val first."""

SCORES_LISTED = 40
"""Scores of a run that are listed, such as those of single classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLine:
    """One seed of a configuration."""

    name: str
    seed: int
    val: str
    test: str
    command: str
    seconds: str
    about: str
    """Why its command would not give it again, and what tells it from another of the same command."""
    predictions: Sequence[str]
    """Files of single clips' outputs, below the results folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigurationRow:
    """One configuration as a row of the page."""

    place: int
    """Among all of the task, the best on val first: what the script calls it by."""
    cells: Mapping[str, Any]
    """Those of `configuration_cells`, with intervals."""
    sort_by: Mapping[str, float]
    """Role -> mean score, where there is one."""
    hidden: bool
    """Whether it is seen only when asked for."""
    runs: Sequence[RunLine]
    scores: Sequence[tuple[str, str, str]]
    """Name, on val, on test, of every score of the best run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowGroup:
    """Rows that may be compared with each other: the same was trained."""

    title: str
    ours: Sequence[ConfigurationRow]
    published: Sequence[Figure]


def row_groups(results: TaskResults) -> list[RowGroup]:
    """All configurations and published rows of a task, by what was trained."""
    every = results.configurations
    seen, made = _seen(every), Counter(str(row["command"]) for one in every for row in one.rows)
    rows = [_row(results, one, place, place not in seen, made) for place, one in enumerate(every)]
    found = by_kind(results.published)
    groups = [
        RowGroup(
            title=title,
            ours=[row for one, row in zip(every, rows, strict=True) if one.kind == kind],
            published=[figure_of(row, results.published) for row in found.get(kind, ())],
        )
        for kind, title in KINDS.items()
    ]
    return [group for group in groups if group.ours or group.published]


def comparison_data(results: TaskResults) -> dict[str, Any]:
    """What the script needs to compare any two configurations of a task, as JSON values.

    `rows` are, by their places, those that were scored on the clips of the best: the mean on `role`, the
    seeds' sum of squared deviations. `covariances` are their lower triangle in float32, base 64, of means
    over clusters that are drawn again. `t` are Student's quantiles for a 95 % interval, by degrees of freedom
    from 1.
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    role, every = results.role, results.configurations[:RESAMPLED]
    what = {name: _words(one) for name, one in enumerate(every)}
    data: dict[str, Any] = {"role": role, "better": 1 if results.higher_is_better else -1, "words": what}
    scored = [one.scored(role) for one in every]
    with_scores = [place for place, rows in enumerate(scored) if rows]
    if results.intervals is None or not with_scores:
        return data
    found, resampled = results.intervals.together([scored[place] for place in with_scores], role)
    if not resampled:
        return data
    places = [with_scores[i] for i in found]
    n_clusters, n = resampled[0].n_clusters, len(resampled)
    spread = np.atleast_2d(np.cov([one.drawn for one in resampled])) * n_clusters / (n_clusters - 1)
    scores = {place: [float(row[role]) for row in scored[place]] for place in places}
    most = max(n_clusters - 1, 2 * max(map(len, scores.values())))
    return data | {
        "clusters": n_clusters,
        "kind": resampled[0].kind,
        "covariances": b64encode(spread[np.tril_indices(n)].astype("<f4").tobytes()).decode(),
        "t": [round(float(t), 5) for t in stdtrit(np.arange(1, most + 1), 0.975)],
        "rows": [
            {
                "place": place,
                "mean": fmean(of),
                "n": len(of),
                "squares": pvariance(of) * len(of),
                "fitted": is_fitted(scored[place][0]),
            }
            for place, of in scores.items()
        ],
        "meaning": MEANING,
    }


def _words(one: Configuration) -> dict[str, str]:
    """What a configuration is, for two to be held against each other: a name -> a value in words."""
    row = one.best
    about = {name: row[name] for name in ("backbone", "layer", "readout", "exactness", "parameters", "steps")}
    about |= {"seconds of training": f"{seconds_of(row):.2g}"}
    every = {**about, **settings_of(row), **one.marks}
    return {name: format_value(value) for name, value in every.items() if value is not None}


def _seen(every: Sequence[Configuration]) -> set[int]:
    """Places of the best ones, and of the best of each backbone and readout that is not among them."""
    first: dict[tuple[str, str], int] = {}
    for place, one in enumerate(every):
        first.setdefault((str(one.best["backbone"]), str(one.best["readout"])), place)
    return {*range(min(SHOWN, len(every))), *first.values()}


def _row(
    results: TaskResults, one: Configuration, place: int, hidden: bool, made: Mapping[str, int]
) -> ConfigurationRow:
    intervals = {
        f"{role}_interval": format_interval(results.interval(one.rows, role), one.mean(role))
        if place < RESAMPLED
        else ""
        for role in ("val", "test")
    }
    means = {role: mean for role in ("val", "test") if (mean := one.mean(role)) is not None}
    return ConfigurationRow(
        place=place,
        cells={**configuration_cells(one), **intervals, "control": one.best["control"]},
        sort_by={role: mean for role, mean in means.items() if isfinite(mean)},
        hidden=hidden,
        runs=[_line(results, row, one.marks if made[str(row["command"])] > 1 else {}) for row in one.rows],
        scores=_scores(one.best),
    )


def _line(results: TaskResults, row: Row, marks: Mapping[str, str]) -> RunLine:
    folder = RunFolder.of(results.results_dir, row)
    kept = [path for role in ("val", "test") if (path := folder.predictions(role)).is_file()]
    return RunLine(
        name=short_name_of(str(row["run"])),
        seed=row["seed"],
        val=format_score(row["val"]),
        test=format_score(row["test"]),
        command=str(row["command"]),
        seconds=f"{seconds_of(row):.0f}",
        about=_not_again(results, row, marks),
        predictions=[str(path.relative_to(results.results_dir)) for path in kept],
    )


def _scores(row: Row) -> list[tuple[str, str, str]]:
    of = json.loads(row["scores"] or "{}")
    names = dict.fromkeys(name for scores in of.values() for name in scores)
    return [
        (name, *(format_score(of.get(role, {}).get(name)) for role in ("val", "test")))
        for name in list(names)[:SCORES_LISTED]
    ]


def _not_again(results: TaskResults, row: Row, marks: Mapping[str, str]) -> str:
    """What a row's command would find otherwise today, and what tells it from one of the same command."""
    there, targets = stores_of(row, results.stores), json.loads(row["targets"] or "{}")
    changed = [
        f"the labels of {role} are others now"
        for role, store in there.items()
        if store.header.targets is not None
        and targets.get(role) not in (None, store.header.targets.fingerprint)
    ]
    if results.task is not None and row["task_spec"] == results.task.spec:
        now = identity_text(results.task.identity())
        changed += ["the task is another now"] if row["task_identity"] not in (None, now) else []
    told = [f"{name} {value}" for name, value in marks.items()]
    told += [f"not to be repeated: {', '.join(changed)}"] if changed else []
    return "; ".join(told)
