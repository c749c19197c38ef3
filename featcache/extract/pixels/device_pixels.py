"""Pixels that the model's own device makes: all frames of a batch in one copy, all views in a few calls.

A GPU resizes a batch in the time in which one core resizes a frame, if it is asked once and not clip by clip,
and if nobody waits: frames go through pinned memory that is used again and again, on a stream of their own
beside the model's. Nothing here asks which device it is, streams and pinned memory apart, so a CPU runs the
same code. It gives the pixels of `ClipViews.pixels`; only of products (blurs, two resizes in one) other last
bits, for there are more rows in them.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from featcache.clips import Clip
from featcache.data.readers.base import Frames
from featcache.data.views import View, frame_pixels, in_three_channels
from featcache.extract.pixels.clip_views import ClipViews, Shown
from featcache.system.device import host_buffer

ALIGNMENT = 16
"""Arrays begin at multiples of so many bytes, as torch asks of every number format."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Views that are made in one go: all that differ in their frames alone, or one that was drawn."""

    frames: int
    """Which array of the batch they are of: there is one for each shape of frames."""
    positions: list[int]
    """Where in the batch they belong."""
    rows: Int64[np.ndarray, " n"]
    """The frames of all of them, one after the other."""
    view: View
    is_plain: bool


class DevicePixels:
    """Makes the pixels of batches on a device, in the thread that asks for them."""

    def __init__(self, views: ClipViews, device: torch.device) -> None:
        job = views.job
        self.device, self._views = device, views
        self._spec, self._scaling, self._size = job.clip_spec, job.dataset.pixels, job.resized_to
        self._sender = _Sender(device)
        self._side: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def of_clip(self, clip: Clip, frames: Frames, n_views: int) -> list[Shown]:
        """What the views of a clip are made of."""
        return self._views.shown(clip, frames, n_views)

    def of_frames(self, frames: Frames) -> list[Shown]:
        """What frames are made of that are each shown by themselves."""
        return [Shown(frames=frames, indexes=index, view=View()) for index in np.arange(len(frames))[:, None]]

    def batch(
        self, shown: Sequence[Shown], size: int
    ) -> tuple[Float[Tensor, "size F rgb height width"], torch.cuda.Event | None]:
        """The pixels of some views and, up to `size`, zeros; and what to wait for before they are read."""
        arrays, groups = _planned(shown)
        height, width = self._size or (self._spec.height, self._spec.width)
        shape = (size, len(shown[0].indexes), height, width, 3)
        with torch.cuda.stream(self._side):
            *frames, rows = self._sender.sent([*arrays, [group.rows for group in groups]])
            # Laid out as frames are, channels last, as `HostPixels` has them.
            laid_out = torch.empty(shape, dtype=torch.float32, device=self.device)
            out = rearrange(laid_out, "b f y x rgb -> b f rgb y x")
            out[len(shown) :].zero_()
            of_groups = torch.split(rows, [len(group.rows) for group in groups])
            for group, of_group in zip(groups, of_groups, strict=True):
                made = self._made(frames[group.frames], group, of_group)
                views = rearrange(made, "(b f) rgb y x -> b f rgb y x", b=len(group.positions))
                if len(group.positions) == len(shown):
                    out[: len(shown)] = views
                else:
                    for position, pixels in zip(group.positions, views, strict=True):
                        out[position] = pixels
            return out, None if self._side is None else self._side.record_event()

    def _made(
        self, frames: Shaped[Tensor, "N Y X C"], group: _Group, rows: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n rgb height width"]:
        if group.is_plain:
            # Frames that several views show are resized once.
            pixels = frame_pixels(frames, self._spec, View(), self._scaling, self._size)
            pixels = pixels if _is_all(group.rows, len(frames)) else pixels[rows]
        else:
            pixels = frame_pixels(frames[rows], self._spec, group.view, self._scaling, self._size)
        return in_three_channels(pixels)


class _Sender:
    """Lists of arrays sent to a device in one copy, through one of two pieces of pinned memory in turn.

    The thread that puts a batch together fills them, not those that decode: where in a batch a clip goes is
    known when all before it were read, for some may be skipped.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._turns: deque[tuple[UInt8[Tensor, " n"], torch.cuda.Event | None]] = deque(
            (host_buffer((0,), torch.uint8, device), None) for _ in range(2)
        )

    def sent(self, lists: Sequence[Sequence[np.ndarray]]) -> list[Shaped[Tensor, "n ..."]]:
        """The arrays of each list joined along their first axis; on a CPU good for two calls.

        On the current stream, which may still be at it when this returns.
        """
        sizes = [sum(array.nbytes for array in arrays) for arrays in lists]
        starts = list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
        buffer, copied = self._turns.popleft()
        if copied is not None:
            copied.synchronize()  # of the batch before the last
        if len(buffer) < starts[-1]:
            buffer = host_buffer((starts[-1],), torch.uint8, self._device)
        host = buffer.numpy()
        for arrays, start, size in zip(lists, starts, sizes, strict=False):
            joined = host[start : start + size].view(arrays[0].dtype)
            np.concatenate([array.ravel() for array in arrays], out=joined)
        on_gpu = self._device.type == "cuda"
        on_device = buffer[: starts[-1]].to(self._device, non_blocking=on_gpu)
        event = torch.cuda.current_stream(self._device).record_event() if on_gpu else None
        self._turns.append((buffer, event))
        return [
            _as_rows(on_device[start : start + size], arrays[0])
            for arrays, start, size in zip(lists, starts, sizes, strict=False)
        ]


def _planned(shown: Sequence[Shown]) -> tuple[list[list[Frames]], list[_Group]]:
    """The arrays to send, each once, those of frames of one shape together; and what to make of them."""

    def shape_of(position: int) -> tuple[str, tuple[int, ...]]:
        frames = shown[position].frames
        return frames.dtype.str, frames.shape[1:]

    arrays, groups = [], []
    by_shape = groupby(sorted(range(len(shown)), key=shape_of), key=shape_of)
    for number, (_, group) in enumerate(by_shape):
        positions = list(group)
        own = {id(shown[position].frames): shown[position].frames for position in positions}
        begins = dict(zip(own, accumulate(map(len, own.values()), initial=0), strict=False))
        arrays.append(list(own.values()))
        plain = [position for position in positions if shown[position].is_plain]
        drawn = [[position] for position in positions if not shown[position].is_plain]
        for some in [plain, *drawn] if plain else drawn:
            rows = [begins[id(shown[position].frames)] + shown[position].indexes for position in some]
            view = shown[some[0]]
            groups.append(
                _Group(number, some, np.concatenate(rows).astype(np.int64), view.view, view.is_plain)
            )
    return arrays, groups


def _is_all(rows: Int64[np.ndarray, " n"], n_frames: int) -> bool:
    """Whether these are all frames in their order."""
    return np.array_equal(rows, np.arange(n_frames))


def _as_rows(content: UInt8[Tensor, " bytes"], like: np.ndarray) -> Shaped[Tensor, "n ..."]:
    """Bytes as an array of the number format and the trailing axes of another."""
    numbers = content.view(torch.from_numpy(np.empty(0, like.dtype)).dtype)
    return numbers.view(-1, *like.shape[1:])
