"""The layers that heads share, started with the reference's initial values."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from readouts.tokens.implicit import LAYER_NORM_EPS
from readouts.tokens.products import product

Started = TypeVar("Started", bound=nn.Linear | nn.Conv2d | nn.ConvTranspose2d)

_TRUNCATED_STD = 0.8796256610342398
"""Standard deviation of a unit normal cut at two: what the cut takes away is given back."""


class Dropout(nn.Dropout):
    """torch's, but what is dropped can follow from a generator of its own.

    torch draws from one generator of the process, for which heads on several threads would race.
    """

    generator: Generator | None = None
    """Where dropout is drawn from; None is the process's own."""
    stacked: "tuple[Sequence[Dropout], Int64[Tensor, '']] | None" = None
    """While equal heads go as one (`readouts.training.stack`): the layers of all, and which of them it is."""

    def forward(self, values: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """In training the numbers that are kept, scaled to keep the mean; in evaluation all, as they are."""
        if not self.training or self.p == 0.0:
            return values
        if self.stacked is None:
            kept = self._draw(values)
        else:
            layers, number = self.stacked
            of_all = torch.stack([layer._draw(values) for layer in layers])
            kept = of_all.index_select(0, number[None])[0]
        return values * kept.div_(1.0 - self.p)

    def _draw(self, like: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """1 for numbers that are kept, else 0."""
        drawn = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        return drawn.bernoulli_(1.0 - self.p, generator=self.generator)


class Dense(nn.Linear):
    """torch's, whose product is rounded where a readout's are (`readouts.tokens.products`)."""

    def forward(self, inputs: Float[Tensor, "*axes I"]) -> Float[Tensor, "*axes O"]:
        """Inputs times weight, plus bias."""

        def of(left: Tensor, right: Tensor) -> Tensor:
            return F.linear(left, right, None if self.bias is None else self.bias.to(left.dtype))

        return product(of, inputs, self.weight)


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


def dense(n_in: int, n_out: int, *, bias: bool = True, generator: Generator | None) -> Dense:
    """A dense layer as Flax starts it: `lecun_normal` weight, zero bias."""
    return as_flax_starts(Dense(n_in, n_out, bias=bias, device="meta"), generator, fan_in=n_in)


def as_flax_starts(layer: Started, generator: Generator | None, *, fan_in: int) -> Started:
    """Fill a layer made on the meta device: `lecun_normal` weight, zero bias.

    It comes without values, since torch's own would be drawn from the global generator.
    """
    layer.to_empty(device="cpu")
    lecun_normal_(layer.weight, generator, fan_in=fan_in)
    if layer.bias is not None:
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
