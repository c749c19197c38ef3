"""int8 tokens beside the definition, computed by numpy: q = rint(x / scale), scale = absmax / 127."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featcache.store.dtypes import (
    UNSTORABLE,
    Dequantised,
    Quantised,
    UnstorableError,
    as_stored,
    dequantize_into,
    quantize,
    quantized_tensor,
)


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
    # Of all clips at once, and of what was not rounded yet, the same.
    at_once = quantized_tensor(torch.from_numpy(wide)[None].double())
    assert np.array_equal(at_once[0][0].numpy(), levels)
    assert np.array_equal(at_once[1][0].numpy(), scales)
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
        levels.view(np.int8)[:], scales.view(np.float32)[:] = row + 1, [0.5, 2.0]
        destination.arrived(row)
    assert out[:, 0, 0, :, 0].tolist() == [[0.5, 2.0], [1.0, 4.0]]


def test_the_same_bits_wherever_a_token_is_quantised() -> None:
    """All of float16's numbers, a few to a token, so that there are ties and subnormals among them."""
    finite = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = finite[np.isfinite(finite)]
    rng = np.random.default_rng(0)
    tokens = rng.permutation(np.resize(finite, 4 * 4 * 8 * 510)).reshape(4, 4, 8, 510)
    ours, scales = quantized_tensor(torch.from_numpy(tokens))
    wanted = quantize(tokens)
    assert np.array_equal(ours.numpy(), wanted.levels)
    assert scales.numpy().tobytes() == wanted.scales.tobytes()
    assert UNSTORABLE not in wanted.levels


@pytest.mark.parametrize(("value", "said"), [(1e9, np.inf), (-np.inf, np.inf), (np.nan, np.nan)])
def test_what_float16_cannot_hold_is_found_after_quantising(value: float, said: float) -> None:
    tokens = torch.ones(2, 2, 3, 4)
    tokens[1, 0, 2, 3] = value
    levels, scales = quantized_tensor(tokens)
    quantised = Quantised(levels.numpy(), scales.numpy())
    with pytest.raises(UnstorableError) as problem:
        as_stored(quantised, "int8", np.empty((2, 2, 3, 4), np.float16))
    assert problem.value.index == (1, 0, 2, 3)
    np.testing.assert_equal(problem.value.value, said)


def test_a_chunk_is_as_the_store_has_it() -> None:
    tokens, buffer = np.ones((1, 1, 1, 2), np.float32), np.empty((1, 1, 1, 2), np.float16)
    assert as_stored(tokens, "float16", buffer)[0] is buffer
    levels, _ = as_stored(tokens, "int8", buffer)
    assert (levels == 127).all()
    with pytest.raises(UnstorableError):
        as_stored(70000 * tokens, "int8", buffer)
