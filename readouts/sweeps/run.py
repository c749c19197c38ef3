"""Run a planned sweep, pass by pass, and say what came of it.

What a sweep has done is in the results table, the runs' folders and `sweeps/NAME`, nowhere else: a killed one
that is started again finds its finished runs in the table and the others at their last checkpoints. A run
that fails takes nothing with it: its companions are trained again without it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from traceback import clear_frames
from typing import Any

import torch

from featcache.errors import CallError, DamagedFileError, StoreError
from featcache.system.console import Progress, extract_command, message_of, silent
from featcache.system.files import append_line, make_directory, publish, read_regular
from featcache.system.sealed import json_sealed, json_unsealed
from readouts.features import origins
from readouts.features.preloading import Preloads
from readouts.results.comparability import Grounds, Row, seeds_together
from readouts.results.configurations import Configuration, configurations, rows_by
from readouts.results.formatting import format_mean
from readouts.results.table import recorded
from readouts.sweeps.grid import Grid
from readouts.sweeps.plan import Folders, Plan, Trial, open_splits, trial_of
from readouts.training.loop import train_together
from readouts.training.run import in_passes

FILE = "sweep.json"
"""What a sweep was asked for, sealed."""

LARGEST = 2**28
"""Bytes of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A run that did not end well."""

    label: str
    error: str
    run: str = ""
    """Empty where it has no store, and so no identity."""


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of a sweep's runs."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows of every run in the table, this sweep's or an earlier one's."""
    failures: list[Failure] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    """Runs that another process is training."""
    notes: list[str] = field(default_factory=list)
    """What to know of the test splits that were scored."""


