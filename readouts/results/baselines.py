"""The control rows of a task: predictions that need no features, scored as a readout is.

They stream over the targets and take as long as that, which for fields is minutes: a row once computed is
kept beside the runs, under the fingerprints of the targets it came from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from featcache.store.targets import Targets
from featcache.system.files import make_directory, publish
from readouts.tasks.base import Task

CLIPS_AT_ONCE = 16

CONTROL_VERSION = 1
"""Raised when a control or a metric gives other numbers, so that kept rows are computed anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlRow:
    """One control's scores on one split."""

    name: str
    scores: Mapping[str, float]


def control_rows(
    task: Task,
    train: Targets,
    evaluated: Targets,
    clips: Int64[np.ndarray, " n"],
    results_dir: Path,
) -> list[ControlRow]:
    """The control rows of `task` over some clips of `evaluated`, computed or as kept.

    Raises:
        StoreError: the targets are damaged, or not the task's.
    """
    about = {
        "version": CONTROL_VERSION,
        "task": {"name": task.name, **task.identity()},
        "train": train.fingerprint,
        "evaluated": evaluated.fingerprint,
        "clips": blake2b(clips.tobytes(), digest_size=8).hexdigest(),
    }
    key = blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=6).hexdigest()
    file = results_dir / task.name / f"controls-{key}.json"
    found = _kept(file)
    if found is None:
        found = scored(task, train, evaluated, clips)
        make_directory(file.parent)
        publish(file, json.dumps({**about, "scores": found}).encode())
    return [ControlRow(name=name, scores=scores) for name, scores in found.items()]


@torch.inference_mode()
def scored(
    task: Task, train: Targets, evaluated: Targets, clips: Int64[np.ndarray, " n"]
) -> dict[str, dict[str, float]]:
    """Name of each control -> its scores."""
    controls = task.controls(train)
    metrics = {name: task.metric() for name in controls}
    for at in range(0, len(clips), CLIPS_AT_ONCE):
        chosen = clips[at : at + CLIPS_AT_ONCE]
        rows = task.select(evaluated, chosen, np.zeros_like(chosen), None)
        targets = {name: torch.from_numpy(values) for name, values in rows.items()}
        for name, control in controls.items():
            metrics[name].update(control(targets), targets)
    return {name: metric.compute() for name, metric in metrics.items()}


def _kept(file: Path) -> dict[str, dict[str, float]] | None:
    """What an earlier call kept; a file that cannot be read is as good as none."""
    try:
        entries: dict[str, Any] = json.loads(file.read_bytes())
        return dict(entries["scores"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
