"""Attention pooling of cached tokens: many heads' questions answered in one pass over a batch.

With its query and key matrix folded into keys (see `readouts.heads.attention`), a head asks one thing of
the tokens: the softmax of their products with a few keys, and their sums under it. Tokens that need no
gradient are gone through clip by clip, forward and backward: a clip is cast once a pass, and all heads' keys
meet it together while it is in cache, with the bits that each has in any company (`tokens.row_products`).
The backward pass casts again, as that costs a tenth of keeping float32 would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from readouts.tokens.prepared import ImplicitTokens, PreparedTokens, QuantizedTokens
from readouts.tokens.row_products import filled_up, row_products


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A head's question to tokens z: their sums under a softmax of `keys[k] . z[u, n] + offset[k, u]`."""

    keys: Float[Tensor, "K C"]
    offset: Float[Tensor, "K U"]
    standardised: bool = True
    """Of standardised tokens, or of those as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What it gets, with a the softmax: what the head makes of it is dense layers a clip."""

    pooled: Float[Tensor, "B K C"]
    """Sums of a[u, n] * z[u, n] over (u, n)."""
    mass: Float[Tensor, "B K U"]
    """Sums of a[u, n] over n: how much of the attention each step has."""


def pool(tokens: PreparedTokens, asks: Sequence[Ask]) -> list[Answer]:
    """The answers, in order; one pass over the batch for all that ask of standardised constant tokens."""
    if tokens.differentiable is not None:
        return [attend(_as_asked(tokens, ask), ask) for ask in asks]
    together = iter(_pool_together(tokens, [ask for ask in asks if ask.standardised]))
    return [next(together) if ask.standardised else attend(_as_asked(tokens, ask), ask) for ask in asks]


def _pool_together(tokens: PreparedTokens, asks: Sequence[Ask]) -> list[Answer]:
    if not asks:
        return []
    keys = [filled_up(ask.keys) for ask in asks]
    offset = torch.cat([filled_up(ask.offset) for ask in asks])
    sizes = [len(of_one) for of_one in keys]
    pooled, mass = _Pooling.apply(tokens, sizes, torch.cat(keys), offset)  # type: ignore[no-untyped-call]
    parts = zip(asks, pooled.split(sizes, dim=1), mass.split(sizes, dim=1), strict=True)
    return [Answer(pooled=p[:, : len(ask.keys)], mass=m[:, : len(ask.keys)]) for ask, p, m in parts]


def attend(tokens: ImplicitTokens, ask: Ask) -> Answer:
    """The same by autograd's own operations, for a whole batch at once."""
    scores = tokens.dot(ask.keys) + ask.offset[..., None]
    weights = rearrange(scores.flatten(2).softmax(dim=-1), "b k (u n) -> b k u n", u=tokens.steps)
    return Answer(pooled=tokens.pool(weights), mass=weights.sum(dim=-1))


def _as_asked(tokens: PreparedTokens, ask: Ask) -> ImplicitTokens:
    return tokens.standardised if ask.standardised else tokens.plain


class _Pooling(torch.autograd.Function):
    """`attend` for the keys of many asks, one below the other: `sizes[i]` of the i-th.

    With w the softmax and z the tokens, pooled = sum w z and mass_u = sum_n w, the gradient of a weight is
    d_pooled . z + d_mass_u, of a score the softmax's of that, of the keys the sums of it times z.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: PreparedTokens, sizes: Sequence[int], keys: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        n_clips, _, n_tokens, _ = tokens.native.shape
        pooled = keys.new_empty(n_clips, *keys.shape)
        mass = keys.new_empty(n_clips, *offset.shape)
        trains = any(ctx.needs_input_grad)
        kept = keys.new_empty(n_clips if trains else 0, *offset.shape, n_tokens)
        product = partial(row_products, sizes=sizes)

        def work(clips: slice, centred: Tensor, gain: Tensor | None) -> None:
            implicit = ImplicitTokens(native=centred, matrix=tokens.matrix, gain=gain)
            scores = implicit.dot(keys, product).add_(offset[..., None])
            weights = kept[clips] if trains else torch.empty_like(scores)
            torch.softmax(scores.flatten(2), dim=-1, out=weights.flatten(2))
            pooled[clips] = implicit.pool(weights, product)
            torch.sum(weights, dim=-1, out=mass[clips])

        tokens.visit(work, gains=True)
        if trains:
            ctx.tokens, ctx.sizes = tokens, sizes
            native = tokens.native
            parts = (native.values, native.scales) if isinstance(native, QuantizedTokens) else (native,)
            # The native tokens only to be told if they have changed by the time of the backward pass.
            ctx.save_for_backward(kept, *parts)
        return pooled, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled: Tensor, d_mass: Tensor) -> tuple[Tensor | None, ...]:
        tokens: PreparedTokens = ctx.tokens
        kept, product = ctx.saved_tensors[0], partial(row_products, sizes=ctx.sizes)
        # By clip, summed at the end: the sums do not depend on the order in which threads finish.
        d_keys, d_offset = torch.empty_like(d_pooled), torch.empty_like(d_mass)

        def work(clips: slice, centred: Tensor, gain: Tensor | None) -> None:
            implicit = ImplicitTokens(native=centred, matrix=tokens.matrix, gain=gain)
            d_weights = implicit.dot(d_pooled[clips], product).add_(d_mass[clips][..., None])
            weights = kept[clips].flatten(2)
            flat = torch._softmax_backward_data(d_weights.flatten(2), weights, -1, weights.dtype)
            d_scores = rearrange(flat, "b k (u n) -> b k u n", u=tokens.steps)
            torch.sum(d_scores, dim=-1, out=d_offset[clips])
            d_keys[clips] = implicit.pool(d_scores, product)

        tokens.visit(work, gains=True)
        return None, None, *(_sum_over_clips(d, ctx.sizes) for d in (d_keys, d_offset))


def _sum_over_clips(gradients: Float[Tensor, "B K *X"], sizes: Sequence[int]) -> Float[Tensor, "K *X"]:
    """By ask: in which order torch sums a number depends on its place and on the size of the whole."""
    return torch.cat([of_one.sum(dim=0) for of_one in torch.split(gradients, list(sizes), dim=1)])
