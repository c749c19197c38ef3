"""One pass over a split that scores any number of heads: metrics, kept outputs, evidence a clip."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64

from featcache.system.console import Progress
from readouts.features.batches import evaluation_batches
from readouts.features.splits import FeatureSplit
from readouts.heads.base import Readout, forward_together
from readouts.tasks.base import Rows, Task, evidence_of
from readouts.tokens.prepared import Native, PreparedTokens

Prepare = Callable[[Native], PreparedTokens]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What one pass over a split gave one run; all mappings are by the kind of head."""

    clips: Int64[np.ndarray, " n"]
    outputs: Mapping[str, Float[np.ndarray, "kept *O"]]
    """Of as many clips as the task keeps."""
    scores: Mapping[str, dict[str, float]]
    """Over all clips of the pass."""
    minival_scores: Mapping[str, dict[str, float]]
    """Over the first `minival_clips` of them: the same clips at every point of the curve."""
    evidence: Mapping[str, Mapping[str, np.ndarray]]
    """Head -> what its score follows from, a row a clip; empty where the task's metric has none."""


class _Head:
    """What one head has shown so far."""

    def __init__(self, head: Readout, task: Task, *, kept: int, minival: int | None) -> None:
        self.head, self.kept = head, kept
        self.outputs: list[np.ndarray] = []
        self.whole = task.metric()
        self.minival_clips = minival
        # The same accumulator where minival is all there is.
        self.minival = self.whole if minival is None else task.metric()

    def take(self, found: torch.Tensor, targets: Rows, done: int) -> None:
        if done < self.kept:
            # Copied: a slice would keep all of the batch, and weather's are 200 MB.
            self.outputs.append(found[: self.kept - done].cpu().numpy().copy())
        self.whole.update(found, targets)
        if self.minival_clips is not None and (left := min(len(found), self.minival_clips - done)) > 0:
            self.minival.update(found[:left], {name: values[:left] for name, values in targets.items()})


@torch.inference_mode()
def score(
    runs: Mapping[str, Mapping[str, Readout]],
    task: Task,
    split: FeatureSplit,
    prepare: Prepare,
    device: torch.device,
    *,
    batch: int,
    minival_clips: int,
    limit: int | None = None,
    progress: Progress,
    what: str,
) -> dict[str, Scored]:
    """Run -> what its heads (by kind) make of the first `limit` clips (None: all) of a split, at view 0."""
    n, done, clips = len(split.usable[:limit]), 0, []
    kept = n if task.predictions_kept is None else task.predictions_kept
    minival = minival_clips if n > minival_clips else None
    heads = {
        run: {kind: _Head(head.eval(), task, kept=kept, minival=minival) for kind, head in of.items()}
        for run, of in runs.items()
    }
    every = {f"{run}/{kind}": head for run, of in heads.items() for kind, head in of.items()}
    modules = {name: head.head for name, head in every.items()}
    for found in evaluation_batches(split, task.select, batch, device, limit):
        outputs = forward_together(modules, prepare(found.tokens), task.inputs(found.targets))
        for name, head in every.items():
            head.take(outputs[name].float(), found.targets, done)
        clips.append(found.clips)
        done += len(found.clips)
        progress(what, done, n)
    return {run: _scored(np.concatenate(clips), of) for run, of in heads.items()}


def _scored(clips: Int64[np.ndarray, " n"], heads: Mapping[str, _Head]) -> Scored:
    return Scored(
        clips=clips,
        outputs={kind: np.concatenate(head.outputs) for kind, head in heads.items()},
        scores={kind: head.whole.compute() for kind, head in heads.items()},
        minival_scores={kind: head.minival.compute() for kind, head in heads.items()},
        evidence={kind: evidence_of(head.whole) for kind, head in heads.items()},
    )
