"""The reference's losses, and how it averages them.

Each loss is a plain function that returns a `MeanLoss`, the sum and the count whose quotient is minimised.
The total of several heads, or of a task's several losses, is the plain sum of their means.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Num
from torch import Tensor
from torch.autograd.function import once_differentiable

NormalizeBy = Literal["mask", "values"]
"""What a masked sum is divided by: the weight of the mask, or the number of values, masked ones too."""

_SMALLEST_COUNT = 1e-8
"""A sum over nothing is 0 / 1e-8: no loss and no gradient where everything is masked."""

_SMALLEST_SQUARE = 1e-12
"""Added below the root of a squared distance, whose gradient at 0 would be infinite."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MeanLoss:
    """A mean that is not divided yet (kauldron's AllReduceMean)."""

    total: Float[Tensor, ""]
    """The weighted sum: weight * sum(mask * values)."""
    count: Float[Tensor, ""]
    """The weight of the mask, or the number of values: see `NormalizeBy`."""

    @property
    def mean(self) -> Float[Tensor, ""]:
        """The scalar to minimise, 0 where nothing counts."""
        return self.total / self.count.clamp(min=_SMALLEST_COUNT)


def sigmoid_cross_entropy(
    logits: Float[Tensor, "*shape"],
    labels: Num[Tensor, "*shape"] | Bool[Tensor, "*shape"],
    *,
    mask: Num[Tensor, "..."] | Bool[Tensor, "..."] | None = None,
    weight: float = 1.0,
    normalize_by: NormalizeBy = "mask",
) -> MeanLoss:
    """Binary cross-entropy of every output against `labels` of 0 and 1; mean over clips and outputs."""
    values = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return masked_mean(values, mask=mask, weight=weight, normalize_by=normalize_by)


def squared_error(
    predicted: Float[Tensor, "*shape"],
    target: Num[Tensor, "*shape"],
    *,
    mask: Num[Tensor, "..."] | Bool[Tensor, "..."] | None = None,
    weight: float = 1.0,
    normalize_by: NormalizeBy = "mask",
) -> MeanLoss:
    """(predicted - target)^2, in the square of the target's unit; mean over all elements."""
    values = (predicted - target).square()
    return masked_mean(values, mask=mask, weight=weight, normalize_by=normalize_by)


def track_huber(
    points: Float[Tensor, "B F Q 2"],
    targets: Float[Tensor, "B F Q 2"],
    mask: Num[Tensor, "B F Q 1"] | Bool[Tensor, "B F Q 1"] | None,
    *,
    delta: float,
    weight: float = 100.0,
    normalize_by: NormalizeBy = "values",
) -> MeanLoss:
    """Huber loss of the distance of each point from its target (REFERENCE: tap Huber).

    Args:
        points: predicted x, y in [0, 1], of the frame's width and height.
        targets: true x, y in [0, 1].
        mask: 1 or True for points that count; None for all.
        delta: distance from which the loss grows linearly; 1 / rows of the frame is one pixel.
        weight: what the sum is multiplied by.
        normalize_by: `values` in the benchmark, where masked points lower the mean.
    """
    squared = _squared_distance(points, targets)
    distance = (squared + _SMALLEST_SQUARE).sqrt()
    values = torch.where(distance < delta, squared / 2, delta * (distance - delta / 2))
    return masked_mean(values, mask=mask, weight=weight, normalize_by=normalize_by)


def certainty_cross_entropy(
    logits: Float[Tensor, "B F Q 1"],
    points: Float[Tensor, "B F Q 2"],
    targets: Float[Tensor, "B F Q 2"],
    mask: Num[Tensor, "B F Q 1"] | Bool[Tensor, "B F Q 1"] | None,
    *,
    threshold: float = 6 / 224,
    weight: float = 0.1,
    normalize_by: NormalizeBy = "values",
) -> MeanLoss:
    """Cross-entropy of "this point is within `threshold` of its target" (REFERENCE: tap certainty).

    Distances are in shares of the frame: 6 / 224 is six pixels. No gradient reaches the points.
    """
    near = _squared_distance(points.detach(), targets) <= threshold**2
    return sigmoid_cross_entropy(logits, near, mask=mask, weight=weight, normalize_by=normalize_by)


