"""Attention pooling of cached tokens: `pool` for queries that all clips share, `pool_projected` for others.

With its query and key matrix folded into keys (see `readouts.heads.attention`), all that a head needs of the
tokens is the softmax of their products with a few keys, and their sums under it. Tokens that need no gradient
are gone through clip by clip, forward and backward: a clip is cast once per pass, and all heads' keys meet it
together while it is in cache. The backward pass casts again, as that costs a tenth of keeping float32 would.

Queries of each clip (points to track) are hundreds: they meet tokens that were projected to an attention
head's few channels. Their softmax weights are more than all else together, so they are made again in the
backward pass, some clips and heads at a time.

All sums are products or one kernel's, none is gathered by atomics: on a GPU too a repeated pass has the same
bits.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from readouts.tokens.clipwise import each
from readouts.tokens.implicit import ImplicitTokens
from readouts.tokens.prepared import PreparedTokens, tensors_of
from readouts.tokens.products import product

_DEVICE_WEIGHT_BYTES = 2**30
"""Softmax weights that a GPU holds at once: far above what keeps it busy, far below its memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolingQuery:
    """Asks for the sums of tokens z under a[k]: softmax over (u, n) of `keys[k] . z[u, n] + offset[k, u]`."""

    keys: Float[Tensor, "K C"]
    offset: Float[Tensor, "K U"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pooled:
    """What a pooling query finds in each clip; what a head makes of it are dense layers."""

    tokens: Float[Tensor, "B K C"]
    """Sums of a[k, u, n] * z[u, n] over (u, n)."""
    mass: Float[Tensor, "B K U"]
    """Sums of a[k, u, n] over n: how much of the attention each step has."""


def pool(tokens: PreparedTokens, queries: Sequence[PoolingQuery]) -> list[Pooled]:
    """What each query pools of the standardised tokens, in one pass over the batch for all of them."""
    if not queries:
        return []
    keys = torch.cat([query.keys for query in queries])
    offset = torch.cat([query.offset for query in queries])
    if tokens.differentiable is not None:
        pooled, mass = attend(tokens.standardised, keys, offset)
    else:
        pooled, mass = _Pooling.apply(tokens, keys, offset)  # type: ignore[no-untyped-call]
    sizes = [len(query.keys) for query in queries]
    parts = zip(torch.split(pooled, sizes, dim=1), torch.split(mass, sizes, dim=1), strict=True)
    return [Pooled(tokens=of_one, mass=its_mass) for of_one, its_mass in parts]


def attend(
    tokens: ImplicitTokens, keys: Float[Tensor, "K C"], offset: Float[Tensor, "K U"]
) -> tuple[Float[Tensor, "B K C"], Float[Tensor, "B K U"]]:
    """Pooled tokens and mass by autograd's own operations, for a whole batch at once."""
    scores = tokens.dot(keys) + offset[..., None]
    weights = rearrange(scores.flatten(2).softmax(dim=-1), "b k (u n) -> b k u n", u=tokens.steps)
    return tokens.pool(weights), weights.sum(dim=-1)


class _Pooling(torch.autograd.Function):
    """`attend` for constant tokens, clip by clip.

    With w the softmax and z the tokens, pooled = sum w z and mass_u = sum_n w, the gradient of a weight is
    d_pooled . z + d_mass_u, of a score the softmax's of that, of the keys the sums of it times z.
    """

    @staticmethod
    def forward(ctx: Any, tokens: PreparedTokens, keys: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        n_clips, _, n_tokens, _ = tokens.native.shape
        pooled = keys.new_empty(n_clips, *keys.shape)
        mass = keys.new_empty(n_clips, *offset.shape)
        trains = any(ctx.needs_input_grad)
        kept = keys.new_empty(n_clips if trains else 0, *offset.shape, n_tokens)

        def work(clips: slice, implicit: ImplicitTokens) -> None:
            scores = implicit.dot(keys).add_(offset[..., None])
            weights = kept[clips] if trains else torch.empty_like(scores)
            torch.softmax(scores.flatten(2), dim=-1, out=weights.flatten(2))
            pooled[clips] = implicit.pool(weights)
            torch.sum(weights, dim=-1, out=mass[clips])

        tokens.visit_standardised(work)
        if trains:
            ctx.tokens = tokens
            # The native tokens only to be told if they have changed by the time of the backward pass.
            ctx.save_for_backward(kept, *tensors_of(tokens.native))
        return pooled, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled: Tensor, d_mass: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors[0]
        # By clip, summed at the end: the sums do not depend on the order in which threads finish.
        d_keys, d_offset = torch.empty_like(d_pooled), torch.empty_like(d_mass)

        def work(clips: slice, implicit: ImplicitTokens) -> None:
            d_weights = implicit.dot(d_pooled[clips]).add_(d_mass[clips][..., None])
            weights = kept[clips].flatten(2)
            flat = torch._softmax_backward_data(d_weights.flatten(2), weights, -1, weights.dtype)
            d_scores = rearrange(flat, "b k (u n) -> b k u n", u=implicit.steps)
            torch.sum(d_scores, dim=-1, out=d_offset[clips])
            d_keys[clips] = implicit.pool(d_scores)

        ctx.tokens.visit_standardised(work)
        return None, d_keys.sum(dim=0), d_offset.sum(dim=0)


def pool_projected(
    query: Float[Tensor, "B heads Q dim"],
    keys: Float[Tensor, "B heads S dim"],
    values: Float[Tensor, "B heads S dim"],
) -> Float[Tensor, "B heads Q dim"]:
    """The sums of `values` under the softmax, over all S tokens, of each query's products with `keys`."""
    found: Tensor = _ProjectedPooling.apply(query, keys, values)  # type: ignore[no-untyped-call]
    return found


class _ProjectedPooling(torch.autograd.Function):
    """Attention by its products, some clips and heads at a time: torch's fused kernels add by atomics."""

    @staticmethod
    def forward(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        found = torch.empty_like(query)

        def work(here: _Here) -> None:
            # Packed once, as each product would: the heads of a token lie side by side.
            q, k, v = (part[here].contiguous() for part in (query, keys, values))
            found[here] = product(torch.matmul, product(torch.matmul, q, k.mT).softmax(dim=-1), v)

        _visit_heads(work, query, keys)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        """Of many readouts as of one of all their clips."""
        of_all = (
            rearrange(part.movedim(axis, 0), "n b h s d -> (n b) h s d")
            for part, axis in zip(inputs, in_dims, strict=True)
        )
        return rearrange(pool_projected(*of_all), "(n b) h q d -> n b h q d", n=info.batch_size), 0

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_found: Tensor) -> tuple[Tensor, ...]:
        query, keys, values = ctx.saved_tensors
        d_query, d_keys, d_values = (torch.empty_like(part) for part in (query, keys, values))

        def work(here: _Here) -> None:
            q, k, v, slope = (part[here].contiguous() for part in (query, keys, values, d_found))
            weights = product(torch.matmul, q, k.mT).softmax(dim=-1)
            d_values[here] = product(torch.matmul, weights.mT, slope)
            d_weights = product(torch.matmul, slope, v.mT)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            d_query[here] = product(torch.matmul, d_scores, k)
            d_keys[here] = product(torch.matmul, d_scores.mT, q)

        _visit_heads(work, query, keys)
        return d_query, d_keys, d_values


_Here = tuple[slice, slice]
"""Some clips, and some attention heads."""


def _visit_heads(work: Callable[[_Here], None], query: Tensor, keys: Tensor) -> None:
    """Call `work` for all clips and heads."""
    on_cpu = query.device.type == "cpu"
    each(work, turns(query.shape, keys.shape[2], one_by_one=on_cpu), query.device)


def turns(query: Sequence[int], n_tokens: int, *, one_by_one: bool) -> list[_Here]:
    """All clips and heads of `query`, [B heads Q dim]: one of each, or the clips that a GPU takes at once."""
    n_clips, n_heads, n_queries, _ = query
    at_once = 1 if one_by_one else max(1, _DEVICE_WEIGHT_BYTES // (4 * n_heads * n_queries * n_tokens))
    clips = [slice(b, b + at_once) for b in range(0, n_clips, at_once)]
    heads = [slice(h, h + 1) for h in range(n_heads)] if one_by_one else [slice(None)]
    return list(itertools.product(clips, heads))
