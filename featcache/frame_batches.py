"""The distinct frames of a split as batches of pixels, for a model that sees each frame by itself.

A batch has the shape of a batch of clips, whose frames are of whatever clips showed them first: the model
runs the same kernels as on clips, and its tokens are the same.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from featcache.clip_batches import Batches, Place, decoded_ahead
from featcache.clip_views import ClipViews
from featcache.clips import ClipIndex
from featcache.distinct_frames import shown_frames
from featcache.errors import DataError
from featcache.frame_table import FrameTable
from featcache.views import View, frame_pixels, in_three_channels


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shown:
    """Frames that one clip is the first to show, each a row of the store."""

    clip: int
    rows: tuple[int, ...]


class FrameBatches(Batches):
    """Batches of frames, of a store whose rows are distinct frames."""

    def __init__(
        self,
        views: ClipViews,
        index: ClipIndex,
        table: FrameTable,
        *,
        size: int,
        threads: int,
        leave_out: Callable[[int, DataError], None],
    ) -> None:
        """As `Batches`; `size` counts frames, and is a multiple of those that the model takes as a clip."""
        super().__init__(views, index, size=size, threads=threads, leave_out=leave_out)
        self.table = table

    def _as_clips(self, room: Float[Tensor, "..."]) -> Float[Tensor, "B F rgb Y X"]:
        return rearrange(room, "(b f) rgb y x -> b f rgb y x", f=self.views.job.backbone.info.n_frames)

    def _decoded(self, rows: range) -> Iterator[tuple[Place, Float[Tensor, "rgb Y X"]]]:
        """Frames in order, those that a clip is the first to show in one go."""
        clips = self.table.first_shown[rows.start : rows.stop, 0].tolist()
        works = (
            _Shown(clip=clip, rows=tuple(row for _, row in shown))
            for clip, shown in groupby(zip(clips, rows, strict=True), key=itemgetter(0))
        )
        for shown, pixels in decoded_ahead(self._pixels, works, threads=self.threads, window=self._ahead):
            if not isinstance(pixels, DataError):
                yield from (((row, 0), of_frame) for row, of_frame in zip(shown.rows, pixels, strict=True))
            elif len(shown.rows) == 1:
                self.leave_out(shown.rows[0], pixels)
            else:
                yield from self._one_by_one(shown)

    def _one_by_one(self, shown: _Shown) -> Iterator[tuple[Place, Float[Tensor, "rgb Y X"]]]:
        """Frames of which one cannot be read: the others can."""
        for row in shown.rows:
            try:
                (pixels,) = self._pixels(replace(shown, rows=(row,)))
            except DataError as problem:
                self.leave_out(row, problem)
            else:
                yield (row, 0), pixels

    def _pixels(self, shown: _Shown) -> Iterable[Float[Tensor, "rgb Y X"]]:
        """As the model is shown them, made here by a CPU, and by a GPU when they are taken."""
        clip, job = self.index.clip(shown.clip), self.views.job
        _, views, steps = self.table.first_shown[list(shown.rows)].T
        numbers = shown_frames(job, self.views, clip)[views, steps]
        frames = self.views.reader.read(clip, numbers.tolist())
        pixels = self._scaled(torch.from_numpy(frames))
        return list(pixels) if self.views.device.type == "cpu" else pixels

    def _scaled(self, frames: Tensor) -> Iterator[Float[Tensor, "rgb Y X"]]:
        job = self.views.job
        shown = frames.to(self.views.device)
        pixels = frame_pixels(shown, job.clip_spec, View(), job.dataset.pixels, job.shown_size)
        yield from in_three_channels(pixels)

    @property
    def _ahead(self) -> int:
        return self.size // self.views.job.backbone.info.n_frames
