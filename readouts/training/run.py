"""What decides a run: the task, the features, the heads and their settings, the recipe, the seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import CallError
from featcache.manifest import Manifest
from readouts.features.draws import Draws
from readouts.features.splits import FeatureSplit, draws_of, split_decisions
from readouts.heads import HEADS, SHAPE_SETTINGS, settings_of
from readouts.results.run_folder import RunFolder
from readouts.tasks.base import Recipe, Task

MAX_SEED = 2**31
"""Seeds are below it: dropout draws from the seed shifted by 32 bits, a signed 64-bit number."""

OF_THE_PASS = (
    "steps", "batch", "order_seed", "train_fraction", "train_views", "mix_shards",
    "minival_every", "minival_clips", "val_every",
)  # fmt: skip
"""Settings of the recipe in which runs that share one pass over the data are alike."""


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
        return digest_of(self.decisions)

    @property
    def pass_key(self) -> str:
        """Runs with the same one draw the same batches and are scored at the same steps on the same clips."""
        recipe = asdict(self.recipe)
        return digest_of(
            {
                "task": self.decisions["task"],
                "splits": {role: split_decisions(split) for role, split in self.splits.items()},
                "recipe": {name: recipe[name] for name in OF_THE_PASS},
            }
        )

    @cached_property
    def training(self) -> FeatureSplit:
        """The share of the training split, and of its views, that the recipe asks for.

        Raises:
            CallError: the store holds fewer views.
        """
        return replace(
            self.splits["train"], fraction=self.recipe.train_fraction, first_views=self.recipe.train_views
        )

    @property
    def draws(self) -> Draws:
        """Which clips and views each step takes; runs of one pass have the same."""
        recipe = self.recipe
        return draws_of(
            self.training, batch=recipe.batch, seed=recipe.order_seed, mix_shards=recipe.mix_shards
        )

    def folder(self, results_dir: Path) -> RunFolder:
        """Where the run keeps checkpoints, curve and predictions."""
        backbone = self.splits["train"].store.attrs["backbone"]
        return RunFolder.of(results_dir, {"task": self.task.name, "backbone": backbone, "run": self.id})


def digest_of(decisions: Mapping[str, Any]) -> str:
    """Twelve digits that name what was decided."""
    return blake2b(json.dumps(decisions, sort_keys=True).encode(), digest_size=6).hexdigest()


def check_seed(seed: int) -> None:
    """Refuse a seed that dropout could not draw from.

    Raises:
        CallError: says which there are.
    """
    if not 0 <= seed < MAX_SEED:
        raise CallError(f"--seed {seed} must be from 0 to {MAX_SEED - 1}.")


def roles_of(task: Task, manifest: Manifest, *, test: bool) -> tuple[str, ...]:
    """The splits that a run reads: train and val, and test where it is to be scored.

    Raises:
        CallError: test is to be scored, and the manifest has none for this task.
    """
    entry = manifest.tasks.get(task.name)  # a task of a user's file may be in no manifest
    if test and entry is not None and "test" not in entry.splits:
        raise CallError(
            f"--test: task {task.name} has no test split, only {', '.join(entry.splits)}: leave --test out, "
            "or add one to its splits in the manifest."
        )
    return ("train", "val", *(["test"] * test))


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
    check_seed(seed)
    for split in splits.values():
        if split.targets is not None:
            # One row, so that a store of other classes is refused before anything is trained.
            task.select(split.targets, split.usable[:1], np.zeros(1, np.int64), None)
    for kind in readouts or ():
        if kind in HEADS and kind not in (fitting := fitting_readouts(task)):
            raise CallError(
                f"--readout {kind}: not one that answers task {task.name}; those that do: "
                f"{', '.join(fitting)}."
            )
    configs = {kind: task.head_config(kind) for kind in readouts or task.readouts}
    recipe: dict[str, Any] = {}
    for setting in settings:
        name, given, text = setting.partition("=")
        owners = {kind: config for kind, config in configs.items() if name in settable(kind, config)}
        if given and name in (field.name for field in fields(Recipe)):
            recipe[name] = _parse(setting, text, getattr(task.recipe, name))
        elif given and owners:
            for kind, config in owners.items():
                config[name] = _parse(setting, text, settable(kind, config)[name])
                if name == "dropout" and not 0 <= config[name] < 1:
                    raise CallError(f"--set {setting}: dropout is a probability, from 0 to below 1.")
                if isinstance(config[name], int) and config[name] < 1:
                    raise CallError(f"--set {setting}: must be at least 1.")
        else:
            known = [f.name for f in fields(Recipe)] + sorted(
                {key for kind, config in configs.items() for key in settable(kind, config)}
            )
            raise CallError(f"--set {setting}: write name=value with one of {', '.join(known)}.")
    run = Run(task=task, splits=splits, readouts=configs, recipe=replace(task.recipe, **recipe), seed=seed)
    # Too many views are refused here, not when the first batch is drawn.
    assert len(run.training.usable) > 0
    return run


def fitting_readouts(task: Task) -> list[str]:
    """The kinds of head whose outputs are of the form that a task takes, its own first."""
    # A task of a user's file may say nothing: its outputs are numbers a clip.
    takes = getattr(task, "takes", "vector")
    others = [kind for kind, head in HEADS.items() if head.gives == takes and kind not in task.readouts]
    return [*task.readouts, *others]


def settable(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Setting -> value so far, of those numbers of a head that do not follow from the data."""
    numbers = {name: value for name, value in settings_of(kind).items() if type(value) in (int, float)}
    if kind == "attention":
        del numbers["n_queries"]  # several queries give several rows of outputs: `attention_multi`
    return {name: value for name, value in {**numbers, **config}.items() if name not in SHAPE_SETTINGS}


def _parse(setting: str, text: str, default: Any) -> Any:
    kind = float if default is None else type(default)
    try:
        return kind(text)
    except ValueError:
        raise CallError(
            f"--set {setting}: {text!r} is not {'a whole' if kind is int else 'a'} number."
        ) from None
