"""Attention with several learned queries for one vector of outputs, to see whether one sees enough.

What each query pooled is kept apart until the last layer, a dense one over their concatenation. It contains
the mean over queries (equal weights), lets an output listen to the query that found its evidence, and costs
queries x width x outputs multiplications, nothing beside the attention.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor

from readouts.heads.attention import Trunk
from readouts.heads.base import Readout
from readouts.heads.layers import dense, normal_parameter
from readouts.tokens.pooling import Pooled, PoolingQuery
from readouts.tokens.prepared import PreparedTokens


class MultiQueryReadout(Readout):
    """The attention readout's trunk under `n_queries` queries, read together."""

    def __init__(
        self,
        *,
        channels: int,
        steps: int | None,
        n_outputs: int,
        width: int = 1024,
        heads: int = 16,
        dropout: float = 0.0,
        n_queries: int = 4,
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
        self.classifier = dense(n_queries * width, n_outputs, generator=generator)

    def pooling_query(self, tokens: PreparedTokens) -> PoolingQuery:
        """Its queries, folded into keys.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        return self.trunk.pooling_query(tokens, self.query)

    def read(self, pooled: Pooled) -> Float[Tensor, "B O"]:
        """One row of outputs per clip, from all queries together."""
        found = self.trunk.read(pooled, self.query)
        logits: Tensor = self.classifier(rearrange(found, "b q w -> b (q w)"))
        return logits
