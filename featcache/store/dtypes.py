"""The two number formats of stored tokens: float16, and int8 with one float32 scale per token.

Models compute in float32 or bfloat16, whose largest numbers float16 does not reach; an infinity that slipped
into a store would be found weeks later, as a loss that is NaN. So tokens are rounded to float16 and refused
where it cannot hold them; an int8 store quantises what has passed this test.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float16, Float32, Int8, UInt8
from torch import Tensor

FLOAT16_MAX = 65504.0
FLOAT16_MAX_BITS = 0x7BFF
"""The bits of `FLOAT16_MAX`; those of infinity and NaN lie above them."""

LEVELS = 127
"""Steps from zero to the largest magnitude, so that both signs are alike."""

UNSTORABLE = -128
"""The level that no number has: on its way to a store it stands for one that float16 cannot hold."""


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


class Quantised(NamedTuple):
    """Tokens as an int8 store has them, of any number of clips, in numpy."""

    levels: Int8[np.ndarray, "*axes C"]
    """`round(token / scale)`; `UNSTORABLE` where the token is not finite in float16."""
    scales: Float32[np.ndarray, "*axes"]
    """One per token, infinite or NaN where one of its channels is `UNSTORABLE`."""


def quantize(tokens: Float16[np.ndarray, "T H W C"]) -> Quantised:
    """Finite tokens as `round(token / scale)`, to nearest with ties to even, and their scales.

    By torch, which converts float16 many times as fast as numpy. No step depends on the order of a sum, so
    the numbers are the same on any machine, and the same as those of `quantized_tensor`.
    """
    given = torch.from_numpy(np.require(tokens, requirements=["W"]))
    levels, scales = (
        torch.empty_like(given, dtype=torch.int8),
        given.new_empty(given.shape[:-1], dtype=torch.float32),
    )
    # A step at a time stays in the processor's cache.
    for step, of_step, scales_of_step in zip(given, levels, scales, strict=True):
        found, scale = _quantized(step.float())
        of_step.copy_(found)
        scales_of_step.copy_(scale)
    return Quantised(levels.numpy(), scales.numpy())


def quantized_tensor(
    tokens: Float[Tensor, "*axes C"],
) -> tuple[Int8[Tensor, "*axes C"], Float32[Tensor, "*axes"]]:
    """Levels and scales of `Quantised`, made on the tokens' device of what float16 makes of them."""
    rounded = tokens.half().float()
    beyond = ~rounded.isfinite()
    levels, scales = _quantized(rounded)
    return levels.masked_fill_(beyond, UNSTORABLE), scales


def _quantized(
    float32: Float32[Tensor, "*axes C"],
) -> tuple[Int8[Tensor, "*axes C"], Float32[Tensor, "*axes"]]:
    """Levels and scales; `float32` is overwritten."""
    scales = float32.abs().amax(dim=-1) / LEVELS
    # A token of zeros has the scale zero, and is stored as zeros.
    divisors = torch.where(scales > 0, scales, 1.0)
    return float32.div_(divisors[..., None]).round_().to(torch.int8), scales


class UnstorableError(ValueError):
    """A number that float16 cannot hold; of an infinity that was quantised the sign is not known any more."""

    def __init__(self, value: float, index: tuple[int, ...]) -> None:
        super().__init__(f"{value} at {index} is beyond float16")
        self.value, self.index = value, index


def as_stored(
    tokens: Float[np.ndarray, "T H W C"] | Quantised,
    dtype: Literal["float16", "int8"],
    buffer: Float16[np.ndarray, "T H W C"],
) -> tuple[np.ndarray, ...]:
    """A chunk of every array of a store of `dtype`; `buffer` may become one of them.

    Raises:
        UnstorableError: a number is not finite, or too large; the first of them.
    """
    if isinstance(tokens, Quantised):
        if not np.isfinite(tokens.scales).all():
            index = tuple(np.argwhere(tokens.levels == UNSTORABLE)[0].tolist())
            raise UnstorableError(float(tokens.scales[index[:-1]]), index)
        return tokens
    rounded = as_float16(tokens, buffer)
    if (found := first_unstorable(tokens, rounded)) is not None:
        raise UnstorableError(*found)
    return (rounded,) if dtype == "float16" else quantize(rounded)


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
        self._bytes = self._levels.ravel().view(np.uint8), self._scales.ravel().view(np.uint8)

    def pieces(self, row: int) -> tuple[UInt8[np.ndarray, " levels"], UInt8[np.ndarray, " scales"]]:
        """The same two buffers for every row: a thread reads one row after the other."""
        return self._bytes

    def arrived(self, row: int) -> None:
        """Dequantise the row that the buffers hold now."""
        dequantize_into(self._out[row], self._levels, self._scales)
