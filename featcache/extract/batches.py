"""The rows of a store as batches of pixels of always the same size, made ahead of the model that takes them.

Threads decode a bounded way ahead (and on a CPU make the pixels: a GPU does that itself, in order), and one
more thread stacks the next batch while the model works on the last. `ClipBatches` is for a store whose rows
are clips, `FrameBatches` for one whose rows are distinct frames.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import TypeVar

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from featcache.clips import Clip, ClipIndex
from featcache.data.previews import preview_clips
from featcache.data.readers.base import Frames
from featcache.data.views import View, frame_pixels, in_three_channels
from featcache.errors import DataError
from featcache.extract.clip_views import ClipViews
from featcache.extract.shared_frames import source_frames
from featcache.store.rows import FrameTable
from featcache.system.ahead import map_ahead
from featcache.system.threads import single_threaded_pool

Slot = tuple[int, slice]
"""(row of the store, views): where the tokens of one tensor belong."""

ONLY = slice(None)
"""The views of a row that is a frame: it has one."""

Skip = Callable[[int, DataError], None]
"""Told which row cannot be read, and why; raises where that is too much."""

_Work = TypeVar("_Work")
_Pixels = TypeVar("_Pixels")


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Pixels for one forward pass, and where the tokens belong."""

    slots: tuple[Slot, ...]
    """Those of the first tensors of `pixels`; what comes after them is padding."""
    pixels: Float[Tensor, "B F rgb Y X"]
    """Valid until the next batch is asked for: then the one after that is stacked in the same buffer."""


class Batches:
    """What both kinds share: tensors of single rows, stacked to batches by a thread of its own."""

    def __init__(self, views: ClipViews, index: ClipIndex, *, size: int, threads: int, skip: Skip) -> None:
        """`size` counts what a subclass decodes to, clip views or frames; `threads` decode."""
        self.views, self.index, self.size, self.threads, self.skip = views, index, size, threads, skip
        self.strips: dict[int, bytes | None] = dict.fromkeys(preview_clips(len(index)))
        """Number of a clip -> its contact strip, for a few clips, None until one has passed by."""
        # Two, in turn, for all batches: fresh pages would take longer than the copy.
        self._buffers: deque[Tensor | None] = deque([None, None])

    def of(self, rows: range) -> Iterator[Batch]:
        """These rows in order, without those that cannot be read.

        Raises:
            DataError: a row cannot be read, and `skip` raised.
        """
        batches = self._stacked(self._decoded(rows))
        with ThreadPoolExecutor(1, "batch") as pool:
            future = pool.submit(next, batches, None)
            while (batch := future.result()) is not None:
                # Begun before this one is given: stacking goes on while the model runs.
                future = pool.submit(next, batches, None)
                yield batch

    def _stacked(self, items: Iterator[tuple[Slot, Tensor]]) -> Iterator[Batch]:
        while some := list(islice(items, self.size)):
            pixels, n_missing = [pixels for _, pixels in some], self.size - len(some)
            padding = [torch.zeros_like(pixels[0])] * n_missing if n_missing else []
            buffer = torch.stack([*pixels, *padding], out=self._buffers.popleft())
            self._buffers.append(buffer)
            yield Batch(slots=tuple(slot for slot, _ in some), pixels=self._as_clips(buffer))

    def _ahead(
        self, decode: Callable[[_Work], _Pixels], works: Iterable[_Work], *, window: int
    ) -> Iterator[tuple[_Work, _Pixels | DataError]]:
        """Each of `works` with what `decode` gives or raises, in order, some of them ahead."""
        with single_threaded_pool(self.threads, "decode") as pool:
            for work, future in map_ahead(pool, decode, works, window=max(window, 2 * self.threads)):
                problem = future.exception()
                yield work, problem if isinstance(problem, DataError) else future.result()

    def kept(self, tokens: Float[Tensor, "B T H W C"]) -> Float[Tensor, "slot kept H W C"]:
        """What is stored of the tokens that the model gave for a batch: an entry a slot, then padding."""
        raise NotImplementedError

    def _decoded(self, rows: range) -> Iterator[tuple[Slot, Float[Tensor, "..."]]]:
        """The slot and pixels of everything that is stacked, in order."""
        raise NotImplementedError

    def _as_clips(self, stacked: Float[Tensor, "..."]) -> Float[Tensor, "B F rgb Y X"]:
        """What was stacked, as the model takes it."""
        raise NotImplementedError


