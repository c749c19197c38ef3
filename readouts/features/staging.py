"""Host memory that batches are read into, kept for the process, and their way from it to a GPU.

Fresh pages cost as much as a read, and every point of a curve is a loop of its own over batches: what one
loop has had the next one takes. Copies to a GPU run on a stream of their own, beside what is computed there.
"""

from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from threading import Lock
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from featcache.store.reading.destinations import aligned_empty
from featcache.system.device import host_buffer
from readouts.features.splits import FeatureSplit
from readouts.tokens.prepared import Native, QuantizedTokens

Parts = tuple[Tensor, ...]
"""Memory for stored tokens, a row per clip and view: float16 ones, or int8 ones and their scales."""


@runtime_checkable
class Mark(Protocol):
    """A point in the work of a GPU (`torch.cuda.Event`)."""

    def synchronize(self) -> None:
        """Wait until it is reached."""
        ...


@dataclass(kw_only=True, eq=False)
class Buffer:
    """Host memory for a batch, pinned where it is for a GPU."""

    parts: Parts
    device: torch.device
    """Where batches go from here."""
    copied: Mark | None = None
    """When the last copy to a GPU has left it; None where there was none."""

    def holds(self, like: Parts) -> bool:
        """Whether it has a place for rows such as these, and as many."""
        pairs = zip(self.parts, like, strict=False)
        return len(self.parts) == len(like) and all(
            mine.dtype == other.dtype and mine.shape[1:] == other.shape[1:] and len(mine) >= len(other)
            for mine, other in pairs
        )


class _Kept:
    """The process's buffers that no loop is using."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []
        self._lock = Lock()

    def take(self, split: FeatureSplit, n_rows: int, device: torch.device) -> Buffer:
        """One that fits; where there is none those kept are given up, for batches are of another kind now."""
        like = new_parts(split, n_rows, torch.device("meta"))
        with self._lock:
            for number, buffer in enumerate(self._buffers):
                if buffer.device == device and buffer.holds(like):
                    return self._buffers.pop(number)
            self._buffers.clear()
        return Buffer(parts=host_parts(split, n_rows, device), device=device)

    def keep(self, buffers: Iterable[Buffer]) -> None:
        """For whoever asks next."""
        with self._lock:
            self._buffers.extend(buffers)


_KEPT = _Kept()


class Rotation:
    """The buffers of one loop over batches, used in turn."""

    def __init__(self, split: FeatureSplit, device: torch.device, *, most: int) -> None:
        self._split, self._device, self._most = split, device, most
        self._ring: deque[Buffer] = deque()
        self._lock = Lock()

    def next(self, n_rows: int) -> Buffer:
        """The one that was used longest ago, once copies have left it; a new one until there are `most`."""
        with self._lock:
            return self._next(n_rows)

    def _next(self, n_rows: int) -> Buffer:
        if len(self._ring) == self._most:
            oldest = self._ring.popleft()
            if len(oldest.parts[0]) >= n_rows:
                self._ring.append(oldest)
                if oldest.copied is not None:
                    oldest.copied.synchronize()
                return oldest
        self._ring.append(_KEPT.take(self._split, n_rows, self._device))
        return self._ring[-1]

    def close(self) -> None:
        """Give the buffers back: the last batches in them last until another loop reads."""
        _KEPT.keep(self._ring)
        self._ring.clear()


def new_parts(split: FeatureSplit, n_rows: int, device: torch.device) -> Parts:
    """Memory on a device for `n_rows` clips and views of a split as stored."""
    new = partial(torch.empty, device=device)
    shape = (n_rows, *split.store.spec.grid.shape)
    if split.store.spec.dtype == "int8":
        return new(shape, dtype=torch.int8), new(shape[:-1], dtype=torch.float32)
    return (new(shape, dtype=torch.float16),)


def host_parts(split: FeatureSplit, n_rows: int, device: torch.device) -> Parts:
    """The same on the host, for `device`: pinned for a GPU, else beginning with a page, as chunks do."""
    like = new_parts(split, n_rows, torch.device("meta"))
    if device.type == "cuda":
        return tuple(host_buffer(part.shape, part.dtype, device) for part in like)
    return tuple(torch.from_numpy(aligned_empty(tuple(part.shape), _KINDS[part.dtype])) for part in like)


_KINDS: dict[torch.dtype, type[np.generic]] = {
    torch.int8: np.int8,
    torch.float16: np.float16,
    torch.float32: np.float32,
}


def as_tokens(parts: Parts) -> Native:
    """Stored tokens as heads take them, rows and columns of the grid on one axis; nothing is copied."""
    values, *scales = (part.flatten(2, 3) for part in parts)
    return QuantizedTokens(values=values, scales=scales[0]) if scales else values


def beside(device: torch.device) -> AbstractContextManager[object]:
    """A block whose copies and kernels run beside what is computed on a GPU; elsewhere a plain block."""
    return torch.cuda.stream(_side_stream(device)) if device.type == "cuda" else nullcontext()


def sent(tensors: Iterable[Tensor], device: torch.device) -> Parts:
    """Tensors on the device; in a block `beside` it, on a GPU, under way to it."""
    return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor made ready to be sent: torch keeps pinned memory until copies have left it."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def mark(device: torch.device) -> Mark | None:
    """What tells when all that a block `beside` a GPU has begun so far is done; None elsewhere."""
    if device.type != "cuda":
        return None
    # Blocking: a thread that waits for it must not keep a core busy.
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(_side_stream(device))
    return event


def received(tensors: Iterable[Tensor], marked: Mark | None, device: torch.device) -> None:
    """Let the stream that computes wait for tensors, and keep their memory from the side stream meanwhile."""
    if marked is not None:
        using = torch.cuda.current_stream(device)
        using.wait_event(cast("torch.cuda.Event", marked))
        for tensor in tensors:
            tensor.record_stream(using)


def settle(device: torch.device) -> None:
    """Wait for all that was begun `beside` a GPU: the memory that it uses may be another's then."""
    if device.type == "cuda":
        _side_stream(device).synchronize()


@cache
def _side_stream(device: torch.device) -> "torch.cuda.Stream":
    """The process's own for this device."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
