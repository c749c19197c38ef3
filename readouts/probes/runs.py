"""A probe as a run: the same identity, folder and row as a trained readout, after no step at all.

Sweeps treat both alike, and the table shows what a readout adds to a look that costs one pass.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from featcache.errors import CallError, StoreError
from featcache.system.console import Progress, command_line
from readouts.features.splits import FeatureSplit, split_decisions
from readouts.probes.fits import PROBES, check_probe, fit_pooled, pool_split
from readouts.results.baselines import target_batches
from readouts.results.per_clip import write_per_clip
from readouts.results.predictions import write_predictions
from readouts.results.rows import make_row, scored_later
from readouts.results.run_folder import RunFolder
from readouts.results.table import add_run, load_run, recorded
from readouts.tasks.base import Task
from readouts.tasks.classification import Classification
from readouts.tasks.regression import Regression
from readouts.training.run import check_seed, digest_of

SHARES = {"train_fraction": 1.0, "train_views": 0}
"""Settings of a recipe that a probe has as well."""

BATCH = 64
"""Clips scored at a time."""


@dataclass(frozen=True, kw_only=True)
class ProbeRun:
    """Everything that decides a probe's numbers."""

    task: Task
    splits: Mapping[str, FeatureSplit]
    """Role (train, val, perhaps test) -> features; train is the share that is used."""
    kind: str
    settings: Mapping[str, Any]
    seed: int
    """Draws the view of each training clip."""

    @property
    def decisions(self) -> dict[str, Any]:
        """What identifies it, as `Run.decisions` does a run."""
        train = self.splits["train"]
        return {
            "task": {"name": self.task.name, **self.task.identity()},
            "splits": {role: split_decisions(s) for role, s in self.splits.items() if role != "test"},
            "probe": {self.kind: {**PROBES[self.kind].settings, **self.settings}},
            "train_fraction": train.fraction,
            "train_views": train.first_views,
            "seed": self.seed,
        }

    @property
    def id(self) -> str:
        """Twelve digits of the digest of `decisions`."""
        return digest_of(self.decisions)

    @property
    def pass_key(self) -> str:
        """Its own: probes are fitted one by one."""
        return self.id

    def folder(self, results_dir: Path) -> RunFolder:
        """Where its predictions and per-clip statistics are kept."""
        backbone = self.splits["train"].store.attrs["backbone"]
        return RunFolder.of(results_dir, {"task": self.task.name, "backbone": backbone, "run": self.id})


def probes_of(task: Task) -> dict[str, dict[str, Any]]:
    """Setting -> default of each probe that can answer a task; of a user's own task, all that might."""
    kinds = {Classification: "labels", Regression: "values"}
    wanted = next((name for kind, name in kinds.items() if isinstance(task, kind)), None)
    if getattr(task, "takes", "vector") != "vector":
        return {}
    return {
        name: {**probe.settings, **SHARES}
        for name, probe in PROBES.items()
        if wanted is None or wanted in probe.takes
    }


def refuse_probes(readouts: Sequence[str], *, task: str, backbone: str, **options: object) -> None:
    """Refuse to train what is not trained.

    Raises:
        CallError: gives the call that fits them; `options` are those that it has in common.
    """
    if probes := [kind for kind in readouts if kind in PROBES]:
        names = ",".join(probes)
        call = command_line("sweep", grid=f"task={task} backbone={backbone} readout={names}", **options)
        raise CallError(f"--readout {names} needs no training, and a sweep fits it: {call}")


def configure_probe(
    task: Task, splits: Mapping[str, FeatureSplit], kind: str, *, settings: Sequence[str] = (), seed: int = 0
) -> ProbeRun:
    """A probe changed by `settings` such as `k=5` or `train_fraction=0.1`.

    Raises:
        CallError: no such probe or setting, a value of the wrong kind or out of range, or more views than
            the store holds.
    """
    check_seed(seed)
    check_probe(kind, {})
    given = dict(setting.split("=", 1) for setting in settings)
    known = {**PROBES[kind].settings, **SHARES}
    values = {name: _number(name, text, known.get(name, 0.0)) for name, text in given.items()}
    share = {**SHARES, **{name: values.pop(name) for name in SHARES if name in values}}
    if not 0 < share["train_fraction"] <= 1 or share["train_views"] < 0:
        raise CallError("train_fraction is above 0 and at most 1, train_views at least 0.")
    check_probe(kind, values)
    train = replace(splits["train"], fraction=share["train_fraction"], first_views=int(share["train_views"]))
    return ProbeRun(task=task, splits={**splits, "train": train}, kind=kind, settings=values, seed=seed)


def fit_and_record(
    run: ProbeRun,
    *,
    results_dir: Path,
    device: torch.device,
    command: str = "",
    sweep_name: str | None = None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Fit, score and record one probe; its one row of the results table, at once where it is there.

    Raises:
        CallError: the probe is not for such a task.
        StoreError: another process is at it, or a store is damaged.
    """
    if rows := recorded(results_dir, run.id, tested="test" in run.splits):
        return rows
    folder = run.folder(results_dir)
    lock = folder.hold()
    try:
        # Asked again under the lock: its last holder may have just fitted this very probe.
        if rows := recorded(results_dir, run.id, tested="test" in run.splits):
            return rows
        started = time.monotonic()
        task, train = run.task, run.splits["train"]
        fitted_on = pool_split(train, task, seed=run.seed, device=device, progress=progress)
        scores = {}
        for role in (role for role in ("val", "test") if role in run.splits):
            asked = pool_split(run.splits[role], task, seed=None, device=device, progress=progress)
            outputs = fit_pooled(run.kind, fitted_on, asked, settings=run.settings, device=device)
            scores[role] = _score(run, role, outputs, folder)
        row = make_row(
            run,
            run.kind,
            splits=run.splits,
            scores=scores,
            best_val=scores["val"][task.score],
            best_step=0,
            steps=0,
            batch=None,
            parameters=0,
            recipe={"train_fraction": train.fraction, "train_views": train.first_views},
            config={**PROBES[run.kind].settings, **run.settings},
            device=device,
            seconds=time.monotonic() - started,
            together=1,
            sweep=sweep_name,
            command=command,
        )
        # What is there was fitted the same way: now it is scored on test as well.
        add_run(results_dir, run.id, scored_later([row], load_run(results_dir, run.id)))
        return load_run(results_dir, run.id)
    finally:
        lock.release()


@torch.inference_mode()
def _score(
    run: ProbeRun, role: str, outputs: Float[np.ndarray, "n O"], folder: RunFolder
) -> dict[str, float]:
    """Every score of a split; keeps predictions and per-clip statistics in `folder`, as a readout does."""
    split, task = run.splits[role], run.task
    clips, targets = split.usable, split.targets
    if targets is None:
        raise StoreError(f"{split.store.path} has no targets to score a probe with: extract the split again.")
    batches = target_batches(task, targets, clips, BATCH)
    per_clip = task.join([task.per_clip(torch.from_numpy(outputs[at]), rows) for at, rows in batches])
    kept = clips[: task.predictions_kept]
    ids = split.store.clips.column("id").take(pa.array(kept))
    write_predictions(folder.predictions(role), kept, ids, {run.kind: outputs[: len(kept)]})
    write_per_clip(folder.per_clip(role), clips, {run.kind: per_clip})
    return task.scores(per_clip)


def _number(name: str, text: str, default: int | float) -> Any:
    try:
        return type(default)(text)
    except ValueError:
        kind = "a whole" if isinstance(default, int) else "a"
        raise CallError(f"{name}={text} is not {kind} number.") from None
