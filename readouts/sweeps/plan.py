"""What a sweep would do: passes over the data, runs that are done, stores that are missing.

All of it is known before the first step: `scivid sweep --dry-run` prints the plan, `run_sweep` follows it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from featcache.errors import CallError, StoreError
from featcache.manifest import Manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, find_stores
from featcache.system.console import command_line, extract_command
from readouts.features.find import open_task_splits
from readouts.features.splits import FeatureSplit
from readouts.results.table import load_results, load_run
from readouts.sweeps.grid import EVERY_LAYER, Cell, Grid, expand, tasks_of
from readouts.tasks import load_task
from readouts.tasks.base import Task
from readouts.training.run import Run
from readouts.training.settings import configure, roles_of

TOGETHER = 16
"""Runs in one pass unless told otherwise: heads, gradients and moments of all of them are in memory."""

DEPTHS = "0.25,0.5,0.75,0.95"
"""Layers to extract where a store has too few for a curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where a sweep finds and keeps things."""

    cache_dir: Path
    results_dir: Path
    manifest: Manifest
    manifest_file: Path | None = None
    """As it was given, for the commands that repeat a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One run of a sweep, ready to be trained or fitted."""

    cell: Cell
    run: Run
    command: str
    """What repeats it by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingStore:
    """Runs that cannot be: why, and what would make their store."""

    task: str
    backbone: str
    cells: tuple[Cell, ...]
    problem: str
    command: str
    """Empty where extracting would not help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A sweep before it is run."""

    passes: tuple[tuple[Trial, ...], ...]
    """What is yet to be trained: each group shares one pass over the data."""
    recorded: tuple[Trial, ...]
    """What is in the results table already."""
    missing: tuple[MissingStore, ...]
    notes: tuple[str, ...]
    seconds: float
    """Of the passes whose like is in the results table."""
    n_unknown: int
    """Passes of which nothing is known yet."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All runs that have a store, done or not."""
        return (*self.recorded, *(trial for one in self.passes for trial in one))

    @property
    def n_runs(self) -> int:
        """Runs that are asked for, those without a store included."""
        return len(self.trials) + self.n_missing

    @property
    def n_missing(self) -> int:
        """Runs without a store."""
        return sum(len(one.cells) for one in self.missing)

    def rows(self) -> list[dict[str, object]]:
        """A row a pass, for `featcache.system.console.show_table`."""
        return [
            {
                "pass": number, "task": one[0].cell.task, "backbone": one[0].cell.backbone,
                "runs": len(one), "the first": one[0].cell.label,
            }
            for number, one in enumerate(self.passes, 1)
        ]  # fmt: skip

    def sentences(self) -> list[str]:
        """What the table does not say, a line each."""
        to_run, parts = sum(len(one) for one in self.passes), [f"{len(self.recorded)} in the table"]
        if self.n_missing:
            parts.append(f"{self.n_missing} without a store")
        took = f"about {self.seconds / 60:,.0f} minutes" if self.seconds else "nobody knows yet how long"
        unknown = f", besides {self.n_unknown} passes whose like never ran" if self.n_unknown else ""
        if to_run:
            parts.append(f"{to_run} to run in {len(self.passes)} passes ({took}{unknown})")
        lines = [f"{self.n_runs} runs: {', '.join(parts)}", *(f"note: {note}" for note in self.notes)]
        for one in self.missing:
            lines.append(f"{len(one.cells)} runs of {one.task}, {one.backbone}: {one.problem}")
            lines += [f"  {one.command}"] if one.command else []
        return lines


