"""Native tokens projected to a few channels, clip by clip: what a side network reads of a layer.

The projection of a token less its mean over channels is all that is written down, [B T N D] with D far below
C; the float32 tokens exist a clip at a time, forward and backward, as in `readouts.tokens.pooling`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from readouts.tokens.prepared import PreparedTokens, tensors_of
from readouts.tokens.products import product


def project(tokens: PreparedTokens, weight: Float[Tensor, "D C"]) -> Float[Tensor, "B T N D"]:
    """The products of every native token, less its mean over channels, with the rows of `weight`."""
    if tokens.differentiable is not None:
        return product(F.linear, tokens.centred, weight)
    found: Tensor = _Projection.apply(tokens, weight)  # type: ignore[no-untyped-call]
    return found


class _Projection(torch.autograd.Function):
    """Of constant tokens: only the weight has a gradient."""

    @staticmethod
    def forward(ctx: Any, tokens: PreparedTokens, weight: Tensor) -> Tensor:
        found = weight.new_empty(*tokens.native.shape[:3], len(weight))

        def work(clips: slice, centred: Tensor) -> None:
            found[clips] = product(F.linear, centred, weight)

        tokens.visit_centred(work)
        if ctx.needs_input_grad[1]:
            ctx.tokens = tokens
            ctx.save_for_backward(weight, *tensors_of(tokens.native))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_found: Tensor) -> tuple[Tensor | None, ...]:
        weight = ctx.saved_tensors[0]
        # By clip, summed at the end: the sum does not depend on the order in which threads finish.
        d_weight = weight.new_empty(len(d_found), *weight.shape)

        def work(clips: slice, centred: Tensor) -> None:
            d_weight[clips] = product(torch.bmm, d_found[clips].flatten(1, 2).mT, centred.flatten(1, 2))

        ctx.tokens.visit_centred(work)
        return None, einsum(d_weight, "b d c -> d c")
