"""Tasks by name: the benchmark's, any classification of a manifest, or a user's own `my_task.py:TASK`."""

from collections.abc import Callable
from importlib import import_module

from featcache.errors import CallError
from featcache.manifest import Manifest
from readouts.tasks.base import Recipe, Task
from readouts.tasks.classification import Classification
from readouts.tasks.from_file import task_from_file

TASKS: dict[str, str] = {
    "flyvsfly": "readouts.tasks.flyvsfly:task",
    "calms21": "readouts.tasks.calms21:task",
}


def load_task(name: str, manifest: Manifest) -> Task:
    """The task called `name`; a classification of the manifest needs no code.

    Raises:
        CallError: there is none, or the file does not hold one.
    """
    if ".py:" in name:
        return task_from_file(name)
    if name in TASKS:
        module, _, function = TASKS[name].partition(":")
        make: Callable[[Manifest], Task] = getattr(import_module(module), function)
        return make(manifest)
    entry = manifest.task(name)
    if entry.kind != "classification":
        raise CallError(f"task {name} is of kind {entry.kind!r}, which has no readout to train.")
    return Classification.of(
        manifest, name, recipe=Recipe(), attention={"width": 1024, "heads": 16, "dropout": 0.5}
    )
