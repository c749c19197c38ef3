"""Rounding to float16 is IEEE's, and what does not fit is found with its place."""

import numpy as np
import pytest

from featcache.store.dtypes import FLOAT16_MAX, FLOAT16_MAX_BITS, as_float16, first_unstorable, largest_bits


def test_every_float16_and_the_points_between_round_as_numpy_rounds() -> None:
    finite = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    halfway = (finite[:-1] + finite[1:]) / 2
    values = np.concatenate([finite, halfway, np.nextafter(halfway, np.float32(np.inf)), -halfway])
    buffer = np.empty(values.shape, np.float16)
    assert as_float16(values, buffer) is buffer
    assert np.array_equal(buffer.view(np.uint16), values.astype(np.float16).view(np.uint16))


def test_contiguous_float16_is_passed_on_and_other_layouts_are_copied() -> None:
    values = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    buffer = np.empty((2, 3, 4), np.float16)
    assert as_float16(values, buffer) is values
    turned = np.arange(24, dtype=np.float16).reshape(4, 3, 2).T
    assert np.array_equal(as_float16(turned, buffer), turned)
    backwards = np.arange(24, dtype=np.float32).reshape(2, 3, 4)[::-1]
    backwards.flags.writeable = False
    assert np.array_equal(as_float16(backwards, buffer), backwards)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found(value: float, dtype: type) -> None:
    values = np.zeros((2, 3), dtype)
    values[1, 2] = value
    found, place = first_unstorable(values, as_float16(values, np.empty((2, 3), np.float16)))
    assert place == (1, 2)
    assert np.array_equal(found, value, equal_nan=True)


@pytest.mark.parametrize("value", [65504.01, -65504.01, 65519.9, 65520.0, -1e30])
def test_what_is_too_large_is_found_even_where_it_would_round_down(value: float) -> None:
    values = np.array([1.0, 65504.0, value, np.inf], np.float32)
    found, place = first_unstorable(values, as_float16(values, np.empty(4, np.float16)))
    assert place == (2,)
    assert found == np.float32(value)


def test_the_largest_float16_fits() -> None:
    values = np.array([FLOAT16_MAX, -FLOAT16_MAX, 0.0, 1e-30], np.float32)
    stored = as_float16(values, np.empty(4, np.float16))
    assert first_unstorable(values, stored) is None
    assert largest_bits(stored) == FLOAT16_MAX_BITS
    assert np.uint16(FLOAT16_MAX_BITS).view(np.float16) == FLOAT16_MAX
