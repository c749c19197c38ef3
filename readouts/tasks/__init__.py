"""Tasks by name: the benchmark's, any classification of a manifest, or a user's own `my_task.py:TASK`."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, cast

from featcache.errors import CallError
from featcache.manifest import Manifest
from readouts.tasks.base import Recipe, Task
from readouts.tasks.classification import Classification

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
        return _from_file(name)
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


def _from_file(place: str) -> Task:
    file, _, attribute = place.rpartition(":")
    spec = spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).exists():
        raise CallError(f"--task {place}: there is no Python file {file}.")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    task: Any = getattr(module, attribute, None)
    missing = [
        part for part in ("name", "recipe", "loss", "metric", "head_config") if not hasattr(task, part)
    ]
    if missing:
        raise CallError(
            f"--task {place}: {attribute} lacks {', '.join(missing)} of readouts.tasks.base.Task."
        )
    return cast(Task, task)
