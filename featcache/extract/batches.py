"""The clips of a split as batches of pixels, made ahead of the model that takes them.

Threads decode a bounded way ahead (and on a CPU make the pixels: a GPU does that itself, in order), and one
more puts the next batch together while the model works on the last.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import TypeVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from featcache.clips import Clip, ClipIndex
from featcache.data.previews import preview_clips
from featcache.data.readers.base import Frames
from featcache.data.views import View, frame_pixels, in_three_channels
from featcache.errors import DataError
from featcache.extract.clip_views import ClipViews
from featcache.extract.shared_frames import shown_frames
from featcache.store.rows import FrameTable
from featcache.system.threads import single_threaded_pool

Place = tuple[int, int]
"""(row of the store, view)."""

_Work = TypeVar("_Work")
_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Pixels for one forward pass."""

    places: tuple[Place, ...]
    """Of what is in it; what comes after is padding."""
    pixels: Float[Tensor, "B F rgb Y X"]
    """Valid until the batch after the next is asked for."""


class Batches:
    """Batches of always the same size, whatever rows of the store are asked for; made by a subclass."""

    def __init__(
        self,
        views: ClipViews,
        index: ClipIndex,
        *,
        size: int,
        threads: int,
        leave_out: Callable[[int, DataError], None],
    ) -> None:
        """`leave_out` is told which row cannot be read, and why; it raises where that is too much."""
        self.views, self.index, self.size, self.threads = views, index, size, threads
        self.leave_out = leave_out
        self.strips: dict[int, bytes | None] = dict.fromkeys(preview_clips(len(index)))
        """Contact strips of a few clips, where these have passed by."""
        # Two, in turn, for all batches: fresh pages would take longer than the copy.
        self._rooms: deque[Tensor | None] = deque([None, None])

    def of(self, rows: range) -> Iterator[Batch]:
        """These rows in order, those that cannot be read left out.

        Raises:
            DataError: a row cannot be read, and `leave_out` raised.
        """
        batches = self._stacked(self._decoded(rows))
        with ThreadPoolExecutor(1, "batch") as pool:
            future = pool.submit(next, batches, None)
            while (batch := future.result()) is not None:
                future = pool.submit(next, batches, None)
                yield batch

    def _stacked(self, items: Iterator[tuple[Place, Tensor]]) -> Iterator[Batch]:
        while some := list(islice(items, self.size)):
            pixels, n_missing = [pixels for _, pixels in some], self.size - len(some)
            padding = [torch.zeros_like(pixels[0])] * n_missing if n_missing else []
            room = torch.stack([*pixels, *padding], out=self._rooms.popleft())
            self._rooms.append(room)
            yield Batch(places=tuple(place for place, _ in some), pixels=self._as_clips(room))

    def _as_clips(self, room: Float[Tensor, "..."]) -> Float[Tensor, "B F rgb Y X"]:
        """What was put together, as the model takes it."""
        return room

    def _decoded(self, rows: range) -> Iterator[tuple[Place, Float[Tensor, "..."]]]:
        """What is put together, in order."""
        raise NotImplementedError


class ClipBatches(Batches):
    """Batches of clip views, of a store whose rows are clips."""

    def _decoded(self, rows: range) -> Iterator[tuple[Place, Float[Tensor, "F rgb Y X"]]]:
        """Their views in order."""
        for number, views in decoded_ahead(self._pixels, rows, threads=self.threads, window=self.size):
            if isinstance(views, DataError):
                self.leave_out(number, views)
            else:
                yield from (((number, view), pixels) for view, pixels in enumerate(views))

    def _pixels(self, number: int) -> Iterable[Tensor]:
        """What the backbone is shown of each view; many large ones, all kept, are made one by one."""
        clip = self.index.clip(number)
        n_views = self.views.job.views.views_of(clip.n_source)
        frames = self.views.read(clip, n_views)
        pixels = self._noted(number, clip, frames, n_views)
        at_once = n_views == 1 or self.views.job.shown_size is not None
        return list(pixels) if at_once and self.views.device.type == "cpu" else pixels

    def _noted(self, number: int, clip: Clip, frames: Frames, n_views: int) -> Iterator[Tensor]:
        for view, pixels in enumerate(self.views.pixels(clip, frames, n_views)):
            if view == 0 and number in self.strips:
                self.strips[number] = self.views.strip_of(clip, frames, n_views, pixels)
            yield pixels


def decoded_ahead(
    decode: Callable[[_Work], _Found],
    works: Iterable[_Work],
    *,
    threads: int,
    window: int,
) -> Iterator[tuple[_Work, _Found | DataError]]:
    """Each of `works` with what `decode` gives or raises, in order; threads are `window` of them ahead."""
    ahead: deque[tuple[_Work, Future[_Found]]] = deque()
    left, window = iter(works), max(window, 2 * threads)
    with single_threaded_pool(threads, "decode") as pool:
        while True:
            for work in islice(left, window - len(ahead)):
                ahead.append((work, pool.submit(decode, work)))
            if not ahead:
                return
            work, future = ahead.popleft()
            try:
                yield work, future.result()
            except DataError as problem:
                yield work, problem


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
        clips = self.table.first_occurrence[rows.start : rows.stop, 0].tolist()
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
        _, views, steps = self.table.first_occurrence[list(shown.rows)].T
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
