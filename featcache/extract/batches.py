"""The rows of a store as batches of pixels of always the same size, made ahead of the model that takes them.

One stream goes through all shards that are to be done. Threads decode a bounded way ahead in it, over the
ends of shards as well, and one more thread puts the next batch together while the model works on the last. On
a CPU the threads that decode make the pixels too, a GPU makes those of a whole batch (`device_pixels`).

A batch never has rows of two shards: the last one of each is filled up with zeros. So which rows go through
the model together follows from the store's shape alone, and a store that was killed and goes on at any shard
meets the same kernels in the same company as one that was not.

`ClipBatches` is for a store whose rows are clips, `FrameBatches` for one whose rows are distinct frames.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from featcache.clips import Clip, ClipIndex
from featcache.data.previews import preview_clips
from featcache.data.readers.base import Frames
from featcache.errors import DataError
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.shared_frames import source_frames
from featcache.resampling import constant
from featcache.store.rows import FrameTable
from featcache.system.ahead import map_ahead
from featcache.system.threads import single_threaded_pool

Slot = tuple[int, slice]
"""(row of the store, views): where the tokens of one tensor belong."""

ONLY = slice(None)
"""The views of a row that is a frame: it has one."""

_Item = TypeVar("_Item")
"""The pixels of one slot, or what they are made of when the batch is put together."""


@runtime_checkable
class PixelMaker(Protocol[_Item]):
    """Makes pixels of decoded frames, some of it in the threads that decode, the rest for whole batches."""

    def of_clip(self, clip: Clip, frames: Frames, n_views: int) -> Iterable[_Item]:
        """What goes into the slot of each view of a clip, from the frames that `ClipViews.read` gave."""
        ...

    def of_frames(self, frames: Frames) -> Iterable[_Item]:
        """What goes into the slot of each frame."""
        ...

    def batch(
        self, made: Sequence[_Item], size: int, /
    ) -> tuple[Float[Tensor, "size F rgb height width"], torch.cuda.Event | None]:
        """The pixels of some of them and, up to `size`, zeros; and what to wait for before they are read."""
        ...


Skip = Callable[[int, DataError], None]
"""Told which row cannot be read, and why; raises where that is too much."""

_Work = TypeVar("_Work")
"""What is decoded in one go."""

_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Pixels for one forward pass, and where the tokens belong."""

    rows: range
    """Those of the shard that it is of."""
    slots: tuple[Slot, ...]
    """Those of the first tensors of `pixels`; what comes after them is padding."""
    pixels: Float[Tensor, "B F rgb Y X"] | None
    """On a CPU valid until the next batch is asked for: then the one after that is put in the same buffer.
    None where there are no slots, because no row of the shard can be read.
    """
    made: torch.cuda.Event | None = None
    """When a GPU has made them."""
    is_last: bool
    """Whether no other batch of the shard follows."""


