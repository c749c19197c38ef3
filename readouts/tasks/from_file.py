"""A user's own task, `my_task.py:TASK`: read once, checked for all of its parts, identified by the file.

The file may compute anything, so its bytes are what defines the score; the object itself need not say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from featcache.errors import CallError, ScividError
from featcache.system.console import OWN_MODULE
from readouts.tasks.base import TAKES, Recipe, clip_rows, no_inputs, no_score_of


@dataclass(frozen=True, kw_only=True)
class FileTask:
    """The parts of the user's object, and where it came from; see `readouts.tasks.base.Task`."""

    name: str
    recipe: Recipe
    readouts: tuple[str, ...]
    n_outputs: int
    score: str
    higher_is_better: bool
    output_names: tuple[str, ...]
    head_config: Callable[..., dict[str, Any]]
    loss: Callable[..., Any]
    metric: Callable[..., Any]
    controls: Callable[..., Any]
    predictions_kept: int | None
    select: Callable[..., dict[str, Any]]
    inputs: Callable[..., dict[str, Any]]
    score_of: Callable[..., float]
    takes: str
    spec: str
    """As it was given to `--task`."""
    sha256: str
    """Of the file."""

    def identity(self) -> Mapping[str, Any]:
        """The digest of the file, and which object of it."""
        return {
            "sha256": self.sha256,
            "object": self.spec.rpartition(":")[2],
            "score": self.score,
            "n_outputs": self.n_outputs,
        }


OPTIONAL: Mapping[str, Any] = {
    "predictions_kept": None,
    "select": clip_rows,
    "inputs": no_inputs,
    "score_of": no_score_of,
    "takes": "vector",
}
"""What the user's object may have, and what is taken where it has not."""

PARTS = tuple(f.name for f in fields(FileTask) if f.name not in ("spec", "sha256", *OPTIONAL))
"""What the user's object must have."""


def task_from_file(place: str) -> FileTask:
    """The task at `place`, which is `file.py:OBJECT`.

    Raises:
        CallError: there is no such file, it raises when it is read, or its object is no task.
    """
    file, _, attribute = place.rpartition(":")
    module = _module(place, Path(file))
    if not hasattr(module, attribute):
        raise CallError(f"--task {place}: {file} defines no {attribute}.")
    task = getattr(module, attribute)
    if missing := [part for part in PARTS if not hasattr(task, part)]:
        raise CallError(
            f"--task {place}: {attribute} lacks {', '.join(missing)} of readouts.tasks.base.Task."
        )
    parts = {part: getattr(task, part) for part in PARTS}
    parts |= {part: getattr(task, part, default) for part, default in OPTIONAL.items()}
    _check(place, parts)
    return FileTask(**parts, spec=place, sha256=sha256(Path(file).read_bytes()).hexdigest())


def _module(place: str, file: Path) -> ModuleType:
    spec = spec_from_file_location(f"{OWN_MODULE}{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise CallError(f"--task {place}: there is no Python file {file}.")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ScividError:
        raise
    except Exception as problem:  # the user's own code: anything
        raise CallError(f"--task {place}: {file} raises {problem!r} when it is read.") from problem
    return module


def _check(place: str, parts: dict[str, Any]) -> None:
    """Refuse parts of the wrong kind now, rather than hours into a run."""
    for name in ("readouts", "output_names"):
        if isinstance(parts[name], list):
            parts[name] = tuple(parts[name])
    kinds: dict[str, tuple[type, ...]] = {
        "name": (str,), "recipe": (Recipe,), "readouts": (tuple,), "n_outputs": (int,), "score": (str,),
        "higher_is_better": (bool,), "output_names": (tuple,),
    }  # fmt: skip
    wrong = [name for name, kind in kinds.items() if not isinstance(parts[name], kind)]
    functions = ("head_config", "loss", "metric", "controls", "select", "inputs", "score_of")
    wrong += [name for name in functions if not callable(parts[name])]
    kept = parts["predictions_kept"]
    if kept is not None and (not isinstance(kept, int) or kept < 1):
        wrong.append("predictions_kept")
    if parts["takes"] not in TAKES:
        wrong.append("takes")
    if wrong:
        given = ", ".join(f"{name}={parts[name]!r}" for name in wrong)
        raise CallError(f"--task {place}: {given} is not what readouts.tasks.base.Task says it is.")
