"""Batches of clip views: in order, of one size, with what cannot be read left out."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from featcache.clips import Clip, ClipIndex
from featcache.errors import DataError
from featcache.extract.batches import ClipBatches
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.pixels.host_pixels import HostPixels

SHAPE = (2, 3, 4, 4)


class Numbered(ClipViews):
    """Views whose every pixel is 10 * clip + view; clip 3 is broken, odd clips have two views."""

    def __init__(self) -> None:
        self.job = SimpleNamespace(views=SimpleNamespace(views_of=lambda n_source: n_source), resized_to=None)

    def read(self, clip: Clip, n_views: int) -> np.ndarray:
        if clip.record == 3:
            raise DataError("record 3 is broken")
        return np.zeros((1, 1, 1, 1), np.uint8)

    def pixels(self, clip: Clip, frames: np.ndarray, n_views: int) -> list[torch.Tensor]:
        return [torch.full(SHAPE, 10.0 * clip.record + view) for view in range(n_views)]

    def strip_of(self, clip: Clip, frames: np.ndarray, n_views: int) -> bytes:
        return f"{float(self.pixels(clip, frames, n_views)[0][0, 0, 0, 0]):g}".encode()


@pytest.fixture
def index() -> ClipIndex:
    return ClipIndex.from_clips(
        Clip(id=str(i), source="s", record=i, n_source=1 + i % 2, digest=f"{i:016x}") for i in range(7)
    )


def batches(
    index: ClipIndex, skip: Callable[[int, DataError], None], *, size: int, threads: int
) -> ClipBatches:
    views = Numbered()
    return ClipBatches(views, index, size=size, threads=threads, skip=skip, pixels=HostPixels(views))


@pytest.mark.parametrize(("size", "threads"), [(1, 1), (2, 3), (4, 2), (16, 4)])
def test_views_come_in_order_and_batches_are_of_one_size(index: ClipIndex, size: int, threads: int) -> None:
    skipped: list[int] = []
    maker = batches(index, lambda number, problem: skipped.append(number), size=size, threads=threads)
    slots: list[tuple[int, int]] = []
    for batch in maker.of([range(7)]):
        assert batch.pixels.shape == (size, *SHAPE)
        for row, (clip, views) in enumerate(batch.slots):
            assert (batch.pixels[row] == 10 * clip + views.start).all()
            assert views.step == 1 + clip % 2  # repeated beyond the clip's own
        assert (batch.pixels[len(batch.slots) :] == 0).all()
        slots += [(clip, views.start) for clip, views in batch.slots]
    assert slots == [(0, 0), (1, 0), (1, 1), (2, 0), (4, 0), (5, 0), (5, 1), (6, 0)]
    assert skipped == [3]
    assert maker.strips[0] == b"0"


def test_a_clip_that_may_not_be_skipped_ends_it(index: ClipIndex) -> None:
    def refuse(number: int, problem: DataError) -> None:
        raise problem

    with pytest.raises(DataError, match="record 3 is broken"):
        list(batches(index, refuse, size=2, threads=2).of([range(7)]))
    assert [batch.slots for batch in batches(index, refuse, size=2, threads=2).of([range(2)])] == [
        ((0, slice(0, None, 1)), (1, slice(0, None, 2))), ((1, slice(1, None, 2)),)
    ]  # fmt: skip
