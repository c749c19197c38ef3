"""A clip as the backbone is given it: the frames that each view samples, read once, and their pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from featcache.clips import Clip
from featcache.data.corruptions import corrupted
from featcache.data.previews import STRIP_HEIGHT, TRACKED_HEIGHT, clip_strip
from featcache.data.readers.base import Frames, Reader
from featcache.data.sampling import frame_indices, repeat_frames
from featcache.data.views import View, clip_pixels, draw_view, frame_pixels, stretched
from featcache.extract.job import Extraction
from featcache.resampling import resize_area


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What a view is made of, for a device that makes the pixels itself."""

    frames: Frames
    """All that were read of the clip; views of one clip have the same array."""
    indexes: Int[np.ndarray, " input"]
    """Those of the input's frames, in their order."""
    view: View

    @property
    def is_plain(self) -> bool:
        """Whether nothing but its frames sets it apart from other views."""
        return self.view == View(start=self.view.start)


class ClipViews:
    """The clips of one extraction, view by view."""

    def __init__(self, job: Extraction, reader: Reader) -> None:
        self.job, self.reader = job, reader

    def read(self, clip: Clip, n_views: int) -> Frames:
        """The frames that the first views sample, each once, in order of their numbers.

        Raises:
            DataError: as the reader's `read`.
        """
        return self.reader.read(clip, np.unique(self.frames(clip, n_views)).tolist())

    def pixels(
        self, clip: Clip, frames: Frames, n_views: int, size: tuple[int, int] | None = None
    ) -> Iterator[Float[Tensor, "F rgb height width"]]:
        """The backbone's input for each view, made on the CPU from the frames that `read` gave for as many.

        Of another `size` where one is given.
        """
        size = size or self.job.resized_to
        if self.job.corruption is not None:
            yield from self._corrupted(clip, frames, n_views, size)
            return
        spec, plan, scaling = self.job.clip_spec, self.job.views, self.job.dataset.pixels
        chosen = self.frames(clip, n_views)
        read = torch.from_numpy(frames)
        # Views that differ in their start alone use the same frames in the same way: resize each once.
        shared = None if plan.starts is None else frame_pixels(read, spec, View(), scaling, size)
        for view, indexes in enumerate(np.searchsorted(np.unique(chosen), chosen)):
            drawn = draw_view(plan, clip.id, view, spec.height, spec.width)
            if shared is None:
                yield clip_pixels(_taken(read, indexes), spec, drawn, scaling, size)
            else:
                yield stretched(_taken(shared, indexes))

    def _corrupted(
        self, clip: Clip, frames: Frames, n_views: int, size: tuple[int, int] | None
    ) -> Iterator[Float[Tensor, "F rgb height width"]]:
        """Each view at the clips' own size as it is corrupted, then at the one that is wanted."""
        spec, corruption = self.job.clip_spec, self.job.corruption
        assert corruption is not None
        chosen, read = self.frames(clip, n_views), torch.from_numpy(frames)
        for view, indexes in enumerate(np.searchsorted(np.unique(chosen), chosen)):
            drawn = draw_view(self.job.views, clip.id, view, spec.height, spec.width)
            pixels = clip_pixels(_taken(read, indexes), spec, drawn, self.job.dataset.pixels)
            made = corrupted(pixels, corruption, clip.id)
            yield made if size is None else resize_area(made, *size)

    def shown(self, clip: Clip, frames: Frames, n_views: int) -> list[Shown]:
        """What `pixels` makes its tensors of."""
        spec, chosen = self.job.clip_spec, self.frames(clip, n_views)
        indexes = np.searchsorted(np.unique(chosen), chosen)[:, repeat_frames(spec.n_frames)]
        views = (draw_view(self.job.views, clip.id, view, spec.height, spec.width) for view in range(n_views))
        return [
            Shown(frames=frames, indexes=of_view, view=view)
            for of_view, view in zip(indexes, views, strict=True)
        ]

    def frames(self, clip: Clip, n_views: int) -> Int[np.ndarray, "V F"]:
        """The numbers of the frames that each view samples, in their order in the input."""
        spec = self.job.clip_spec
        views = (draw_view(self.job.views, clip.id, view, spec.height, spec.width) for view in range(n_views))
        frames = np.stack([frame_indices(spec, clip.n_source, view.start) for view in views])
        return frames[:, shuffled_order(clip, spec.n_frames)] if self.job.shuffle_frames else frames

    def strip(self, clip: Clip) -> bytes:
        """A contact strip of the evaluation view, as JPEG."""
        return self.strip_of(clip, self.read(clip, 1), 1)

    def strip_of(self, clip: Clip, frames: Frames, n_views: int) -> bytes:
        """The same, from the frames that `read` gave for so many views.

        The input of a model for tiny frames would be no picture: then the strip shows what these are made of.
        """
        height = TRACKED_HEIGHT if self.job.task.kind == "tracking" else STRIP_HEIGHT
        size = None if self.job.resized_to is None else (height, height)
        pixels = next(self.pixels(clip, frames, n_views, size))
        # Standardised fields from -2 to 2 deviations; all else is in 0..1 already.
        return clip_strip(pixels / 4 + 0.5 if self.job.dataset.pixels.mean else pixels, height)


def _taken(frames: Shaped[Tensor, "n ..."], indexes: Int[np.ndarray, " F"]) -> Shaped[Tensor, "F ..."]:
    """The frames of these indexes, without a copy where they are all of them in order."""
    if np.array_equal(indexes, np.arange(len(frames))):
        return frames
    return frames[torch.from_numpy(indexes)]


def shuffled_order(clip: Clip, n_frames: int) -> list[int]:
    """The same for a clip in every split, view and run, and under every version of numpy."""
    names = [f"{clip.digest}/{clip.record}/{i}".encode() for i in range(n_frames)]
    return sorted(range(n_frames), key=lambda i: blake2b(names[i], digest_size=16).digest())