def track_losses(
    points: Float[Tensor, "B F Q 2"],
    visible_logits: Float[Tensor, "B F Q 1"],
    certainty_logits: Float[Tensor, "B F Q 1"],
    *,
    targets: Float[Tensor, "B F Q 2"],
    visible: Num[Tensor, "B F Q 1"] | Bool[Tensor, "B F Q 1"],
    query_mask: Num[Tensor, "B Q 1"] | Bool[Tensor, "B Q 1"],
    target_mask: Num[Tensor, "B F Q 1"] | Bool[Tensor, "B F Q 1"],
    rows: int = 224,
) -> dict[str, MeanLoss]:
    """The three losses of the tracking task, as the benchmark weighs them.

    Args:
        points: predicted x, y in [0, 1].
        visible_logits: of visibility.
        certainty_logits: of lying within six pixels of the target.
        targets: true x, y in [0, 1].
        visible: 1 where a track is seen.
        query_mask: 1 for queries that are not padding.
        target_mask: visible * query_mask.
        rows: of the frame, in pixels: the Huber loss turns linear at one, certainty ends at six.
    """
    # Visibility counts in every frame of the valid queries: F * sum(query_mask).
    asked = rearrange(query_mask, "b q 1 -> b 1 q 1")
    return {
        "points": track_huber(points, targets, target_mask, delta=1 / rows),
        "visible": sigmoid_cross_entropy(visible_logits, visible, mask=asked, weight=0.1),
        "certainty": certainty_cross_entropy(
            certainty_logits, points, targets, target_mask, threshold=6 / rows
        ),
    }


def total_of(losses: Mapping[str, MeanLoss]) -> Float[Tensor, ""]:
    """What is minimised when several losses are: the sum of their means."""
    return torch.stack([loss.mean for loss in losses.values()]).sum()


def area_weighted_l1(
    predicted: Float[Tensor, "B F Y X C"],
    target: Float[Tensor, "B F Y X C"],
    *,
    latitude_weights: Float[Tensor, "Y"],
    residual_std: Float[Tensor, "C"],
) -> MeanLoss:
    """|predicted - target| in residual deviations, weighted by lead and area; mean over all elements.

    Frame t (0-based) weighs 1 / sqrt(t + 1), row y `latitude_weights[y]` (REFERENCE: WB L1).

    Args:
        predicted: fields in their own units.
        target: fields in the same units.
        latitude_weights: mean 1 (`readouts.metrics.area.latitude_weights`).
        residual_std: of each variable's change over one step, in its unit.
    """
    # Half-precision predictions meet float32 targets: the wider of the two counts and weighs.
    wide = target.new_empty(0, dtype=torch.result_type(predicted, target))
    lead = torch.arange(1, predicted.shape[1] + 1, device=wide.device, dtype=wide.dtype)
    scale = rearrange(residual_std.to(wide), "c -> 1 1 c") * rearrange(lead.sqrt(), "f -> f 1 1")
    weights = rearrange(latitude_weights.to(wide), "y -> 1 y 1") / scale
    return MeanLoss(
        total=_WeightedAbsoluteSum.apply(predicted, target, weights),  # type: ignore[no-untyped-call]
        count=wide.new_full((), float(predicted.numel())),
    )


class _WeightedAbsoluteSum(torch.autograd.Function):
    """sum(weights[f, y, c] * |predicted - target|), clip by clip.

    Written out, forward and backward make six arrays of the fields' size and on a CPU take five times as
    long, most of it page faults. Here the gradient is the only one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        predicted: Float[Tensor, "B F Y X C"],
        target: Float[Tensor, "B F Y X C"],
        weights: Float[Tensor, "F Y C"],
    ) -> Float[Tensor, ""]:
        rows = torch.zeros_like(weights)
        for one, other in zip(predicted, target, strict=True):
            rows = rows + (one - other).abs_().sum(dim=2)
        return (rows * weights).sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, ""]) -> tuple[Tensor | None, Tensor | None, None]:
        predicted, target, weights = ctx.saved_tensors
        sign = (predicted - target).sign_()
        slope = sign.mul_(rearrange(weights * gradient, "f y c -> f y 1 c"))
        return slope, -slope if ctx.needs_input_grad[1] else None, None


def masked_mean(
    values: Float[Tensor, "*shape"],
    *,
    mask: Num[Tensor, "..."] | Bool[Tensor, "..."] | None,
    weight: float,
    normalize_by: NormalizeBy,
) -> MeanLoss:
    """The mean as the reference takes it (REFERENCE: losses).

    `mask` broadcasts to the shape of `values` *before* it is counted: [B, 1, Q, 1] over [B, T, Q, 1] weighs
    T * sum(mask). Without a mask every value counts one.
    """
    # Filled on the device: a number that is copied there makes the host wait for all queued work.
    size = values.new_full((), float(values.numel()))
    if mask is None:
        return MeanLoss(total=weight * values.sum(), count=size)
    broad = torch.broadcast_to(mask.to(values.dtype), values.shape)
    count = broad.sum() if normalize_by == "mask" else size
    return MeanLoss(total=weight * (values * broad).sum(), count=count)


def _squared_distance(
    points: Float[Tensor, "B F Q 2"], targets: Float[Tensor, "B F Q 2"]
) -> Float[Tensor, "B F Q 1"]:
    return (points - targets).square().sum(dim=-1, keepdim=True)
