"""What a sweep would do: passes over the data, runs that are done, stores that are missing.

All of it is known before the first step: `scivid sweep --dry-run` prints the plan, `run_sweep` follows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featcache.errors import CallError, StoreError, WeightsError
from featcache.manifest import Manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, find_stores
from featcache.system.console import command_line, extract_command, silent
from readouts.features import origins
from readouts.features.find import open_task_splits
from readouts.features.splits import BESIDE, EVERY_LAYER, FeatureSplit
from readouts.heads import LAYER_HEADS
from readouts.results.configurations import grouped
from readouts.results.table import readable_results
from readouts.sweeps.estimate import estimate
from readouts.sweeps.grid import Cell, Grid, expand, tasks_of
from readouts.tasks import load_task
from readouts.tasks.base import Task, parse_number
from readouts.training.run import Run, in_passes
from readouts.training.settings import configure, roles_of
from readouts.tuning.opening import Asked, open_tuned_splits, tuning_on

TOGETHER = 16
"""Runs in one pass unless told otherwise: heads, gradients and moments of all of them are in memory."""

DEPTHS = "0.25,0.5,0.75,0.95"
"""Layers to extract where a store has too few for a curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where a sweep finds stores and tasks, and keeps results."""

    cache_dir: Path
    results_dir: Path
    manifest: Manifest
    manifest_file: Path | None = None
    """As it was given, for the commands that repeat a run."""
    weights_dir: Path | None = None
    """Of backbones that are tuned."""
    data_dir: Path = Path()
    """Of the pixels of those that are tuned whole."""


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

    cells: tuple[Cell, ...]
    """All of one task and backbone."""
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
    """What the passes will take whose like is in the results table."""
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
        """The number of runs without a store."""
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
            first = one.cells[0]
            lines.append(f"{len(one.cells)} runs of {first.task}, {first.backbone}: {one.problem}")
            lines += [f"  {one.command}"] if one.command else []
        return lines


def plan_sweep(
    grids: Sequence[Grid], folders: Folders, *, together: int = TOGETHER, test: bool = False
) -> Plan:
    """What the runs of `grids` need, with at most `together` runs in one pass.

    Raises:
        CallError: as `expand`; or a setting whose value cannot be, which would fail for every store; or
            `test` is to be scored of a task that has none.
    """
    if together < 1:
        raise CallError(f"--together {together} must be at least 1.")
    tasks = {name: load_task(name, folders.manifest) for name in tasks_of(grids)}
    for task in tasks.values():
        roles_of(task, folders.manifest, test=test)
    asked = expand(grids, tasks)
    trials: dict[str, Trial] = {}
    missing, notes, n_alike = [], list(asked.notes), 0
    by_store = grouped(
        asked.cells, lambda cell: (cell.task, cell.backbone, cell.fingerprint, cell.tune is not None)
    )
    for cells in by_store.values():
        found, problems, remarks = _of_one_store(cells, tasks[cells[0].task], folders)
        n_before = len(trials)
        for trial in found:
            trials.setdefault(trial.run.id, trial)
        n_alike += len(found) - (len(trials) - n_before)
        missing += problems
        notes += remarks
    if n_alike:
        notes.append(f"{n_alike} runs are the same as others in all that decides them: each is run once")
    # A run whose rows are damaged is tried, and says so: no reason for the others not to run.
    rows, _ = readable_results(folders.results_dir)
    done = {str(row["run"]) for row in rows}
    recorded = tuple(trial for trial in trials.values() if trial.run.id in done)
    passes = _passes([trial for trial in trials.values() if trial.run.id not in done], together)
    seconds, n_unknown = estimate([[trial.run for trial in one] for one in passes], rows)
    return Plan(
        passes=passes, recorded=recorded, missing=tuple(missing), notes=tuple(dict.fromkeys(notes)),
        seconds=seconds, n_unknown=n_unknown,
    )  # fmt: skip


def trial_of(cell: Cell, task: Task, splits: Mapping[str, FeatureSplit], folders: Folders) -> Trial:
    """The run of a cell on open stores.

    Raises:
        CallError: a setting has a value that cannot be.
    """
    train, wish, asked = splits["train"], cell.wish, _asked(cell, task, folders)
    tuning = None if wish is None else tuning_on(splits, asked, folders.manifest, wish, silent)
    options: dict[str, Any] = {
        "backbone": cell.backbone, "task": cell.task,
        "layer": train.layer_name if tuning is None else tuning.layer.name,
        "fingerprint": train.store.fingerprint[:12], "seed": cell.seed, "readout": cell.readout,
        **({} if wish is None else asked.options_with(wish)),
    }  # fmt: skip
    where = {
        "test": "test" in splits, "cache_dir": folders.cache_dir, "results_dir": folders.results_dir,
        "manifest": folders.manifest_file,
    }  # fmt: skip
    run = configure(
        task, splits, readouts=[cell.readout], settings=cell.settings, seed=cell.seed, tuning=tuning
    )
    if run.is_trained:
        command = command_line("train-readout", **options, set=list(cell.settings), **where)
    else:
        grid = " ".join([*(f"{name}={value}" for name, value in options.items()), *cell.settings])
        command = command_line("sweep", grid=grid, **where)
    return Trial(cell=cell, run=run, command=command)


def open_splits(cell: Cell, task: Task, folders: Folders, *, test: bool = False) -> dict[str, FeatureSplit]:
    """The stores of a cell whose layer is settled.

    Raises:
        StoreError, CallError: as `open_task_splits`.
        WeightsError: a backbone is to be tuned and its weights are missing, or not the store's.
    """
    if (wish := cell.wish) is not None:
        return open_tuned_splits(_asked(cell, task, folders, test=test), task, wish)
    return open_task_splits(
        folders.cache_dir,
        task.name,
        cell.backbone,
        roles=roles_of(task, folders.manifest, test=test),
        layer=cell.layer,
        fingerprint=cell.fingerprint,
        extract="",  # one command for all cells of a store is told beside
    )


def _asked(cell: Cell, task: Task, folders: Folders, *, test: bool = False) -> Asked:
    """The stores that a cell names which tunes its backbone."""
    where = {"cache_dir": folders.cache_dir, "manifest": folders.manifest_file}
    return Asked(
        backbone=cell.backbone, layer=cell.layer, fingerprint=cell.fingerprint,
        roles=roles_of(task, folders.manifest, test=test), cache_dir=folders.cache_dir,
        weights_dir=folders.weights_dir, data_dir=folders.data_dir,
        extract=extract_command(cell.backbone, task.name, **where),
    )  # fmt: skip


def _of_tuned(
    cells: Sequence[Cell], task: Task, folders: Folders
) -> tuple[list[Trial], list[MissingStore], list[str]]:
    """As `_of_one_store`, of cells that tune their backbone: each depth begins at a layer of its own."""
    trials, problems = list[Trial](), list[MissingStore]()
    for alike in grouped(cells, lambda cell: (cell.layer, cell.tune)).values():
        if alike[0].layer == EVERY_LAYER:
            raise CallError("layer=all: name the layers that readouts see where a backbone is tuned.")
        try:
            splits = open_splits(alike[0], task, folders)
        except (StoreError, WeightsError) as problem:
            problems.append(MissingStore(cells=tuple(alike), problem=str(problem), command=""))
        else:
            trials += [trial_of(cell, task, splits, folders) for cell in alike]
    return trials, problems, []


def _of_one_store(
    cells: Sequence[Cell], task: Task, folders: Folders
) -> tuple[list[Trial], list[MissingStore], list[str]]:
    """Runs, runs without a store, and remarks of the cells that name one backbone for one task."""
    if cells[0].tune is not None:
        return _of_tuned(cells, task, folders)
    needs = _Needs.of(cells)
    command, remarks = _extract_command(cells[0], needs, task, folders), []
    # A grid that tunes names the file that defines a model; stores have the model's own name.
    name = _asked(cells[0], task, folders).store_name
    cells = [replace(cell, backbone=name) for cell in cells]
    found = find_stores(folders.cache_dir, task.name, "train", cells[0].backbone)
    try:
        chosen = _choose(found, cells[0], needs, task, folders)
    except StoreError as problem:
        # Where several would do, making another would not help.
        way_out = "" if len(found) > 1 else command
        return [], [MissingStore(cells=tuple(cells), problem=str(problem), command=way_out)], []
    layers = [layer.name for layer in chosen.spec.layers]
    if needs.every_layer and len(layers) == 1:
        remarks.append(f"{chosen.path} holds one layer: for a curve over depth make more with `{command}`")
        if any(cell.readout in LAYER_HEADS for cell in cells):
            remarks.append(f"{chosen.path} holds one layer: readouts of several are left out")
    settled = [
        replace(cell, layer=layer, fingerprint=chosen.fingerprint)
        for cell in cells
        for layer in cell.layers_on(layers)
    ]
    trials, problems, remarked = [], [], origins.Remarked(folders.manifest)
    for of_layer in grouped(settled, lambda cell: cell.layer).values():
        try:
            splits = open_splits(of_layer[0], task, folders)
        except StoreError as problem:
            problems.append(MissingStore(cells=tuple(of_layer), problem=str(problem), command=command))
            continue
        stores = {role: split.store for role, split in splits.items()}
        try:
            remarks += remarked.new(stores, extract=command)
        except StoreError as problem:
            problems.append(MissingStore(cells=tuple(of_layer), problem=str(problem), command=command))
            continue
        n_views = splits["train"].n_views
        refused = [cell for cell in of_layer if _views_of(cell) > n_views]
        if refused:
            views = f"{chosen.path} holds {n_views} views of a clip, too few."
            problems.append(MissingStore(cells=tuple(refused), problem=views, command=command))
        trials += [trial_of(cell, task, splits, folders) for cell in of_layer if cell not in refused]
    return trials, problems, remarks


@dataclass(frozen=True, kw_only=True, slots=True)
class _Needs:
    """What a training store must hold to serve some cells."""

    layers: frozenset[str]
    """Those asked for by name."""
    every_layer: bool
    n_views: int

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> "_Needs":
        return cls(
            layers=frozenset(
                Layer.parse(name).name
                for cell in cells
                if cell.layer not in (None, EVERY_LAYER)
                for name in str(cell.layer).split(BESIDE)
            ),
            every_layer=any(cell.layer == EVERY_LAYER for cell in cells),
            n_views=max(_views_of(cell) for cell in cells),
        )


def _views_of(cell: Cell) -> int:
    text = cell.setting("train_views") or "0"
    return int(parse_number(f"train_views={text}", text, 0))


def _extract_command(cell: Cell, needs: _Needs, task: Task, folders: Folders) -> str:
    """The call that makes a store which serves all cells of one backbone."""
    entry = folders.manifest.tasks.get(task.name)
    # Of clips with several starts all are stored, each a view.
    counted = entry is None or entry.starts is None
    return extract_command(
        cell.backbone,
        task.name,
        layers=DEPTHS if needs.every_layer else ",".join(sorted(needs.layers)) or None,
        views=needs.n_views if needs.n_views > 1 and counted else None,
        cache_dir=folders.cache_dir,
        manifest=folders.manifest_file,
    )


def _choose(
    stores: Sequence[FeatureStore], cell: Cell, needs: _Needs, task: Task, folders: Folders
) -> FeatureStore:
    """The one of a backbone's training stores that holds every layer and view that its cells ask for.

    Raises:
        StoreError: there is none, or several would do; says which.
    """
    prefix = cell.fingerprint or ""
    found = [store for store in stores if store.complete and store.fingerprint.startswith(prefix)]
    fitting = [
        store
        for store in found
        if needs.layers <= {layer.name for layer in store.spec.layers} and store.spec.n_views >= needs.n_views
    ]
    if needs.every_layer and fitting:
        most = max(len(store.spec.layers) for store in fitting)
        fitting = [store for store in fitting if len(store.spec.layers) == most]
    # A store that lacks some of the layers still serves the runs that ask for the others.
    serving = fitting or (found if len(found) == 1 else [])
    if len(serving) == 1:
        return serving[0]
    # None or several: the message that names them is that of opening one.
    layer = None if needs.every_layer else min(needs.layers, default=None)
    return open_splits(replace(cell, layer=layer), task, folders)["train"].store


def _passes(trials: Sequence[Trial], together: int) -> tuple[tuple[Trial, ...], ...]:
    """At most `together` runs that draw the same batches, in passes of about the same size."""
    passes: list[tuple[Trial, ...]] = []
    for group in in_passes(trials, lambda trial: trial.run):
        n = -(-len(group) // together)
        passes += [tuple(group[i * len(group) // n : (i + 1) * len(group) // n]) for i in range(n)]
    return tuple(passes)
