"""Passes of a sweep: runs that share their reading, trained together; alone, where they disturb others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

import torch

from featcache.errors import StoreError
from featcache.system.console import Progress, message_of, silent
from readouts.features.preloading import Preloads
from readouts.results.table import recorded
from readouts.sweeps.plan import Folders, Trial
from readouts.training.loop import train_together


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A run that did not end well."""

    label: str
    error: str
    run: str = ""
    """Empty where it has no store, and so no identity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """What became of a pass, beside the rows of the table."""

    failures: tuple[Failure, ...] = ()
    held: tuple[str, ...] = ()
    """Ids of runs that another process was training."""

    def __add__(self, other: "Passed") -> "Passed":
        return Passed(failures=self.failures + other.failures, held=self.held + other.held)


class SweepSteps:
    """Progress in steps of a whole sweep, of which several passes may be under way."""

    def __init__(self, passes: Sequence[Sequence[Trial]], progress: Progress) -> None:
        self._progress, self._total = progress, sum(one[0].run.n_steps for one in passes)
        self._done: dict[str, int] = {}
        """Id of the first run of a pass -> the steps that the pass has taken."""

    def of(self, one: Sequence[Trial]) -> Progress:
        """The progress of a pass that is alone."""

        def tell(what: str, done: int, total: int) -> None:
            self._progress(what, done, total)
            self.take(one, what, done)

        return tell

    def take(self, one: Sequence[Trial], what: str, done: int) -> None:
        """Be told that a pass has `done` so much of `what`, if that is training."""
        if what == "training":
            self._done[one[0].run.id] = done
            self._progress("steps of the sweep", min(sum(self._done.values()), self._total), self._total)

    def end(self, one: Sequence[Trial]) -> None:
        """Be told that a pass has ended, perhaps without a step: it was in the table, or failed."""
        self._done[one[0].run.id] = one[0].run.n_steps


def train_here(
    passes: Sequence[Sequence[Trial]],
    *,
    folders: Folders,
    name: str,
    device: torch.device,
    steps: SweepSteps,
) -> Iterator[Passed]:
    """Train passes one after the other in this process; what becomes of each, as it ends."""
    preloads = Preloads(device)
    for one in passes:
        yield train_pass(one, folders, name=name, device=device, preloads=preloads, progress=steps.of(one))
        steps.end(one)


def train_pass(
    trials: Sequence[Trial],
    folders: Folders,
    *,
    name: str,
    device: torch.device,
    preloads: Preloads,
    progress: Progress = silent,
) -> Passed:
    """Train the runs of a pass; where it fails, without those that others hold, and then each by itself.

    Args:
        trials: runs of one `pass_key`; those that are in the table already are not trained.
        folders: where stores and results are.
        name: of the sweep, for the table.
        device: to train on.
        preloads: what is kept in its memory from pass to pass.
        progress: told of the steps.
    """
    options: dict[str, Any] = {"name": name, "device": device, "preloads": preloads, "progress": progress}
    problem = _problem_of(trials, folders, **options)
    if problem is None:
        return Passed()
    held = [trial for trial in trials if trial.run.folder(folders.results_dir).is_held()]
    left = [trial for trial in trials if trial not in held and not rows_of([trial], folders)]
    passed = Passed(held=tuple(trial.run.id for trial in held))
    if held and left:
        passed += train_pass(left, folders, **options)
    elif len(trials) > 1:
        for trial in left:
            passed += train_pass([trial], folders, **options)
    elif left:
        error = message_of(problem) or f"{type(problem).__name__}: {problem}"
        passed += Passed(failures=(Failure(label=left[0].cell.label, error=error, run=left[0].run.id),))
    return passed


def rows_of(trials: Sequence[Trial], folders: Folders) -> list[dict[str, Any]]:
    """What is in the results table of some runs."""
    return [row for trial in trials for row in _rows(trial, folders)]


def _problem_of(
    trials: Sequence[Trial],
    folders: Folders,
    *,
    name: str,
    device: torch.device,
    preloads: Preloads,
    progress: Progress,
) -> Exception | None:
    """What went wrong in a pass; whatever one run's failure is, the other runs go on."""
    try:
        train_together(
            [trial.run for trial in trials],
            results_dir=folders.results_dir,
            device=device,
            commands={trial.run.id: trial.command for trial in trials},
            sweep_name=name,
            preloads=preloads,
            progress=progress,
        )
    except Exception as problem:
        if isinstance(problem, torch.OutOfMemoryError):
            preloads.drop()
        # Its frames hold all heads of the pass, and what it lacked may have been memory.
        clear_frames(problem.__traceback__)
        return problem
    return None


def _rows(trial: Trial, folders: Folders) -> list[dict[str, Any]]:
    # Rows that cannot be read are none, and the run that is tried for them fails and says why.
    try:
        return recorded(folders.results_dir, trial.run.id, tested_on=trial.run.tested_on)
    except StoreError:
        return []
