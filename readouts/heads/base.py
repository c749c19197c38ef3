"""What every readout is, and the layers they share with the reference's initial values.

A readout maps the tokens of a clip to its outputs. All randomness of a new one comes from one
`torch.Generator`, so that a seed names a head, on any device.
"""

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from readouts.tokens.pooling import Answer, Ask, pool
from readouts.tokens.prepared import LAYER_NORM_EPS, Native, PreparedTokens, prepared

_TRUNCATED_STD = 0.8796256610342398
"""Standard deviation of a unit normal cut at two: what the cut takes away is given back."""


Name = TypeVar("Name", bound=Hashable)


class Dropout(nn.Dropout):
    """torch's, but what is dropped can follow from a generator of its own.

    torch draws from one generator of the process, for which heads on several threads would race.
    """

    generator: Generator | None = None
    """None for the process's."""

    def forward(self, values: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """In training, the numbers that are kept, scaled to keep the mean."""
        if not self.training or self.p == 0.0:
            return values
        kept = torch.empty_like(values).bernoulli_(1.0 - self.p, generator=self.generator)
        return values * kept.div_(1.0 - self.p)


class Readout(nn.Module):
    """Tokens of a clip to its outputs: the contract of every member of this folder."""

    gives: ClassVar[str] = "vector"
    """What its outputs are: "vector" (a row a clip), "tracks" of points or "fields" on a map."""

    def forward(
        self, features: Native | PreparedTokens, *args: Any, **kwargs: Any
    ) -> Float[Tensor, "B *outputs"]:
        """Tokens of any float dtype at the head's own number of steps, or prepared, to float32 outputs.

        Prepare tokens that several heads read, or that are to be resized. A member that asks one thing of
        the tokens defines `ask` and `read`, which make this one; any other defines its own. What that needs
        beside tokens (points to track) it names in its signature; its outputs have the axes that it says.

        Raises:
            CallError: the tokens' number of steps is not the head's.
        """
        tokens = prepared(features)
        ask = self.ask(tokens, *args, **kwargs)
        if ask is None:
            raise NotImplementedError(f"{type(self).__name__} neither asks nor has a forward of its own")
        (answer,) = pool(tokens, [ask])
        return self.read(answer)

    def ask(self, tokens: PreparedTokens) -> Ask | None:
        """What the head asks of the tokens, if its outputs are `read` of one answer; None if they are not."""
        return None

    def read(self, answer: Answer) -> Float[Tensor, "B *outputs"]:
        """What the head makes of the answer to what it asked."""
        raise NotImplementedError

    def draw_dropout_from(self, generator: Generator) -> None:
        """Let what is dropped follow from `generator`, which is on the head's device."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator


def forward_together(
    heads: Mapping[str, Readout],
    tokens: PreparedTokens,
    inputs: Mapping[str, Any],
) -> dict[str, Float[Tensor, "B *outputs"]]:
    """The outputs of every head, in one pass over the tokens for all that ask of them.

    They are those of `head(tokens, **inputs)`, to the bit.
    """
    answers = answers_of(heads, tokens)
    return {
        name: head.read(answers[name]) if name in answers else head(tokens, **inputs)
        for name, head in heads.items()
    }


def answers_of(heads: Mapping[Name, Readout], tokens: PreparedTokens) -> dict[Name, Answer]:
    """What the tokens answer to each head that asks, in one pass forward; and, for all of them, backward."""
    asks = {name: ask for name, head in heads.items() if (ask := head.ask(tokens)) is not None}
    return dict(zip(asks, pool(tokens, list(asks.values())), strict=True))


def lecun_normal_(weight: Float[Tensor, "..."], generator: Generator | None, *, fan_in: int) -> None:
    """Fill with Flax's `lecun_normal`: variance 1 / fan_in, cut at two deviations (LeCun et al. 1998).

    `fan_in` is what one output sums over, in Flax's count: channels times taps of a kernel, also of a
    transposed one, whose outputs meet fewer taps than that.
    """
    std = fan_in**-0.5 / _TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std, generator=generator)


def normal_parameter(*shape: int, generator: Generator | None) -> nn.Parameter:
    """A learned query or embedding: normal, deviation 0.02, not cut."""
    return nn.Parameter(torch.empty(shape).normal_(std=0.02, generator=generator))


def dense(n_in: int, n_out: int, *, bias: bool = True, generator: Generator | None) -> nn.Linear:
    """A dense layer as Flax starts it: `lecun_normal` weight, zero bias."""
    # Born without values: torch's own would be drawn from the global generator.
    layer = nn.Linear(n_in, n_out, bias=bias, device="meta").to_empty(device="cpu")
    lecun_normal_(layer.weight, generator, fan_in=n_in)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def mlp(n_in: int, n_hidden: int, n_out: int, *, generator: Generator | None) -> nn.Sequential:
    """Dense, GELU in its tanh approximation (Flax's default), dense (REFERENCE: MLP)."""
    return nn.Sequential(
        dense(n_in, n_hidden, generator=generator),
        nn.GELU(approximate="tanh"),
        dense(n_hidden, n_out, generator=generator),
    )


def layer_norm(n_channels: int) -> nn.LayerNorm:
    """A layer norm with Flax's epsilon, scale 1 and bias 0."""
    return nn.LayerNorm(n_channels, eps=LAYER_NORM_EPS)
