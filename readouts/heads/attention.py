"""The cross-attention readouts: queries pool the tokens, a small MLP reads what they pooled.

Learned queries are the same for every clip, so no token meets a key or value matrix: with f the
normalised token, `q (W_k f) = (q W_k) f` and `sum_i a_i (W_v f_i) = W_v sum_i a_i f_i`. Folding W_k into the
query and applying W_v after pooling is the same function of the same parameters, with 2 x C x heads
multiplications per token and query instead of 2 x C x width per token. LayerNorm's scale and bias and the
temporal embedding fold in the same way, its statistics and the resize in time do so in
`readouts.tokens.implicit`, and `readouts.tokens.pooling` takes the folded queries through the tokens.
Queries from outside are many and differ by clip: they meet projected keys. The projection commutes with the
resize in time as well, so the T native steps are projected and their projections resized.

In shapes, heads and dim are the attention's own: width = heads * dim.
"""

import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from torch import Generator, Tensor, nn

from featcache.errors import CallError
from readouts.heads.base import Readout
from readouts.heads.layers import Dropout, dense, layer_norm, mlp, normal_parameter
from readouts.tokens.implicit import ImplicitTokens
from readouts.tokens.pooling import Pooled, PoolingQuery, pool_projected
from readouts.tokens.prepared import Native, PreparedTokens, prepared


class CrossAttention(nn.Module):
    """Scaled dot-product attention over the tokens `scale * x + shift[step]`, its output by head.

    Queries of all clips are folded (`pooling_query`, then `read`), queries that differ by clip meet projected
    keys (`find`; `forward` is its plain form): one function of the same parameters, at three costs.
    """

    def __init__(
        self, *, channels: int, width: int, heads: int, bias: bool = True, generator: Generator | None
    ) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise CallError(f"attention width={width} must be a multiple of heads={heads}.")
        self.heads = heads
        self.key = dense(channels, width, bias=bias, generator=generator)
        self.value = dense(channels, width, bias=bias, generator=generator)

    def forward(
        self, tokens: Float[Tensor, "B U N C"], query: Float[Tensor, "B Q heads dim"]
    ) -> Float[Tensor, "B Q heads dim"]:
        """What each query finds in tokens that have their scale and shift, before the heads are merged."""
        flat = rearrange(tokens, "b u n c -> b (u n) c")
        keys, values = (
            rearrange(project(flat), "b s (h d) -> b h s d", h=self.heads)
            for project in (self.key, self.value)
        )
        found = F.scaled_dot_product_attention(rearrange(query, "b q h d -> b h q d"), keys, values)
        return rearrange(found, "b h q d -> b q h d")

    def find(
        self,
        tokens: ImplicitTokens,
        query: Float[Tensor, "B Q heads dim"],
        *,
        scale: Float[Tensor, "C"],
        shift: Float[Tensor, "U C"],
    ) -> Float[Tensor, "B Q heads dim"]:
        """What each query finds in standardised tokens, whose scale and shift are those of projections."""
        keys, values = (
            rearrange(
                tokens.projected(project.weight * scale) + project(shift)[:, None],
                "b u n (h d) -> b h (u n) d",
                h=self.heads,
            )
            for project in (self.key, self.value)
        )
        scaled = rearrange(query * query.shape[-1] ** -0.5, "b q h d -> b h q d")
        return rearrange(pool_projected(scaled, keys, values), "b h q d -> b q h d")

    def pooling_query(
        self, query: Float[Tensor, "Q heads dim"], *, scale: Float[Tensor, "C"], shift: Float[Tensor, "U C"]
    ) -> PoolingQuery:
        """Queries of all clips as keys for their tokens, K = Q * heads: scale and shift are folded in."""
        scaled = query * query.shape[-1] ** -0.5
        folded = einsum(scaled, self._by_head(self.key.weight), "q h d, h d c -> q h c")
        keys = rearrange(folded, "q h c -> (q h) c")
        offset = einsum(keys, shift, "k c, u c -> k u")
        # The bias shifts all scores of a query alike, so softmax ignores it; kept, for it is a parameter of
        # the reference and owes the optimiser a gradient.
        bias = einsum(scaled, self._by_head(self.key.bias), "q h d, h d -> q h")
        return PoolingQuery(keys=keys * scale, offset=offset + rearrange(bias, "q h -> (q h) 1"))

    def read(
        self, pooled: Pooled, *, scale: Float[Tensor, "C"], shift: Float[Tensor, "U C"]
    ) -> Float[Tensor, "B Q heads dim"]:
        """What the queries found, from what their `pooling_query` pooled."""
        tokens = scale * pooled.tokens + einsum(pooled.mass, shift, "b k u, u c -> b k c")
        tokens = rearrange(tokens, "b (q h) c -> b q h c", h=self.heads)
        found: Tensor = einsum(tokens, self._by_head(self.value.weight), "b q h c, h d c -> b q h d")
        return found + self._by_head(self.value.bias)

    def _by_head(self, parameter: Tensor) -> Tensor:
        return rearrange(parameter, "(h d) ... -> h d ...", h=self.heads)


