"""Random streams, even splits, sizes, and work that comes back in order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from featcache.errors import CallError
from featcache.synthetic import load_generator
from featcache.synthetic.base import in_order, sizes_of, split_evenly, stream


def test_a_stream_belongs_to_its_key_alone() -> None:
    first = stream(0, "flyvsfly", "train", 3).random(4)
    np.testing.assert_array_equal(first, stream(0, "flyvsfly", "train", 3).random(4))
    for other in ((1, "flyvsfly", "train", 3), (0, "calms21", "train", 3), (0, "flyvsfly", "train", 4)):
        assert not np.array_equal(first, stream(*other).random(4))


def test_split_evenly_covers_everything_once() -> None:
    assert split_evenly(10, 4) == (range(2), range(2, 5), range(5, 7), range(7, 10))
    assert split_evenly(1, 3) == (range(0), range(0), range(1))


def test_in_order_keeps_the_order_and_ticks_for_each() -> None:
    late = threading.Event()
    ticks = []

    def make(item: int) -> int:
        if item == 0:
            late.wait(timeout=5)
        elif item == 15:
            late.set()
        return item * item

    with ThreadPoolExecutor(4) as pool:
        made = list(in_order(pool, make, range(40), lambda: ticks.append(1)))
    assert made == [i * i for i in range(40)]
    assert len(ticks) == 40


def test_sizes_by_name_or_number() -> None:
    flies = load_generator("flyvsfly")
    assert sizes_of(flies, {"val": 5}) == {"train": 0, "val": 5, "test": 0}
    with pytest.raises(CallError, match=r"no size called 'huge': choose one of demo, tiny"):
        sizes_of(flies, "huge")
    with pytest.raises(CallError, match=r"3 items of 'dev' cannot be generated"):
        sizes_of(flies, {"dev": 3})
    with pytest.raises(CallError, match=r"-1 items of 'val'"):
        sizes_of(flies, {"val": -1})
