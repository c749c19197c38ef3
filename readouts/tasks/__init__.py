"""Tasks by name: the benchmark's, any of a manifest by its kind, or a user's own `my_task.py:TASK`."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from featcache.errors import CallError
from featcache.manifest import Manifest
from readouts.tasks.base import Task
from readouts.tasks.from_file import task_from_file

TASKS: dict[str, str] = {
    "flyvsfly": "readouts.tasks.flyvsfly:task",
    "calms21": "readouts.tasks.calms21:task",
    "stir": "readouts.tasks.stir:task",
    "typhoon": "readouts.tasks.typhoon:task",
    "weatherbench2": "readouts.tasks.weatherbench2:task",
}
"""The benchmark's own, with its settings."""

KINDS: dict[str, str] = {
    "classification": "readouts.tasks.classification:Classification",
    "tracking": "readouts.tasks.tracking:Tracking",
    "regression": "readouts.tasks.regression:Regression",
    "forecast": "readouts.tasks.forecast:Forecast",
}
"""Kind of a task in the manifest -> what it is made of, by its `of`."""


def load_task(name: str, manifest: Manifest) -> Task:
    """The task called `name`; one of a manifest needs no code.

    Raises:
        CallError: there is none, or the file does not hold one.
    """
    if ".py:" in name:
        return task_from_file(name)
    if name in TASKS:
        make: Callable[[Manifest], Task] = _named(TASKS[name])
        return make(manifest)
    entry = manifest.task(name)
    if entry.kind not in KINDS:
        raise CallError(f"task {name} is of kind {entry.kind!r}, which has no readout to train.")
    made: Task = _named(KINDS[entry.kind]).of(manifest, name)
    return made


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
