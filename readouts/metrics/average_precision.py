"""Mean average precision over classes of a multi-label classification (REFERENCE: mAP)."""

from collections.abc import Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Int32, Int64, Integer
from torch import Tensor

from readouts.metrics.base import PerClip, Weights, concatenated, counted, refuse_divergence


def per_clip(outputs: Float[Tensor, "B O"], labels: Integer[Tensor, "B O"]) -> dict[str, np.ndarray]:
    """`outputs` as they leave the head and multi-hot `labels`, both [B O]: a rank is one within a split.

    Raises:
        TrainingError: an output is not finite.
    """
    refuse_divergence(outputs, "outputs")
    return {"outputs": outputs.cpu().numpy(), "labels": labels.cpu().numpy()}


def join(batches: Sequence[PerClip]) -> dict[str, np.ndarray]:
    """`ranks` and `labels` [clips O] of a split, ranked once and for all resamples.

    Raises:
        CallError: there is no batch.
    """
    whole = concatenated(batches)
    return {"ranks": ranks_of(whole["outputs"]), "labels": whole["labels"]}


def scores(
    statistics: PerClip,
    weights: Weights | None = None,
    *,
    class_names: Sequence[str] = (),
    background: int | None = None,
    skip_classes: Sequence[int] = (),
) -> dict[str, float]:
    """`mean_AP`, `count`, one `<class>_AP` a named class, and the mean without `skip_classes`.

    Args:
        statistics: of a split, as `join` gives them.
        weights: how often each clip counts; None: once.
        class_names: of all outputs or of none. Background and skipped classes get entries of their own too.
        background: column that no mean includes.
        skip_classes: columns, of those that are left without the background, that a second mean excludes.
    """
    counts = counted(len(statistics["ranks"]), weights)
    each = ranked_precision(statistics["ranks"], statistics["labels"], counts)
    results = {f"{name}_AP": float(ap) for name, ap in zip(class_names, each, strict=bool(class_names))}
    averaged = each if background is None else np.delete(each, background)
    results["mean_AP"] = float(averaged.mean())
    if skip_classes:
        names = ",".join(class_names[i] if class_names else str(i) for i in skip_classes)
        left = np.delete(averaged, list(skip_classes))
        results[f"mean_AP_when_skipping_classes:{names}"] = float(left.mean())
    return {**results, "count": float(counts.sum())}


def drawn_mean(
    statistics: PerClip,
    of_clip: Int64[np.ndarray, "clips"],
    counts: Float64[np.ndarray, "draws clusters"],
    *,
    background: int | None = None,
) -> Float64[np.ndarray, "draws"]:
    """`mean_AP` of many resamples at once.

    Args:
        statistics: of a split, as `join` gives them.
        of_clip: the cluster of each clip, counted from 0.
        counts: how often each cluster was drawn.
        background: column that the mean leaves out.
    """
    columns = [i for i in range(statistics["ranks"].shape[1]) if i != background]
    each = [
        _drawn_areas(statistics["ranks"][:, i], statistics["labels"][:, i] != 0, of_clip, counts)
        for i in columns
    ]
    mean: np.ndarray = np.stack(each).mean(axis=0)
    return mean


def average_precision(
    outputs: Float[np.ndarray, "clips O"], labels: Integer[np.ndarray, "clips O"]
) -> Float64[np.ndarray, "O"]:
    """Area under the precision-recall steps of each output, as scikit-learn has it: ties are one threshold.

    An output without a positive clip counts 0, as it does in the reference, which warns about it.
    """
    return ranked_precision(ranks_of(outputs), labels, np.ones(len(outputs)))


def ranks_of(outputs: Float[np.ndarray, "clips O"]) -> Int32[np.ndarray, "clips O"]:
    """Rank of each clip among an output's distinct values, 0 for the highest; ties share one."""
    ranks = [np.unique(-column, return_inverse=True)[1] for column in outputs.T]
    return np.stack(ranks, axis=1).astype(np.int32)


def ranked_precision(
    ranks: Int32[np.ndarray, "clips O"], labels: Integer[np.ndarray, "clips O"], weights: Weights
) -> Float64[np.ndarray, "O"]:
    """Average precision of each output with clip i counted `weights[i]` times; linear in the clips."""
    columns = zip(ranks.T, labels.T != 0, strict=True)
    return np.array([_area(of_class, positive, weights) for of_class, positive in columns])


def _area(ranks: Int32[np.ndarray, "clips"], positive: Bool[np.ndarray, "clips"], weights: Weights) -> float:
    """Precision at every rank that brings recall, weighted by what it brings."""
    gained = np.bincount(ranks[positive], weights[positive])
    steps = np.flatnonzero(gained)
    if not len(steps):
        return 0.0
    gained, taken = gained[steps], np.bincount(ranks, weights).cumsum()[steps]
    found = gained.cumsum()
    return float((found / taken * gained).sum() / found[-1])


MOST_CELLS = 2**24
"""Of an array of thresholds by clusters, or by draws: 64 MB."""


def _drawn_areas(
    ranks: Int32[np.ndarray, "clips"],
    positive: Bool[np.ndarray, "clips"],
    of_clip: Int64[np.ndarray, "clips"],
    counts: Float64[np.ndarray, "draws clusters"],
) -> Float64[np.ndarray, "draws"]:
    """`_area` of every draw: what each threshold takes of each cluster, times how often that was drawn."""
    steps, brought_at = np.unique(ranks[positive], return_inverse=True)
    if not len(steps):
        return np.zeros(len(counts))
    n_clusters = counts.shape[1]
    if len(steps) * n_clusters > MOST_CELLS:
        return np.array([_area(ranks, positive, drawn[of_clip]) for drawn in counts])

    def table(at: Int64[np.ndarray, "some"], clusters: Int64[np.ndarray, "some"]) -> np.ndarray:
        cells = np.bincount(at * n_clusters + clusters, minlength=len(steps) * n_clusters)
        return rearrange(cells.astype(np.float32), "(step cluster) -> step cluster", cluster=n_clusters)

    # Sums of whole numbers below 2**24, which float32 holds exactly.
    taken_at = np.searchsorted(steps, ranks)
    inside = taken_at < len(steps)
    taken = table(taken_at[inside], of_clip[inside]).cumsum(axis=0)
    brought = table(brought_at, of_clip[positive])
    areas = list[np.ndarray]()
    for some in np.array_split(counts.astype(np.float32), 1 + len(steps) * len(counts) // MOST_CELLS):
        gained, of = brought @ some.T, taken @ some.T
        found = gained.cumsum(axis=0)
        gained *= found
        np.divide(gained, of, out=gained, where=of > 0)  # nothing is gained where nothing is taken
        areas.append(gained.sum(axis=0, dtype=np.float64) / np.maximum(found[-1], 1))
    return np.concatenate(areas)
