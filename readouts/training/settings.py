"""Which readouts there are for a task, what can be set of them, and the run that some settings make.

Heads (`readouts.heads`) are trained step by step, probes (`readouts.training.probes`) are fitted at once;
both are readouts to whoever asks for one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from math import inf
from typing import Any

import numpy as np

from featcache.errors import CallError, StoreError
from featcache.manifest import Manifest
from featcache.system.console import command_line
from readouts.features.splits import FeatureSplit
from readouts.heads import HEADS, LAYER_HEADS, SHAPE_SETTINGS, settings_of
from readouts.tasks.base import Recipe, Task, parse_number
from readouts.tasks.classification import Classification
from readouts.tasks.regression import Regression
from readouts.training.probes import PROBES
from readouts.training.run import OF_A_PROBE, Run
from readouts.training.tuning import Tuning

READOUTS = (*HEADS, *LAYER_HEADS, *PROBES)
"""Every readout by the name it has on the command line and in the table."""

OPTIONS = ("task", "backbone", "layer", "fingerprint", "readout", "seed", "tune", "backbone_lr")
"""What a grid names like settings, and of a single run is an option of the command line."""

_MANY_PASSES = 1000
"""Over the training clips and their views, from which on a run is called long; the benchmark has 230."""
POINTS = 10
"""Of the curve of a short run, which would have one or two by the recipe."""

MAX_SEED = 2**31
"""Seeds are below it: dropout draws from the seed shifted by 32 bits, a signed 64-bit number."""


def configure(
    task: Task,
    splits: Mapping[str, FeatureSplit],
    *,
    readouts: Sequence[str] | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
    tuning: Tuning | None = None,
) -> Run:
    """The benchmark's run for a task, changed by `settings` such as `lr=1e-4` or `width=256`.

    `tuning` is what it trains of the backbone, on splits that are for that.

    Raises:
        CallError: no such readout, or one for other tasks; a setting that nothing reads, or a value of the
            wrong kind or out of range; a probe beside other readouts, as each is a run of its own.
        StoreError: a split's labels have another number of columns than the task has outputs, or one split
            has targets and another has none.
    """
    if not 0 <= seed < MAX_SEED:
        raise CallError(f"--seed {seed} must be from 0 to {MAX_SEED - 1}.")
    bare = [split.store.path for split in splits.values() if split.targets is None]
    if bare and len(bare) < len(splits):
        raise StoreError(f"{bare[0]} has no targets, another split has: run the same `scivid extract` again.")
    for split in splits.values():
        if split.targets is not None:
            # One row, so that a store of other classes is refused before anything is trained.
            task.select(split.targets, split.first_usable(1), np.zeros(1, np.int64), None)
    kinds = list(readouts or task.readouts)
    _check_readouts(kinds, task)
    _check_layers(kinds, splits["train"], is_tuned=tuning is not None)
    configs = {kind: settings_for(task, kind) if kind in PROBES else task.head_config(kind) for kind in kinds}
    recipe: dict[str, Any] = {}
    for setting in settings:
        name, given, text = setting.partition("=")
        owners = [kind for kind in configs if name in settings_for(task, kind)]
        if given and name in recipe_names(kinds[0]):
            recipe[name] = parse_number(f"--set {setting}", text, getattr(task.recipe, name))
        elif given and owners:
            for kind in owners:
                value = parse_number(f"--set {setting}", text, settings_for(task, kind)[name])
                _check_value(setting, name, value, is_probes=kind in PROBES)
                configs[kind][name] = value
        else:
            if name in OPTIONS:
                option = f"--{name.replace('_', '-')} {text}".strip()
                raise CallError(f"--set {setting}: that is an option of its own, {option}.")
            known = {key for kind in configs for key in settings_for(task, kind)}
            listed = ", ".join([*recipe_names(kinds[0]), *sorted(known)])
            raise CallError(f"--set {setting}: write name=value with one of {listed}.")
    # A probe takes all clips unless told otherwise, whatever share the task's recipe trains on.
    base = Recipe() if kinds[0] in PROBES else task.recipe
    recipe = {**_points_of_curve(base, recipe), **recipe}
    run = Run(
        task=task, splits=splits, readouts=configs, recipe=replace(base, **recipe), seed=seed, tuning=tuning
    )
    if tuning is not None and tuning.feeds is not None and run.recipe.train_views:
        raise CallError("--set train_views: --tune all shows each clip in a new view, none is frozen.")
    # Too many views are refused here, not when the first batch is drawn.
    assert run.training.n_usable > 0
    return run


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


def readouts_of(task: Task) -> list[str]:
    """The readouts that answer a task: its own, then other heads, then probes."""
    every = {**HEADS, **LAYER_HEADS}
    heads = [kind for kind, head in every.items() if head.gives == task.takes and kind not in task.readouts]
    predicted = {Classification: "labels", Regression: "values"}
    wanted = [name for kind, name in predicted.items() if isinstance(task, kind)]
    probes = [kind for kind, probe in PROBES.items() if not wanted or wanted[0] in probe.fit]
    return [*task.readouts, *heads, *(probes if task.takes == "vector" else [])]


def settings_for(task: Task, readout: str) -> dict[str, Any]:
    """Setting -> the benchmark's value, of those of a readout that do not follow from the task's data."""
    if readout in PROBES:
        return dict(PROBES[readout].settings)
    numbers = {name: value for name, value in settings_of(readout).items() if type(value) in (int, float)}
    if readout == "attention":
        del numbers["n_queries"]  # several queries give several rows of outputs: `attention_multi`
    every = {**numbers, **task.head_config(readout)}
    return {name: value for name, value in every.items() if name not in SHAPE_SETTINGS}


def recipe_names(readout: str) -> tuple[str, ...]:
    """The settings of the recipe that a readout heeds."""
    return OF_A_PROBE if readout in PROBES else tuple(field.name for field in fields(Recipe))


def refuse_probes(readouts: Sequence[str], *, task: str, backbone: str, **options: object) -> None:
    """Refuse to train what is not trained.

    Raises:
        CallError: gives the call that fits them; `options` are those that it has in common.
    """
    if probes := [kind for kind in readouts if kind in PROBES]:
        names = ",".join(probes)
        call = command_line("sweep", grid=f"task={task} backbone={backbone} readout={names}", **options)
        raise CallError(f"--readout {names} needs no training, and a sweep fits it: {call}")


def readout_rows(tasks: Mapping[str, Task]) -> list[dict[str, object]]:
    """A row per readout for `scivid list`: what makes it, and the names of the tasks that it answers."""
    answering = {name: readouts_of(task) for name, task in tasks.items()}
    way = {True: "no training, scivid sweep", False: "scivid train-readout, scivid sweep"}
    return [
        {
            "readout": kind,
            "made by": way[kind in PROBES],
            "tasks": " ".join(name for name in tasks if kind in answering[name]),
        }
        for kind in READOUTS
    ]


def setting_rows(task: Task) -> list[dict[str, object]]:
    """A row per setting that `--set` or a grid may change for a task: of what, and the benchmark's value."""
    given: dict[str, dict[str, Any]] = {"recipe": asdict(task.recipe)}
    for kind in readouts_of(task):
        share = {name: getattr(Recipe(), name) for name in OF_A_PROBE} if kind in PROBES else {}
        given[kind] = settings_for(task, kind) | share
    return [
        {"setting": name, "of": owner, "default": "none" if value is None else value}
        for owner, settings in given.items()
        for name, value in settings.items()
    ]


