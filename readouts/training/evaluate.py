"""One pass over a split that scores any number of heads: scores, per-clip statistics, kept outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.system.console import Progress
from readouts.features.batches import Batch, evaluation_batches
from readouts.features.preloaded import PreloadedTokens
from readouts.heads.base import Readout, forward_together
from readouts.metrics.base import PerClip
from readouts.tasks.base import Task
from readouts.tokens.prepared import PreparedTokens
from readouts.training.run import Run
from readouts.training.tuning import Prepare, Tuned, given_to


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What one pass over a split gave one run; all mappings are by the kind of head."""

    clips: Int64[np.ndarray, " n"]
    outputs: Mapping[str, Float[np.ndarray, "kept *O"]]
    """Outputs of the first clips, of as many as the task keeps."""
    scores: Mapping[str, dict[str, float]]
    """Scores over all clips of the pass, by name."""
    minival_scores: Mapping[str, dict[str, float]]
    """Scores over the first `minival_clips` of them: the same clips at every point of the curve."""
    per_clip: Mapping[str, PerClip]
    """Statistics of every clip, that all scores follow from."""


Heads = Mapping[str, Mapping[str, Readout]]
"""Run -> kind of head -> head."""


@torch.inference_mode()
def score(
    runs: Heads,
    like: Run,
    role: str,
    prepare: Prepare,
    device: torch.device,
    *,
    limit: int | None = None,
    progress: Progress,
    preloaded: PreloadedTokens | None = None,
    backbones: Mapping[str, Tuned] = MappingProxyType({}),
) -> dict[str, Scored]:
    """Score every head in one pass over the first `limit` clips (None: all) of a split, at view 0.

    Args:
        runs: run -> kind of head -> head.
        like: one of the runs, whose task, splits, batch and number of minival clips are those of all.
        role: of the split.
        prepare: makes of tokens as stored what heads see.
        device: of the heads.
        limit: clips at the most.
        progress: told how many clips are done.
        preloaded: clips of the split that need not be read.
        backbones: run -> what is tuned of its backbone; the heads of others see tokens as stored.
    """
    task, split, minival_clips = like.task, like.splits[role], like.recipe.minival_clips
    clips = split.first_usable(0)
    n = split.n_usable if limit is None else min(limit, split.n_usable)
    n_kept = n if task.predictions_kept is None else task.predictions_kept
    names = [f"{run}/{kind}" for run, of in runs.items() for kind in of]
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    statistics: dict[str, list[PerClip]] = {name: [] for name in names}
    batches = evaluation_batches(
        split, task.select, like.recipe.batch, device, limit, preloaded, like.feed(role)
    )
    for found in batches:
        for name, values in _outputs(runs, backbones, found, prepare, task).items():
            given = values.float()
            statistics[name].append(task.per_clip(given, found.targets))
            if len(clips) < n_kept:
                # Copied: a slice would keep all of the batch, and weather's are 200 MB.
                kept[name].append(given[: n_kept - len(clips)].cpu().numpy().copy())
        clips = np.concatenate([clips, found.clips])
        progress(f"scoring {role}", len(clips), n)
    whole = {name: task.join(batches) for name, batches in statistics.items()}
    scores = {name: task.scores(of) for name, of in whole.items()}
    first = {name: {key: rows[:minival_clips] for key, rows in of.items()} for name, of in whole.items()}
    minival = {name: task.scores(of) for name, of in first.items()} if n > minival_clips else scores
    return {
        run: Scored(
            clips=clips,
            outputs={kind: np.concatenate(kept[f"{run}/{kind}"]) for kind in of},
            scores={kind: scores[f"{run}/{kind}"] for kind in of},
            minival_scores={kind: minival[f"{run}/{kind}"] for kind in of},
            per_clip={kind: whole[f"{run}/{kind}"] for kind in of},
        )
        for run, of in runs.items()
    }


def _outputs(
    runs: Heads, backbones: Mapping[str, Tuned], batch: Batch, prepare: Prepare, task: Task
) -> dict[str, Float[Tensor, "B *outputs"]]:
    """Run and kind of head -> outputs: those on stored tokens in one pass, each tuned run's by themselves."""
    inputs = task.inputs(batch.targets)
    groups: list[tuple[list[str], Callable[[], PreparedTokens]]] = []
    if frozen := [run for run in runs if run not in backbones]:
        groups.append((frozen, partial(prepare, batch.tokens)))
    for run, backbone in backbones.items():
        groups.append(([run], partial(_tuned_tokens, backbone, batch, prepare)))
    found: dict[str, Tensor] = {}
    for names, tokens in groups:
        heads = {f"{run}/{kind}": head.eval() for run in names for kind, head in runs[run].items()}
        found |= forward_together(heads, tokens(), inputs)
    return found


def _tuned_tokens(backbone: Tuned, batch: Batch, prepare: Prepare) -> PreparedTokens:
    return prepare(backbone.tokens(given_to(batch)))
