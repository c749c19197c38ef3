"""How many tracked points end near a true end point, as surgical tissue is scored (REFERENCE: STIR).

Its targets are a set of marked points before and one after, without saying which became which. So a
predicted point is held against the nearest true one.

Where every point is known in every frame, and when it is seen, tracks are also scored as TAP-Vid does it
(Doersch et al., NeurIPS 2022), at the thresholds of the STIR challenge of 2026: Average Jaccard.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Num
from torch import Tensor

from featcache.errors import CallError
from readouts.metrics.base import PerClip, Weights, counted, refuse_divergence

THRESHOLDS = (4, 8, 16, 32, 64)
"""Pixels of 1280 x 1024; a point that far from an end point counts as near."""

JACCARD_THRESHOLDS = (2, 4, 8, 16, 32)
"""Those of the STIR challenge of 2026, of the same pixels."""

HEIGHT, WIDTH = 1024, 1280
"""Rows and columns that y = 1 and x = 1 stand for."""


@torch.no_grad()
def per_clip(
    points: Float[Tensor, "B Q 2"],
    endpoints: Float[Tensor, "B P 2"],
    query_mask: Num[Tensor, "B Q"] | Bool[Tensor, "B Q"],
    target_mask: Num[Tensor, "B P"] | Bool[Tensor, "B P"],
    *,
    thresholds: Sequence[int] = THRESHOLDS,
    **pixels: Any,
) -> dict[str, np.ndarray]:
    """How many `points` [B] of a clip count, `hits` [B thresholds] of them, and `pixels` [B] off in all.

    Points, masks and `pixels` (size, rounding, matching) are as `nearest_endpoint_error` takes them.

    Raises:
        TrainingError: a predicted point that counts is not finite.
    """
    valid = query_mask != 0
    refuse_divergence(points[valid], "predicted points")
    error = nearest_endpoint_error(
        points, endpoints, query_mask=query_mask, target_mask=target_mask, **pixels
    )
    hits = torch.stack([((error <= near) & valid).sum(dim=1) for near in thresholds], dim=1)
    found = {"hits": hits, "points": valid.sum(dim=1), "pixels": error.double().sum(dim=1)}
    return {name: values.cpu().numpy() for name, values in found.items()}


def scores(
    statistics: PerClip,
    weights: Weights | None = None,
    *,
    thresholds: Sequence[int] = THRESHOLDS,
    add_average_error: bool = False,
) -> dict[str, float]:
    """`within_<n>pxl_threshold` over all points, their mean `average_over_thresholds`, and `num_queries`.

    Where `jaccard_counts` are among the statistics, also `jaccard_<n>pxl`, the mean over clips of each clip's
    own, and their mean `average_jaccard`; a clip without a point that is seen, or said to be, has none.

    Args:
        statistics: of a split, as `per_clip` gives them.
        weights: how often each clip counts; None: once.
        thresholds: those of the statistics.
        add_average_error: `average_error` as well, in pixels; infinite where a clip has no end point.

    Raises:
        CallError: the clips that count have no valid query.
    """
    counts = counted(len(statistics["points"]), weights)
    n_points = float(counts @ statistics["points"])
    if not n_points:
        raise CallError("there is no tracking accuracy of no points: evaluate clips with valid queries.")
    within = [float(hits) / n_points for hits in counts @ statistics["hits"]]
    results = {f"within_{n}pxl_threshold": share for n, share in zip(thresholds, within, strict=True)}
    results["average_over_thresholds"] = sum(within) / len(within)
    results["num_queries"] = n_points
    if "jaccard_hits" in statistics:
        results |= _jaccard_scores(statistics, counts)
    if add_average_error:
        drawn = counts > 0  # 0 times infinitely far is nothing
        results["average_error"] = float(counts[drawn] @ statistics["pixels"][drawn]) / n_points
    return results


@torch.no_grad()
def jaccard_counts(
    points: Float[Tensor, "B F Q 2"],
    seen: Bool[Tensor, "B F Q"],
    *,
    true_points: Float[Tensor, "B F Q 2"],
    truly_seen: Bool[Tensor, "B F Q"],
    query_mask: Num[Tensor, "B Q"] | Bool[Tensor, "B Q"],
) -> dict[str, np.ndarray]:
    """Of each clip and threshold [B n] the points that are right, `jaccard_hits`, and all, `jaccard_union`.

    In the frames after the first, in which they are asked for. A point is right where it is seen, said to be
    seen, and nearer than the threshold. All are those that are seen, and those said to be seen that are not
    right: one that is said to be seen and is too far off counts twice, as missed and as made up.

    Args:
        points: predicted x, y in [0, 1].
        seen: whether the head says that a point is seen.
        true_points: x, y in [0, 1] of the same points; anything where they are not seen.
        truly_seen: whether they are seen.
        query_mask: 1 for points that are not padding.
    """
    asked = rearrange(query_mask != 0, "b q -> b 1 q")
    scale = points.new_tensor((WIDTH, HEIGHT))
    distance = ((points - true_points) * scale).square().sum(dim=-1).sqrt()[:, 1:]
    said, true = (flags[:, 1:] & asked for flags in (seen, truly_seen))
    hits, union = [], []
    for threshold in JACCARD_THRESHOLDS:
        right = said & true & (distance < threshold)
        hits.append(right.sum(dim=(1, 2)))
        union.append(true.sum(dim=(1, 2)) + (said & ~right).sum(dim=(1, 2)))
    found = {"jaccard_hits": hits, "jaccard_union": union}
    return {name: torch.stack(values, dim=1).cpu().numpy() for name, values in found.items()}


def _jaccard_scores(statistics: PerClip, counts: Weights) -> dict[str, float]:
    counts, hits, union = counts[:, None], statistics["jaccard_hits"], statistics["jaccard_union"]
    there = counts * (union > 0)
    of_clips = there * hits / np.maximum(union, 1)
    each = [float(total / n) if n else 0.0 for total, n in zip(of_clips.sum(0), there.sum(0), strict=True)]
    named = {f"jaccard_{n}pxl": value for n, value in zip(JACCARD_THRESHOLDS, each, strict=True)}
    return named | {"average_jaccard": sum(each) / len(each)}


def nearest_endpoint_error(
    points: Float[Tensor, "B Q 2"],
    endpoints: Float[Tensor, "B P 2"],
    *,
    query_mask: Num[Tensor, "B Q"] | Bool[Tensor, "B Q"],
    target_mask: Num[Tensor, "B P"] | Bool[Tensor, "B P"],
    height: int = HEIGHT,
    width: int = WIDTH,
    round_to_nearest_pixel: bool = True,
    matched: bool = False,
) -> Float[Tensor, "B Q"]:
    """Pixels from each point to the nearest valid end point of its clip (REFERENCE: STIR).

    As in the reference, padded queries are 0 away; in a clip without end points all are infinitely far.

    Args:
        points: predicted x, y in [0, 1] of the last frame.
        endpoints: true x, y in [0, 1], P of them, in any order.
        query_mask: 1 for queries that are not padding.
        target_mask: 1 for end points that are not padding.
        height: rows that y = 1 stands for.
        width: columns that x = 1 stands for.
        round_to_nearest_pixel: both sides, halves to the even pixel, in float32.
        matched: point q became end point q, and only that one counts.
    """
    found, true = (side.float() * side.new_tensor((width, height)).float() for side in (points, endpoints))
    if round_to_nearest_pixel:
        found, true = found.round(), true.round()
    if matched:
        own = (found - true).square().sum(dim=-1).sqrt()
        return own.masked_fill(target_mask == 0, torch.inf).masked_fill(query_mask == 0, 0.0)
    difference = rearrange(found, "b q xy -> b q 1 xy") - rearrange(true, "b p xy -> b 1 p xy")
    distance = difference.square().sum(dim=-1).sqrt()
    distance = distance.masked_fill(rearrange(query_mask == 0, "b q -> b q 1"), 0.0)
    distance = distance.masked_fill(rearrange(target_mask == 0, "b p -> b 1 p"), torch.inf)
    # One more that is infinitely far, so that a clip may have none.
    return F.pad(distance, (0, 1), value=torch.inf).amin(dim=-1)