def plan_sweep(
    grids: Sequence[Grid], places: Places, *, together: int = TOGETHER, test: bool = False
) -> Plan:
    """What the runs of `grids` need, with at most `together` runs in one pass.

    Raises:
        CallError: as `expand`; or a setting whose value cannot be, which would fail for every store; or
            `test` is to be scored of a task that has none.
    """
    if together < 1:
        raise CallError(f"--together {together} must be at least 1.")
    tasks = {name: load_task(name, places.manifest) for name in tasks_of(grids)}
    for task in tasks.values():
        roles_of(task, places.manifest, test=test)
    asked = expand(grids, tasks)
    trials: dict[str, Trial] = {}
    missing, notes, n_alike = [], list(asked.notes), 0
    for cells in _grouped(asked.cells, lambda cell: (cell.task, cell.backbone, cell.fingerprint)):
        found, problems, remarks = _of_one_store(cells, tasks[cells[0].task], places)
        n_before = len(trials)
        for trial in found:
            trials.setdefault(trial.run.id, trial)
        n_alike += len(found) - (len(trials) - n_before)
        missing += problems
        notes += remarks
    if n_alike:
        notes.append(f"{n_alike} runs are the same as others in all that decides them: each is run once")
    recorded = tuple(trial for trial in trials.values() if load_run(places.results_dir, trial.run.id))
    done = {trial.run.id for trial in recorded}
    passes = _passes([trial for trial in trials.values() if trial.run.id not in done], together)
    seconds, n_unknown = _estimate(passes, places.results_dir)
    return Plan(
        passes=passes, recorded=recorded, missing=tuple(missing), notes=tuple(dict.fromkeys(notes)),
        seconds=seconds, n_unknown=n_unknown,
    )  # fmt: skip


def trial_of(cell: Cell, task: Task, splits: Mapping[str, FeatureSplit], places: Places) -> Trial:
    """The run of a cell on open stores.

    Raises:
        CallError: a setting has a value that cannot be.
    """
    train = splits["train"]
    options: dict[str, Any] = {
        "backbone": cell.backbone, "task": cell.task, "layer": train.layer.name,
        "fingerprint": train.store.fingerprint[:12], "seed": cell.seed, "readout": cell.readout,
    }  # fmt: skip
    where = {
        "test": "test" in splits, "cache_dir": places.cache_dir, "results_dir": places.results_dir,
        "manifest": places.manifest_file,
    }  # fmt: skip
    run = configure(task, splits, readouts=[cell.readout], settings=cell.settings, seed=cell.seed)
    if run.is_trained:
        command = command_line("train-readout", **options, set=list(cell.settings), **where)
    else:
        grid = " ".join([*(f"{name}={value}" for name, value in options.items()), *cell.settings])
        command = command_line("sweep", grid=grid, **where)
    return Trial(cell=cell, run=run, command=command)


def open_splits(cell: Cell, task: Task, places: Places, *, test: bool = False) -> dict[str, FeatureSplit]:
    """The stores of a cell whose layer is settled.

    Raises:
        StoreError, CallError: as `open_task_splits`.
    """
    return open_task_splits(
        places.cache_dir,
        task.name,
        cell.backbone,
        roles=roles_of(task, places.manifest, test=test),
        layer=cell.layer,
        fingerprint=cell.fingerprint,
        extract="",  # one command for all cells of a store is told beside
    )


def store_command(cells: Sequence[Cell], task: Task, places: Places) -> str:
    """The call that makes the store which all of these cells of one backbone can share."""
    layers, every, views = _needs(cells)
    backbone, entry = cells[0].backbone, places.manifest.tasks.get(task.name)
    # Of clips with several starts all are stored, each a view.
    counted = entry is None or entry.starts is None
    return extract_command(
        backbone,
        task.name,
        layers=DEPTHS if every else ",".join(sorted(layers)) or None,
        views=views if views > 1 and counted else None,
        cache_dir=places.cache_dir,
        manifest=places.manifest_file,
    )


def _of_one_store(
    cells: Sequence[Cell], task: Task, places: Places
) -> tuple[list[Trial], list[MissingStore], list[str]]:
    """Runs, runs without a store, and remarks of the cells that name one backbone for one task."""
    command, remarks = store_command(cells, task, places), []
    try:
        chosen = _choose(cells, task, places)
    except StoreError as problem:
        several = len(find_stores(places.cache_dir, task.name, "train", cells[0].backbone)) > 1
        return [], [_missing(cells, problem, "" if several else command)], []
    if any(cell.layer == EVERY_LAYER for cell in cells) and len(chosen.spec.layers) == 1:
        remarks.append(f"{chosen.path} holds one layer: for a curve over depth make more with `{command}`")
    trials, problems = [], []
    for of_layer in _grouped(_settled(cells, chosen), lambda cell: (cell.layer,)):
        try:
            splits = open_splits(of_layer[0], task, places)
        except StoreError as problem:
            problems.append(_missing(of_layer, problem, command))
            continue
        refused = [
            cell for cell in of_layer if int(cell.setting("train_views") or 0) > splits["train"].n_views
        ]
        if refused:
            views = StoreError(f"{chosen.path} holds {splits['train'].n_views} views of a clip, too few.")
            problems.append(_missing(refused, views, command))
        trials += [trial_of(cell, task, splits, places) for cell in of_layer if cell not in refused]
    return trials, problems, remarks


