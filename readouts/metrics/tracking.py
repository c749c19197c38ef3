"""How many tracked points end near a true end point, as the surgical tissue benchmark counts (STIR).

Ground truth there is a set of marked points before and one after, without saying which became which. So a
predicted point is held against the nearest true one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Num
from torch import Tensor

from featcache.errors import CallError, TrainingError

NO_POINTS = "there is no tracking accuracy of no points: evaluate clips with valid queries."


def nearest_endpoint_error(
    points: Float[Tensor, "B Q 2"],
    endpoints: Float[Tensor, "B P 2"],
    *,
    query_mask: Num[Tensor, "B Q"] | Bool[Tensor, "B Q"],
    target_mask: Num[Tensor, "B P"] | Bool[Tensor, "B P"],
    height: int = 1024,
    width: int = 1280,
    round_to_nearest_pixel: bool = True,
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
    """
    found, true = (side.float() * side.new_tensor((width, height)).float() for side in (points, endpoints))
    if round_to_nearest_pixel:
        found, true = found.round(), true.round()
    difference = rearrange(found, "b q xy -> b q 1 xy") - rearrange(true, "b p xy -> b 1 p xy")
    distance = difference.square().sum(dim=-1).sqrt()
    distance = distance.masked_fill(rearrange(query_mask == 0, "b q -> b q 1"), 0.0)
    distance = distance.masked_fill(rearrange(target_mask == 0, "b p -> b 1 p"), torch.inf)
    # One more that is infinitely far, so that a clip may have none.
    return F.pad(distance, (0, 1), value=torch.inf).amin(dim=-1)


@dataclass(kw_only=True, slots=True)
class TrackAccuracy:
    """Share of points within a few pixels of a true end point, over all points of a split."""

    thresholds: Sequence[int] = (4, 8, 16, 32, 64)
    """Pixels; a point that far counts as near."""
    rescale_height: int = 1024
    rescale_width: int = 1280
    round_to_nearest_pixel: bool = True
    add_average_error: bool = False
    """Also `average_error`, in pixels; infinite where a clip has no end point."""
    _taken: list[dict[str, np.ndarray]] = field(default_factory=list, init=False, repr=False)
    """The evidence of each batch."""

    @torch.no_grad()
    def update(
        self,
        points: Float[Tensor, "B Q 2"],
        endpoints: Float[Tensor, "B P 2"],
        query_mask: Num[Tensor, "B Q"] | Bool[Tensor, "B Q"],
        target_mask: Num[Tensor, "B P"] | Bool[Tensor, "B P"],
    ) -> None:
        """Take one batch: predicted points of the last frame and true ones, x, y in [0, 1].

        Raises:
            TrainingError: a predicted point that counts is not finite.
        """
        valid = query_mask != 0
        if not points[valid].isfinite().all():
            raise TrainingError(
                "predicted points are not finite: training diverged, lower the learning rate."
            )
        error = nearest_endpoint_error(
            points,
            endpoints,
            query_mask=query_mask,
            target_mask=target_mask,
            height=self.rescale_height,
            width=self.rescale_width,
            round_to_nearest_pixel=self.round_to_nearest_pixel,
        )
        hits = torch.stack([((error <= near) & valid).sum(dim=1) for near in self.thresholds], dim=1)
        evidence = {"hits": hits, "points": valid.sum(dim=1), "pixels": error.double().sum(dim=1)}
        self._taken.append({name: values.cpu().numpy() for name, values in evidence.items()})

    def compute(self) -> dict[str, float]:
        """`within_<n>pxl_threshold`, their mean `average_over_thresholds`, and `num_queries`.

        Raises:
            CallError: no valid query was taken yet.
        """
        evidence = self.evidence()
        return self.results_of(evidence, np.ones(len(evidence["points"])))

    def evidence(self) -> dict[str, np.ndarray]:
        """What the scores need of each clip: `hits` [clips thresholds], `points` and summed `pixels` [clips].

        Raises:
            CallError: no batch was taken yet.
        """
        if not self._taken:
            raise CallError(NO_POINTS)
        return {name: np.concatenate([batch[name] for batch in self._taken]) for name in self._taken[0]}

    def results_of(
        self, evidence: Mapping[str, np.ndarray], weights: Float64[np.ndarray, " n"]
    ) -> dict[str, float]:
        """As `compute`, with clip i of the evidence counted `weights[i]` times.

        Raises:
            CallError: the clips that count have no valid query.
        """
        n_points = float(weights @ evidence["points"])
        if not n_points:
            raise CallError(NO_POINTS)
        within = [float(hits) / n_points for hits in weights @ evidence["hits"]]
        results = {
            f"within_{n}pxl_threshold": share for n, share in zip(self.thresholds, within, strict=True)
        }
        results["average_over_thresholds"] = sum(within) / len(within)
        results["num_queries"] = n_points
        if self.add_average_error:
            counted = weights > 0  # 0 times infinitely far is nothing
            results["average_error"] = float(weights[counted] @ evidence["pixels"][counted]) / n_points
        return results
