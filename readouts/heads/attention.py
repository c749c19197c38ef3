"""The cross-attention readouts: queries pool the tokens, a small MLP reads what they pooled.

Learned queries are the same for every clip, so no token meets a key or value matrix: with f the
normalised token, `q (W_k f) = (q W_k) f` and `sum_i a_i (W_v f_i) = W_v sum_i a_i f_i`. Folding W_k into the
query and applying W_v after pooling is the same function of the same parameters, with 2 x C x heads
multiplications a token and query instead of 2 x C x width a token. LayerNorm's scale and bias and the
temporal embedding fold in the same way. Queries from outside are many and differ by clip: they meet
projected keys.

In shapes, heads and dim are the attention's own: width = heads * dim.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from torch import Generator, Tensor, nn

from featcache.errors import CallError
from readouts.heads.base import LAYER_NORM_EPS, Readout, dense, layer_norm, normal_parameter


def standardise(features: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T N C"]:
    """Float32 tokens of mean 0 and variance 1 over channels: a layer norm without scale and bias.

    It is half of a head's time on a CPU, and the same for every head.
    """
    return F.layer_norm(features.float(), features.shape[-1:], eps=LAYER_NORM_EPS)


class CrossAttention(nn.Module):
    """Scaled dot-product attention over the tokens `scale * x + shift[step]`, output per head.

    A query without a clip axis is folded, a query with one meets projected keys: one function, two costs.
    """

    def __init__(
        self, *, channels: int, width: int, heads: int, bias: bool, generator: Generator | None
    ) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise CallError(f"attention width={width} must be a multiple of heads={heads}.")
        self.heads = heads
        self.key = dense(channels, width, bias=bias, generator=generator)
        self.value = dense(channels, width, bias=bias, generator=generator)

    def forward(
        self,
        tokens: Float[Tensor, "B T N C"],
        query: Float[Tensor, "*clips Q heads dim"],
        *,
        scale: Float[Tensor, "C"],
        shift: Float[Tensor, "T C"],
    ) -> Float[Tensor, "B Q heads dim"]:
        """What each query finds, before the heads are merged."""
        if query.ndim == 3:
            return self._folded(tokens, query, scale, shift)
        return self._projected(tokens, query, scale, shift)

    def _folded(self, tokens: Tensor, query: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        scaled = query * query.shape[-1] ** -0.5
        folded = einsum(scaled, self._by_head(self.key.weight), "q h d, h d c -> q h c")
        offset = einsum(folded, shift, "q h c, t c -> q h t")
        if self.key.bias is not None:
            # Shifts all scores of a query alike, so softmax ignores it; kept, for it is a parameter
            # of the reference and owes the optimiser a gradient.
            offset = offset + einsum(scaled, self._by_head(self.key.bias), "q h d, h d -> q h")[..., None]
        scores = einsum(tokens, folded * scale, "b t n c, q h c -> b q h t n") + offset[..., None]
        weights = rearrange(scores, "b q h t n -> b q h (t n)").softmax(dim=-1)
        weights = rearrange(weights, "b q h (t n) -> b q h t n", t=tokens.shape[1])
        pooled = scale * einsum(weights, tokens, "b q h t n, b t n c -> b q h c")
        pooled = pooled + einsum(weights.sum(dim=-1), shift, "b q h t, t c -> b q h c")
        found: Tensor = einsum(pooled, self._by_head(self.value.weight), "b q h c, h d c -> b q h d")
        return found if self.value.bias is None else found + self._by_head(self.value.bias)

    def _projected(self, tokens: Tensor, query: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        flat = rearrange(tokens * scale + shift[:, None], "b t n c -> b (t n) c")
        keys, values = (
            rearrange(project(flat), "b s (h d) -> b h s d", h=self.heads)
            for project in (self.key, self.value)
        )
        found = F.scaled_dot_product_attention(rearrange(query, "b q h d -> b h q d"), keys, values)
        return rearrange(found, "b h q d -> b q h d")

    def _by_head(self, parameter: Tensor) -> Tensor:
        return rearrange(parameter, "(h d) ... -> h d ...", h=self.heads)


class Trunk(nn.Module):
    """Tokens and queries to one token a query, without norms or MLP (the reference's plain variant).

    `steps` of None leaves the temporal embedding out, and the head is not tied to a number of steps.
    """

    biased = False

    def __init__(
        self,
        *,
        channels: int,
        steps: int | None,
        width: int,
        heads: int,
        dropout: float,
        generator: Generator | None,
    ) -> None:
        super().__init__()
        self.temporal = None if steps is None else normal_parameter(steps, channels, generator=generator)
        self.attention = CrossAttention(
            channels=channels, width=width, heads=heads, bias=self.biased, generator=generator
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, features: Float[Tensor, "B T N C"], query: Float[Tensor, "*clips Q heads dim"]
    ) -> Float[Tensor, "B Q width"]:
        """The pooled tokens, heads merged."""
        ones = torch.ones(features.shape[-1], device=features.device)
        shift = self._shift(torch.zeros_like(ones), n_steps=features.shape[1])
        found = self.dropout(self.attention(features.float(), query, scale=ones, shift=shift))
        merged: Tensor = rearrange(found, "b q h d -> b q (h d)")
        return merged

    def _shift(self, bias: Float[Tensor, "C"], *, n_steps: int) -> Float[Tensor, "T C"]:
        """What is added to the tokens of each step: `bias`, and the temporal embedding if there is one."""
        if self.temporal is None:
            return repeat(bias, "c -> t c", t=n_steps)
        if n_steps != len(self.temporal):
            raise CallError(
                f"this attention head learned an embedding of {len(self.temporal)} steps and was given "
                f"{n_steps}: up-sample the tokens to its steps, or train a head for theirs."
            )
        return bias + self.temporal


class ResidualTrunk(Trunk):
    """The benchmark's: LayerNorm before, residual projection and MLP after (V-JEPA's attentive probe)."""

    biased = True

    def __init__(
        self,
        *,
        channels: int,
        steps: int | None,
        width: int,
        heads: int,
        dropout: float,
        generator: Generator | None,
    ) -> None:
        super().__init__(
            channels=channels, steps=steps, width=width, heads=heads, dropout=dropout, generator=generator
        )
        self.norm = layer_norm(channels)
        self.projection = dense(width, width, generator=generator)
        self.mlp_norm = layer_norm(width)
        self.mlp = nn.Sequential(
            dense(width, 4 * width, generator=generator),
            nn.GELU(approximate="tanh"),
            dense(4 * width, width, generator=generator),
        )

    def forward(
        self, features: Float[Tensor, "B T N C"], query: Float[Tensor, "*clips Q heads dim"]
    ) -> Float[Tensor, "B Q width"]:
        """The queries, plus what they found, plus what the MLP makes of it."""
        shift = self._shift(self.norm.bias, n_steps=features.shape[1])
        found = self.attention(standardise(features), query, scale=self.norm.weight, shift=shift)
        merged = rearrange(self.dropout(found), "b q h d -> b q (h d)")
        token = rearrange(query, "... q h d -> ... q (h d)") + self.projection(merged)
        refined: Tensor = token + self.mlp(self.mlp_norm(token))
        return refined


MakeTrunk = Callable[..., Trunk]
"""A class of trunk: `Trunk` or `ResidualTrunk`."""


class AttentionReadout(Readout):
    """Learned queries pool the clip, a dense layer reads each (REFERENCE: AttentionReadout)."""

    def __init__(
        self,
        *,
        channels: int,
        steps: int | None,
        n_outputs: int,
        width: int = 1024,
        heads: int = 16,
        dropout: float = 0.0,
        n_queries: int = 1,
        trunk: MakeTrunk = ResidualTrunk,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head; `steps` is the T it will see, or None for a head without temporal embedding.

        Raises:
            CallError: `width` is not a multiple of `heads`.
        """
        super().__init__()
        self.trunk = trunk(
            channels=channels, steps=steps, width=width, heads=heads, dropout=dropout, generator=generator
        )
        self.query = normal_parameter(n_queries, heads, width // heads, generator=generator)
        self.classifier = dense(width, n_outputs, generator=generator)

    def forward(self, features: Float[Tensor, "B T N C"]) -> Float[Tensor, "B *Q O"]:
        """One row of outputs a query; a single query's axis is dropped.

        Raises:
            CallError: T is not the head's number of steps.
        """
        logits: Tensor = self.classifier(self.trunk(features, self.query))
        return rearrange(logits, "b 1 o -> b o") if len(self.query) == 1 else logits


class QueriedAttentionReadout(nn.Module):
    """The same with queries from outside (points to track), projected to the attention's width."""

    def __init__(
        self,
        *,
        channels: int,
        steps: int | None,
        query_channels: int,
        n_outputs: int,
        width: int = 1024,
        heads: int = 16,
        dropout: float = 0.0,
        trunk: MakeTrunk = ResidualTrunk,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head; raises CallError where `width` is not a multiple of `heads`."""
        super().__init__()
        self.query_projection = dense(query_channels, width, generator=generator)
        self.trunk = trunk(
            channels=channels, steps=steps, width=width, heads=heads, dropout=dropout, generator=generator
        )
        self.classifier = dense(width, n_outputs, generator=generator)

    def forward(
        self, features: Float[Tensor, "B T N C"], queries: Float[Tensor, "B Q D"]
    ) -> Float[Tensor, "B *Q O"]:
        """One row of outputs a query; a single query's axis is dropped, as the reference does.

        Raises:
            CallError: T is not the head's number of steps.
        """
        projected = self.query_projection(queries.float())
        query = rearrange(projected, "b q (h d) -> b q h d", h=self.trunk.attention.heads)
        logits: Tensor = self.classifier(self.trunk(features, query))
        return rearrange(logits, "b 1 o -> b o") if logits.shape[1] == 1 else logits
