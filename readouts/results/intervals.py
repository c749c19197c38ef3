"""Intervals and differences for a page: computed once, kept beside the runs, absent without evidence.

A report names dozens of rows and is written again after every run; a bootstrap takes a second a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from featcache.errors import ScividError, StoreError
from featcache.store.targets import Targets
from readouts.results.bootstrap import (
    Difference,
    Interval,
    interval,
    paired_difference,
    paired_evidence,
    units_of,
)
from readouts.results.configurations import Row
from readouts.results.json_cache import JsonCache
from readouts.tasks.base import Evidence, Task

RESAMPLES = 2000
"""As elsewhere, so that the same row has the same interval wherever it is shown."""
INTERVALS_VERSION = 2
"""Raised when a bootstrap gives other numbers, so that kept ones are computed anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanOfSeeds:
    """A task whose score is the mean of several runs' scores, on the same draws of clips."""

    task: Task

    def score_of(self, evidence: Evidence, weights: Float64[np.ndarray, " n"]) -> float:
        """The mean; the evidence of run i has names that begin with `i/`.

        Raises:
            CallError: the task does not say how to resample its score.
        """
        runs: dict[str, dict[str, np.ndarray]] = {}
        for name, rows in evidence.items():
            run, _, own = name.partition("/")
            runs.setdefault(run, {})[own] = rows
        return fmean(self.task.score_of(own, weights) for own in runs.values())


class Intervals:
    """The bootstraps of one task's rows; of several rows, seeds of one configuration, that of their mean."""

    def __init__(self, task: Task, targets: Mapping[str, Targets], results_dir: Path) -> None:
        self._task, self._targets, self._results_dir = task, targets, results_dir
        self._cache = JsonCache(results_dir / task.name / "intervals.json")
        self.refusals: list[str] = []
        """Why there was none, of each that was asked for in vain."""

    def of(self, rows: Sequence[Row], role: str) -> Interval | None:
        """Of the rows' mean score on val or test; None where a run kept no evidence or has too few units."""
        about = {"role": role, "rows": _named(rows)}
        found = self._found(about, lambda: asdict(self._interval(rows, role)))
        return None if found is None else Interval(**found)

    def between(self, a: Sequence[Row], b: Sequence[Row], role: str) -> Difference | None:
        """Of a's mean score minus b's on the same clips; None where they cannot be compared."""
        about = {"role": role, "rows": _named(a), "less": _named(b)}
        found = self._found(about, lambda: asdict(self._difference(a, b, role)))
        return None if found is None else Difference(**{**found, "interval": Interval(**found["interval"])})

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
            return None

    def _interval(self, rows: Sequence[Row], role: str) -> Interval:
        clips, evidence = self._evidence(rows, role, on_clips_of=rows[0])
        units = units_of(self._targets_of(role), clips)
        return interval(MeanOfSeeds(task=self._task), evidence, units, n=RESAMPLES)

    def _difference(self, a: Sequence[Row], b: Sequence[Row], role: str) -> Difference:
        clips, evidence_a = self._evidence(a, role, on_clips_of=a[0])
        _, evidence_b = self._evidence(b, role, on_clips_of=a[0])
        units = units_of(self._targets_of(role), clips)
        return paired_difference(MeanOfSeeds(task=self._task), evidence_a, evidence_b, units, n=RESAMPLES)

    def _evidence(
        self, rows: Sequence[Row], role: str, *, on_clips_of: Row
    ) -> tuple[Int64[np.ndarray, " n"], dict[str, np.ndarray]]:
        """The clips, and the evidence of all rows as `MeanOfSeeds` reads it."""
        pairs = [paired_evidence(self._results_dir, on_clips_of, row, role) for row in rows]
        clips = pairs[0][0]
        return clips, {f"{i}/{name}": of for i, (_, _, own) in enumerate(pairs) for name, of in own.items()}

    def _targets_of(self, role: str) -> Targets:
        if role not in self._targets:
            raise StoreError(f"the targets of {role} are gone, which say what clips belong together.")
        return self._targets[role]


def _named(rows: Sequence[Row]) -> list[list[str]]:
    """What tells rows, and these trainings of them, from all others."""
    return [[str(row[name]) for name in ("run", "readout", "finished", "targets")] for row in rows]
