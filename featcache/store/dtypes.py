"""The two number formats of stored tokens: float16, and int8 with one float32 scale per token.

Models compute in float32 or bfloat16, whose largest numbers float16 does not reach; an infinity that slipped
into a store would be found weeks later, as a loss that is NaN. So tokens are rounded to float16 and refused
where it cannot hold them; an int8 store quantises what has passed this test.
"""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float16, Float32, Int8

FLOAT16_MAX = 65504.0
FLOAT16_MAX_BITS = 0x7BFF
"""The bits of `FLOAT16_MAX`; those of infinity and NaN lie above them."""

LEVELS = 127
"""Steps from zero to the largest magnitude; -128 is not used, so that both signs are alike."""


def as_float16(
    values: Float[np.ndarray, "*shape"], buffer: Float16[np.ndarray, "*shape"]
) -> Float16[np.ndarray, "*shape"]:
    """C-contiguous float16, rounded to nearest even: `values` itself where it is that, else `buffer`.

    By torch, which is 30 times as fast at it as numpy; the numbers are the same.
    """
    if values.dtype == np.float16 and values.flags.c_contiguous:
        return values
    torch.from_numpy(buffer).copy_(torch.from_numpy(np.require(values, requirements=["C", "W"])))
    return buffer


def largest_bits(stored: Float16[np.ndarray, "..."]) -> int:
    """The bits of the largest magnitude: without the sign they are in the order of the numbers, NaN last.

    As int16 the largest is that of the positive numbers, as uint16 that of the negative ones: no copy.
    """
    return max(int(stored.view(np.int16).max()), int(stored.view(np.uint16).max()) - 0x8000)


def first_unstorable(
    values: Float[np.ndarray, "*shape"], stored: Float16[np.ndarray, "*shape"]
) -> tuple[float, tuple[int, ...]] | None:
    """The first of `values` that is not finite or beyond `FLOAT16_MAX`, and its index; None if all fit.

    Args:
        values: the tokens.
        stored: what `as_float16` made of them, which usually answers the question.
    """
    if largest_bits(stored) < FLOAT16_MAX_BITS:
        return None
    bad = np.argwhere(~(np.abs(values) <= FLOAT16_MAX))
    return (float(values[tuple(bad[0])]), tuple(bad[0].tolist())) if len(bad) else None


def quantize(
    tokens: Float16[np.ndarray, "T H W C"],
) -> tuple[Int8[np.ndarray, "T H W C"], Float32[np.ndarray, "T H W"]]:
    """Finite tokens as `round(token / scale)`, to nearest with ties to even, and their scales.

    By torch, which converts float16 many times as fast as numpy. No step depends on the order of a sum, so
    the numbers are the same on any machine.
    """
    float32 = torch.from_numpy(np.require(tokens, requirements=["W"])).float()
    scales = float32.abs().amax(dim=-1) / LEVELS
    # A token of zeros has the scale zero, and is stored as zeros.
    divisors = rearrange(torch.where(scales > 0, scales, 1.0), "t h w -> t h w 1")
    return float32.div_(divisors).round_().to(torch.int8).numpy(), scales.numpy()


def dequantize_into(
    out: Float16[np.ndarray, "T H W C"],
    levels: Int8[np.ndarray, "T H W C"],
    scales: Float32[np.ndarray, "T H W"],
) -> None:
    """Fill `out` with `level * scale`, computed in float32 and rounded to float16 once."""
    # A step at a time stays in the processor's cache.
    for step, (integers, scale) in enumerate(zip(levels, scales, strict=True)):
        factors = rearrange(torch.from_numpy(scale), "h w -> h w 1")
        torch.mul(torch.from_numpy(integers), factors, out=torch.from_numpy(out[step]))


class Dequantised:
    """A `Destination` of int8 chunks and their scales, which become the float16 rows of `out`."""

    def __init__(self, out: Float16[np.ndarray, "B T H W C"]) -> None:
        self._out = out
        self._levels = np.empty(out.shape[1:], np.int8)
        self._scales = np.empty(out.shape[1:-1], np.float32)

    def pieces(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The same two buffers for every row: a thread reads one row after the other."""
        return self._levels, self._scales

    def arrived(self, row: int) -> None:
        """Dequantise the row that the buffers hold now."""
        dequantize_into(self._out[row], self._levels, self._scales)
