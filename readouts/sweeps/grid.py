"""A grid in the user's words: names with their values in, the runs that they ask for out.

Which readouts and settings go together is settled here, before a store is opened: a setting that a readout
does not have must neither multiply its runs nor be refused because another readout of the grid has it.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from featcache.errors import CallError, did_you_mean
from featcache.system.files import read_regular
from readouts.features.splits import BESIDE, EVERY_LAYER
from readouts.heads import LAYER_HEADS
from readouts.tasks.base import Task, parse_number
from readouts.training.probes import PROBES
from readouts.training.settings import OPTIONS, READOUTS, readouts_of, recipe_names, settings_for
from readouts.tuning.wish import Wish, parse_wish

MOST_BYTES = 2**20
"""Of a file of grids."""

FROZEN = "frozen"
"""The value of `tune` that trains nothing of the backbone."""

Grid = Mapping[str, tuple[str, ...]]
"""Name -> values, as they were written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run of a grid, in the words of the command line."""

    task: str
    """What `--task` is given."""
    backbone: str
    readout: str
    layer: str | None = None
    """None where the store holds one; `all` until the store is known: one by one, or of a readout that reads
    several all at once. `3+6` are two of them."""
    fingerprint: str | None = None
    seed: int = 0
    tune: str | None = None
    """As `--tune`; None of a frozen backbone."""
    backbone_lr: float | None = None
    settings: tuple[str, ...] = ()
    """Such as `lr=1e-4`: those that the readout has."""

    @property
    def label(self) -> str:
        """The name that messages have for it."""
        layer = [] if self.layer is None else [f"layer {self.layer}"]
        tuned = [] if self.tune is None else [f"tune={self.tune}"]
        tuned += [] if self.backbone_lr is None else [f"backbone_lr={self.backbone_lr:g}"]
        words = [self.task, self.backbone, self.readout, *layer, *tuned, *self.settings, f"seed {self.seed}"]
        return " ".join(words)

    @property
    def wish(self) -> Wish | None:
        """What is trained of the backbone; None where it is frozen."""
        return parse_wish(self.tune, backbone_lr=self.backbone_lr)

    def layers_on(self, held: Sequence[str]) -> list[str | None]:
        """The layer of each of its runs on a store of these layers; of `all` a run each, or one of all."""
        if self.layer != EVERY_LAYER:
            return [self.layer]
        if self.readout in LAYER_HEADS:
            return [BESIDE.join(held)] if len(held) > 1 else []
        return [*held]

    def setting(self, name: str) -> str | None:
        """The value of a setting, None where the grid leaves it alone."""
        return dict(text.split("=", 1) for text in self.settings).get(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expansion:
    """What a grid asks for."""

    cells: tuple[Cell, ...]
    """The runs, each once."""
    notes: tuple[str, ...]
    """What was skipped or merged, and why."""


def parse_grid(text: str) -> Grid:
    """The grid in `name=value,value name=value ...`.

    Raises:
        CallError: not of this form, a name twice, or a name without a value.
    """
    try:
        words = shlex.split(text)
    except ValueError as problem:
        raise CallError(f"--grid {text!r}: {problem}: close every quote that is opened.") from None
    grid: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, given, values = word.partition("=")
        if not given:
            raise CallError(f"--grid: {word!r} is not name=value,value: write for example seed=0,1,2.")
        if name in grid:
            raise CallError(f"--grid: {name} is there twice: write {name}={','.join(grid[name])},{values}.")
        grid[name] = _checked(name, [value.strip() for value in values.split(",")], "--grid")
    if not grid:
        raise CallError("--grid is empty: write name=value,value, for example task=flyvsfly backbone=resize.")
    return grid


def read_grids(path: Path) -> list[Grid]:
    """The grids of a YAML file: a mapping of names to a value or a list of them, or a list of such mappings.

    Raises:
        CallError: the file is missing, not YAML, or not of this form.
    """
    try:
        content = yaml.safe_load(read_regular(path, limit=MOST_BYTES).decode("utf-8-sig"))
    except OSError as problem:
        raise CallError(f"{path} cannot be read ({problem.strerror}): give a file of grids.") from None
    # A date that is none, and nesting without end, are no errors of YAML's own.
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise CallError(f"{path} is not YAML in UTF-8: {problem}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) and entry for entry in entries):
        raise CallError(f"{path}: expected a mapping of names to values, or a list of such mappings.")
    return [
        {str(name): _checked(str(name), _listed(values), str(path)) for name, values in entry.items()}
        for entry in entries
    ]


def expand(grids: Sequence[Grid], tasks: Mapping[str, Task]) -> Expansion:
    """The runs of all grids, each once, by task, backbone and layer so that neighbours share a store.

    Args:
        grids: a run that several ask for is one.
        tasks: by what `task` is given in the grids.

    Raises:
        CallError: an unknown name or readout (says what is near), no task or backbone, a seed that is no
            number, or a readout that fits none of its grid's tasks.
    """
    notes: dict[str, None] = {}
    cells: list[Cell] = []
    for grid in grids:
        _check_names(grid, tasks)
        cells += _cells(grid, tasks, notes)
    unique = dict.fromkeys(cells)
    if len(unique) < len(cells):
        notes[f"{len(cells) - len(unique)} runs are asked for more than once: each is run once"] = None
    return Expansion(cells=tuple(unique), notes=tuple(notes))


def tasks_of(grids: Sequence[Grid]) -> list[str]:
    """The tasks that grids name, each once."""
    return list(dict.fromkeys(name for grid in grids for name in grid.get("task", ())))


def _cells(grid: Grid, tasks: Mapping[str, Task], notes: dict[str, None]) -> Iterator[Cell]:
    for task in grid["task"]:
        for readout in _readouts(grid, task, tasks, notes):
            has = _settings(tasks[task], readout)
            for name in grid:
                if name not in OPTIONS and name not in has:
                    notes[f"{readout} has no {name}: it is run once for all values of {name}"] = None
            settings = [[f"{name}={value}" for value in grid[name]] for name in grid if name in has]
            for backbone, layer, fingerprint, seed, *chosen in product(
                grid["backbone"],
                grid.get("layer", (None,)),
                grid.get("fingerprint", (None,)),
                _seeds(grid, readout, notes),
                *settings,
            ):
                for tune, rate in _tuned(grid, readout, notes):
                    yield Cell(
                        task=task, backbone=str(backbone), readout=readout, layer=layer,
                        fingerprint=fingerprint, seed=parse_number(f"seed={seed}", str(seed), 0),
                        tune=tune, backbone_lr=rate, settings=tuple(map(str, chosen)),
                    )  # fmt: skip


def _seeds(grid: Grid, readout: str, notes: dict[str, None]) -> tuple[str, ...]:
    """Those of the grid; of a probe 0, as it is fitted and no seed changes what it finds."""
    seeds = grid.get("seed", ("0",))
    if readout in PROBES and seeds != ("0",):
        notes[f"{readout} is fitted, and the same for every seed: it is run once, for seed 0"] = None
        return ("0",)
    return seeds


def _tuned(grid: Grid, readout: str, notes: dict[str, None]) -> list[tuple[str | None, float | None]]:
    """What is tuned of a backbone and its rate; of a frozen one, or under a probe, no rate at all."""
    rates = [parse_number(f"backbone_lr={text}", text, 0.0) for text in grid.get("backbone_lr", ())]
    asked = [None if text == FROZEN else text for text in grid.get("tune", (FROZEN,))]
    if readout in PROBES and any(asked):
        notes[f"{readout} is fitted to a frozen backbone alone: left out where one is tuned"] = None
        asked = [None] * (None in asked)
    if rates and not any(asked) and readout not in PROBES:
        raise CallError("backbone_lr in a grid goes with tune: add tune=1,2 or tune=all.")
    found: list[tuple[str | None, float | None]] = []
    for text in asked:
        # A value that cannot be is refused here, not store by store.
        parse_wish(text)
        found += [(text, rate) for rate in (rates or [None])] if text else [(None, None)]
    return found


def _readouts(grid: Grid, task: str, tasks: Mapping[str, Task], notes: dict[str, None]) -> list[str]:
    """Those of the grid's readouts that answer a task; the task's own where the grid names none."""
    if "readout" not in grid:
        return list(tasks[task].readouts)
    fitting = {other: readouts_of(tasks[other]) for other in grid["task"]}
    for readout in grid["readout"]:
        if not any(readout in of for of in fitting.values()):
            raise CallError(
                f"readout={readout} does not fit {' or '.join(grid['task'])}: for {task} there are "
                f"{', '.join(fitting[task])}."
            )
        if readout not in fitting[task]:
            notes[f"{readout} does not fit {task}: left out there"] = None
    return [readout for readout in grid["readout"] if readout in fitting[task]]


def _check_names(grid: Grid, tasks: Mapping[str, Task]) -> None:
    for name in ("task", "backbone"):
        if name not in grid:
            raise CallError(f"the grid names no {name}: add {name}=..., one or several with commas.")
    settings = {name for task in grid["task"] for kind in READOUTS for name in _settings(tasks[task], kind)}
    names = [("a grid has no", name, [*OPTIONS, *sorted(settings)]) for name in grid]
    names += [("no readout is called", readout, [*READOUTS]) for readout in grid.get("readout", ())]
    for refusal, name, known in names:
        if name not in known:
            listed = f"known are {', '.join(known)}.{did_you_mean(name, known)}"
            raise CallError(f"{refusal} {name!r}: {listed}")


def _settings(task: Task, readout: str) -> set[str]:
    """All that can be set of a readout, of the recipe and of its own."""
    return {*recipe_names(readout), *settings_for(task, readout)}


def _checked(name: str, values: Sequence[str], origin: str) -> tuple[str, ...]:
    if not name or not values or not all(values):
        raise CallError(
            f"{origin}: {name or 'a name'} has an empty value: write {name or 'name'}=value,value."
        )
    return tuple(dict.fromkeys(values))


def _listed(values: Any) -> list[str]:
    """YAML values as they would be written on the command line; what is no plain value becomes empty."""
    plain = values if isinstance(values, list) else [values]
    return [str(value) if type(value) in (str, int, float) else "" for value in plain]
