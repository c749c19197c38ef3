"""Attention over several stored layers: what a learned query pools of each, weighed by another over layers.

The fusion is that of attentive multi-layer fusion (arXiv 2601.09322): a learned query attends to one vector
of each layer, whatever its depth. Theirs are the class token and the mean of a layer's tokens; ours are what
the benchmark's cross-attention pools of it, so that a layer costs what a readout of that layer alone does:
one pass over its tokens, folded (`readouts.heads.attention`), shared with every other head that pools it.
The learned vector of each depth, the residuals and the MLP after the fusion are the benchmark's trunk again.
"""

from collections.abc import Sequence
from typing import cast

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Generator, Tensor, nn

from readouts.heads.attention import CrossAttention, LayerPooling
from readouts.heads.base import Readout
from readouts.heads.layers import Dropout, dense, layer_norm, mlp, normal_parameter
from readouts.tokens.pooling import Pooled, PoolingQuery, pool
from readouts.tokens.prepared import Native, PreparedTokens, prepared


class LayerVector(Readout):
    """One layer of a fusion: a learned query, plus a dense layer of what it pools."""

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
        self.query = normal_parameter(1, heads, width // heads, generator=generator)
        self.pooling = LayerPooling(
            channels=channels, steps=steps, width=width, heads=heads, generator=generator
        )
        self.dropout = Dropout(dropout)
        self.projection = dense(width, width, generator=generator)

    def pooling_query(self, tokens: PreparedTokens) -> PoolingQuery:
        """Its query, folded into keys.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        return self.pooling.pooling_query(tokens, self.query)

    def read(self, pooled: Pooled) -> Float[Tensor, "B width"]:
        """The layer as one vector of each clip."""
        found = rearrange(self.dropout(self.pooling.found(pooled)), "b 1 h d -> b (h d)")
        vector: Tensor = self.query.flatten() + self.projection(found)
        return vector


class LayerFusionReadout(Readout):
    """A vector of each of L layers, fused by attention over layers, read by a dense layer."""

    def __init__(
        self,
        *,
        channels: int,
        steps: int | None,
        n_layers: int,
        n_outputs: int,
        width: int = 1024,
        heads: int = 16,
        dropout: float = 0.0,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head for L = `n_layers`; `steps` is the T it will see, or None for no embedding of them.

        Raises:
            CallError: `width` is not a multiple of `heads`.
        """
        super().__init__()
        self.fusion = CrossAttention(channels=width, width=width, heads=heads, generator=generator)
        self.vectors = nn.ModuleList(
            LayerVector(
                channels=channels, steps=steps, width=width, heads=heads, dropout=dropout, generator=generator
            )
            for _ in range(n_layers)
        )
        self.norm = layer_norm(width)
        self.depth = normal_parameter(n_layers, width, generator=generator)
        self.query = normal_parameter(heads, width // heads, generator=generator)
        self.dropout = Dropout(dropout)
        self.projection = dense(width, width, generator=generator)
        self.mlp_norm = layer_norm(width)
        self.mlp = mlp(width, 4 * width, width, generator=generator)
        self.classifier = dense(width, n_outputs, generator=generator)

    @property
    def branches(self) -> tuple[LayerVector, ...]:
        """What pools each layer."""
        return tuple(cast("LayerVector", vector) for vector in self.vectors)

    def forward(self, features: Sequence[Native | PreparedTokens]) -> Float[Tensor, "B O"]:
        """Tokens of each layer, in the order of the head's layers.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        every = [prepared(tokens) for tokens in features]
        pairs = zip(self.branches, every, strict=True)
        return self.read([pool(tokens, [branch.pooling_query(tokens)])[0] for branch, tokens in pairs])

    def read(self, found: Sequence[Pooled]) -> Float[Tensor, "B O"]:
        """One row of outputs per clip, from what was pooled of each layer."""
        vectors = torch.stack(
            [vector.read(pooled) for vector, pooled in zip(self.branches, found, strict=True)], dim=1
        )
        depths = self.norm(vectors) + self.depth
        keys, values = (
            rearrange(project(depths), "b l (h d) -> b h l d", h=len(self.query))
            for project in (self.fusion.key, self.fusion.value)
        )
        scores = einsum(self.query * self.query.shape[-1] ** -0.5, keys, "h d, b h l d -> b h l")
        merged = self.dropout(einsum(scores.softmax(dim=-1), values, "b h l, b h l d -> b h d"))
        token = self.query.flatten() + self.projection(rearrange(merged, "b h d -> b (h d)"))
        logits: Tensor = self.classifier(token + self.mlp(self.mlp_norm(token)))
        return logits
