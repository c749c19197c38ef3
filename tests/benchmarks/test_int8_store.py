"""The measurement runs; its figures that are no times are known."""

import numpy as np
import pytest

from tests.benchmarks import int8_store
from tests.benchmarks.stores import SMALL


def test_bytes_are_counted() -> None:
    counted, *timed, _, _ = int8_store.measure(small=True)
    # 24 clips of 2 x 3 x 3 tokens of 64 channels: all of these, and their scales, fit into 4,096 bytes, at
    # multiples of which chunks begin; six shards with sums and index of four chunks.
    whole, tail = 24 * 4096, 6 * (4 * 4 + 4 + 4 * 16 + 4)
    halved = 24 * 4096 + 24 * 4096
    assert counted.ratio == (whole + tail) / (halved + 2 * tail)
    assert len(timed) == 2
    assert SMALL.n_clips == 24


def test_the_error_of_one_token_by_hand() -> None:
    # The scale is 2, so 1 becomes 0 (a tie, to even) and 254 stays: sqrt(1 / (1 + 254^2)).
    tokens = np.array([[[[1.0, 254.0]]]], np.float16)
    assert int8_store.percent_error(tokens) == pytest.approx(100 / np.sqrt(1 + 254**2))
