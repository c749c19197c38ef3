"""Chunks from shard files into the caller's buffers, by a few threads that share one list of work.

A batch is planned at once: sorted as the files are, its shards looked up under one lock. Every thread, the
calling one among them, then takes the next chunk until none is left, so a slow one holds nobody up. A chunk
is verified by the first read, one system call; from then on it is copied from the mapped file. Or nothing is
copied at all: who only looks at chunks is given the mapped pages themselves, verified there.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from featcache.buckets.path import BucketPath
from featcache.store.reading.destinations import Destination
from featcache.store.reading.shard_file import OpenShards
from featcache.store.reading.shard_object import REQUESTS_AT_ONCE, OpenShard
from featcache.store.reading.threads import Threads
from featcache.store.shards import ABSENT, DamagedShard
from featcache.store.spec import CRC_BYTES, ArraySpec
from featcache.store.zarr_format import shard_key

AGAIN = "Delete this file and run the same `scivid extract` again: it makes only this shard anew."
UNREADABLE = "What is in it may be right: see to the disk or the file's permissions, and try again."

Work = tuple[int, int, int, bool]
"""Row of the batch, shard, slot in the shard's index, whether to verify."""

Files = dict[int, list[OpenShard | None]]
"""Shard -> its file for each array, None where it is not open yet."""

Found = TypeVar("Found")


class UnreadableChunk(Exception):  # noqa: N818 - the name of a finding
    """A chunk that is damaged, or was never written: the caller knows the clip by name."""

    def __init__(self, array: ArraySpec, chunk: int, problem: str | None, *, damaged: bool = True) -> None:
        super().__init__(problem or "has no such chunk")
        self.array, self.chunk = array, chunk
        self.problem = problem
        """The end of a sentence that begins with the shard's path; None where there simply is no chunk."""
        self.way_out = AGAIN if damaged else UNREADABLE


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
        self._fewest_threads = REQUESTS_AT_ONCE if isinstance(path, BucketPath) else 1

    @cached_property
    def _verified(self) -> Bool[np.ndarray, " n"]:
        """Of every chunk, whether its checksum was found right; not made by who only looks at the store."""
        return np.zeros(self.arrays[0].rows.n_chunks, np.bool_)

    def opened(self, number: int, shard: int) -> OpenShard:
        """A shard of array `number`, which has the digest that it must have.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedShard: it has not, or its tail cannot be trusted.
        """
        array = self.arrays[number]
        return self._shards.get(self._path(array, shard), array, self._digests(array, shard))

    def strange(self, shards: Iterable[int]) -> Iterator[str]:
        """What is wrong with the tails of some shards, if these are there: the end of a look at few bytes."""
        for number, array in enumerate(self.arrays):
            for shard in shards:
                try:
                    self.opened(number, shard)
                except FileNotFoundError:
                    continue
                except DamagedShard as problem:
                    yield f"{self._path(array, shard)} {problem}"

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
            threads: at the most; 1 reads in the calling thread. From a bucket there are more.
            pool: whose threads.

        Raises:
            UnreadableChunk: of the chunk it happened at; the others of the batch were read.
        """

        def drain(work: Iterator[Work], files: Files) -> None:
            ours = destination()
            for row, shard, slot, check in work:
                for number, piece in enumerate(ours.pieces(row)):

                    def fill(file: OpenShard, slot: int = slot, piece: np.ndarray = piece) -> None:
                        file.fill(slot, piece, verify=check)  # noqa: B023

                    self._use_chunk(files, number, shard, slot, fill)
                ours.arrived(row)

        self._share(chunks, drain, verify=verify, threads=threads, pool=pool)

    def pages(
        self, chunks: Int64[np.ndarray, " B"], *, verify: bool, threads: int, pool: Threads
    ) -> list[list[UInt8[np.ndarray, " n"]]] | None:
        """The bytes of chunks where their files are mapped, nothing copied; arguments as of `read`.

        Returns, for each array, a row of bytes per chunk: all there, in memory, and not to be written to.
        None where files may not be mapped.

        Raises:
            UnreadableChunk: as `read`.
        """
        if not self._shards.may_map(self.path):
            return None
        found: list[list[UInt8[np.ndarray, " n"]]] = [[_NO_BYTES] * len(chunks) for _ in self.arrays]

        def drain(work: Iterator[Work], files: Files) -> None:
            for row, shard, slot, check in work:
                for number, array in enumerate(self.arrays):
                    found[number][row] = self._use_chunk(
                        files, number, shard, slot,
                        lambda file: file.pages_of(slot, array.chunk_bytes, verify=check),  # noqa: B023
                    )  # fmt: skip

        self._share(chunks, drain, verify=verify, threads=threads, pool=pool)
        return found

    def _share(
        self,
        chunks: Int64[np.ndarray, " B"],
        drain: Callable[[Iterator[Work], Files], None],
        *,
        verify: bool,
        threads: int,
        pool: Threads,
    ) -> None:
        """Have threads empty the list of a batch's chunks, sorted as files are; note what they verified."""
        order = np.argsort(chunks, kind="stable")
        shards, slots = np.divmod(chunks[order], self.arrays[0].chunks_per_shard)
        check = ~self._verified[chunks[order]] & verify
        files = self._files(shards)
        work = list(zip(order.tolist(), shards.tolist(), slots.tolist(), check.tolist(), strict=True))
        pool.share(work, lambda ours: drain(ours, files), max(threads, self._fewest_threads))
        self._verified[chunks[order[check]]] = True

    def _files(self, shards: Int64[np.ndarray, " B"]) -> Files:
        """The files of every shard of a batch, as far as they are open."""
        numbers = np.unique(shards).tolist()
        paths = (self._path(array, shard) for shard in numbers for array in self.arrays)
        held, n = self._shards.held(paths), len(self.arrays)
        return {shard: held[n * i : n * (i + 1)] for i, shard in enumerate(numbers)}

    def _use_chunk(
        self, files: Files, number: int, shard: int, slot: int, use: Callable[[OpenShard], Found]
    ) -> Found:
        """What `use` makes of the file of a chunk that is there.

        Raises:
            UnreadableChunk: it is not, or `use` finds it damaged.
        """
        array = self.arrays[number]
        chunk = shard * array.chunks_per_shard + slot
        try:
            file = files[shard][number]
            if file is None:
                file = files[shard][number] = self.opened(number, shard)
            offset, length = file.tail.index[slot].tolist()
            if offset == ABSENT:
                raise UnreadableChunk(array, chunk, None)
            if length != (wanted := array.chunk_bytes + CRC_BYTES):
                raise DamagedShard(f"has an index entry of {length} bytes for a chunk of {wanted}")
            return use(file)
        except FileNotFoundError as problem:
            raise UnreadableChunk(array, chunk, "is missing") from problem
        except DamagedShard as problem:
            raise UnreadableChunk(array, chunk, str(problem)) from problem
        except OSError as problem:
            said = f"cannot be read ({problem.strerror})"
            raise UnreadableChunk(array, chunk, said, damaged=False) from problem

    def _path(self, array: ArraySpec, shard: int) -> Path:
        return self.path / shard_key(array, shard)


_NO_BYTES = np.empty(0, np.uint8)
