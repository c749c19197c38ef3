"""The baselines of a task: predictions that need no features, scored as a readout is.

They stream over the targets and take as long as that, which for fields is minutes: what was once computed is
kept beside the runs, under the fingerprints of the targets it came from.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from featcache.store.targets import Targets
from featcache.system.files import make_directory, publish
from readouts.metrics.base import PerClip
from readouts.tasks.base import Rows, Task

BASELINE_VERSION = 1
"""Raised when a baseline or a score gives other numbers, so that kept ones are computed anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineScores:
    """One baseline's scores on one split."""

    name: str
    scores: Mapping[str, float]


def load_baselines(
    task: Task,
    train: Targets,
    evaluated: Targets,
    clips: Int64[np.ndarray, " n"],
    results_dir: Path,
) -> list[BaselineScores]:
    """The baselines of `task` over some clips of `evaluated`, computed or as kept.

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
    key = blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=6).hexdigest()
    # Baselines were called controls when the first of these files were written.
    file = results_dir / task.name / f"controls-{key}.json"
    found = _kept(file)
    if found is None:
        found = score_baselines(task, train, evaluated, clips)
        make_directory(file.parent)
        publish(file, json.dumps({**about, "scores": found}).encode())
    return [BaselineScores(name=name, scores=scores) for name, scores in found.items()]


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


def _kept(file: Path) -> dict[str, dict[str, float]] | None:
    """What an earlier call kept; a file that cannot be read is as good as none."""
    try:
        entries: dict[str, Any] = json.loads(file.read_bytes())
        return dict(entries["scores"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
