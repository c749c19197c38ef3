"""Pixels of single views, copied to batches; what they show is held beside `ClipViews`."""

import numpy as np
import torch

from featcache.clips import Clip
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.pixels.host_pixels import HostPixels
from tests.featcache.extract.pixels.test_clip_views import NumberedFrames, job


def test_a_batch_is_filled_up_with_zeros_in_memory_that_is_used_again() -> None:
    views = ClipViews(job("typhoon", "train"), NumberedFrames())
    clip = Clip(id="a", source="s", record=0, n_source=32, digest="0" * 16)
    maker = HostPixels(views)
    addresses = []
    for _ in range(3):
        made = list(maker.of_clip(clip, views.read(clip, 2), 2))
        pixels, event = maker.batch(made, 3)
        assert event is None
        assert all(map(torch.equal, pixels[:2], views.pixels(clip, views.read(clip, 2), 2)))
        assert not pixels[2].any()
        addresses.append(pixels.data_ptr())
    assert addresses[0] == addresses[2] != addresses[1]


def test_many_large_views_are_made_as_they_are_taken() -> None:
    clip = Clip(id="a", source="s", record=0, n_source=32, digest="0" * 16)
    views = ClipViews(job("typhoon", "train"), NumberedFrames())
    frames = views.read(clip, 8)
    maker = HostPixels(views)
    assert not isinstance(maker.of_clip(clip, frames, 8), list)
    assert isinstance(maker.of_clip(clip, frames, 1), list)


def test_frames_by_themselves() -> None:
    views = ClipViews(job("flyvsfly", "val"), NumberedFrames())
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    maker = HostPixels(views)
    pixels, _ = maker.batch(list(maker.of_frames(frames)), 4)
    assert pixels.shape == (4, 1, 3, 224, 224)
    # Laid out as ever, whatever a frame is laid out like: models meet other kernels otherwise.
    assert pixels.is_contiguous()
    assert len({float(frame.mean()) for frame in pixels}) == 4
