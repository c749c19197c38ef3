"""Buffers are used in turn, and kept for the next loop."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from featcache.store.feature_store import FeatureStore
from readouts.features import staging
from readouts.features.splits import FeatureSplit, split_of
from readouts.features.staging import Rotation, host_parts, new_parts
from tests.readouts.features.numbered import numbered, one_hot

CPU = torch.device("cpu")


@pytest.fixture
def split(make_split: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch) -> FeatureSplit:
    monkeypatch.setattr(staging, "_KEPT", staging._Kept())
    return split_of(make_split("train", numbered(6, 1), one_hot(6)))


def test_the_buffer_that_was_used_longest_ago_comes_next(split: FeatureSplit) -> None:
    buffers = Rotation(split, CPU, most=3)
    first = [buffers.next(4) for _ in range(3)]
    assert len(set(map(id, first))) == 3
    assert [buffers.next(n) for n in (4, 2, 4, 4)] == [*first, first[0]]


def test_one_that_is_too_short_is_replaced(split: FeatureSplit) -> None:
    buffers = Rotation(split, CPU, most=1)
    short = buffers.next(2)
    long = buffers.next(4)
    assert len(long.parts[0]) == 4 and long is not short
    assert buffers.next(3) is long


def test_the_next_loop_has_those_of_the_last_one(
    split: FeatureSplit, make_split: Callable[..., FeatureStore]
) -> None:
    one, other = Rotation(split, CPU, most=2), Rotation(split, CPU, most=2)
    mine = [one.next(4), one.next(4)]
    assert other.next(4) not in mine
    one.close()
    again = Rotation(split, CPU, most=2)
    assert [again.next(3), again.next(4)] == mine
    again.close()
    wider = split_of(make_split("val", np.zeros((6, 1, 2, 2, 2, 5), np.float16), one_hot(6)))
    assert Rotation(wider, CPU, most=2).next(4) not in mine
    assert Rotation(split, CPU, most=2).next(4) not in mine, "kept although batches are of another kind"


def test_a_buffer_is_waited_for_until_copies_have_left_it(split: FeatureSplit) -> None:
    waited: list[str] = []

    class Event:
        def synchronize(self) -> None:
            waited.append("yes")

    buffers = Rotation(split, CPU, most=1)
    buffers.next(4).copied = Event()  # type: ignore[assignment]
    assert not waited
    buffers.next(4)
    assert waited == ["yes"]


def test_host_memory_begins_with_a_page(split: FeatureSplit) -> None:
    (part,) = host_parts(split, 5, CPU)
    (like,) = new_parts(split, 5, CPU)
    assert (part.shape, part.dtype) == (like.shape, like.dtype)
    assert part.data_ptr() % 4096 == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_for_a_gpu_it_is_pinned(split: FeatureSplit) -> None:
    assert all(part.is_pinned() for part in host_parts(split, 5, torch.device("cuda")))