class Batches(ABC, Generic[_Work, _Decoded]):
    """What both kinds share: tensors of single rows, put together to batches by a thread of its own."""

    def __init__(
        self,
        views: ClipViews,
        index: ClipIndex,
        *,
        size: int,
        threads: int,
        skip: Skip,
        pixels: PixelMaker[Any],
        known: Collection[int] = (),
    ) -> None:
        """`size` counts what a subclass decodes to, clip views or frames; `threads` decode.

        Rows that are `known` are left out: their tokens come from elsewhere.
        """
        self.known = known
        self.views, self.index, self.size, self.threads, self.skip = views, index, size, threads, skip
        self.pixels = pixels
        self.strips: dict[int, bytes | None] = dict.fromkeys(preview_clips(len(index)))
        """Number of a clip -> its contact strip, for a few clips, None until one has passed by."""

    def of(self, shards: Iterable[range]) -> Iterator[Batch]:
        """The rows of these shards in order, without those that cannot be read.

        Raises:
            DataError: a row cannot be read, and `skip` raised.
        """
        batches = self._batches(shards)
        with ThreadPoolExecutor(1, "batch") as pool:
            future = pool.submit(next, batches, None)
            while (batch := future.result()) is not None:
                # Begun before this one is given: it goes on while the model runs.
                future = pool.submit(next, batches, None)
                yield batch

    def _batches(self, shards: Iterable[range]) -> Iterator[Batch]:
        works = ((rows, work) for rows in shards for work in self._works(rows))
        with single_threaded_pool(self.threads, "decode") as pool:
            window = max(self._window, 2 * self.threads)
            ahead = map_ahead(pool, lambda work: self._decode(work[1]), works, window=window)
            for rows, of_shard in groupby(ahead, key=lambda begun: begun[0][0]):
                decoded = ((work, _result(future)) for (_, work), future in of_shard)
                yield from self._batches_of_shard(rows, self._items(decoded))

    def _batches_of_shard(self, rows: range, items: Iterator[tuple[Slot, Any]]) -> Iterator[Batch]:
        some = list(islice(items, self.size))
        while True:
            # One is awaited beyond the batch, so that a shard is known to be done when its last batch is.
            beyond = list(islice(items, 1))
            yield self._batch(rows, some, is_last=not beyond)
            if not beyond:
                return
            some = beyond + list(islice(items, self.size - 1))

    def _batch(self, rows: range, items: list[tuple[Slot, Any]], *, is_last: bool) -> Batch:
        if not items:
            return Batch(rows=rows, slots=(), pixels=None, is_last=is_last)
        pixels, made = self.pixels.batch([item for _, item in items], self.size)
        slots = tuple(slot for slot, _ in items)
        return Batch(rows=rows, slots=slots, pixels=self._as_clips(pixels), made=made, is_last=is_last)

    @property
    @abstractmethod
    def _window(self) -> int:
        """Works that are begun ahead, unless there are few to a thread."""

    @abstractmethod
    def _works(self, rows: range) -> Iterable[_Work]:
        """What is decoded for these rows of a shard, in order."""

    @abstractmethod
    def _decode(self, work: _Work) -> Iterable[_Decoded]:
        """What comes of it, made by a thread that decodes; raises DataError."""

    @abstractmethod
    def _items(
        self, decoded: Iterator[tuple[_Work, Iterable[_Decoded] | DataError]]
    ) -> Iterator[tuple[Slot, Any]]:
        """Each slot with what goes into it, in order."""

    @abstractmethod
    def _as_clips(self, together: Float[Tensor, "N F rgb Y X"]) -> Float[Tensor, "B F rgb Y X"]:
        """A batch as the model takes it."""

    @abstractmethod
    def kept(self, tokens: Float[Tensor, "B T H W C"]) -> Float[Tensor, "slot kept H W C"]:
        """What is stored of the tokens that the model gave for a batch: an entry a slot, then padding."""


ALL_KNOWN = -1
"""Instead of a row: of a shard of which nothing is to be decoded, and which is to be written."""


