"""Passes of a sweep on the workers of a cluster: what a worker is told, and what it does then.

A worker is told names and paths. It opens stores, makes heads and writes checkpoints and rows itself, so that
what it has trained stays, whatever becomes of the command. What is in the table already is not trained.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from featcache.buckets.path import absolute
from featcache.errors import StoreError
from featcache.manifest import load_manifest
from featcache.system.cluster.client import Cluster
from featcache.system.cluster.task import kept
from featcache.system.console import Progress
from readouts.features.preloading import Preloads
from readouts.sweeps.grid import Cell
from readouts.sweeps.passes import Passed, SweepSteps, train_pass
from readouts.sweeps.plan import Folders, Trial, open_splits, trial_of
from readouts.tasks import load_task
from readouts.tasks.base import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class PassInWords:
    """A pass as a worker is told of it."""

    cells: tuple[Cell, ...]
    runs: tuple[str, ...]
    """Ids, which a worker has to come to as well."""
    commands: tuple[str, ...]
    test: bool
    """Whether test is to be scored."""
    here: Path
    """The folder that relative paths begin at."""
    cache_dir: Path
    results_dir: Path
    manifest_file: Path | None
    weights_dir: Path | None
    data_dir: Path
    name: str
    """Of the sweep."""
    device: str


def train_on_workers(
    passes: Sequence[Sequence[Trial]],
    *,
    folders: Folders,
    cluster: Cluster,
    name: str,
    device: torch.device,
    steps: SweepSteps,
) -> Iterator[Passed]:
    """Train passes side by side on the workers of a cluster; what becomes of each, as it ends.

    Raises:
        ClusterError: the workers are gone, or differ from this machine.
        StoreError: a worker finds other stores or tasks than this process.
    """
    by_name = {f"pass {number} of {name}": one for number, one in enumerate(passes, 1)}
    told = {what: _in_words(one, folders, name, device) for what, one in by_name.items()}

    def hear(which: str, what: str, done: int, total: int) -> None:
        steps.take(by_name[which], what, done)

    for which, passed in cluster.run(train_in_words, told, hear=hear):
        one = by_name[which]
        steps.take(one, "training", one[0].run.n_steps)
        yield passed


def train_in_words(words: PassInWords, progress: Progress) -> Passed:
    """Train a pass on a worker; what is in the results table is not trained again.

    Raises:
        StoreError: stores or tasks are not those that the command found.
    """
    folders = Folders(
        cache_dir=words.cache_dir,
        results_dir=words.results_dir,
        manifest=load_manifest(words.manifest_file),
        manifest_file=words.manifest_file,
        weights_dir=words.weights_dir,
        data_dir=words.data_dir,
    )
    task = _task(words, folders)
    splits = open_splits(words.cells[0], task, folders, test=words.test)
    trials = [
        replace(trial_of(cell, task, splits, folders), command=command)
        for cell, command in zip(words.cells, words.commands, strict=True)
    ]
    if (found := tuple(trial.run.id for trial in trials)) != words.runs:
        raise StoreError(
            f"{words.cells[0].label} is run {found[0]} here and {words.runs[0]} where the sweep was begun: "
            f"{words.cache_dir} or the files of the task are not the same."
        )
    device = torch.device(words.device)
    return train_pass(
        trials,
        folders,
        name=words.name,
        device=device,
        preloads=kept(("preloads", words.device), lambda: Preloads(device)),
        progress=progress,
    )


def _in_words(one: Sequence[Trial], folders: Folders, name: str, device: torch.device) -> PassInWords:
    here = Path.cwd()
    return PassInWords(
        cells=tuple(trial.cell for trial in one),
        runs=tuple(trial.run.id for trial in one),
        commands=tuple(trial.command for trial in one),
        test="test" in one[0].run.splits,
        here=here,
        cache_dir=absolute(folders.cache_dir),
        results_dir=absolute(folders.results_dir),
        manifest_file=None if folders.manifest_file is None else here / folders.manifest_file,
        weights_dir=None if folders.weights_dir is None else absolute(folders.weights_dir),
        data_dir=absolute(folders.data_dir),
        name=name,
        device=device.type,
    )


def _task(words: PassInWords, folders: Folders) -> Task:
    """The task of a pass; one in a file of the user's own is found where the command found it."""
    name = words.cells[0].task
    if ".py:" not in name:
        return load_task(name, folders.manifest)
    task: Any = load_task(str(words.here / name), folders.manifest)
    return cast(Task, replace(task, spec=name))
