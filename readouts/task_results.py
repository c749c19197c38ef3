"""All that is known of one task's results: rows, controls, published numbers, stores, intervals.

Read once from the results folder and the cache; every part of a page and every table is made from it. Rows
outlive what they came from, so each thing beside them may be missing, and `problem` says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcache.errors import ScividError
from featcache.manifest import Manifest, Published
from featcache.store import FeatureStore, find_stores, open_features
from readouts.bootstrap import Interval
from readouts.controls import ControlRow, control_rows
from readouts.intervals import Intervals
from readouts.results import load_results
from readouts.standings import Configuration, Row, by_task, configurations, ranked
from readouts.tasks import load_task
from readouts.tasks.base import Task

ROLES = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class TaskResults:
    """What there is of one task."""

    name: str
    title: str
    rows: Sequence[Row]
    """At least one; the best on val first."""
    published: Published
    task: Task | None
    """None where it cannot be loaded any more."""
    stores: Sequence[FeatureStore]
    """All that are finished."""
    controls: Mapping[str, Sequence[ControlRow]]
    """Role -> the control rows."""
    intervals: Intervals | None
    problem: str | None
    """Why there are rows only."""

    @property
    def best(self) -> Row:
        """The best on val."""
        return self.rows[0]

    @property
    def metric(self) -> str:
        """The score that the benchmark reports."""
        return str(self.best["metric"])

    @property
    def higher_is_better(self) -> bool:
        """The direction of `metric`."""
        return self.best["higher_is_better"] is not False

    @property
    def role(self) -> str:
        """The split that is reported: test where the best row has it, else val."""
        return "val" if self.best["test"] is None else "test"

    @property
    def configurations(self) -> list[Configuration]:
        """The rows by configuration, the best mean on val first."""
        return configurations(self.rows)

    def splits(self, row: Row) -> dict[str, FeatureStore]:
        """Role -> the very store that a row's numbers come from, where it is still there."""
        return stores_of(row, self.stores)

    def interval(self, row: Row, role: str | None = None) -> Interval | None:
        """Of a row on `role` (None: the one reported), where its evidence is there."""
        wanted = role or self.role
        if self.intervals is None or row[wanted] is None:
            return None
        return self.intervals.of(row, wanted)

    def control_scores(self) -> dict[str, dict[str, float]]:
        """Name of each control -> its score a role."""
        names = dict.fromkeys(row.name for rows in self.controls.values() for row in rows)
        return {
            name: {
                role: row.scores[self.metric]
                for role, rows in self.controls.items()
                for row in rows
                if row.name == name
            }
            for name in names
        }


def load_task_results(
    results_dir: Path, stores: Sequence[FeatureStore], manifest: Manifest
) -> list[TaskResults]:
    """Every task that has rows, in the order in which they first came.

    Raises:
        StoreError: the results table is damaged.
    """
    rows = by_task(load_results(results_dir))
    return [_of_task(name, ours, stores, results_dir, manifest) for name, ours in rows.items()]


def finished_stores(cache_dir: Path) -> tuple[list[FeatureStore], list[str]]:
    """The stores that say they are finished, and the messages of those that are broken all the same."""
    stores, problems = [], []
    for store in find_stores(cache_dir):
        if store.complete:
            try:
                stores.append(open_features(store.path))
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


def _of_task(
    name: str, rows: Sequence[Row], stores: Sequence[FeatureStore], results_dir: Path, manifest: Manifest
) -> TaskResults:
    entry, order = manifest.tasks.get(name), ranked(rows)
    # The best row's own; of what it was not scored on (test, in a sweep) those of the next that was.
    splits: dict[str, FeatureStore] = {}
    for row in order:
        splits = stores_of(row, stores) | splits
    task, intervals, problem = None, None, None
    controls: Mapping[str, Sequence[ControlRow]] = {}
    try:
        task = load_task(rows[-1]["task_spec"] or name, manifest)
        controls = _controls(task, splits, results_dir)
        targets = {role: found for role, store in splits.items() if (found := store.targets) is not None}
        intervals = Intervals(task, targets, results_dir)
    except ScividError as refusal:
        problem = str(refusal)
    return TaskResults(
        name=name,
        title=entry.title if entry else name,
        rows=order,
        published=entry.published if entry else Published(),
        task=task,
        stores=stores,
        controls=controls,
        intervals=intervals,
        problem=problem,
    )


def _controls(
    task: Task, splits: Mapping[str, FeatureStore], results_dir: Path
) -> dict[str, list[ControlRow]]:
    """Role -> the control rows, on the clips that the readouts are scored on."""
    targets = {role: store.targets for role, store in splits.items()}
    rows = {}
    for role in ("val", "test"):
        train, evaluated = targets.get("train"), targets.get(role)
        if train is not None and evaluated is not None:
            clips = np.setdiff1d(np.arange(splits[role].spec.n_clips), list(splits[role].skipped_clips))
            rows[role] = control_rows(task, train, evaluated, clips, results_dir)
    return rows
