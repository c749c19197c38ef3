"""The reference's losses, and how it averages them.

Each loss is a plain function that answers with a `MeanLoss`: the values before any averaging, and the sum
and count whose quotient enters the total. The total of several heads is the plain sum of their means.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from torch import Tensor

NormalizeBy = Literal["mask", "values"]
"""What a masked sum is divided by: the weight of the mask, or the number of values, masked ones too."""

_SMALLEST_COUNT = 1e-8
"""A sum over nothing is 0 / 1e-8: no loss and no gradient where everything is masked."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MeanLoss:
    """A mean in the making (kauldron's AllReduceMean)."""

    values: Float[Tensor, "*shape"]
    """The loss of each element, neither masked nor weighted."""
    total: Float[Tensor, ""]
    """weight * sum(mask * values)."""
    count: Float[Tensor, ""]

    @property
    def mean(self) -> Float[Tensor, ""]:
        """The scalar to minimise."""
        return self.total / self.count.clamp(min=_SMALLEST_COUNT)


def sigmoid_cross_entropy(
    logits: Float[Tensor, "*shape"],
    labels: Num[Tensor, "*shape"],
    *,
    mask: Num[Tensor, "..."] | Bool[Tensor, "..."] | None = None,
    weight: float = 1.0,
    normalize_by: NormalizeBy = "mask",
) -> MeanLoss:
    """Binary cross-entropy of every output against multi-hot `labels`; mean over clips and outputs."""
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
    size = values.new_tensor(float(values.numel()))
    if mask is None:
        return MeanLoss(values=values, total=weight * values.sum(), count=size)
    broad = torch.broadcast_to(mask.to(values.dtype), values.shape)
    count = broad.sum() if normalize_by == "mask" else size
    return MeanLoss(values=values, total=weight * (values * broad).sum(), count=count)
