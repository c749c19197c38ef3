"""A clip as the backbone is given it: the frames that each view samples, read once, and their pixels."""

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from featcache.clips import Clip
from featcache.data.previews import STRIP_HEIGHT, TRACKED_HEIGHT, clip_strip
from featcache.data.readers.base import Frames, Reader
from featcache.data.sampling import frame_indices
from featcache.data.views import View, clip_pixels, draw_view, frame_pixels, stretched
from featcache.extract.job import Extraction


class ClipViews:
    """The clips of one extraction, view by view."""

    def __init__(self, job: Extraction, reader: Reader, device: torch.device) -> None:
        self.job, self.reader, self.device = job, reader, device

    def read(self, clip: Clip, n_views: int) -> Frames:
        """The frames that the first views sample, each once, in order of their numbers.

        Raises:
            DataError: as the reader's `read`.
        """
        return self.reader.read(clip, np.unique(self.frames(clip, n_views)).tolist())

    def pixels(
        self, clip: Clip, frames: Frames, n_views: int, size: tuple[int, int] | None = None
    ) -> Iterator[Float[Tensor, "F rgb height width"]]:
        """The backbone's input for each view, from the frames that `read` gave for as many views.

        Of another `size` where one is given.
        """
        size = size or self.job.resized_to
        spec, plan, scaling = self.job.clip_spec, self.job.views, self.job.dataset.pixels
        chosen = self.frames(clip, n_views)
        read = torch.from_numpy(frames).to(self.device)
        # Views that differ in their start alone use the same frames in the same way: resize each once.
        shared = None if plan.starts is None else frame_pixels(read, spec, View(), scaling, size)
        for view, indexes in enumerate(np.searchsorted(np.unique(chosen), chosen)):
            drawn = draw_view(plan, clip.id, view, spec.height, spec.width)
            if shared is None:
                yield clip_pixels(_taken(read, indexes), spec, drawn, scaling, size)
            else:
                yield stretched(_taken(shared, indexes))

    def frames(self, clip: Clip, n_views: int) -> Int[np.ndarray, "V F"]:
        """The numbers of the frames that each view samples, in their order in the input."""
        spec = self.job.clip_spec
        views = (draw_view(self.job.views, clip.id, view, spec.height, spec.width) for view in range(n_views))
        frames = np.stack([frame_indices(spec, clip.n_source, view.start) for view in views])
        return frames[:, shuffled_order(clip, spec.n_frames)] if self.job.shuffle_frames else frames

    def strip(self, clip: Clip) -> bytes:
        """A contact strip of the evaluation view, as JPEG."""
        return self.strip_of(clip, self.read(clip, 1), 1)

    def strip_of(
        self,
        clip: Clip,
        frames: Frames,
        n_views: int,
        pixels: Float[Tensor, "frames rgb height width"] | None = None,
    ) -> bytes:
        """The same, from the frames that `read` gave for so many views, or the first one's `pixels`.

        The input of a model for tiny frames would be no picture: then the strip shows what these are made of.
        """
        height = TRACKED_HEIGHT if self.job.task.kind == "tracking" else STRIP_HEIGHT
        if pixels is None or self.job.resized_to is not None:
            size = None if self.job.resized_to is None else (height, height)
            pixels = next(self.pixels(clip, frames, n_views, size))
        # Standardised fields from -2 to 2 deviations; all else is in 0..1 already.
        return clip_strip((pixels / 4 + 0.5 if self.job.dataset.pixels.mean else pixels).cpu(), height)


def _taken(frames: Shaped[Tensor, "n ..."], indexes: Int[np.ndarray, " F"]) -> Shaped[Tensor, "F ..."]:
    """The frames of these indexes, without a copy where they are all of them in order."""
    if np.array_equal(indexes, np.arange(len(frames))):
        return frames
    return frames[torch.from_numpy(indexes).to(frames.device)]


def shuffled_order(clip: Clip, n_frames: int) -> list[int]:
    """The same for a clip in every split, view and run, and under every version of numpy."""
    names = [f"{clip.digest}/{clip.record}/{i}".encode() for i in range(n_frames)]
    return sorted(range(n_frames), key=lambda i: blake2b(names[i], digest_size=16).digest())
