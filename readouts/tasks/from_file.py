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

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError, ScividError
from featcache.system.console import OWN_MODULE
from readouts.metrics.base import PerClip, Weights, concatenated
from readouts.tasks.base import TAKES, Metric, Recipe, Rows, clip_rows, no_inputs


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
    per_clip: Callable[..., PerClip]
    scores: Callable[..., dict[str, float]]
    baselines: Callable[..., Any]
    predictions_kept: int | None
    select: Callable[..., dict[str, Any]]
    inputs: Callable[..., dict[str, Any]]
    join: Callable[..., PerClip]
    takes: str
    spec: str
    """What was given to `--task`."""
    sha256: str
    """The digest of the file's bytes."""

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
    "join": concatenated,
    "takes": "vector",
}
"""What the user's object may have, and what is taken where it has not."""

PARTS = tuple(f.name for f in fields(FileTask) if f.name not in ("spec", "sha256", *OPTIONAL))
"""What the user's object must have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccumulatedScores:
    """The `per_clip` and `scores` of an object that has `metric()`, an accumulator, as tasks had them before.

    Its scores follow from nothing less than outputs and targets, so these are kept: of fields, all that a
    split has. In a resample the accumulator is given each clip as often as it was drawn.
    """

    metric: Callable[[], Metric]
    score: str
    score_of: Callable[[PerClip, Weights], float] | None
    """The score that follows from statistics which runs of before kept of the metric itself."""

    def per_clip(self, outputs: Float[Tensor, "B *O"], targets: Rows) -> dict[str, np.ndarray]:
        """All that the accumulator is given."""
        given = {"metric/outputs": outputs, **{f"metric/targets/{name}": of for name, of in targets.items()}}
        return {name: values.cpu().numpy() for name, values in given.items()}

    def scores(self, per_clip: PerClip, weights: Weights | None = None) -> dict[str, float]:
        """What the accumulator computes of the clips.

        Raises:
            CallError: the statistics are of a run of before, and the object has no `score_of`.
        """
        counts = 1 if weights is None else weights.astype(np.int64)
        if "metric/outputs" in per_clip:
            rows = {name: torch.from_numpy(np.repeat(of, counts, axis=0)) for name, of in per_clip.items()}
            metric, outputs = self.metric(), rows.pop("metric/outputs")
            metric.update(outputs, {name.removeprefix("metric/targets/"): of for name, of in rows.items()})
            return metric.compute()
        if self.score_of is None:
            raise CallError(
                "this task's score comes without an interval: its run was scored by an older version, for "
                "which its file would have to define score_of(evidence, weights). Train it with --again."
            )
        n_clips = len(next(iter(per_clip.values())))
        return {self.score: self.score_of(per_clip, np.ones(n_clips) if weights is None else weights)}


def task_from_file(spec: str) -> FileTask:
    """The task at `spec`, which is `file.py:OBJECT`.

    Raises:
        CallError: there is no such file, it raises when it is read, or its object is no task.
    """
    file, _, attribute = spec.rpartition(":")
    module = _module(spec, Path(file))
    if not hasattr(module, attribute):
        raise CallError(f"--task {spec}: {file} defines no {attribute}.")
    parts = _parts(getattr(module, attribute))
    if missing := [part for part in PARTS if part not in parts]:
        raise CallError(f"--task {spec}: {attribute} lacks {', '.join(missing)} of readouts.tasks.base.Task.")
    _check(spec, parts)
    return FileTask(**parts, spec=spec, sha256=sha256(Path(file).read_bytes()).hexdigest())


def _parts(task: object) -> dict[str, Any]:
    """What the user's object has of a task; what had another name or form before becomes today's.

    Parts of before come first: an object of one of our own classes may override what the class had then.
    """
    found = {part: getattr(task, part) for part in (*PARTS, *OPTIONAL) if hasattr(task, part)}
    if callable(controls := getattr(task, "controls", None)):
        found["baselines"] = controls
    if callable(metric := getattr(task, "metric", None)):
        score_of = getattr(task, "score_of", None)
        accumulated = AccumulatedScores(metric=metric, score=found.get("score", ""), score_of=score_of)
        found |= {"per_clip": accumulated.per_clip, "scores": accumulated.scores, "join": concatenated}
    return {**OPTIONAL, **found}


def _module(spec: str, file: Path) -> ModuleType:
    found = spec_from_file_location(f"{OWN_MODULE}{file.stem}", file)
    if found is None or found.loader is None or not file.is_file():
        raise CallError(f"--task {spec}: there is no Python file {file}.")
    module = module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except ScividError:
        raise
    except Exception as problem:  # the user's own code: anything
        raise CallError(f"--task {spec}: {file} raises {problem!r} when it is read.") from problem
    return module


def _check(spec: str, parts: dict[str, Any]) -> None:
    """Refuse parts of the wrong kind now, rather than hours into a run."""
    for name in ("readouts", "output_names"):
        if isinstance(parts[name], list):
            parts[name] = tuple(parts[name])
    kinds: dict[str, type] = {
        "name": str, "recipe": Recipe, "readouts": tuple, "n_outputs": int, "score": str,
        "higher_is_better": bool, "output_names": tuple,
    }  # fmt: skip
    wrong = [name for name, kind in kinds.items() if not isinstance(parts[name], kind)]
    functions = ("head_config", "loss", "per_clip", "scores", "baselines", "select", "inputs", "join")
    wrong += [name for name in functions if not callable(parts[name])]
    kept = parts["predictions_kept"]
    if kept is not None and (not isinstance(kept, int) or kept < 1):
        wrong.append("predictions_kept")
    if parts["takes"] not in TAKES:
        wrong.append("takes")
    if wrong:
        given = ", ".join(f"{name}={parts[name]!r}" for name in wrong)
        raise CallError(f"--task {spec}: {given} is not what readouts.tasks.base.Task says it is.")
