"""Attention pooling of cached tokens: many heads' questions answered in one pass over a batch.

With its query and key matrix folded into keys (see `readouts.heads.attention`), a head asks one thing of
the tokens: the softmax of their products with a few keys, and their sums under it. Tokens that need no
gradient are gone through clip by clip, forward and backward: a clip is cast once a pass, and every head's
products meet it while it is in cache. Each head's products are its own, so that its numbers are the same
bits in any company. The backward pass casts again, as that costs a tenth of keeping float32 would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from readouts.tokens import ImplicitTokens, PreparedTokens, QuantizedTokens


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
    together = [ask for ask in asks if ask.standardised]
    if together:
        parts = (part for ask in together for part in (ask.keys, ask.offset))
        found = iter(_Pooling.apply(tokens, *parts))  # type: ignore[no-untyped-call]
    return [
        Answer(pooled=next(found), mass=next(found))
        if ask.standardised
        else attend(_as_asked(tokens, ask), ask)
        for ask in asks
    ]


def attend(tokens: ImplicitTokens, ask: Ask) -> Answer:
    """The same by autograd's own operations, for a whole batch at once."""
    scores = tokens.dot(ask.keys) + ask.offset[..., None]
    weights = rearrange(scores.flatten(2).softmax(dim=-1), "b k (u n) -> b k u n", u=tokens.steps)
    return Answer(pooled=tokens.pool(weights), mass=weights.sum(dim=-1))


def _as_asked(tokens: PreparedTokens, ask: Ask) -> ImplicitTokens:
    return tokens.standardised if ask.standardised else tokens.plain


class _Pooling(torch.autograd.Function):
    """`attend` for many asks, whose parts come and go flat: keys, offset, keys, ... to pooled, mass, ...

    With w the softmax and z the tokens, pooled = sum w z and mass_u = sum_n w, the gradient of a weight is
    d_pooled . z + d_mass_u, of a score the softmax's of that, of the keys the sums of it times z.
    """

    @staticmethod
    def forward(ctx: Any, tokens: PreparedTokens, *asked: Tensor) -> tuple[Tensor, ...]:
        asks = list(zip(asked[::2], asked[1::2], strict=True))
        n_clips, _, n_tokens, _ = tokens.native.shape
        new = [keys.new_empty for keys, _ in asks]
        pooled = [n(n_clips, *keys.shape) for n, (keys, _) in zip(new, asks, strict=True)]
        mass = [n(n_clips, *offset.shape) for n, (_, offset) in zip(new, asks, strict=True)]
        trains = any(ctx.needs_input_grad)
        kept = [n(n_clips if trains else 0, *o.shape, n_tokens) for n, (_, o) in zip(new, asks, strict=True)]

        def work(clips: slice, centred: Tensor, gain: Tensor | None) -> None:
            implicit = ImplicitTokens(native=centred, matrix=tokens.matrix, gain=gain)
            for i, (keys, offset) in enumerate(asks):
                scores = implicit.dot(keys).add_(offset[..., None])
                weights = kept[i][clips] if trains else torch.empty_like(scores)
                torch.softmax(scores.flatten(2), dim=-1, out=weights.flatten(2))
                pooled[i][clips] = implicit.pool(weights)
                mass[i][clips] = weights.sum(dim=-1)

        tokens.visit(work, gains=True)
        if trains:
            ctx.tokens = tokens
            native = tokens.native
            parts = (native.values, native.scales) if isinstance(native, QuantizedTokens) else (native,)
            # The native tokens only to be told if they have changed by the time of the backward pass.
            ctx.save_for_backward(*kept, *parts)
        return tuple(part for answer in zip(pooled, mass, strict=True) for part in answer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        tokens: PreparedTokens = ctx.tokens
        d_pooled, d_mass = given[::2], given[1::2]
        kept = ctx.saved_tensors[: len(d_pooled)]
        # By clip, summed at the end: the sums do not depend on the order in which threads finish.
        d_keys, d_offset = ([torch.empty_like(d) for d in of] for of in (d_pooled, d_mass))

        def work(clips: slice, centred: Tensor, gain: Tensor | None) -> None:
            implicit = ImplicitTokens(native=centred, matrix=tokens.matrix, gain=gain)
            for i, weights in enumerate(kept):
                d_weights = implicit.dot(d_pooled[i][clips]).add_(d_mass[i][clips][..., None])
                flat = torch._softmax_backward_data(
                    d_weights.flatten(2), weights[clips].flatten(2), -1, weights.dtype
                )
                d_scores = rearrange(flat, "b k (u n) -> b k u n", u=tokens.steps)
                d_offset[i][clips] = d_scores.sum(dim=-1)
                d_keys[i][clips] = implicit.pool(d_scores)

        tokens.visit(work, gains=True)
        summed = (d.sum(dim=0) for both in zip(d_keys, d_offset, strict=True) for d in both)
        return None, *summed