class ClipBatches(Batches):
    """Batches of clip views, for a store whose rows are clips."""

    def kept(self, tokens: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B kept H W C"]:
        """All steps, or the one that the job makes of them."""
        if (weights := self.views.job.step_weights) is None:
            return tokens
        return einsum(tokens, weights.to(tokens.device), "b t h w c, t -> b h w c")[:, None]

    def _as_clips(self, stacked: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B F rgb Y X"]:
        return stacked

    def _decoded(self, rows: range) -> Iterator[tuple[Slot, Float[Tensor, "F rgb Y X"]]]:
        for number, views in self._ahead(self._pixels, rows, window=self.size):
            if isinstance(views, DataError):
                self.skip(number, views)
            else:
                yield from views

    def _pixels(self, number: int) -> Iterable[tuple[Slot, Tensor]]:
        """The backbone's input for each view of a clip; many large ones, all kept, are made one by one."""
        clip = self.index.clip(number)
        n_views = self.views.job.views.views_of(clip.n_source)
        frames = self.views.read(clip, n_views)
        pixels = self._noted(number, clip, frames, n_views)
        at_once = n_views == 1 or self.views.job.resized_to is not None
        return list(pixels) if at_once and self.views.device.type == "cpu" else pixels

    def _noted(self, number: int, clip: Clip, frames: Frames, n_views: int) -> Iterator[tuple[Slot, Tensor]]:
        for view, pixels in enumerate(self.views.pixels(clip, frames, n_views)):
            if view == 0 and number in self.strips:
                self.strips[number] = self.views.strip_of(clip, frames, n_views, pixels)
            # A clip too short for as many starts as there are views holds each of its own again and again.
            yield (number, slice(view, None, n_views)), pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class _FramesOfClip:
    """Rows of the store whose frames are read from one clip, the first that has them."""

    clip: int
    rows: tuple[int, ...]


class FrameBatches(Batches):
    """Batches of frames, for a store whose rows are distinct frames; the model takes some as if a clip."""

    def __init__(
        self, views: ClipViews, index: ClipIndex, table: FrameTable, *, size: int, threads: int, skip: Skip
    ) -> None:
        """Takes what `Batches` does; `size` is a multiple of the frames that the model takes as a clip."""
        super().__init__(views, index, size=size, threads=threads, skip=skip)
        self.table, self.frames_per_clip = table, views.job.backbone.info.n_frames

    def kept(self, tokens: Float[Tensor, "B F H W C"]) -> Float[Tensor, "frame 1 H W C"]:
        """Every step becomes the one of its own frame."""
        return rearrange(tokens, "b f h w c -> (b f) 1 h w c")

    def _as_clips(self, stacked: Float[Tensor, "N rgb Y X"]) -> Float[Tensor, "B F rgb Y X"]:
        return rearrange(stacked, "(b f) rgb y x -> b f rgb y x", f=self.frames_per_clip)

    def _decoded(self, rows: range) -> Iterator[tuple[Slot, Float[Tensor, "rgb Y X"]]]:
        """Frames in order, those of one clip in one go."""
        clips = self.table.first_occurrence[rows.start : rows.stop, 0].tolist()
        works = (
            _FramesOfClip(clip=clip, rows=tuple(row for _, row in group))
            for clip, group in groupby(zip(clips, rows, strict=True), key=itemgetter(0))
        )
        window = self.size // self.frames_per_clip
        for work, pixels in self._ahead(self._pixels, works, window=window):
            if not isinstance(pixels, DataError):
                yield from (((row, ONLY), frame) for row, frame in zip(work.rows, pixels, strict=True))
            elif len(work.rows) == 1:
                self.skip(work.rows[0], pixels)
            else:
                yield from self._one_by_one(work)

    def _one_by_one(self, work: _FramesOfClip) -> Iterator[tuple[Slot, Float[Tensor, "rgb Y X"]]]:
        """Frames of which one cannot be read: the others can."""
        for row in work.rows:
            try:
                (pixels,) = self._pixels(replace(work, rows=(row,)))
            except DataError as problem:
                self.skip(row, problem)
            else:
                yield (row, ONLY), pixels

    def _pixels(self, work: _FramesOfClip) -> Iterable[Float[Tensor, "rgb Y X"]]:
        """The backbone's input for each frame, made here by a CPU, and by a GPU when it is taken."""
        clip = self.index.clip(work.clip)
        _, views, steps = self.table.first_occurrence[list(work.rows)].T
        numbers = source_frames(self.views, clip)[views, steps]
        frames = self.views.reader.read(clip, numbers.tolist())
        pixels = self._scaled(torch.from_numpy(frames))
        return list(pixels) if self.views.device.type == "cpu" else pixels

    def _scaled(self, frames: Tensor) -> Iterator[Float[Tensor, "rgb Y X"]]:
        job = self.views.job
        on_device = frames.to(self.views.device)
        pixels = frame_pixels(on_device, job.clip_spec, View(), job.dataset.pixels, job.resized_to)
        yield from in_three_channels(pixels)
