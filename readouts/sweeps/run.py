"""Run a planned sweep, pass by pass, and say what came of it.

What a sweep has done is in the results table, the runs' folders and `sweeps/NAME`, nowhere else: a killed one
that is started again finds its finished runs in the table and the others at their last checkpoints. A run
that fails takes nothing with it: its companions are trained again without it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from featcache.errors import CallError, DamagedFileError, StoreError
from featcache.system.cluster.client import Cluster
from featcache.system.console import Progress, extract_command, silent
from featcache.system.files import append_line, make_directory, publish, read_regular
from featcache.system.sealed import json_sealed, json_unsealed
from readouts.features import origins
from readouts.results.comparability import Grounds, Row, kind_of, seeds_together
from readouts.results.configurations import Configuration, configurations, grouped, rows_by
from readouts.results.formatting import format_mean
from readouts.sweeps.grid import Grid
from readouts.sweeps.passes import Failure, Passed, SweepSteps, rows_of, train_here
from readouts.sweeps.plan import Folders, Plan, Trial, open_splits, trial_of
from readouts.sweeps.remote import train_on_workers
from readouts.training.run import in_passes

FILE = "sweep.json"
"""What a sweep was asked for, sealed."""

LARGEST = 2**28
"""Bytes of it."""


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
    cluster: Cluster | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Train what the plan says and return all of its rows; what fails is recorded, and the rest goes on.

    Args:
        plan: of `plan_sweep`.
        folders: those of the plan.
        name: of the folder `sweeps/NAME` and of the table's column `sweep`.
        device: to train on; of a cluster, what each of its workers has.
        test: score test too, of the configuration that is best on val for each task and backbone.
        about: what is kept in `sweeps/NAME/sweep.json` beside the ids of the runs.
        cluster: whose workers each train whole passes; None: they are trained here, one after the other.
        progress: told of every pass, and in steps of the whole sweep.

    Raises:
        CallError: `name` cannot be a folder's.
        ClusterError: the cluster's workers are gone, or differ from this machine.
    """
    folder = sweep_folder(folders.results_dir, name)
    make_directory(folder)
    ids = [trial.run.id for trial in plan.trials]
    publish(folder / FILE, json_sealed({"name": name, **(about or {}), "runs": ids}, sort_keys=False))
    record = _Record(folder, folders)
    for missing in plan.missing:
        way_out = f" Make it with `{missing.command}`." if missing.command else ""
        for cell in missing.cells:
            record.fail(Failure(label=cell.label, error=f"{missing.problem}{way_out}"))
    steps = SweepSteps(plan.passes, progress)
    common: dict[str, Any] = {"folders": folders, "name": name, "device": device, "steps": steps}
    if cluster is not None:
        common["cluster"] = cluster
    train: Callable[..., Iterator[Passed]] = train_here if cluster is None else train_on_workers
    record.add(train(plan.passes, **common))
    tested: list[list[Trial]] = []
    if test:
        best = _selected(plan.trials, rows_of(plan.trials, folders))
        tested = _to_be_tested(best, folders, record)
        record.add(train(tested, **common))
    return Outcome(
        rows=rows_of(plan.trials, folders),
        failures=record.failures,
        busy=record.busy([*plan.trials, *chain.from_iterable(tested)]),
        notes=list(dict.fromkeys(record.notes)),
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


def add_to_record(results_dir: Path, name: str, more: Mapping[str, Any]) -> None:
    """Write what else was found into `sweeps/NAME/sweep.json` of a sweep that was run."""
    file = sweep_folder(results_dir, name) / FILE
    about, _ = json_unsealed(read_regular(file, limit=LARGEST))
    publish(file, json_sealed({**about, **more}, sort_keys=False))


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

    The best of each task and backbone is marked with the number of runs that it was selected from. Frozen and
    tuned backbones are ranked apart.
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
                    "task": row["task"], "backbone": row["backbone"], "readout": row["readout"],
                    "settings": settings, **{role: format_mean(one, role) for role in ("val", "test")},
                    "seeds": len(one.rows), "layer": row["layer"], "metric": row["metric"],
                    "selected": f"best on val of {n_competing} runs" if chosen else None,
                }
            )  # fmt: skip
    return lines


def differences(rows: Sequence[Row]) -> list[str]:
    """A line for each thing in which rows of a task do not stand on the same; none where all compare."""
    of_task = rows_by("task", rows).values()
    lines = [line for ours in of_task for line in Grounds(groups=seeds_together(ours)).sentences()]
    if len({kind_of(row) for row in rows}) > 1:
        lines.append(
            "Some rows are of frozen backbones, some of tuned ones: each kind has a ranking, and a best, of "
            "its own. Whether tuning pays is told by `scivid compare` of the two best."
        )
    return lines


class _Record:
    """What became of a sweep's passes, beside the rows of the table."""

    def __init__(self, folder: Path, folders: Folders) -> None:
        self.folder, self.folders = folder, folders
        self.failures: list[Failure] = []
        self.held: set[str] = set()
        """Ids of runs that other processes held."""
        self.notes: list[str] = []

    def add(self, passes: Iterable[Passed]) -> None:
        """Take what passes say as they end."""
        for passed in passes:
            self.held.update(passed.held)
            for failure in passed.failures:
                self.fail(failure)

    def fail(self, failure: Failure) -> None:
        """Record what did not work, in the sweep's folder as well."""
        self.failures.append(failure)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"at": at, "run": failure.run, "label": failure.label, "error": failure.error}
        append_line(self.folder / "failures.jsonl", json.dumps(line))

    def busy(self, trials: Sequence[Trial]) -> list[str]:
        """Labels of the runs that others held and have not ended since."""
        held = [trial for trial in trials if trial.run.id in self.held]
        return [trial.cell.label for trial in held if not rows_of([trial], self.folders)]


def _to_be_tested(trials: Sequence[Trial], folders: Folders, record: _Record) -> list[list[Trial]]:
    """Passes that score test, of runs that have ended."""
    ready, remarked = [], origins.Remarked(folders.manifest)
    for trial in trials:
        task = trial.run.task
        try:
            splits = open_splits(trial.cell, task, folders, test=True)
            stores = {role: split.store for role, split in splits.items()}
            extract = extract_command(
                trial.cell.backbone, task.name, cache_dir=folders.cache_dir, manifest=folders.manifest_file
            )
            record.notes += remarked.new(stores, extract=extract)
        except StoreError as problem:
            label = f"test of {trial.cell.label}"
            record.fail(Failure(label=label, error=str(problem), run=trial.run.id))
        else:
            ready.append(trial_of(trial.cell, task, splits, folders))
    return in_passes(ready, lambda trial: trial.run)


def _selected(trials: Sequence[Trial], rows: Sequence[Row]) -> list[Trial]:
    """The runs of the configuration that is best on val, of each task and backbone."""
    best = {row["run"] for ours, _ in _competing(rows) for row in configurations(ours)[0].rows}
    return [trial for trial in trials if trial.run.id in best]


def _competing(rows: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row]]]:
    """The rows of which one configuration is the best, and all of their task.

    They are of one task and backbone, frozen or tuned.
    """
    for of_task in rows_by("task", rows).values():
        for of_backbone in rows_by("backbone", of_task).values():
            for ours in grouped(of_backbone, kind_of).values():
                yield ours, of_task


def _first(every: Sequence[Configuration]) -> list[Row]:
    """The rows that the first configuration was chosen from: those scored on the same val."""
    return [row for one in every for row in one.rows if one.rank == every[0].rank]
