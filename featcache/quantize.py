"""Tokens in int8, a scale a token: half the bytes of float16, widened where they are used.

A token is a vector of channels. Its scale is its largest magnitude over 127, so zero stays zero, no value is
clipped, and the error of a value is at most half a scale: 1/254 of the largest magnitude of its own token,
however large other tokens are.
"""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float16, Float32, Int8

LEVELS = 127
"""Steps from zero to the largest magnitude; -128 is not used, so that both signs are alike."""


def quantize(
    tokens: Float16[np.ndarray, "T H W C"],
) -> tuple[Int8[np.ndarray, "T H W C"], Float32[np.ndarray, "T H W"]]:
    """Finite tokens as `round(token / scale)`, to nearest with ties to even, and their scales.

    By torch, which widens float16 many times as fast as numpy. No step depends on the order of a sum, so the
    numbers are the same on any machine.
    """
    wide = torch.from_numpy(np.require(tokens, requirements=["W"])).float()
    scales = wide.abs().amax(dim=-1) / LEVELS
    # A token of zeros has the scale zero, and is stored as zeros.
    divisors = rearrange(torch.where(scales > 0, scales, 1.0), "t h w -> t h w 1")
    return wide.div_(divisors).round_().to(torch.int8).numpy(), scales.numpy()


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


class Widened:
    """Where a reading thread puts int8 chunks and their scales so that float16 rows come of them."""

    def __init__(self, out: Float16[np.ndarray, "B T H W C"]) -> None:
        self._out = out
        self._levels = np.empty(out.shape[1:], np.int8)
        self._scales = np.empty(out.shape[1:-1], np.float32)

    def pieces(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """As `featcache.reading.Destination`: one place for every row."""
        return self._levels, self._scales

    def arrived(self, row: int) -> None:
        """As `featcache.reading.Destination`."""
        dequantize_into(self._out[row], self._levels, self._scales)
