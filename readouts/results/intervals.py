"""Intervals and differences for a page: computed once, kept beside the runs, absent without statistics.

A report names dozens of rows and is written again after every run; a bootstrap takes a second a row.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.errors import DamagedFileError, ScividError, StoreError
from featcache.store.targets import Targets
from readouts.results.bootstrap import (
    Clusters,
    Difference,
    Interval,
    WeightedScore,
    clusters_of,
    interval,
    mean_score,
    paired_difference,
)
from readouts.results.comparability import Row
from readouts.results.json_cache import JsonCache
from readouts.results.per_clip import paired_per_clip
from readouts.tasks.base import Task

RESAMPLES = 2000
"""The number that `scivid compare` draws, so that a row has the same interval wherever it is shown."""
SAME_SCORE = 1e-4
"""How far a score may be from the one in the table, which another device may have computed."""
INTERVALS_VERSION = 3
"""Raised when a bootstrap gives other numbers or fields, so that kept ones are computed anew."""


Clips = Int64[np.ndarray, " n"]


class Intervals:
    """The bootstraps of one task's rows; of several rows, seeds of one configuration, that of their mean."""

    def __init__(self, task: Task, targets: Mapping[str, Targets], results_dir: Path) -> None:
        self._task, self._targets, self._results_dir = task, targets, results_dir
        self._cache = JsonCache(results_dir / task.name / "intervals.json")
        self.refusals: list[str] = []
        """Why there was none, of each that was asked for in vain."""
        self.damaged: list[str] = []
        """Those of them that are of damaged files."""

    def of(self, rows: Sequence[Row], role: str) -> Interval | None:
        """The interval of the rows' mean score on `role`; None without statistics, or with few clusters."""
        about = {"role": role, "rows": _named(rows)}

        def compute() -> dict[str, Any]:
            score, clusters = self._score(rows, role, on_clips_of=rows[0])
            return asdict(interval(score, clusters, n=RESAMPLES))

        found = self._found(about, compute)
        return None if found is None else Interval(**found)

    def between(self, a: Sequence[Row], b: Sequence[Row], role: str) -> Difference | None:
        """The mean score of `a` minus that of `b` on the same clips; None where they cannot be compared."""
        about = {"role": role, "rows": _named(a), "less": _named(b)}

        def compute() -> dict[str, Any]:
            score_a, clusters = self._score(a, role, on_clips_of=a[0])
            score_b, _ = self._score(b, role, on_clips_of=a[0])
            return asdict(paired_difference(score_a, score_b, clusters, n=RESAMPLES))

        found = self._found(about, compute)
        return None if found is None else Difference(**{**found, "interval": Interval(**found["interval"])})

    def of_score(
        self, row: Row, role: str, what: str, score_of: Callable[[Clusters], WeightedScore], clips: Clips
    ) -> Interval | None:
        """That of another score of a row than its task's, which `what` names; None with few clusters.

        Args:
            row: of the table.
            role: of the split.
            what: the score's name, which it is kept under.
            score_of: makes it, of clips that belong together.
            clips: numbers of those it is made of.
        """
        if role not in self._targets:
            return None

        def compute() -> dict[str, Any]:
            clusters = clusters_of(self._targets[role], clips)
            return asdict(interval(score_of(clusters), clusters, n=RESAMPLES))

        found = self._found({"role": role, "rows": _named([row]), "score": what}, compute)
        return None if found is None else Interval(**found)

    def keep(self) -> None:
        """Write down what was computed, if anything is new."""
        self._cache.keep()

    def _found(
        self, about: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any] | None:
        whole = {
            **about,
            "version": INTERVALS_VERSION,
            "resamples": RESAMPLES,
            "task": dict(self._task.identity()),
        }
        try:
            return dict(self._cache.value(whole, compute))
        except ScividError as refusal:
            self.refusals.append(str(refusal))
            if isinstance(refusal, DamagedFileError):
                self.damaged.append(str(refusal))
            return None

    def _score(self, rows: Sequence[Row], role: str, *, on_clips_of: Row) -> tuple[WeightedScore, Clusters]:
        """The mean score of all rows, and which clips belong together."""
        pairs = [paired_per_clip(self._results_dir, on_clips_of, row, role) for row in rows]
        if role not in self._targets:
            raise StoreError(f"the targets of {role} are gone, which say what clips belong together.")
        targets, of_row = self._targets[role], json.loads(on_clips_of["targets"] or "{}").get(role)
        if of_row not in (None, targets.fingerprint):
            raise StoreError(
                f"run {on_clips_of['run']} was scored on other clips or labels of {role} than those of the "
                "best row's store, which are resampled."
            )
        score = mean_score(self._task, [own for *_, own in pairs])
        self._refuse_another_score(rows, role, score(np.ones(len(pairs[0][0]))))
        return score, clusters_of(targets, pairs[0][0])

    def _refuse_another_score(self, rows: Sequence[Row], role: str, found: float) -> None:
        """An edited task file may count otherwise than it did: its interval would be of another score."""
        recorded = fmean(row[role] for row in rows)
        if not isclose(found, recorded, rel_tol=SAME_SCORE, abs_tol=SAME_SCORE):
            raise StoreError(
                f"run {rows[0]['run']} has {role} {recorded:.4f} in the table, and its statistics give "
                f"{found:.4f} by the task as it is now: train with --again."
            )


def _named(rows: Sequence[Row]) -> list[list[str]]:
    """What tells rows, and these trainings of them, from all others."""
    return [[str(row[name]) for name in ("run", "readout", "finished", "targets")] for row in rows]
