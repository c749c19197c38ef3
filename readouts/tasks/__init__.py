"""Tasks by name: the benchmark's five, any other of a manifest by its kind, or a user's `my_task.py:TASK`."""

from dataclasses import fields, replace
from importlib import import_module
from typing import Any, cast

from featcache.errors import CallError, did_you_mean
from featcache.manifest import Manifest
from featcache.manifest import Task as Entry
from readouts.tasks.base import Recipe, Task, parse_number
from readouts.tasks.benchmark import SETTINGS
from readouts.tasks.from_file import task_from_file

KINDS: dict[str, str] = {
    "classification": "readouts.tasks.classification:Classification",
    "tracking": "readouts.tasks.tracking:Tracking",
    "regression": "readouts.tasks.regression:Regression",
    "forecast": "readouts.tasks.forecast:Forecast",
}
"""Kind of a task in the manifest -> import path of the class whose `of` makes one."""

SHOWN_VALUES = "readouts.tasks.values:ShownValues"
"""A regression without `starts`: of what a clip's own frames show, not of what comes after them."""


def load_task(name: str, manifest: Manifest) -> Task:
    """The task called `name`; one of a manifest needs no code.

    Raises:
        CallError: there is none, its kind has no readout, or the file does not hold a task.
    """
    if ".py:" in name:
        return task_from_file(name)
    entry = manifest.task(name)
    if entry.kind not in KINDS:
        raise CallError(f"task {name} is of kind {entry.kind!r}, which has no readout to train.")
    of_frames = entry.kind == "regression" and entry.starts is None
    module, _, kind = (SHOWN_VALUES if of_frames else KINDS[entry.kind]).partition(":")
    task_class: Any = getattr(import_module(module), kind)
    task: Any = task_class.of(manifest, name, **SETTINGS.get((name, entry.kind), {}))
    changed: Task = replace(task, recipe=_recipe(task.recipe, entry))
    return changed


def _recipe(base: Recipe, entry: Entry) -> Recipe:
    """The recipe with what the manifest says of it."""
    given = dict[str, object]()
    for name, value in entry.recipe.items():
        where = f"manifest, tasks.{entry.name}.recipe"
        known = [field.name for field in fields(Recipe)]
        if name not in known:
            raise CallError(f"{where}: no setting is called {name!r}.{did_you_mean(name, known)}")
        given[name] = parse_number(f"{where}.{name}", value, getattr(base, name))
    return replace(base, **cast(Any, given))
