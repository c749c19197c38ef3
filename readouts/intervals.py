"""Intervals and differences for a page: computed once, kept beside the runs, absent without evidence.

A report names dozens of rows and is written again after every run; a bootstrap takes a second a row.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from featcache.durable import make_directory, publish
from featcache.errors import ScividError, StoreError
from featcache.targets import Targets
from readouts.bootstrap import (
    Difference,
    Interval,
    interval,
    load_evidence,
    paired_difference,
    paired_evidence,
    units_of,
)
from readouts.standings import Row
from readouts.tasks.base import Task

RESAMPLES = 2000
"""As elsewhere, so that the same row has the same interval wherever it is shown."""
INTERVALS_VERSION = 1
"""Raised when a bootstrap gives other numbers, so that kept ones are computed anew."""


class Intervals:
    """The bootstraps of one task's rows."""

    def __init__(self, task: Task, targets: Mapping[str, Targets], results_dir: Path) -> None:
        self._task, self._targets, self._results_dir = task, targets, results_dir
        self._file = results_dir / task.name / "intervals.json"
        self._known = _kept(self._file)
        self._n_kept = len(self._known)

    def of(self, row: Row, role: str) -> Interval | None:
        """Of a row's score on val or test; None where the run kept no evidence or has too few units."""
        found = self._found({"role": role, "row": _named(row)}, lambda: asdict(self._interval(row, role)))
        return None if found is None else Interval(**found)

    def between(self, a: Row, b: Row, role: str) -> Difference | None:
        """Of a's score minus b's on the same clips; None where they cannot be compared."""
        about = {"role": role, "row": _named(a), "less": _named(b)}
        found = self._found(about, lambda: asdict(self._difference(a, b, role)))
        return None if found is None else Difference(**{**found, "interval": Interval(**found["interval"])})

    def keep(self) -> None:
        """Write down what is known, if anything is new."""
        if len(self._known) > self._n_kept:
            make_directory(self._file.parent)
            publish(self._file, json.dumps(self._known).encode())

    def _found(self, about: Mapping[str, Any], compute: Any) -> dict[str, Any] | None:
        whole = {
            **about,
            "version": INTERVALS_VERSION,
            "resamples": RESAMPLES,
            "task": dict(self._task.identity()),
        }
        key = blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=8).hexdigest()
        if key not in self._known:
            try:
                self._known[key] = compute()
            except ScividError:
                return None
        return self._known[key]

    def _interval(self, row: Row, role: str) -> Interval:
        clips, evidence = load_evidence(self._results_dir, row, role)
        units = units_of(self._targets_of(role), clips)
        return interval(self._task, evidence, units, n=RESAMPLES)

    def _difference(self, a: Row, b: Row, role: str) -> Difference:
        clips, evidence_a, evidence_b = paired_evidence(self._results_dir, a, b, role)
        units = units_of(self._targets_of(role), clips)
        return paired_difference(self._task, evidence_a, evidence_b, units, n=RESAMPLES)

    def _targets_of(self, role: str) -> Targets:
        if role not in self._targets:
            raise StoreError(f"the targets of {role} are gone, which say what clips belong together.")
        return self._targets[role]


def _named(row: Row) -> list[str]:
    """What tells a row, and this training of it, from all others."""
    return [str(row["run"]), str(row["readout"]), str(row["finished"]), str(row["targets"])]


def _kept(file: Path) -> dict[str, dict[str, Any]]:
    """What an earlier report kept; a file that cannot be read is as good as none."""
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
