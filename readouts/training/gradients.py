"""Gradients of many heads on one batch, which is gone through once for all of them.

Tokens meet all heads in one pass forward and one backward (`readouts.tokens.pooling`). Between the two each
head reads what it pooled, is judged and sends its gradient back: small work of many calls. Splitting each of
those among threads gains nothing, so on a CPU several heads run side by side, each on one thread.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.system.threads import Item, Result, parallel_map
from readouts.heads.base import Name, Readout, pool_together
from readouts.tokens.pooling import Pooled
from readouts.tokens.prepared import PreparedTokens


def backward(
    heads: Mapping[Name, Readout],
    tokens: PreparedTokens,
    inputs: Mapping[str, Any],
    loss_of: Callable[[Name, Float[Tensor, "B *outputs"]], Float[Tensor, ""]],
) -> dict[Name, Float[Tensor, ""]]:
    """Leave the gradients of every head's loss in its parameters; returns the losses, in the heads' order.

    `loss_of` judges the outputs of the head of a name, `inputs` are for heads that read the tokens
    themselves.
    """
    pooled = pool_together(heads, tokens)
    leaves = {name: _detached(of_head) for name, of_head in pooled.items()}

    def backward_to_leaf(name: Name) -> Float[Tensor, ""]:
        loss = loss_of(name, heads[name].read(leaves[name]))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    losses = {
        name: loss_of(name, head(tokens, **inputs)) for name, head in heads.items() if name not in leaves
    }
    # One backward for all, so that the tokens are gone through once and not once per head.
    ends: list[tuple[Tensor, Tensor | None]] = [(loss, None) for loss in losses.values()]
    losses |= zip(leaves, for_each(backward_to_leaf, leaves, tokens.native.device), strict=True)
    for name, leaf in leaves.items():
        parts = (pooled[name].tokens, leaf.tokens.grad), (pooled[name].mass, leaf.mass.grad)
        ends += [(part, grad) for part, grad in parts if grad is not None]
    torch.autograd.backward([end for end, _ in ends], [grad for _, grad in ends])
    return {name: losses[name].detach() for name in heads}


def for_each(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """`work` of every head or run, in order: on a CPU side by side, one thread each."""
    return parallel_map(work, items) if device.type == "cpu" else [work(item) for item in items]


def _detached(pooled: Pooled) -> Pooled:
    """Cut off from the tokens, so that its gradient stays with it until those of all heads are there."""
    tokens, mass = (part.detach().requires_grad_() for part in (pooled.tokens, pooled.mass))
    return Pooled(tokens=tokens, mass=mass)