def long_training(recipe: Recipe, n_clips: int) -> list[str]:
    """A sentence where the recipe goes over so few training clips (times views) a thousand times or more."""
    passes = recipe.steps * recipe.batch // max(1, n_clips)
    if passes < _MANY_PASSES:
        return []
    said = (
        f"{recipe.steps:,} steps of {recipe.batch} clips are {passes:,} passes over the {n_clips:,} clips of "
        "train: the benchmark's recipe, for sets of its size. --set steps=2000 --set warmup=100 is quicker"
    )
    return [said]


def _points_of_curve(base: Recipe, given: Mapping[str, Any]) -> dict[str, int]:
    """Ten points, where few steps are asked for, nothing is said of the curve, and the recipe has fewer."""
    every = max(1, given.get("steps", base.steps) // POINTS)
    if every >= base.minival_every or given.keys() & {"minival_every", "val_every"}:
        return {}
    return {"minival_every": every, "val_every": every * max(1, base.val_every // base.minival_every)}


def _check_readouts(kinds: Sequence[str], task: Task) -> None:
    fitting = readouts_of(task)
    if len({kind in LAYER_HEADS for kind in kinds}) > 1:
        raise CallError(
            f"--readout {','.join(kinds)}: readouts of one layer and of several are runs of their own."
        )
    for kind in kinds:
        if kind not in READOUTS:
            raise CallError(f"no readout is called {kind!r}: known are {', '.join(READOUTS)}.")
        if kind not in fitting:
            raise CallError(
                f"--readout {kind}: not one that answers task {task.name}; those that do: "
                f"{', '.join(fitting)}."
            )
        if kind in PROBES and len(kinds) > 1:
            raise CallError(f"--readout {','.join(kinds)}: {kind} is fitted by itself, in a run of its own.")


def _check_layers(kinds: Sequence[str], train: FeatureSplit, *, is_tuned: bool) -> None:
    """Refuse readouts of one layer where several are asked for, and the other way round."""
    if is_tuned and (joint := [kind for kind in kinds if kind in LAYER_HEADS]):
        raise CallError(f"--readout {','.join(joint)}: a backbone that is tuned gives tokens of one layer.")
    several, name = len(train.layers) > 1, train.layer_name
    for kind in kinds:
        if several and kind not in LAYER_HEADS:
            others = [other for other in LAYER_HEADS if LAYER_HEADS[other].gives == _gives(kind)]
            raise CallError(
                f"--layer {name}: {kind} reads one layer; several are read by {', '.join(others) or 'none'}."
            )
        if not several and kind in LAYER_HEADS:
            held = ", ".join(layer.name for layer in train.store.spec.layers)
            raise CallError(
                f"--layer {name}: {kind} reads several layers, {train.store.path.name} holds {held}: name "
                "some or all (--layer all), or extract more (--layers 0.25,0.5,0.75,0.95)."
            )


def _gives(kind: str) -> str:
    return HEADS[kind].gives if kind in HEADS else "vector"


def _check_value(setting: str, name: str, value: Any, *, is_probes: bool) -> None:
    if name == "dropout" and not 0 <= value < 1:
        raise CallError(f"--set {setting}: dropout is a probability, from 0 to below 1.")
    if isinstance(value, int) and value < 1:
        raise CallError(f"--set {setting}: must be at least 1.")
    # Not `value <= 0`: NaN is no setting either.
    if is_probes and not 0 < value < inf:
        raise CallError(f"--set {setting}: must be above 0.")
