"""Intervals and differences for a page: none without statistics, each row resampled once and kept.

A report names dozens of rows and is written again after every run. What is kept of a row are its scores on
the resamples of its clips: the interval of any mean over seeds, and the difference of any two configurations,
follow from them.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.errors import DamagedFileError, ScividError, StoreError
from featcache.store.targets import Targets
from readouts.results.comparability import Row, is_fitted
from readouts.results.json_cache import JsonCache
from readouts.results.per_clip import load_per_clip, paired_per_clip
from readouts.results.significance.bootstrap import (
    Clusters,
    Interval,
    MeanScore,
    Resampled,
    WeightedScore,
    clusters_of,
    interval,
    mean_of,
    resampled,
)
from readouts.results.significance.differences import Difference, Trainings, difference
from readouts.tasks.base import Task

RESAMPLES = 2000
"""The number that `scivid compare` draws, so that a row has the same interval wherever it is shown."""
SAME_SCORE = 1e-4
"""How far a score may be from the one in the table, which another device may have computed."""
INTERVALS_VERSION = 4
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
        try:
            return self._mean(rows, role, on_clips_of=rows[0]).interval().of_score(self._task.score)
        except ScividError as refusal:
            self._refused(refusal)
            return None

    def between(self, a: Sequence[Row], b: Sequence[Row], role: str) -> Difference | None:
        """The mean score of `a` minus that of `b` on the same clips; None where they cannot be compared."""
        try:
            ours, others = (self._mean(rows, role, on_clips_of=a[0]) for rows in (a, b))
            return difference(ours, others, trainings_of(a, b, role))
        except ScividError as refusal:
            self._refused(refusal)
            return None

    def together(self, every: Sequence[Sequence[Row]], role: str) -> tuple[list[int], list[Resampled]]:
        """Places of the configurations that were scored on the clips of the first, and their resamples.

        Any two of them can be subtracted.
        """
        places, found = list[int](), list[Resampled]()
        for place, rows in enumerate(every):
            first = every[places[0]] if places else rows
            try:
                found.append(self._mean(rows, role, on_clips_of=first[0]))
            except ScividError:
                continue
            places.append(place)
        return places, found

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

        try:
            found = Interval(**self._cache.value({**self._about(row, role), "score": what}, compute))
            return found.of_score(what)
        except ScividError as refusal:
            self._refused(refusal)
            return None

    def keep(self) -> None:
        """Write down what was computed, if anything is new."""
        self._cache.keep()

    def _refused(self, refusal: ScividError) -> None:
        self.refusals.append(str(refusal))
        if isinstance(refusal, DamagedFileError):
            self.damaged.append(str(refusal))

    def _mean(self, rows: Sequence[Row], role: str, *, on_clips_of: Row) -> Resampled:
        """The mean score of all rows, which were scored on the clips of another.

        Raises:
            ScividError: as `paired_per_clip`, `clusters_of` and `resampled`.
        """
        known = self._of_row(on_clips_of, role)
        each = [self._of_row(row, role) for row in rows]
        for row, kept in zip(rows, each, strict=True):
            if kept["clips"] != known["clips"]:
                paired_per_clip(self._results_dir, on_clips_of, row, role)  # which says in what they differ
        return mean_of([_resampled(kept) for kept in each])

    def _of_row(self, row: Row, role: str) -> Mapping[str, Any]:
        """What is kept of a row: its score, those of the resamples, and a digest of its clips and labels."""

        def compute() -> dict[str, Any]:
            clips, per_clip = load_per_clip(self._results_dir, row, role)
            named = json.loads(row["targets"] or "{}").get(role)
            if role not in self._targets:
                raise StoreError(f"the targets of {role} are gone, which say what clips belong together.")
            if named not in (None, self._targets[role].fingerprint):
                raise StoreError(
                    f"run {row['run']} was scored on other clips or labels of {role} than those of the "
                    "best row's store, which are resampled."
                )
            score = MeanScore(self._task, [per_clip])
            self._refuse_another_score(row, role, score(np.ones(len(clips))))
            found = resampled(score, clusters_of(self._targets[role], clips), n=RESAMPLES)
            return {
                "value": found.value,
                "drawn": b64encode(found.drawn.astype("<f4").tobytes()).decode(),
                "clusters": [found.n_clusters, found.kind],
                "clips": blake2b(clips.tobytes() + str(named).encode(), digest_size=8).hexdigest(),
            }

        kept: Mapping[str, Any] = self._cache.value(self._about(row, role), compute)
        return kept

    def _about(self, row: Row, role: str) -> dict[str, Any]:
        """All that decides what is kept of a row."""
        return {
            "role": role,
            "row": [str(row[name]) for name in ("run", "readout", "finished", "targets")],
            "version": INTERVALS_VERSION,
            "resamples": RESAMPLES,
            "task": dict(self._task.identity()),
        }

    def _refuse_another_score(self, row: Row, role: str, found: float) -> None:
        """An edited task file may count otherwise than it did: its interval would be of another score."""
        if not isclose(found, row[role], rel_tol=SAME_SCORE, abs_tol=SAME_SCORE):
            raise StoreError(
                f"run {row['run']} has {role} {row[role]:.4f} in the table, and its statistics give "
                f"{found:.4f} by the task as it is now: train with --again."
            )


def trainings_of(a: Sequence[Row], b: Sequence[Row], role: str) -> Trainings:
    """The scores of two configurations over their seeds."""
    first, second = ([float(row[role]) for row in rows] for rows in (a, b))
    return Trainings(first=first, second=second, fitted=(is_fitted(a[0]), is_fitted(b[0])))


def _resampled(kept: Mapping[str, Any]) -> Resampled:
    drawn = np.frombuffer(b64decode(kept["drawn"]), "<f4").astype(np.float64)
    n_clusters, kind = kept["clusters"]
    return Resampled(value=kept["value"], drawn=drawn, n_clusters=n_clusters, kind=kind)
