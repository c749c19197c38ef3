"""Chunks from shard files into the caller's buffers, by a few threads that share one list of work.

A batch is planned at once: sorted as the files are, its shards looked up under one lock. Every thread, the
calling one among them, then takes the next chunk until none is left, so a slow one holds nobody up. A chunk
is verified by the first read, one system call; from then on it is copied from the mapped file, if that is
still open. Where it lies there belongs to the plan: a copy of megabytes drives what Python needs out of the
processor's caches, and what is done between two copies takes five times as long as elsewhere. Or nothing is
copied at all: who only looks at chunks is given the mapped pages themselves, verified there.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from featcache.buckets.path import BucketPath
from featcache.store.reading.destinations import Destination
from featcache.store.reading.shard_file import OpenShards
from featcache.store.reading.shard_object import REQUESTS_AT_ONCE, OpenShard
from featcache.store.reading.threads import COPY_THREADS, Threads
from featcache.store.shards import ABSENT, DamagedShard
from featcache.store.spec import CRC_BYTES, ArraySpec
from featcache.store.zarr_format import shard_key

AGAIN = "Delete this file and run the same `scivid extract` again: it makes only this shard anew."
UNREADABLE = "What is in it may be right: see to the disk or the file's permissions, and try again."

MOST_PATHS = 1024
"""Paths of shards that a reader keeps."""

Work = tuple[int, int, int, bool]
"""Row of the batch, shard, slot in the shard's index, whether to verify."""

Files = dict[int, list[OpenShard | None]]
"""Shard -> its file for each array, None where it is not open yet."""

Sources = dict[tuple[int, int], tuple[UInt8[np.ndarray, " n"], ...]]
"""Shard and slot of a chunk that is only to be copied -> its bytes, for each array."""

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

        # Kept, as a path is hashed once, and made in as long as a file is looked up.
        @lru_cache(MOST_PATHS)
        def path_of(number: int, shard: int) -> Path:
            return path / shard_key(arrays[number], shard)

        self._path = path_of
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
        return self._shards.get(self._path(number, shard), array, self._digests(array, shard))

    def strange(self, shards: Iterable[int]) -> Iterator[str]:
        """What is wrong with the tails of some shards, if these are there: the end of a look at few bytes."""
        for number in range(len(self.arrays)):
            for shard in shards:
                try:
                    self.opened(number, shard)
                except FileNotFoundError:
                    continue
                except DamagedShard as problem:
                    yield f"{self._path(number, shard)} {problem}"

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
        plan = self._plan(chunks, verify=verify)
        sources = self._sources(plan)

        def drain(work: Iterator[Work]) -> None:
            ours = destination()
            for row, shard, slot, check in work:
                if (there := sources.get((shard, slot))) is not None:
                    for piece, source in zip(ours.pieces(row), there, strict=True):
                        np.copyto(piece, source)
                else:
                    for number, piece in enumerate(ours.pieces(row)):
                        self._use_chunk(
                            plan.files, number, shard, slot,
                            lambda file: file.fill(slot, piece, verify=check),  # noqa: B023
                        )  # fmt: skip
                ours.arrived(row)

        if all((shard, slot) in sources for _, shard, slot, _ in plan.work):
            threads = min(threads, COPY_THREADS)
        self._share(plan, drain, threads, pool)

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
        plan = self._plan(chunks, verify=verify)
        found: list[list[UInt8[np.ndarray, " n"]]] = [[_NO_BYTES] * len(chunks) for _ in self.arrays]

        def drain(work: Iterator[Work]) -> None:
            for row, shard, slot, check in work:
                for number, array in enumerate(self.arrays):
                    found[number][row] = self._use_chunk(
                        plan.files, number, shard, slot,
                        lambda file: file.pages_of(slot, array.chunk_bytes, verify=check),  # noqa: B023
                    )  # fmt: skip

        self._share(plan, drain, threads, pool)
        return found

    def _plan(self, chunks: Int64[np.ndarray, " B"], *, verify: bool) -> "_Plan":
        """What there is to do for a batch, sorted as files are."""
        order = np.argsort(chunks, kind="stable")
        shards, slots = np.divmod(chunks[order], self.arrays[0].chunks_per_shard)
        check = ~self._verified[chunks[order]] & verify
        work = list(zip(order.tolist(), shards.tolist(), slots.tolist(), check.tolist(), strict=True))
        return _Plan(work=work, files=self._files(shards), unverified=chunks[order[check]])

    def _sources(self, plan: "_Plan") -> Sources:
        """Of chunks that need not be verified, whose files are open and mapped."""
        found: Sources = {}
        sizes = [array.chunk_bytes for array in self.arrays]
        for shard, work in groupby(plan.work, key=itemgetter(1)):
            if not (slots := [slot for _, _, slot, check in work if not check]):
                continue
            of_arrays = [
                None if file is None else file.sources(slots, n_bytes)
                for file, n_bytes in zip(plan.files[shard], sizes, strict=True)
            ]
            there = [of for of in of_arrays if of is not None]
            if len(there) == len(of_arrays):
                found.update(zip(((shard, slot) for slot in slots), zip(*there, strict=True), strict=True))
        return found

    def _share(
        self, plan: "_Plan", drain: Callable[[Iterator[Work]], None], threads: int, pool: Threads
    ) -> None:
        """Have threads do what is planned; note what they verified."""
        pool.share(plan.work, drain, max(threads, self._fewest_threads))
        self._verified[plan.unverified] = True

    def _files(self, shards: Int64[np.ndarray, " B"]) -> Files:
        """The files of every shard of a batch, as far as they are open."""
        numbers, n = list(dict.fromkeys(shards.tolist())), len(self.arrays)
        held = self._shards.held(self._path(number, shard) for shard in numbers for number in range(n))
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What there is to do for a batch."""

    work: list[Work]
    files: Files
    unverified: Int64[np.ndarray, " n"]
    """The chunks whose checksum will have been compared when it is done."""


_NO_BYTES = np.empty(0, np.uint8)
