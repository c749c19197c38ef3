"""All that is known of one task's results: rows, baselines, published numbers, stores, intervals.

Read once from the results folder and the cache; every part of a page and every table is made from it. Rows
outlive what they came from, so each thing beside them may be missing, and `problem` says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcache.errors import ScividError
from featcache.manifest import Manifest, Published
from featcache.store.feature_store import FeatureStore, finished, readable_stores
from featcache.store.matching import refuse_misplaced
from featcache.system.console import extract_command
from readouts.features import origins
from readouts.results.baselines import load_baselines
from readouts.results.comparability import Grounds, Row, seeds_together
from readouts.results.configurations import Configuration, configurations, rows_by
from readouts.results.formatting import metric_title
from readouts.results.significance.bootstrap import Interval
from readouts.results.significance.differences import Difference
from readouts.results.significance.kept import Intervals
from readouts.results.table import readable_results
from readouts.tasks import load_task
from readouts.tasks.base import Task

ROLES = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class TaskResults:
    """All that is known of one task's results."""

    name: str
    title: str
    configurations: Sequence[Configuration]
    """At least one; the best mean on val first."""
    published: Published
    task: Task | None
    """None where it cannot be loaded any more."""
    stores: Sequence[FeatureStore]
    """All finished stores, of other tasks too."""
    results_dir: Path
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Role -> name of each baseline -> its scores."""
    intervals: Intervals | None
    problem: str | None
    """Why there are rows only."""
    notes: Sequence[str] = ()
    """What to know before scores are compared: a line each."""

    @property
    def best(self) -> Configuration:
        """The configuration of the best mean on val."""
        return self.configurations[0]

    @property
    def rows(self) -> list[Row]:
        """The rows of all configurations, in their order."""
        return [row for one in self.configurations for row in one.rows]

    @property
    def metric(self) -> str:
        """The score that the benchmark reports, as the table of results calls it."""
        return str(self.best.best["metric"])

    @property
    def metric_title(self) -> str:
        """`metric` as a heading calls it."""
        return metric_title(self.metric)

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger `metric` is a better one."""
        return self.best.best["higher_is_better"] is not False

    @property
    def better(self) -> str:
        """The direction of `metric` in words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def role(self) -> str:
        """The split that is reported: test where the best configuration has it, else val."""
        return "test" if self.best.scores("test") else "val"

    def interval(self, rows: Sequence[Row], role: str) -> Interval | None:
        """The interval of the rows' mean score on `role`, where their per-clip statistics are still there."""
        scored = _scored(rows, role)
        return self.intervals.of(scored, role) if self.intervals is not None and scored else None

    def difference(self, a: Sequence[Row], b: Sequence[Row]) -> Difference | None:
        """The difference of two configurations' mean scores on the split that is reported."""
        ours, others = _scored(a, self.role), _scored(b, self.role)
        if self.intervals is None or not ours or not others:
            return None
        return self.intervals.between(ours, others, self.role)

    def baseline_scores(self) -> dict[str, dict[str, float]]:
        """Name of each baseline -> the score that the benchmark reports, by role."""
        names = dict.fromkeys(name for of in self.baselines.values() for name in of)
        return {
            name: {
                role: of[name][self.metric]
                for role, of in self.baselines.items()
                if self.metric in of.get(name, ())
            }
            for name in names
        }


def load_task_results(
    results_dir: Path, stores: Sequence[FeatureStore], manifest: Manifest
) -> tuple[list[TaskResults], list[str]]:
    """Every task that has rows, in the order in which they first came; and the messages of damaged files."""
    rows, damaged = readable_results(results_dir)
    found = [_of_task(*of_task, stores, results_dir, manifest) for of_task in rows_by("task", rows).items()]
    return found, [str(problem) for problem in damaged]


def finished_stores(cache_dir: Path) -> tuple[list[FeatureStore], list[str]]:
    """The stores that say they are finished, and the messages of those that are broken or misplaced."""
    stores = []
    found, problems = readable_stores(cache_dir)
    for store in found:
        if store.complete:
            try:
                refuse_misplaced(store.path, store.header)
                stores.append(finished(store))
            except ScividError as problem:
                problems.append(str(problem))
    return stores, problems


def stores_of(row: Row, stores: Sequence[FeatureStore]) -> dict[str, FeatureStore]:
    """Role -> the very store that a row's numbers come from, where it is still there."""
    return {
        role: store
        for role in ROLES
        for store in stores
        if store.fingerprint == row.get(f"{role}_fingerprint") and store.attrs["task"] == row["task"]
    }


def _scored(rows: Sequence[Row], role: str) -> list[Row]:
    return [row for row in rows if row[role] is not None]


def _of_task(
    name: str, rows: Sequence[Row], stores: Sequence[FeatureStore], results_dir: Path, manifest: Manifest
) -> TaskResults:
    entry, order = manifest.tasks.get(name), configurations(rows)
    # The best row's own; of what it was not scored on (test, in a sweep) those of the next that was.
    splits: dict[str, FeatureStore] = {}
    for row in [row for one in order for row in one.rows]:
        splits = stores_of(row, stores) | splits
    task, intervals, problem = None, None, None
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]] = {}
    try:
        task = load_task(order[0].best["task_spec"] or name, manifest)
        baselines = _baselines(task, splits, results_dir)
        targets = {role: found for role, store in splits.items() if (found := store.targets) is not None}
        intervals = Intervals(task, targets, results_dir)
    except ScividError as refusal:
        problem = str(refusal)
    return TaskResults(
        name=name,
        title=entry.title if entry else name,
        configurations=order,
        published=entry.published if entry else Published(),
        task=task,
        stores=stores,
        results_dir=results_dir,
        baselines=baselines,
        intervals=intervals,
        problem=problem,
        notes=[*Grounds(groups=seeds_together(rows)).sentences(), *_remarks(name, splits, manifest)],
    )


def _remarks(task: str, splits: Mapping[str, FeatureStore], manifest: Manifest) -> list[str]:
    if not splits:
        return []
    names = {str(store.attrs["backbone"]) for store in splits.values()}
    # Where the manifest lies, and the cache, only who calls knows.
    extract = extract_command(min(names), task)
    try:
        stores = {role: splits[role] for role in ROLES if role in splits}
        return origins.remarks(stores, manifest, extract=extract)
    except ScividError as refusal:
        return [str(refusal)]


def _baselines(
    task: Task, splits: Mapping[str, FeatureStore], results_dir: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """Role -> name of each baseline -> its scores on the clips that the readouts are scored on."""
    targets = {role: store.targets for role, store in splits.items()}
    found = {}
    for role in ("val", "test"):
        train, evaluated = targets.get("train"), targets.get(role)
        if train is not None and evaluated is not None:
            clips = np.setdiff1d(np.arange(splits[role].spec.n_clips), list(splits[role].skipped_clips))
            found[role] = load_baselines(task, train, evaluated, clips, results_dir)
    return found
