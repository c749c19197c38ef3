"""The baselines of a task: predictions that need no features, scored as a readout is.

They stream over the targets and take as long as that, which for fields is minutes: what was once computed is
kept beside the runs, under the fingerprints of the targets it came from.
"""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from featcache.store.targets import Targets
from readouts.metrics.base import PerClip
from readouts.results.json_cache import JsonCache
from readouts.tasks.base import Rows, Task

BASELINE_VERSION = 1
"""Raised when a baseline or a score gives other numbers, so that kept ones are computed anew."""


def load_baselines(
    task: Task,
    train: Targets,
    evaluated: Targets,
    clips: Int64[np.ndarray, " n"],
    results_dir: Path,
) -> dict[str, dict[str, float]]:
    """Name of each baseline -> its scores over some clips of `evaluated`, computed or as kept.

    Raises:
        StoreError: the targets are damaged, or not the task's.
    """
    about = {
        "version": BASELINE_VERSION,
        "task": {"name": task.name, **task.identity()},
        "train": train.fingerprint,
        "evaluated": evaluated.fingerprint,
        "clips": blake2b(clips.tobytes(), digest_size=8).hexdigest(),
    }
    cache = JsonCache(results_dir / task.name / "baselines.json")
    found = cache.value(about, lambda: score_baselines(task, train, evaluated, clips))
    cache.keep()
    return dict(found)


@torch.inference_mode()
def score_baselines(
    task: Task, train: Targets, evaluated: Targets, clips: Int64[np.ndarray, " n"]
) -> dict[str, dict[str, float]]:
    """Name of each baseline -> its scores."""
    baselines = task.baselines(train)
    statistics: dict[str, list[PerClip]] = {name: [] for name in baselines}
    for _, targets in target_batches(task, evaluated, clips):
        for name, predict in baselines.items():
            statistics[name].append(task.per_clip(predict(targets), targets))
    return {name: task.scores(task.join(batches)) for name, batches in statistics.items()}


def target_batches(
    task: Task, targets: Targets, clips: Int64[np.ndarray, " n"], batch: int = 16
) -> Iterator[tuple[slice, Rows]]:
    """What the task selects for the clips at view 0, a batch at a time, each with its slice of `clips`."""
    for start in range(0, len(clips), batch):
        at = slice(start, start + batch)
        rows = task.select(targets, clips[at], np.zeros_like(clips[at]), None)
        yield at, {name: torch.from_numpy(values) for name, values in rows.items()}
