"""Equal heads as one: their weights side by side in one tensor, each head's a view of its part.

A step of a small head is a hundred calls that a GPU answers faster than they are made. Sixteen equal heads as
one make hardly more of them than one: `torch.func.vmap` turns the calls of one into those of all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from readouts.heads.base import Found, Name, Readout
from readouts.heads.layers import Dropout
from readouts.tokens.pooling import Pooled, PoolingQuery
from readouts.tokens.prepared import PreparedTokens


def in_stacks(
    heads: Mapping[Name, Readout],
    settings: Mapping[Name, str],
    device: torch.device,
    at_once: Callable[[Readout, int], int] | None = None,
) -> dict[tuple[Name, ...], Readout]:
    """The heads by their names; of equal `settings` as one, by the names of all, where a device gains by it.

    Those that read the tokens themselves hold much for their backward passes: `at_once` says of one of so
    many equal ones how many there is room for (`readouts.training.room`), all if it is None. Those of several
    layers stay as they are.
    """
    equal: dict[tuple[type[Readout], str], list[Name]] = {}
    for name, head in heads.items():
        equal.setdefault((type(head), settings[name]), []).append(name)
    found: dict[tuple[Name, ...], Readout] = {}
    for (kind, _), names in equal.items():
        most = 1
        if len(names) > 1 and kind.branches is Readout.branches and gains_by_stacks(device):
            most = (
                len(names)
                if at_once is None or not goes_itself(kind)
                else at_once(heads[names[0]], len(names))
            )
        for group in _even_parts(names, most):
            together = [heads[name] for name in group]
            found[group] = together[0] if len(group) == 1 else Stack(together)
    return found


def goes_itself(kind: type[Readout]) -> bool:
    """Whether heads of a class go through the tokens themselves, and hold what that takes."""
    return kind.forward is not Readout.forward


def _even_parts(names: Sequence[Name], most: int) -> Iterator[tuple[Name, ...]]:
    """As few parts as there can be of at most so many, no larger than they have to be."""
    n_parts = -(-len(names) // most)
    size = -(-len(names) // n_parts)
    for first in range(0, len(names), size):
        yield tuple(names[first : first + size])


def losses_of(
    loss: Callable[[Float[Tensor, "*outputs"]], Float[Tensor, ""]],
    names: tuple[Name, ...],
    outputs: Float[Tensor, "*outputs"],
    *,
    one_by_one: bool = False,
) -> Float[Tensor, " n"]:
    """The loss of each of the heads of these names, from what the head or stack of `in_stacks` gave.

    `one_by_one` is for a loss that a user wrote, which need not be what `vmap` can turn into that of all.
    """
    if len(names) == 1:
        return loss(outputs)[None]
    of_each: Tensor = torch.stack([loss(of_one) for of_one in outputs]) if one_by_one else vmap(loss)(outputs)
    return of_each


def gains_by_stacks(device: torch.device) -> bool:
    """A GPU waits for calls; a CPU, whose threads have a head each, does not."""
    return device.type != "cpu"


class Stack(Readout):
    """Heads of one class, one layer and equal settings: their outputs have a first axis of heads.

    The heads stay what they are: whoever looks at their weights, or changes them in place, sees the stack's.
    Weights that are given another memory (as by another stack) are this one's no longer.
    """

    def __init__(self, heads: Sequence[Readout]) -> None:
        """Move the weights of `heads` into one memory."""
        super().__init__()
        self.layers = heads[0].layers
        # In a list, for they are no parts of this module: its weights are the stacked ones.
        self._heads = list(heads)
        self._called = [_Called(heads[0])]
        of_each = [[layer for layer in head.modules() if isinstance(layer, Dropout)] for head in heads]
        self._layers = [(layers[0], layers) for layers in zip(*of_each, strict=True)]
        self._weights: dict[str, Tensor] = {}
        for name, _ in heads[0].named_parameters():
            of_all = torch.stack([head.get_parameter(name).detach() for head in heads])
            for head, part in zip(heads, of_all, strict=True):
                head.get_parameter(name).data = part
            self._weights[f"head.{name}"] = of_all.requires_grad_()
        self._numbers = torch.arange(len(heads), device=of_all.device)

    @property
    def reads_as(self) -> type[Readout]:
        """The class of its heads."""
        return type(self._heads[0])

    def forward(self, features: Any, *args: Any, **kwargs: Any) -> Float[Tensor, "n B *outputs"]:
        """The outputs of each from the same tokens."""
        if not goes_itself(self.reads_as):
            return super().forward(features, *args, **kwargs)
        outputs: Tensor = self._of_all("forward", (features, args, kwargs))
        return outputs

    def summary(self, tokens: PreparedTokens) -> Float[Tensor, "B K"] | None:
        """That of each of them."""
        return self._heads[0].summary(tokens)

    def pooling_query(self, tokens: PreparedTokens) -> PoolingQuery | None:
        """What all of them pool, K that of all."""
        if self.reads_as.pooling_query is Readout.pooling_query:
            return None
        keys, offset = self._of_all("query", tokens)
        return PoolingQuery(
            keys=rearrange(keys, "n k c -> (n k) c"), offset=rearrange(offset, "n k u -> (n k) u")
        )

    def read(self, found: Found) -> Float[Tensor, "n B *outputs"]:
        """The outputs of each from what all of them found."""
        if isinstance(found, Tensor):
            outputs: Tensor = self._of_all("read", found)
            return outputs
        tokens, mass = (
            rearrange(part, "b (n k) c -> n b k c", n=len(self._heads)) for part in (found.tokens, found.mass)
        )
        pooled: Tensor = self._of_all("read_pooled", None, tokens, mass)
        return pooled

    def hand_out_gradients(self) -> None:
        """Give each head its part of the gradients, which are the stack's no longer."""
        for name, weight in self._weights.items():
            if weight.grad is not None:
                for head, part in zip(self._heads, weight.grad, strict=True):
                    head.get_parameter(name.removeprefix("head.")).grad = part
                weight.grad = None

    def _of_all(self, what: str, shared: Any, *of_each: Tensor) -> Any:
        """Do `what` with `shared`, if that is something, and each head's own part of `of_each`."""
        (called,) = self._called

        def one(weights: Mapping[str, Tensor], number: Tensor, *own: Tensor) -> Any:
            for layer, layers in self._layers:
                layer.stacked = layers, number
            return functional_call(called, dict(weights), (what, *([] if shared is None else [shared]), *own))

        try:
            # What is drawn is drawn by each head's own generator (`Dropout`).
            return vmap(one, randomness="same")(self._weights, self._numbers, *of_each)
        finally:
            for layer, _ in self._layers:
                layer.stacked = None


class _Called(nn.Module):
    """A head whose methods are called by name, for `functional_call` knows only `forward`."""

    def __init__(self, head: Readout) -> None:
        super().__init__()
        self.head = head

    def forward(self, what: str, *given: Any) -> Any:
        if what == "query":
            query = self.head.pooling_query(*given)
            assert query is not None
            return query.keys, query.offset
        if what == "read":
            return self.head.read(*given)
        if what == "forward":
            features, args, kwargs = given[0]
            return self.head(features, *args, **kwargs)
        tokens, mass = given
        return self.head.read(Pooled(tokens=tokens, mass=mass))
