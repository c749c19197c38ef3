"""Pixels that the threads which decode make, on a CPU: a view as it is decoded, copied to its batch later."""

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featcache.clips import Clip
from featcache.data.readers.base import Frames
from featcache.data.views import View, frame_pixels, in_three_channels
from featcache.extract.pixels.clip_views import ClipViews


class HostPixels:
    """Makes the pixels of clips or frames in the thread that asks, and copies them to batches."""

    def __init__(self, views: ClipViews) -> None:
        self._views = views
        # Two, in turn, for all batches: fresh pages would take longer than the copy.
        self._buffers: deque[Tensor | None] = deque([None, None])

    def of_clip(
        self, clip: Clip, frames: Frames, n_views: int
    ) -> Iterable[Float[Tensor, "frames rgb height width"]]:
        """The views of a clip; many large ones are made one by one, as they are taken."""
        pixels = self._views.pixels(clip, frames, n_views)
        return list(pixels) if n_views == 1 or self._views.job.resized_to is not None else pixels

    def of_frames(self, frames: Frames) -> Iterable[Float[Tensor, "1 rgb height width"]]:
        """Each frame by itself."""
        job = self._views.job
        read = torch.from_numpy(frames)
        pixels = frame_pixels(read, job.clip_spec, View(), job.dataset.pixels, job.resized_to)
        # Laid out as a model that is given single frames has always had them.
        return torch.split(in_three_channels(pixels).contiguous(), 1)

    def batch(
        self, made: Sequence[Float[Tensor, "F rgb height width"]], size: int
    ) -> tuple[Float[Tensor, "size F rgb height width"], None]:
        """Some of them and, up to `size`, zeros; valid for two calls."""
        if (buffer := self._buffers.popleft()) is None:
            # Laid out as the views are: models meet other kernels, so other last bits, otherwise.
            buffer = torch.stack([torch.empty_like(made[0])] * size)
        self._buffers.append(buffer)
        # Not by torch, which would split a copy among threads and wait for cores that decode.
        batch = buffer.numpy()
        for into, pixels in zip(batch, made, strict=False):
            np.copyto(into, pixels.numpy())
        batch[len(made) :] = 0
        return buffer, None
