"""Chunks from shard files into the caller's buffers, by a few threads that share one list of work.

A batch is planned at once: sorted as the files are, its shards looked up under one lock. Every thread, the
calling one among them, then takes the next chunk until none is left, so a slow one holds nobody up. A chunk
is verified by the first read, one system call; from then on it is copied from the mapped file.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from featcache.errors import CallError
from featcache.store.shards import ABSENT, DamagedShard, OpenShards, ShardFile
from featcache.store.spec import CRC_BYTES, ArraySpec
from featcache.store.zarr_format import shard_key

MAX_THREADS = 32

AGAIN = "Delete this file and run the same `scivid extract` again: it makes only this shard anew."
UNREADABLE = "What is in it may be right: see to the disk or the file's permissions, and try again."

Work = tuple[int, int, int, bool]
"""Row of the batch, shard, slot in the shard's index, whether to verify."""


class UnreadableChunk(Exception):  # noqa: N818 - the name of a finding
    """A chunk that is damaged, or was never written: the caller knows the clip by name."""

    def __init__(self, array: ArraySpec, chunk: int, problem: str | None, *, damaged: bool = True) -> None:
        super().__init__(problem or "has no such chunk")
        self.array, self.chunk = array, chunk
        self.problem = problem
        """The end of a sentence that begins with the shard's path; None where there simply is no chunk."""
        self.way_out = AGAIN if damaged else UNREADABLE


@runtime_checkable
class Destination(Protocol):
    """Where one thread puts the chunks that it reads."""

    def pieces(self, row: int) -> Sequence[Shaped[np.ndarray, "..."]]:
        """What to fill for a row of the batch, C-contiguous, one piece per array."""
        ...

    def arrived(self, row: int) -> None:
        """The pieces of `row` are filled, and verified if that was asked for."""
        ...


class AsStored:
    """A `Destination` of bytes as they are on disk: one buffer per array, one row per chunk."""

    def __init__(self, *buffers: Shaped[np.ndarray, "B ..."]) -> None:
        self._buffers = buffers

    def pieces(self, row: int) -> Sequence[Shaped[np.ndarray, "..."]]:
        """The row of every buffer."""
        return [buffer[row] for buffer in self._buffers]

    def arrived(self, row: int) -> None:
        """Nothing is left to do."""


