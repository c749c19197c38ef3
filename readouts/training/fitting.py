"""A run of a probe: one pass over each split for mean tokens and targets, then a fit, then scores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError, ScividError, StoreError
from featcache.system.console import Progress
from readouts.features.batches import Batch, evaluation_batches, training_batches
from readouts.features.splits import FeatureSplit, draws_of
from readouts.results.baselines import target_batches
from readouts.tasks.base import Task
from readouts.tokens.prepared import each_layer, prepare_batch, prepared
from readouts.training.evaluate import Scored
from readouts.training.probes import fit_probe
from readouts.training.run import Run

BATCH = 64
"""Clips that are read or scored at a time."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pooled:
    """One split in memory: the mean token of each clip, and what is to be predicted of it."""

    features: Float[np.ndarray, "n C"]
    targets: Float[np.ndarray, "n O"] | None
    """Labels of 0 and 1, or values relative to the task's offset; None where the split has no targets."""
    kind: str
    """"labels" or "values", or "" without targets."""


def fit_run(run: Run, device: torch.device, progress: Progress) -> dict[str, Scored]:
    """Role (val, perhaps test) -> what a run's probe, fitted on its training clips, gives on that split.

    The run's seed draws the view of each training clip, one of those that training draws from.

    Raises:
        CallError: the probe is not for such a task.
        StoreError: a store is damaged, has no targets, or its targets are not the task's.
    """
    ((kind, settings),) = run.readouts.items()
    train = pool_split(run.training, run.task, seed=run.seed, device=device, progress=progress)
    if train.targets is None:
        raise CallError("a probe needs the targets of the training split: its store has none.")
    found = {}
    for role, split in run.splits.items():
        if role != "train":
            asked = pool_split(split, run.task, seed=None, device=device, progress=progress).features
            outputs = fit_probe(
                kind, train.features, train.targets, train.kind, asked, settings=settings, device=device
            )
            found[role] = _scored(kind, run.task, split, outputs)
    return found


def pool_split(
    split: FeatureSplit, task: Task, *, seed: int | None, device: torch.device, progress: Progress
) -> Pooled:
    """One pass over a split: of training one view a clip, drawn by `seed`; else (None) view 0 in file order.

    Raises:
        CallError: the task has no targets that a probe can predict.
        ScividError: a token is not finite.
        StoreError: the store is damaged, or its targets are not the task's.
    """
    n, done = split.n_usable, 0
    features, targets, kind = [], [], ""
    for batch in _one_pass(split, task, seed, device):
        (tokens,) = each_layer(prepare_batch(prepared, batch.tokens))
        features.append(tokens.average.cpu().numpy())
        if batch.targets:
            kind, wanted = targets_of(batch.targets, task)
            targets.append(wanted.cpu().numpy())
        done = min(done + len(batch.clips), n)
        progress("pooling", done, n)
    # The last batch of a training pass may hold the begin of a second one.
    whole = np.concatenate(features)[:n]
    if not np.isfinite(whole).all():
        raise ScividError(f"{split.store.path} holds tokens that are not finite: see `scivid validate`.")
    return Pooled(features=whole, targets=np.concatenate(targets)[:n] if targets else None, kind=kind)


def _one_pass(split: FeatureSplit, task: Task, seed: int | None, device: torch.device) -> Iterator[Batch]:
    if seed is None:
        return evaluation_batches(split, task.select, BATCH, device)
    batch = min(BATCH, split.n_usable)
    steps = range(ceil(split.n_usable / batch))
    return training_batches(split, task.select, draws_of(split, batch=batch, seed=seed), steps, device)


def targets_of(rows: Mapping[str, Tensor], task: Task) -> tuple[str, Float[Tensor, "B O"]]:
    """What there is to predict: "labels" of 0 and 1, or "values" relative to the task's offset.

    Raises:
        CallError: neither is among what the task selects.
    """
    if "labels" in rows:
        return "labels", rows["labels"].float()
    if "future" in rows and rows["future"].ndim == 2:
        return "values", rows["future"] - getattr(task, "offset", 0.0)
    if "known" in rows and not rows["known"].all():
        raise CallError(f"some values of task {task.name} are unknown, and probes need all: train `linear`.")
    if "values" in rows:
        return "values", (rows["values"] - getattr(task, "offset", 0.0)) / getattr(task, "scale", 1.0)
    raise CallError(
        f"probes predict labels or a series a clip, and task {task.name} has {', '.join(sorted(rows))}: "
        "train a readout for it."
    )


@torch.inference_mode()
def _scored(kind: str, task: Task, split: FeatureSplit, outputs: Float[np.ndarray, "n O"]) -> Scored:
    clips, targets = split.usable, split.targets
    if targets is None:
        raise StoreError(f"{split.store.path} has no targets to score a probe with: extract the split again.")
    batches = target_batches(task, targets, clips, BATCH)
    per_clip = task.join([task.per_clip(torch.from_numpy(outputs[at]), rows) for at, rows in batches])
    scores = {kind: task.scores(per_clip)}
    return Scored(
        clips=clips,
        outputs={kind: outputs[: task.predictions_kept]},
        scores=scores,
        minival_scores=scores,
        per_clip={kind: per_clip},
    )
