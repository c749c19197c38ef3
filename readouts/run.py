"""What decides a run: the task, the features, the heads and their settings, the recipe, the seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import CallError
from readouts.features import FeatureSplit, split_decisions
from readouts.heads import HEADS, SHAPE_SETTINGS
from readouts.tasks.base import Recipe, Task

MAX_SEED = 2**31
"""Seeds are below it: dropout draws from the seed shifted by 32 bits, a signed 64-bit number."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides a run's numbers, but for the hardware's rounding."""

    task: Task
    splits: Mapping[str, FeatureSplit]
    """Role (train, val, perhaps test) -> features."""
    readouts: Mapping[str, Mapping[str, Any]]
    """Kind of head -> its settings. All are trained side by side on the same batches."""
    recipe: Recipe
    seed: int

    @property
    def decisions(self) -> dict[str, Any]:
        """What identifies the run: the same decisions are the same run, which is never trained twice."""
        return {
            "task": {"name": self.task.name, **self.task.identity()},
            "splits": {role: split_decisions(s) for role, s in self.splits.items() if role != "test"},
            "readouts": {kind: dict(settings) for kind, settings in self.readouts.items()},
            "recipe": asdict(self.recipe),
            "seed": self.seed,
        }

    @property
    def id(self) -> str:
        """Twelve digits of the digest of `decisions`."""
        return blake2b(json.dumps(self.decisions, sort_keys=True).encode(), digest_size=6).hexdigest()

    def folder(self, results_dir: Path) -> Path:
        """Where the run keeps checkpoints, curve and predictions."""
        return results_dir / self.task.name / f"{self.splits['train'].store.attrs['backbone']}-{self.id}"


def configure(
    task: Task,
    splits: Mapping[str, FeatureSplit],
    *,
    readouts: Sequence[str] | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
) -> Run:
    """The benchmark's run for a task, changed by `settings` such as `lr=1e-4` or `width=256`.

    Raises:
        CallError: a setting that nothing reads, or a value of the wrong kind or out of range.
        StoreError: a split's labels have another number of columns than the task has outputs.
    """
    if not 0 <= seed < MAX_SEED:
        raise CallError(f"--seed {seed} must be from 0 to {MAX_SEED - 1}.")
    for split in splits.values():
        if split.targets is not None:
            # One row, so that a store of other classes is refused before anything is trained.
            task.select(split.targets, split.usable[:1], np.zeros(1, np.int64), None)
    for kind in readouts or ():
        if kind in HEADS and kind not in task.readouts:
            raise CallError(
                f"--readout {kind}: not one of task {task.name}, which trains {', '.join(task.readouts)}."
            )
    configs = {kind: task.head_config(kind) for kind in readouts or task.readouts}
    recipe: dict[str, Any] = {}
    for setting in settings:
        name, given, text = setting.partition("=")
        owners = [config for config in configs.values() if name in config and name not in SHAPE_SETTINGS]
        if given and name in (field.name for field in fields(Recipe)):
            recipe[name] = _parse(setting, text, getattr(task.recipe, name))
        elif given and owners:
            for config in owners:
                config[name] = _parse(setting, text, config[name])
                if name == "dropout" and not 0 <= config[name] < 1:
                    raise CallError(f"--set {setting}: dropout is a probability, from 0 to below 1.")
                if isinstance(config[name], int) and config[name] < 1:
                    raise CallError(f"--set {setting}: must be at least 1.")
        else:
            known = [f.name for f in fields(Recipe)] + sorted(
                {key for config in configs.values() for key in config} - SHAPE_SETTINGS
            )
            raise CallError(f"--set {setting}: write name=value with one of {', '.join(known)}.")
    return Run(task=task, splits=splits, readouts=configs, recipe=replace(task.recipe, **recipe), seed=seed)


def _parse(setting: str, text: str, default: Any) -> Any:
    kind = float if default is None else type(default)
    try:
        return kind(text)
    except ValueError:
        raise CallError(
            f"--set {setting}: {text!r} is not {'a whole' if kind is int else 'a'} number."
        ) from None
