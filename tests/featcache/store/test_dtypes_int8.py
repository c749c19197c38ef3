"""int8 tokens beside the definition, computed by numpy: q = rint(x / scale), scale = absmax / 127."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featcache.store.dtypes import Dequantised, dequantize_into, quantize


def test_a_token_by_hand() -> None:
    tokens = np.array([[[[254.0, -254.0, 1.0, 3.0, 0.9], [0.0, -0.0, 0.0, 0.0, 0.0]]]], np.float16)
    levels, scales = quantize(tokens)
    assert scales.tolist() == [[[2.0, 0.0]]]
    # 1 / 2 and 3 / 2 lie half-way between two levels: to the even one.
    assert levels.tolist() == [[[[127, -127, 0, 2, 0], [0, 0, 0, 0, 0]]]]
    back = np.ones(tokens.shape, np.float16)
    dequantize_into(back, levels, scales)
    assert back.tolist() == [[[[254.0, -254.0, 0.0, 4.0, 0.0], [0.0] * 5]]]


def test_the_ends_of_float16_come_back() -> None:
    tiny = float(np.finfo(np.float16).smallest_subnormal)
    tokens = np.array([[[[65504.0, -65504.0], [tiny, -tiny]]]], np.float16)
    back = np.empty_like(tokens)
    dequantize_into(back, *quantize(tokens))
    assert np.array_equal(back, tokens)


@given(st.integers(0, 10**6), st.floats(-4, 4))
def test_levels_are_nearest_and_the_error_is_at_most_half_a_scale(seed: int, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    tokens = (rng.normal(size=(2, 2, 3, 7)) * 10**exponent).astype(np.float16)
    tokens.flags.writeable = False
    levels, scales = quantize(tokens)
    wide = tokens.astype(np.float32)
    wanted_scales = np.abs(wide).max(axis=-1) / np.float32(127)
    assert np.array_equal(scales, wanted_scales)
    with np.errstate(invalid="ignore"):
        wanted = np.nan_to_num(np.rint(wide / wanted_scales[..., None]))
    assert np.array_equal(levels, wanted.astype(np.int8))
    back = np.empty_like(tokens)
    dequantize_into(back, levels, scales)
    assert np.array_equal(back, (levels * scales[..., None]).astype(np.float16))
    # Half a step, and what rounding the product to float16 adds.
    room = scales[..., None] / 2 + np.spacing(np.abs(back)).astype(np.float32)
    assert (np.abs(back.astype(np.float32) - wide) <= room).all()


def test_chunks_are_dequantised_row_by_row() -> None:
    out = np.zeros((2, 1, 1, 2, 3), np.float16)
    destination = Dequantised(out)
    for row in (1, 0):
        levels, scales = destination.pieces(row)
        levels[...], scales[...] = row + 1, [[[0.5, 2.0]]]
        destination.arrived(row)
    assert out[:, 0, 0, :, 0].tolist() == [[0.5, 2.0], [1.0, 4.0]]
