"""Buffers that chunks are read into."""

import numpy as np
import pytest

from featcache.errors import CallError
from featcache.store.reading.destinations import aligned_empty, buffer_for


@pytest.mark.parametrize("shape", [(3, 5), (1,), (0, 4), (2, 1000, 3)])
def test_a_new_buffer_begins_with_a_page(shape: tuple[int, ...]) -> None:
    made = aligned_empty(shape, np.float32)
    assert (made.shape, made.dtype, made.ctypes.data % 4096) == (shape, np.float32, 0)
    assert made.flags.c_contiguous and made.flags.writeable
    made[...] = 7.0


def test_the_callers_buffer_is_used_as_it_is_or_refused() -> None:
    mine = np.zeros((2, 3), np.int8)
    assert buffer_for("out", mine, np.int8, (2, 3)) is mine
    for wrong in (mine.T, mine.astype(np.int16), mine[:, ::2]):
        with pytest.raises(CallError, match=r"out is .*: give a C-contiguous int8 array \[2, 3\]"):
            buffer_for("out", wrong, np.int8, (2, 3))
