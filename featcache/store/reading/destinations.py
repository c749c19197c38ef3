"""Where chunks go that threads read: the caller's buffers."""

from collections.abc import Sequence
from math import prod
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

from featcache.errors import CallError
from featcache.store.spec import ALIGNMENT


@runtime_checkable
class Destination(Protocol):
    """Where one thread puts the chunks that it reads."""

    def pieces(self, row: int) -> Sequence[UInt8[np.ndarray, " n"]]:
        """The bytes to fill for a row of the batch, one piece per array."""
        ...

    def arrived(self, row: int) -> None:
        """The pieces of `row` are filled, and verified if that was asked for."""
        ...


class AsStored:
    """A `Destination` of bytes as they are on disk: one buffer per array, one row per chunk."""

    def __init__(self, *buffers: Shaped[np.ndarray, "B ..."]) -> None:
        # All at once: between two copies it takes five times as long.
        of_buffers = ([row.ravel().view(np.uint8) for row in buffer] for buffer in buffers)
        self._rows = list(zip(*of_buffers, strict=True))

    def pieces(self, row: int) -> Sequence[UInt8[np.ndarray, " n"]]:
        """The row of every buffer."""
        return self._rows[row]

    def arrived(self, row: int) -> None:
        """Nothing is left to do."""


def buffer_for(
    name: str, out: np.ndarray | None, dtype: type[np.generic], shape: tuple[int, ...]
) -> Shaped[np.ndarray, "..."]:
    """The caller's buffer `out`, or a new one.

    Raises:
        CallError: it does not fit; `name` is what the caller calls it.
    """
    if out is None:
        return aligned_empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not (out.flags.c_contiguous and out.flags.writeable):
        wanted = f"{np.dtype(dtype)} array {list(shape)}"
        raise CallError(f"{name} is {out.dtype}{list(out.shape)}: give a C-contiguous {wanted}.")
    return out


def aligned_empty(shape: tuple[int, ...], dtype: type[np.generic]) -> Shaped[np.ndarray, "..."]:
    """A new array that begins with a page: as chunks do in their files, which the kernel copies faster so."""
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return np.ndarray(shape, dtype, buffer=memory.data, offset=start)