def run_sweep(
    plan: Plan,
    folders: Folders,
    *,
    name: str,
    device: torch.device,
    test: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Train what the plan says and return all of its rows; what fails is recorded, and the rest goes on.

    Args:
        plan: of `plan_sweep`.
        folders: those of the plan.
        name: of the folder `sweeps/NAME` and of the table's column `sweep`.
        device: to train on.
        test: score test too, of the configuration that is best on val for each task and backbone.
        about: what is kept in `sweeps/NAME/sweep.json` beside the ids of the runs.
        progress: told of every pass, and in steps of the whole sweep.

    Raises:
        CallError: `name` cannot be a folder's.
    """
    folder = sweep_folder(folders.results_dir, name)
    make_directory(folder)
    ids = [trial.run.id for trial in plan.trials]
    publish(folder / FILE, json_sealed({"name": name, **(about or {}), "runs": ids}, sort_keys=False))
    runner = _Runner(folders, name, device, progress, total=sum(one[0].run.n_steps for one in plan.passes))
    for missing in plan.missing:
        way_out = f" Make it with `{missing.command}`." if missing.command else ""
        runner.fail([cell.label for cell in missing.cells], f"{missing.problem}{way_out}")
    for one in plan.passes:
        runner.train(one)
        runner.done += one[0].run.n_steps
    if test:
        runner.score_test(_selected(plan.trials, runner.rows(plan.trials)))
    return Outcome(
        rows=runner.rows(plan.trials),
        failures=runner.failures,
        busy=[trial.cell.label for trial in runner.busy()],
        notes=list(dict.fromkeys(runner.notes)),
    )


def sweep_name(grids: Sequence[Grid]) -> str:
    """The name of a sweep that was given none: the same for the same grids."""
    asked = json.dumps([{name: list(values) for name, values in grid.items()} for grid in grids])
    return f"grid-{blake2b(asked.encode(), digest_size=4).hexdigest()}"


def sweep_folder(results_dir: Path, name: str) -> Path:
    """Where a sweep keeps `sweep.json` and `failures.jsonl`.

    Raises:
        CallError: `name` cannot be a folder's.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise CallError(f"--name {name!r} becomes a folder: use letters, digits, '.', '_', '-'.")
    return results_dir / "sweeps" / name


def known_sweeps(results_dir: Path) -> tuple[dict[str, dict[str, Any]], list[DamagedFileError]]:
    """Name -> what `sweep.json` says of every sweep that was run; and what is to be said of damaged ones."""
    found, damaged = dict[str, dict[str, Any]](), list[DamagedFileError]()
    # By folders: one whose record is gone is no sweep that never was.
    for file in sorted(folder / FILE for folder in (results_dir / "sweeps").glob("*/")):
        try:
            found[file.parent.name], _ = json_unsealed(read_regular(file, limit=LARGEST))
        except (OSError, ValueError) as problem:
            damaged.append(
                DamagedFileError(
                    f"{file} cannot be read as a sweep's ({problem}): run the same `scivid sweep` again, "
                    "which writes it anew and trains nothing twice."
                )
            )
    return found, damaged


def summary(rows: Sequence[Row]) -> list[dict[str, object]]:
    """A line a configuration, the best on val first: mean and spread over its seeds, and what was selected.

    The best of each task and backbone is marked with the number of runs that it was selected from.
    """
    lines: list[dict[str, object]] = []
    for ours, of_task in _competing(rows):
        every = configurations(ours, among=of_task)
        n_competing = len(_first(every))
        for rank, one in enumerate(every):
            row = one.best
            chosen = rank == 0 and isfinite(row["val"]) and n_competing > 1
            settings = " ".join(f"{name}={value}" for name, value in sorted(one.settings.items()))
            lines.append(
                {
                    "task": row["task"], "backbone": row["backbone"], "layer": row["layer"],
                    "readout": row["readout"], "settings": settings, "seeds": len(one.rows),
                    "metric": row["metric"], **{role: format_mean(one, role) for role in ("val", "test")},
                    "selected": f"best on val of {n_competing} runs" if chosen else None,
                }
            )  # fmt: skip
    return lines


def differences(rows: Sequence[Row]) -> list[str]:
    """A line for each thing in which rows of a task do not stand on the same; none where all compare."""
    of_task = rows_by("task", rows).values()
    return [line for ours in of_task for line in Grounds(groups=seeds_together(ours)).sentences()]


class _Runner:
    """Trains passes one after the other and remembers what went wrong."""

    def __init__(
        self, folders: Folders, name: str, device: torch.device, progress: Progress, *, total: int
    ) -> None:
        self.folders, self.name, self.device, self.total = folders, name, device, total
        self.report = progress
        self.failures: list[Failure] = []
        self.skipped: list[Trial] = []
        self.notes: list[str] = []
        self.preloads = Preloads(device)
        self.done = 0
        """Steps of the sweep before the current pass."""

    def train(self, trials: Sequence[Trial]) -> None:
        """One pass; where it fails, without the runs that others hold, and then each run by itself."""
        problem = self._tried(trials)
        if problem is None:
            return
        held = [trial for trial in trials if trial.run.folder(self.folders.results_dir).is_held()]
        left = [trial for trial in trials if trial not in held and not self._rows(trial)]
        self.skipped += held
        if held and left:
            self.train(left)
        elif len(trials) > 1:
            for trial in left:
                self.train([trial])
        elif left and left[0] not in self.skipped:
            error = message_of(problem) or f"{type(problem).__name__}: {problem}"
            self.fail([left[0].cell.label], error, run=left[0].run.id)

    def score_test(self, trials: Sequence[Trial]) -> None:
        """Score test of runs that have ended."""
        ready, remarked = [], origins.Remarked(self.folders.manifest)
        for trial in trials:
            task = trial.run.task
            try:
                splits = open_splits(trial.cell, task, self.folders, test=True)
                stores = {role: split.store for role, split in splits.items()}
                extract = extract_command(
                    trial.cell.backbone, task.name, cache_dir=self.folders.cache_dir,
                    manifest=self.folders.manifest_file,
                )  # fmt: skip
                self.notes += remarked.new(stores, extract=extract)
            except StoreError as problem:
                self.fail([f"test of {trial.cell.label}"], str(problem), run=trial.run.id)
            else:
                ready.append(trial_of(trial.cell, task, splits, self.folders))
        for one in in_passes(ready, lambda trial: trial.run):
            self.train(one)

    def fail(self, labels: Sequence[str], error: str, run: str = "") -> None:
        """Record what did not work, in the sweep's folder as well."""
        for label in labels:
            self.failures.append(Failure(label=label, error=error, run=run))
            at = datetime.now(UTC).isoformat(timespec="seconds")
            line = json.dumps({"at": at, "run": run, "label": label, "error": error})
            append_line(sweep_folder(self.folders.results_dir, self.name) / "failures.jsonl", line)

    def rows(self, trials: Sequence[Trial]) -> list[dict[str, Any]]:
        """What is in the table of some runs."""
        return [row for trial in trials for row in self._rows(trial)]

    def busy(self) -> list[Trial]:
        """The runs that others held and have not ended since."""
        return [trial for trial in self.skipped if not self._rows(trial)]

    def _tried(self, trials: Sequence[Trial]) -> Exception | None:
        """What went wrong in a pass; whatever one run's failure is, the other runs go on."""
        try:
            train_together(
                [trial.run for trial in trials],
                results_dir=self.folders.results_dir,
                device=self.device,
                commands={trial.run.id: trial.command for trial in trials},
                sweep_name=self.name,
                preloads=self.preloads,
                progress=self._progress,
            )
        except Exception as problem:
            if isinstance(problem, torch.OutOfMemoryError):
                self.preloads.drop()
            # Its frames hold all heads of the pass, and what it lacked may have been memory.
            clear_frames(problem.__traceback__)
            return problem
        return None

    def _progress(self, what: str, done: int, total: int) -> None:
        self.report(what, done, total)
        if what == "training":
            self.report("steps of the sweep", min(self.done + done, self.total), self.total)

    def _rows(self, trial: Trial) -> list[dict[str, Any]]:
        # Rows that cannot be read are none, and the run that is tried for them fails and says why.
        try:
            return recorded(self.folders.results_dir, trial.run.id, tested_on=trial.run.tested_on)
        except StoreError:
            return []


def _selected(trials: Sequence[Trial], rows: Sequence[Row]) -> list[Trial]:
    """The runs of the configuration that is best on val, of each task and backbone."""
    best = {row["run"] for ours, _ in _competing(rows) for row in configurations(ours)[0].rows}
    return [trial for trial in trials if trial.run.id in best]


def _competing(rows: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row]]]:
    """The rows of each task and backbone, of which one configuration is the best; and all of the task."""
    for of_task in rows_by("task", rows).values():
        for ours in rows_by("backbone", of_task).values():
            yield ours, of_task


def _first(every: Sequence[Configuration]) -> list[Row]:
    """The rows that the first configuration was chosen from: those scored on the same val."""
    return [row for one in every for row in one.rows if one.rank == every[0].rank]