def _choose(cells: Sequence[Cell], task: Task, places: Places) -> FeatureStore:
    """The training store of some cells: the one that holds every layer and view that they ask for.

    Raises:
        StoreError: there is none, or several would do; says which.
    """
    layers, every, views = _needs(cells)
    prefix = cells[0].fingerprint or ""
    found = [
        store
        for store in find_stores(places.cache_dir, task.name, "train", cells[0].backbone)
        if store.complete and store.fingerprint.startswith(prefix)
    ]
    fitting = [
        store
        for store in found
        if layers <= {layer.name for layer in store.spec.layers} and store.spec.n_views >= views
    ]
    if every and fitting:
        most = max(len(store.spec.layers) for store in fitting)
        fitting = [store for store in fitting if len(store.spec.layers) == most]
    if len(fitting) == 1 or (len(found) == 1 and not fitting):
        # A store that lacks some of the layers still serves the runs that ask for the others.
        return (fitting or found)[0]
    # None or several: the message that names them is that of opening one.
    layer = None if every or not layers else min(layers)
    return open_splits(replace(cells[0], layer=layer), task, places)["train"].store


def _needs(cells: Sequence[Cell]) -> tuple[set[str], bool, int]:
    """Layers asked for by name, whether all are asked for, and the most views."""
    named = {cell.layer for cell in cells} - {None, EVERY_LAYER}
    views = [_whole("train_views", cell.setting("train_views") or "0") for cell in cells]
    every = any(cell.layer == EVERY_LAYER for cell in cells)
    return {Layer.parse(str(name)).name for name in named}, every, max(views)


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise CallError(f"{name}={text} is not a whole number.") from None


def _settled(cells: Sequence[Cell], store: FeatureStore) -> list[Cell]:
    """The cells on the layers and under the fingerprint of the store that was found for them."""
    every = [layer.name for layer in store.spec.layers]
    return [
        replace(cell, layer=layer, fingerprint=store.fingerprint)
        for cell in cells
        for layer in (every if cell.layer == EVERY_LAYER else [cell.layer])
    ]


def _missing(cells: Sequence[Cell], problem: StoreError, command: str) -> MissingStore:
    return MissingStore(
        task=cells[0].task, backbone=cells[0].backbone, cells=tuple(cells), problem=str(problem),
        command=command,
    )  # fmt: skip


def _passes(trials: Sequence[Trial], together: int) -> tuple[tuple[Trial, ...], ...]:
    """At most `together` runs that draw the same batches, in passes of about the same size."""
    passes: list[tuple[Trial, ...]] = []
    for group in _grouped(trials, lambda trial: (trial.run.pass_key,)):
        n = -(-len(group) // together)
        passes += [tuple(group[i * len(group) // n : (i + 1) * len(group) // n]) for i in range(n)]
    return tuple(passes)


def _estimate(passes: Sequence[Sequence[Trial]], results_dir: Path) -> tuple[float, int]:
    """Seconds of the passes whose every run has its like in the table, and the number of the others."""
    shares: dict[tuple[str, str, str], list[float]] = {}
    for row in load_results(results_dir):
        if row["seconds"] is not None:
            share = row["seconds"] / max(1, row["steps"]) / (row["together"] or 1)
            shares.setdefault((row["task"], row["backbone"], row["readout"]), []).append(share)
    seconds, n_unknown = 0.0, 0
    for one in passes:
        known = [shares.get((t.run.task.name, t.cell.backbone, t.cell.readout)) for t in one]
        found = [median(of) * max(1, one[0].run.n_steps) for of in known if of]
        seconds += sum(found) if len(found) == len(one) else 0.0
        n_unknown += len(found) < len(one)
    return seconds, n_unknown


def _grouped(items: Iterable[Any], key: Any) -> list[list[Any]]:
    """Items with equal keys together, groups and items in the order in which they came."""
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())