class Threads:
    """Threads that outlive a batch; a forked child makes its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def share(self, work: deque[Work], drain: Callable[[], None], threads: int) -> None:
        """Call `drain` in up to `threads` threads, one of them this one; all are done when it returns.

        Raises:
            what `drain` raises, after the others emptied the list: nobody fills a buffer after the call.
        """
        helpers = min(threads, len(work)) - 1
        futures = [self._executor().submit(drain) for _ in range(helpers)]
        try:
            drain()
        finally:
            # Of the helpers that have not begun none is needed any more, unless this thread gave up.
            running = [future for future in futures if work or not future.cancel()]
            failed = [problem for future in running if (problem := future.exception()) is not None]
        if failed:
            raise failed[0]

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = (os.getpid(), ThreadPoolExecutor(MAX_THREADS, "read features"))
            return self._pool[1]


class LayerReader:
    """Reads the arrays of one layer (tokens, or tokens and scales), from any number of threads."""

    def __init__(
        self,
        path: Path,
        arrays: tuple[ArraySpec, ...],
        shards: OpenShards,
        digests: Callable[[ArraySpec, int], str | None] = lambda array, shard: None,
    ) -> None:
        self.path, self.arrays = path, arrays
        self._shards, self._digests = shards, digests

    @cached_property
    def _verified(self) -> Bool[np.ndarray, " n"]:
        """Of every chunk, whether its checksum was found right; not made by who only looks at the store."""
        return np.zeros(self.arrays[0].rows.n_chunks, np.bool_)

    def opened(self, number: int, shard: int) -> ShardFile:
        """A shard of array `number`, which has the digest that it must have.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedShard: it has not, or its tail cannot be trusted.
        """
        array = self.arrays[number]
        return self._shards.get(self._path(array, shard), array, self._digests(array, shard))

    def read(
        self,
        chunks: Int64[np.ndarray, " B"],
        destination: Callable[[], Destination],
        *,
        verify: bool,
        threads: int,
        pool: Threads,
    ) -> None:
        """Read chunks, each numbered row * chunks_per_row + view.

        Args:
            chunks: one for each row of the batch.
            destination: makes that of one thread.
            verify: check the checksum of every chunk that this object has not checked before.
            threads: at the most; 1 reads in the calling thread.
            pool: whose threads.

        Raises:
            UnreadableChunk: of the chunk it happened at; the others of the batch were read.
        """
        order = np.argsort(chunks, kind="stable")
        shards, slots = np.divmod(chunks[order], self.arrays[0].chunks_per_shard)
        check = ~self._verified[chunks[order]] & verify
        files = self._files(shards)
        work: deque[Work] = deque(
            zip(order.tolist(), shards.tolist(), slots.tolist(), check.tolist(), strict=True)
        )
        pool.share(work, lambda: self._drain(work, files, destination()), threads)
        self._verified[chunks[order[check]]] = True

    def _files(self, shards: Int64[np.ndarray, " B"]) -> dict[int, list[ShardFile | None]]:
        """The files of every shard of a batch, as far as they are open."""
        numbers = np.unique(shards).tolist()
        paths = (self._path(array, shard) for shard in numbers for array in self.arrays)
        held, n = self._shards.held(paths), len(self.arrays)
        return {shard: held[n * i : n * (i + 1)] for i, shard in enumerate(numbers)}

    def _drain(
        self, work: deque[Work], files: dict[int, list[ShardFile | None]], destination: Destination
    ) -> None:
        while work:
            try:
                row, shard, slot, check = work.popleft()
            except IndexError:
                return
            for number, piece in enumerate(destination.pieces(row)):
                self._read_chunk(files[shard], number, shard, slot, piece, check)
            destination.arrived(row)

    def _read_chunk(
        self,
        files: list[ShardFile | None],
        number: int,
        shard: int,
        slot: int,
        out: Shaped[np.ndarray, "..."],
        check: bool,
    ) -> None:
        array = self.arrays[number]
        chunk = shard * array.chunks_per_shard + slot
        try:
            file = files[number]
            if file is None:
                file = files[number] = self.opened(number, shard)
            offset, length = file.tail.index[slot].tolist()
            if offset == ABSENT:
                raise UnreadableChunk(array, chunk, None)
            if length != out.nbytes + CRC_BYTES:
                wanted = out.nbytes + CRC_BYTES
                raise DamagedShard(f"has an index entry of {length} bytes for a chunk of {wanted}")
            if check:
                file.read_into(slot, out)
            else:
                file.copy_into(slot, out)
        except FileNotFoundError as problem:
            raise UnreadableChunk(array, chunk, "is missing") from problem
        except DamagedShard as problem:
            raise UnreadableChunk(array, chunk, str(problem)) from problem
        except OSError as problem:
            said = f"cannot be read ({problem.strerror})"
            raise UnreadableChunk(array, chunk, said, damaged=False) from problem

    def _path(self, array: ArraySpec, shard: int) -> Path:
        return self.path / shard_key(array, shard)


def buffer_for(
    name: str, out: np.ndarray | None, dtype: type[np.generic], shape: tuple[int, ...]
) -> Shaped[np.ndarray, "..."]:
    """The caller's buffer `out`, or a new one.

    Raises:
        CallError: it does not fit; `name` is what the caller calls it.
    """
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not (out.flags.c_contiguous and out.flags.writeable):
        wanted = f"{np.dtype(dtype)} array {list(shape)}"
        raise CallError(f"{name} is {out.dtype}{list(out.shape)}: give a C-contiguous {wanted}.")
    return out
