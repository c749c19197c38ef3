"""Convolutions with Flax's borders and initial values.

`SAME` pads so that an output has ceil(n / stride) rows, and puts the smaller half of an odd padding first:
stride 2 on an even map pads (0, 1), where torch users would write (1, 1) and be off by one.
"""

from typing import TypeVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from readouts.heads.layers import as_flax_starts
from readouts.tokens.products import product

Conv = TypeVar("Conv", bound="SameConv | SameConvTranspose")


class SameConv(nn.Conv2d):
    """Flax's `Conv` with padding SAME and a square kernel."""

    bias: nn.Parameter

    def forward(self, inputs: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B O Y2 X2"]:
        """A map of ceil(Y / stride) x ceil(X / stride)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (_same_padding(size, kernel, stride) for size in inputs.shape[2:])
        if rows == columns == (kernel // 2, kernel // 2):
            return convolved(inputs, self.weight, self.bias, stride=stride, padding=kernel // 2)
        return convolved(F.pad(inputs, (*columns, *rows)), self.weight, self.bias, stride=stride)


class SameConvTranspose(nn.ConvTranspose2d):
    """Flax's `ConvTranspose` with padding SAME and a square kernel.

    Flax slides the kernel as it is over inputs spread by the stride, torch the kernel turned by half a turn:
    the weight here is Flax's, turned.
    """

    bias: nn.Parameter

    def forward(  # type: ignore[override]  # torch's takes an output size, which SAME gives
        self, inputs: Float[Tensor, "B C Y X"]
    ) -> Float[Tensor, "B O Y2 X2"]:
        """A map of stride * Y x stride * X."""
        kernel, stride = self.kernel_size[0], self.stride[0]

        def of(left: Tensor, right: Tensor) -> Tensor:
            bias, missing = self.bias.to(left.dtype), max(stride - kernel, 0)
            return F.conv_transpose2d(left, right, bias, stride, output_padding=missing)

        outputs = product(of, inputs, self.weight)
        first = max(kernel - stride, 0) // 2
        rows, columns = (slice(first, first + stride * size) for size in inputs.shape[2:])
        return outputs[:, :, rows, columns]


def convolved(
    inputs: Float[Tensor, "B C Y X"],
    weight: Float[Tensor, "O C K K"],
    bias: Float[Tensor, "O"],
    *,
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "B O Y2 X2"]:
    """torch's, whose products are rounded where a readout's are (`readouts.tokens.products`)."""
    return product(
        lambda left, right: F.conv2d(left, right, bias.to(left.dtype), stride, padding), inputs, weight
    )


def same_conv(
    kind: type[Conv], n_in: int, n_out: int, *, kernel: int, stride: int = 1, generator: Generator | None
) -> Conv:
    """A convolution as Flax starts it, which counts the fan-in of a transposed one like a plain one's."""
    return as_flax_starts(
        kind(n_in, n_out, kernel, stride=stride, device="meta"), generator, fan_in=n_in * kernel**2
    )


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """How many rows of zeros go before the first and after the last one."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
