"""The clips of a split as batches of pixels, made ahead of the model that takes them.

Threads decode a bounded way ahead (and on a CPU make the pixels: a GPU does that itself, in order), and one
more puts the next batch together while the model works on the last.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.clip_views import ClipViews
from featcache.clips import ClipIndex
from featcache.errors import DataError
from featcache.previews import preview_clips


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Clip views for one forward pass."""

    places: tuple[tuple[int, int], ...]
    """(clip, view) of each row; those after them are padding."""
    pixels: Float[Tensor, "B F rgb Y X"]
    """Valid until the batch after the next is asked for."""


class ClipBatches:
    """Batches of always the same size, whatever clips are asked for."""

    def __init__(
        self,
        views: ClipViews,
        index: ClipIndex,
        *,
        size: int,
        threads: int,
        leave_out: Callable[[int, DataError], None],
    ) -> None:
        """`leave_out` is told which clip cannot be read, and why; it raises where that is too much."""
        self.views, self.index, self.size, self.threads = views, index, size, threads
        self.leave_out = leave_out
        self.strips: dict[int, bytes | None] = dict.fromkeys(preview_clips(len(index)))
        """Contact strips of a few clips, once these have passed by."""
        # Two, in turn, for all batches: fresh pages would take longer than the copy.
        self._rooms: deque[Tensor | None] = deque([None, None])

    def of(self, clips: range) -> Iterator[Batch]:
        """The views of these clips in order, those of clips that cannot be read left out.

        Raises:
            DataError: a clip cannot be read, and `leave_out` raised.
        """
        batches = self._stacked(self._decoded(clips))
        with ThreadPoolExecutor(1, "batch") as pool:
            future = pool.submit(next, batches, None)
            while (batch := future.result()) is not None:
                future = pool.submit(next, batches, None)
                yield batch

    def _stacked(self, items: Iterator[tuple[int, int, Tensor]]) -> Iterator[Batch]:
        while rows := list(islice(items, self.size)):
            pixels, n_missing = [pixels for _, _, pixels in rows], self.size - len(rows)
            padding = [torch.zeros_like(pixels[0])] * n_missing if n_missing else []
            room = torch.stack([*pixels, *padding], out=self._rooms.popleft())
            self._rooms.append(room)
            yield Batch(places=tuple((clip, view) for clip, view, _ in rows), pixels=room)

    def _decoded(self, clips: range) -> Iterator[tuple[int, int, Float[Tensor, "F rgb Y X"]]]:
        """(clip, view, pixels) in order, decoded by threads a bounded way ahead."""
        ahead: deque[tuple[int, Future[Iterable[Tensor]]]] = deque()
        numbers, window = iter(clips), max(self.size, 2 * self.threads)
        with ThreadPoolExecutor(self.threads, "decode") as pool:
            while True:
                for number in islice(numbers, window - len(ahead)):
                    ahead.append((number, pool.submit(self._pixels, number)))
                if not ahead:
                    return
                number, future = ahead.popleft()
                try:
                    views = future.result()
                except DataError as problem:
                    self.leave_out(number, problem)
                    continue
                yield from ((number, view, pixels) for view, pixels in enumerate(views))

    def _pixels(self, number: int) -> Iterable[Tensor]:
        """What the backbone is shown of each view; of several all would be kept: they are made one by one."""
        clip = self.index.clip(number)
        n_views = self.views.job.views.views_of(clip.n_source)
        frames = self.views.read(clip, n_views)
        pixels = self._noted(number, self.views.pixels(clip, frames, n_views))
        return list(pixels) if n_views == 1 and self.views.device.type == "cpu" else pixels

    def _noted(self, number: int, views: Iterable[Tensor]) -> Iterator[Tensor]:
        for view, pixels in enumerate(views):
            if view == 0 and number in self.strips:
                self.strips[number] = self.views.strip_of(pixels)
            yield pixels