class LayerPooling(nn.Module):
    """The tokens of one layer to what queries find in them: LayerNorm, temporal embedding, attention.

    `steps` of None leaves out the temporal embedding, and the head is not tied to a number of steps.
    """

    def __init__(
        self, *, channels: int, steps: int | None, width: int, heads: int, generator: Generator | None
    ) -> None:
        super().__init__()
        self.temporal = None if steps is None else normal_parameter(steps, channels, generator=generator)
        self.attention = CrossAttention(channels=channels, width=width, heads=heads, generator=generator)
        self.norm = layer_norm(channels)

    def pooling_query(self, tokens: PreparedTokens, query: Float[Tensor, "Q heads dim"]) -> PoolingQuery:
        """What queries of all clips pool of the tokens.

        Raises:
            CallError: the tokens' number of steps is not that of the embedding.
        """
        return self.attention.pooling_query(query, scale=self.norm.weight, shift=self._shift(tokens.steps))

    def found(self, pooled: Pooled) -> Float[Tensor, "B Q heads dim"]:
        """What the queries found, from what they pooled."""
        shift = self._shift(pooled.mass.shape[-1])
        return self.attention.read(pooled, scale=self.norm.weight, shift=shift)

    def _shift(self, n_steps: int) -> Float[Tensor, "U C"]:
        """What is added to the tokens of each step: the norm's bias, and the temporal embedding if any."""
        if self.temporal is None:
            return repeat(self.norm.bias, "c -> u c", u=n_steps)
        if n_steps != len(self.temporal):
            raise CallError(
                f"this attention head learned an embedding of {len(self.temporal)} steps and was given "
                f"{n_steps}: up-sample the tokens to its steps, or train a head for theirs."
            )
        return self.norm.bias + self.temporal


class Trunk(LayerPooling):
    """Tokens and queries to one token per query: LayerNorm, attention, residual projection and MLP.

    V-JEPA's attentive probe (Bardes et al. 2024), as the benchmark has it.
    """

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
        super().__init__(channels=channels, steps=steps, width=width, heads=heads, generator=generator)
        self.dropout = Dropout(dropout)
        self.projection = dense(width, width, generator=generator)
        self.mlp_norm = layer_norm(width)
        self.mlp = mlp(width, 4 * width, width, generator=generator)

    def forward(
        self, tokens: PreparedTokens, query: Float[Tensor, "B Q heads dim"]
    ) -> Float[Tensor, "B Q width"]:
        """Queries that differ by clip to what each makes of what it finds."""
        found = self.attention.find(
            tokens.standardised, query, scale=self.norm.weight, shift=self._shift(tokens.steps)
        )
        return self._refined(found, query)

    def read(self, pooled: Pooled, query: Float[Tensor, "Q heads dim"]) -> Float[Tensor, "B Q width"]:
        """Each query plus what it pooled, refined by the MLP."""
        return self._refined(self.found(pooled), query)

    def _refined(
        self, found: Float[Tensor, "B Q heads dim"], query: Float[Tensor, "*clips Q heads dim"]
    ) -> Float[Tensor, "B Q width"]:
        """The queries, plus what they found, plus what the MLP makes of it."""
        merged = rearrange(self.dropout(found), "b q h d -> b q (h d)")
        token = rearrange(query, "... q h d -> ... q (h d)") + self.projection(merged)
        refined: Tensor = token + self.mlp(self.mlp_norm(token))
        return refined


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
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head; `steps` is the T it will see, or None for a head without temporal embedding.

        Raises:
            CallError: `width` is not a multiple of `heads`.
        """
        super().__init__()
        self.trunk = Trunk(
            channels=channels, steps=steps, width=width, heads=heads, dropout=dropout, generator=generator
        )
        self.query = normal_parameter(n_queries, heads, width // heads, generator=generator)
        self.classifier = dense(width, n_outputs, generator=generator)

    def pooling_query(self, tokens: PreparedTokens) -> PoolingQuery:
        """Its queries, folded into keys.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        return self.trunk.pooling_query(tokens, self.query)

    def read(self, pooled: Pooled) -> Float[Tensor, "B *Q O"]:
        """One row of outputs per query; a single query's axis is dropped."""
        logits: Tensor = self.classifier(self.trunk.read(pooled, self.query))
        return rearrange(logits, "b 1 o -> b o") if len(self.query) == 1 else logits


class QueriedAttentionReadout(nn.Module):
    """An attention readout whose queries come from outside (points to track), projected to its width."""

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
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head; raises CallError where `width` is not a multiple of `heads`."""
        super().__init__()
        self.query_projection = dense(query_channels, width, generator=generator)
        self.trunk = Trunk(
            channels=channels, steps=steps, width=width, heads=heads, dropout=dropout, generator=generator
        )
        self.classifier = dense(width, n_outputs, generator=generator)

    def forward(
        self, features: Native | PreparedTokens, queries: Float[Tensor, "B Q D"]
    ) -> Float[Tensor, "B *Q O"]:
        """One row of outputs per query; a single query's axis is dropped, as the reference does.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        projected = self.query_projection(queries.float())
        query = rearrange(projected, "b q (h d) -> b q h d", h=self.trunk.attention.heads)
        logits: Tensor = self.classifier(self.trunk(prepared(features), query))
        return rearrange(logits, "b 1 o -> b o") if logits.shape[1] == 1 else logits
