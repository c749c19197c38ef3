"""How far stored tokens are from computed ones, on tokens whose rounding is known.

What plans, draws and encodes anew is tested end to end, in `test_certify.py`.
"""

import numpy as np
import pytest
import torch

from featcache.store.dtypes import dequantize_into, quantize
from readouts.certify.online import as_stored, beyond_rounding


def test_rounding_alone_is_no_difference() -> None:
    tokens = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0)) * 10
    # Halfway between two float16 numbers, and below the smallest normal one.
    tokens[0, 0, 0] = torch.tensor([1 + 2.0**-11, 2 - 2.0**-11, 3e-6, 0.0, 2.0**-25, 1e4, -7.7, 2.0**-14])
    stored = tokens.half()
    assert beyond_rounding(tokens, stored, dtype="float16") == 0.0
    shifted = tokens.clone()
    shifted[1] += 0.1 * tokens.std(dim=(0, 1, 2), correction=0)
    apart = beyond_rounding(tokens, shifted, dtype="float16")
    assert apart == pytest.approx(0.1, rel=0.02)
    shifted[2, 0, 0, 0] = torch.nan
    assert np.isnan(beyond_rounding(tokens, shifted, dtype="float16"))


def test_int8_has_the_steps_of_its_token() -> None:
    tokens = torch.randn(2, 2, 4, 8, generator=torch.Generator().manual_seed(1))
    stored = np.empty((2, 2, 2, 2, 8), np.float16)
    for row, clip in zip(stored, tokens.half().numpy().reshape(stored.shape), strict=True):
        dequantize_into(row, *quantize(clip))
    read = torch.from_numpy(stored.reshape(tokens.shape))
    assert torch.equal(as_stored(tokens, precision=torch.float32, dtype="int8"), read)
    assert beyond_rounding(tokens, read, dtype="int8") == 0.0
    assert beyond_rounding(tokens, read, dtype="float16") > 1e-3


def test_tokens_are_rounded_to_what_the_backbone_and_the_store_keep() -> None:
    # 11 bits in float16, 8 in bfloat16, halves to even.
    tokens = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, 1 + 2.0**-7 + 2.0**-8, 3.0]).expand(1, 1, 2, 4)
    half = as_stored(tokens, precision=torch.float32, dtype="float16")
    assert half.dtype == torch.float16
    assert half[0, 0, 0].tolist() == [1 + 2.0**-10, 1.0, 1 + 2.0**-7 + 2.0**-8, 3.0]
    coarse = as_stored(tokens, precision=torch.bfloat16, dtype="float16")
    assert coarse[0, 0, 1].tolist() == [1.0, 1.0, 1 + 2.0**-6, 3.0]