class ClipBatches(Batches[int, tuple[Slot, Any]]):
    """Batches of clip views, for a store whose rows are clips."""

    def kept(self, tokens: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B kept H W C"]:
        """All steps, or the one that the job makes of them."""
        if (weights := self.views.job.step_weights) is None:
            return tokens
        weights = constant(tuple(weights.tolist()), tokens.device)
        return einsum(tokens, weights, "b t h w c, t -> b h w c")[:, None]

    def _as_clips(self, together: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B F rgb Y X"]:
        return together

    @property
    def _window(self) -> int:
        return self.size

    def _works(self, rows: range) -> Sequence[int]:
        return [row for row in rows if row not in self.known] or [ALL_KNOWN] if self.known else rows

    def _decode(self, work: int) -> Iterable[tuple[Slot, Any]]:
        if work == ALL_KNOWN:
            return ()
        clip = self.index.clip(work)
        n_views = self.views.job.views.views_of(clip.n_source)
        frames = self.views.read(clip, n_views)
        if work in self.strips:
            self.strips[work] = self.views.strip_of(clip, frames, n_views)
        # A clip too short for as many starts as there are views holds each of its own again and again.
        slots = ((work, slice(view, None, n_views)) for view in range(n_views))
        return zip(slots, self.pixels.of_clip(clip, frames, n_views), strict=True)

    def _items(
        self, decoded: Iterator[tuple[int, Iterable[tuple[Slot, Any]] | DataError]]
    ) -> Iterator[tuple[Slot, Any]]:
        for number, views in decoded:
            if isinstance(views, DataError):
                self.skip(number, views)
            else:
                yield from views


@dataclass(frozen=True, kw_only=True, slots=True)
class _FramesOfClip:
    """Rows of the store whose frames are read from one clip, the first that has them."""

    clip: int
    rows: tuple[int, ...]


_NOTHING = _FramesOfClip(clip=ALL_KNOWN, rows=())


class FrameBatches(Batches[_FramesOfClip, Any]):
    """Batches of frames, for a store whose rows are distinct frames; the model takes some as if a clip."""

    def __init__(
        self,
        views: ClipViews,
        index: ClipIndex,
        table: FrameTable,
        *,
        size: int,
        threads: int,
        skip: Skip,
        pixels: PixelMaker[Any],
        known: Collection[int] = (),
    ) -> None:
        """Takes what `Batches` does; `size` is a multiple of the frames that the model takes as a clip."""
        super().__init__(views, index, size=size, threads=threads, skip=skip, pixels=pixels, known=known)
        self.table, self.frames_per_clip = table, views.job.backbone.info.n_frames

    def kept(self, tokens: Float[Tensor, "B F H W C"]) -> Float[Tensor, "frame 1 H W C"]:
        """Every step becomes the one of its own frame."""
        return rearrange(tokens, "b f h w c -> (b f) 1 h w c")

    def _as_clips(self, together: Float[Tensor, "N 1 rgb Y X"]) -> Float[Tensor, "B F rgb Y X"]:
        return rearrange(together, "(b f) 1 rgb y x -> b f rgb y x", f=self.frames_per_clip)

    @property
    def _window(self) -> int:
        return self.size // self.frames_per_clip

    def _works(self, rows: range) -> Iterator[_FramesOfClip]:
        """Frames in order, those of one clip in one go."""
        clips = self.table.first_occurrence[rows.start : rows.stop, 0].tolist()
        asked = [(clip, row) for clip, row in zip(clips, rows, strict=True) if row not in self.known]
        if not asked:
            yield _NOTHING
        for clip, group in groupby(asked, key=itemgetter(0)):
            yield _FramesOfClip(clip=clip, rows=tuple(row for _, row in group))

    def _decode(self, work: _FramesOfClip) -> Iterable[Any]:
        if work is _NOTHING:
            return ()
        clip = self.index.clip(work.clip)
        _, views, steps = self.table.first_occurrence[list(work.rows)].T
        numbers = source_frames(self.views, clip)[views, steps]
        return self.pixels.of_frames(self.views.reader.read(clip, numbers.tolist()))

    def _items(
        self, decoded: Iterator[tuple[_FramesOfClip, Iterable[Any] | DataError]]
    ) -> Iterator[tuple[Slot, Any]]:
        for work, frames in decoded:
            if not isinstance(frames, DataError):
                yield from (((row, ONLY), frame) for row, frame in zip(work.rows, frames, strict=True))
            elif len(work.rows) == 1:
                self.skip(work.rows[0], frames)
            else:
                yield from self._one_by_one(work)

    def _one_by_one(self, work: _FramesOfClip) -> Iterator[tuple[Slot, Any]]:
        """Frames of which one cannot be read: the others can."""
        for row in work.rows:
            try:
                (frame,) = self._decode(replace(work, rows=(row,)))
            except DataError as problem:
                self.skip(row, problem)
            else:
                yield (row, ONLY), frame


def _result(future: Future[Iterable[_Decoded]]) -> Iterable[_Decoded] | DataError:
    problem = future.exception()
    return problem if isinstance(problem, DataError) else future.result()
