"""Tokens as they are stored: rounded to float16, and refused where float16 cannot hold them.

Models compute in float32 or bfloat16, whose largest numbers float16 does not reach; an infinity that slipped
into a store would be found weeks later, as a loss that is NaN.
"""

import numpy as np
import torch
from jaxtyping import Float, Float16

FLOAT16_MAX = 65504.0
FLOAT16_MAX_BITS = 0x7BFF
"""The bits of `FLOAT16_MAX`; those of infinity and NaN lie above them."""


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
    """The first of `values` that is not finite or beyond `FLOAT16_MAX`, and its place; None if all fit.

    Args:
        values: the tokens.
        stored: what `as_float16` made of them, which usually answers the question.
    """
    if largest_bits(stored) < FLOAT16_MAX_BITS:
        return None
    bad = np.argwhere(~(np.abs(values) <= FLOAT16_MAX))
    return (float(values[tuple(bad[0])]), tuple(bad[0].tolist())) if len(bad) else None
