"""What every readout is: a small module that maps the tokens of a clip to its outputs.

All randomness of a new one comes from one `torch.Generator`, so that a seed names a head, on any device.
"""

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, TypeVar

from jaxtyping import Float
from torch import Generator, Tensor, nn

from readouts.heads.layers import Dropout
from readouts.tokens.pooling import Pooled, PoolingQuery, pool
from readouts.tokens.prepared import Native, PreparedTokens, prepared

Name = TypeVar("Name", bound=Hashable)


class Readout(nn.Module):
    """Tokens of a clip to its outputs: the contract of every member of this folder."""

    gives: ClassVar[str] = "vector"
    """What its outputs are: "vector" (a row per clip), "tracks" of points or "fields" on a map."""

    def forward(
        self, features: Native | PreparedTokens, *args: Any, **kwargs: Any
    ) -> Float[Tensor, "B *outputs"]:
        """Tokens of any float dtype at the head's own number of steps, or prepared, to float32 outputs.

        Prepare tokens that several heads read, or that are to be resized. A member that only needs pooled
        tokens defines `pooling_query` and `read`, which make this one; any other defines its own. What that
        needs beside tokens (points to track) it names in its signature; its outputs have the axes it says.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        tokens = prepared(features)
        query = self.pooling_query(tokens, *args, **kwargs)
        if query is None:
            raise NotImplementedError(
                f"{type(self).__name__} has neither a pooling query nor a forward of its own"
            )
        (pooled,) = pool(tokens, [query])
        return self.read(pooled)

    def pooling_query(self, tokens: PreparedTokens) -> PoolingQuery | None:
        """What the head pools of the tokens; None if its outputs are not `read` of that alone."""
        return None

    def read(self, pooled: Pooled) -> Float[Tensor, "B *outputs"]:
        """What the head makes of what its `pooling_query` pooled."""
        raise NotImplementedError

    def draw_dropout_from(self, generator: Generator) -> None:
        """Let what is dropped follow from `generator`, which is on the head's device."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator


def forward_together(
    heads: Mapping[str, Readout], tokens: PreparedTokens, inputs: Mapping[str, Any]
) -> dict[str, Float[Tensor, "B *outputs"]]:
    """The outputs `head(tokens, **inputs)` of every head, in one pass over the tokens for all that pool."""
    pooled = pool_together(heads, tokens)
    return {
        name: head.read(pooled[name]) if name in pooled else head(tokens, **inputs)
        for name, head in heads.items()
    }


def pool_together(heads: Mapping[Name, Readout], tokens: PreparedTokens) -> dict[Name, Pooled]:
    """What the heads that pool find, in one pass forward; and, for all of them, one backward."""
    queries = {
        name: query for name, head in heads.items() if (query := head.pooling_query(tokens)) is not None
    }
    return dict(zip(queries, pool(tokens, list(queries.values())), strict=True))
