"""How many tracked points end near a true end point, as the surgical tissue benchmark counts (STIR).

Ground truth there is a set of marked points before and one after, without saying which became which. So a
predicted point is held against the nearest true one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Num
from torch import Tensor

from featcache.errors import CallError, ScividError


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
    _hits: list[int] = field(init=False, repr=False)
    _n_queries: int = field(default=0, init=False, repr=False)
    _error: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._hits = [0 for _ in self.thresholds]

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
            ScividError: a predicted point that counts is not finite.
        """
        valid = query_mask != 0
        if not points[valid].isfinite().all():
            raise ScividError("predicted points are not finite: training diverged, lower the learning rate.")
        error = nearest_endpoint_error(
            points,
            endpoints,
            query_mask=query_mask,
            target_mask=target_mask,
            height=self.rescale_height,
            width=self.rescale_width,
            round_to_nearest_pixel=self.round_to_nearest_pixel,
        )
        self._error += float(error.cpu().double().sum())
        self._n_queries += int(valid.sum())
        for i, threshold in enumerate(self.thresholds):
            self._hits[i] += int(((error <= threshold) & valid).sum())

    def compute(self) -> dict[str, float]:
        """`within_<n>pxl_threshold`, their mean `average_over_thresholds`, and `num_queries`.

        Raises:
            CallError: no valid query was taken yet.
        """
        if not self._n_queries:
            raise CallError("there is no tracking accuracy of no points: evaluate clips with valid queries.")
        within = [hits / self._n_queries for hits in self._hits]
        results = {
            f"within_{n}pxl_threshold": share for n, share in zip(self.thresholds, within, strict=True)
        }
        results["average_over_thresholds"] = sum(within) / len(within)
        results["num_queries"] = float(self._n_queries)
        if self.add_average_error:
            results["average_error"] = self._error / self._n_queries
        return results
