"""What every readout is: a small module that maps the tokens of a clip to its outputs.

All randomness of a new one comes from one `torch.Generator`, so that a seed names a head, on any device.
"""

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, TypeVar

from jaxtyping import Float
from torch import Generator, Tensor, nn

from featcache.spec import Layer
from readouts.heads.layers import Dropout
from readouts.tokens.pooling import Pooled, PoolingQuery, pool
from readouts.tokens.prepared import Prepared, PreparedTokens, prepared

Name = TypeVar("Name", bound=Hashable)


class Readout(nn.Module):
    """Tokens of a clip to its outputs: the contract of every member of this folder."""

    gives: ClassVar[str] = "vector"
    """What its outputs are: "vector" (a row per clip), "tracks" of points or "fields" on a map."""

    def forward(self, features: Any, *args: Any, **kwargs: Any) -> Float[Tensor, "B *outputs"]:
        """Tokens of any float dtype at the head's own number of steps, or prepared, to float32 outputs.

        `features` are `Native` or `PreparedTokens`, for heads of several layers a sequence of either.
        Prepare tokens that several heads read, or that are to be resized. A member that only needs pooled
        tokens defines `pooling_query` and `read`, one that needs the same of them whatever it has learned
        `summary` and `read`, and those make this one; any other defines its own. What that needs beside
        tokens (points to track) it names in its signature; its outputs have the axes it says.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        found = find_together({"it": self}, prepared(features))
        if not found:
            raise NotImplementedError(
                f"{type(self).__name__} has neither a pooling query nor a summary nor a forward of its own"
            )
        return self.read(found["it"])

    layers: tuple[Layer, ...] = ()
    """The stored layers that it reads, where it is told; they matter only beside tokens of several layers."""

    @property
    def branches(self) -> "tuple[Readout, ...]":
        """Of a head of several layers what reads each of them: `read` gets what all found, in this order.

        Itself, of a head of one layer; none, of one that goes through the tokens itself.
        """
        return (self,)

    @property
    def reads_as(self) -> type["Readout"]:
        """The class whose `summary` its own is."""
        return type(self)

    def summary(self, tokens: PreparedTokens) -> Float[Tensor, "B K"] | None:
        """What all heads of its class read of the tokens; None if that depends on what each has learned."""
        return None

    def pooling_query(self, tokens: PreparedTokens) -> PoolingQuery | None:
        """What the head pools of the tokens; None if its outputs are not `read` of that alone."""
        return None

    def read(self, found: Any) -> Float[Tensor, "B *outputs"]:
        """What the head makes of its `summary`, or of what its `pooling_query` pooled."""
        raise NotImplementedError

    def draw_dropout_from(self, generator: Generator) -> None:
        """Let what is dropped follow from `generator`, which is on the head's device."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator


def forward_together(
    heads: Mapping[str, Readout], tokens: Prepared, inputs: Mapping[str, Any]
) -> dict[str, Float[Tensor, "B *outputs"]]:
    """The outputs `head(tokens, **inputs)` of every head, in one pass over the tokens for all that pool."""
    found = find_together(heads, tokens)
    return {
        name: head.read(found[name]) if name in found else head(tokens_of(head, tokens), **inputs)
        for name, head in heads.items()
    }


Found = Pooled | Float[Tensor, "B K"]
"""What a head reads of a layer: what it pooled, or the summary."""


def tokens_of(head: Readout, tokens: Prepared) -> PreparedTokens | tuple[PreparedTokens, ...]:
    """What a head that goes through the tokens itself is given: those of its layer, or of each of several."""
    if not isinstance(tokens, Mapping):
        return tokens
    found = tuple(tokens[layer] for layer in head.layers)
    return found[0] if len(found) == 1 else found


def find_together(heads: Mapping[Name, Readout], tokens: Prepared) -> dict[Name, Found | tuple[Found, ...]]:
    """What the heads that `read` read: summaries made once, and one pass over a layer for all that pool it.

    That pass is one in the backward direction as well. Of several layers each head has what its `branches`
    found, and what it finds in a layer has the bits it has where that layer is read alone.
    """
    if not isinstance(tokens, Mapping):
        return dict(_find_in_layer(heads, tokens))
    found: dict[tuple[Name, int], Found] = {}
    for layer, of_layer in tokens.items():
        here = {
            (name, number): branch
            for name, head in heads.items()
            for number, (own, branch) in enumerate(zip(head.layers, head.branches, strict=False))
            if own == layer
        }
        found |= _find_in_layer(here, of_layer)
    together: dict[Name, Found | tuple[Found, ...]] = {}
    for name, head in heads.items():
        parts = tuple(found[name, i] for i in range(len(head.layers)) if (name, i) in found)
        if parts and len(parts) == len(head.layers):
            together[name] = parts[0] if len(parts) == 1 else parts
    return together


def _find_in_layer(heads: Mapping[Name, Readout], tokens: PreparedTokens) -> dict[Name, Found]:
    kinds = {head.reads_as: head for head in heads.values()}
    summaries = {kind: head.summary(tokens) for kind, head in kinds.items()}
    queries = {
        name: query for name, head in heads.items() if (query := head.pooling_query(tokens)) is not None
    }
    found: dict[Name, Found] = dict(zip(queries, pool(tokens, list(queries.values())), strict=True))
    for name, head in heads.items():
        if (summary := summaries[head.reads_as]) is not None:
            found[name] = summary
    return found
