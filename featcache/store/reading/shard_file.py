"""Open shard files: chunks by one system call, or from the mapped file; few files open, many tails kept."""

import mmap
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Shaped, UInt8

from featcache.buckets.path import BucketPath
from featcache.store.reading.mapping import MADV_POPULATE_READ, can_populate, is_local
from featcache.store.reading.shard_object import OpenShard, ShardObject
from featcache.store.shards import (
    DamagedShard,
    Tail,
    checksum,
    file_bytes,
    open_shard,
    read_chunk_into,
    read_tail,
)
from featcache.store.spec import CRC_BYTES, ArraySpec
from featcache.store.zarr_format import shard_key
from featcache.system.files import naming

MAX_OPEN_SHARDS = 128
"""Shards that a store keeps open, two file descriptors each once mapped; 1,024 is the usual limit."""

MOST_TAILS = 2**15
"""Tails that a store keeps, about 2 KB each: those of two million shards would fill the memory."""

MOST_LOOKED_AT = 2**15
"""Shard files of an array whose sizes are looked at as a store is opened; of more, so many spread over all.

A look at a local file takes 10 microseconds, at one on a server a hundred times as long.
"""

MOST_ASKED_FOR = 64
"""The same in a bucket that has more."""


class ShardFile:
    """An open shard and its tail; closed when the last thread that reads from it lets go."""

    __slots__ = ("_bytes", "_entries", "_map", "_mapped", "fd", "tail")

    def __init__(
        self,
        path: Path,
        array: ArraySpec,
        *,
        digest: str | None = None,
        tail: Tail | None = None,
        mapped: bool = True,
    ) -> None:
        """Open a shard.

        Args:
            path: of the file.
            array: whose shard it is.
            digest: the one that its tail must have; None asks for none.
            tail: its tail, where that was read and compared before.
            mapped: whether the file may be mapped.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedShard: its tail cannot be trusted, or has another digest.
        """
        self.fd = -1
        self.fd = open_shard(path, array)
        with naming(path):
            self.tail = _trusted_tail(self.fd, array, digest) if tail is None else tail
        self._mapped = mapped
        self._map: mmap.mmap | None = None
        self._entries: list[list[int]] | None = None

    def fill(self, slot: int, out: Shaped[np.ndarray, "..."], *, verify: bool) -> None:
        """Read chunk number `slot` of the index into `out` with one system call.

        Raises:
            DamagedShard: the file ends too early or (with `verify`) the chunk has another checksum.
            OSError: the disk fails.
        """
        offset, sums = int(self.tail.index[slot, 0]), self.tail.sums
        expected = None if sums is None else int(sums[slot])
        read_chunk_into(self.fd, offset, out, verify=verify, expected=expected)

    def sources(self, slots: Sequence[int], n_bytes: int) -> list[UInt8[np.ndarray, " n_bytes"]] | None:
        """The bytes of some chunks where the file is mapped: to be copied soon, and by who has verified them.

        A copy between memories takes up to a third less of the processor's time than `preadv`, which goes by
        the pieces of the page cache; but it can report neither a disk that fails nor a server that has cut
        the file: then the process ends, so files of network file systems are never mapped
        (`mapping.is_local`). None for these, and for a file that is not as its index says: `fill` tells.
        """
        if not self._mapped:
            return None
        if self._entries is None:
            self._entries = self.tail.index.tolist()
        entries = [self._entries[slot] for slot in slots]
        if any(length != n_bytes + CRC_BYTES for _, length in entries):
            return None
        try:
            self._map_to(max(entries)[0], n_bytes)
        except (DamagedShard, OSError):
            return None
        return [self._bytes[offset : offset + n_bytes] for offset, _ in entries]

    def pages_of(self, slot: int, n_bytes: int, *, verify: bool) -> UInt8[np.ndarray, " n_bytes"]:
        """The bytes of chunk number `slot` where the file is mapped, brought into memory, nothing copied.

        They last as long as the array, whatever becomes of this object; they are not to be written to. What
        the disk refuses is refused here, and not when a page is touched, which would end the process.

        Raises:
            DamagedShard: the file ends too early or (with `verify`) the chunk has another checksum.
            OSError: the disk fails.
        """
        offset = int(self.tail.index[slot, 0])
        self._map_to(offset, n_bytes + CRC_BYTES)
        assert self._map is not None
        start, end = offset // mmap.PAGESIZE * mmap.PAGESIZE, offset + n_bytes
        try:
            self._map.madvise(MADV_POPULATE_READ, start, end + CRC_BYTES - start)
        except OSError:
            # The call does not say what was wrong, a read does.
            read_chunk_into(self.fd, offset, np.empty(n_bytes, np.uint8), verify=False)
            raise
        pages, sums = self._bytes[offset:end], self.tail.sums
        if verify:
            behind = self._bytes[end : end + CRC_BYTES].tobytes()
            if checksum(pages) != (behind if sums is None else sums[slot].tobytes()):
                raise DamagedShard(f"fails the checksum of the chunk at byte {offset}")
        return pages

    def _map_to(self, offset: int, n_bytes: int) -> None:
        """Map the file as far as the end of these bytes, if that was not done yet.

        Raises:
            DamagedShard: it ends before.
        """
        end, size = offset + n_bytes, os.fstat(self.fd).st_size
        # Asked each time: to touch a page that is no more is the end of the process.
        if size < end:
            raise DamagedShard(f"is truncated: {size} bytes, the chunk at byte {offset} ends at {end}")
        if self._map is None or len(self._map) < end:
            mapped = mmap.mmap(self.fd, 0, prot=mmap.PROT_READ)
            # The order matters to other threads: who sees the map finds the bytes.
            self._bytes, self._map = np.frombuffer(mapped, np.uint8), mapped

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # `close` is bound above: when the interpreter ends, modules may be gone before objects.
        if self.fd >= 0:
            close(self.fd)


class OpenShards:
    """Shards kept open between reads, the least recently used closed first; for any number of threads.

    Tails are small and are kept longer: random reads of ten thousand shards find few of them still open.
    """

    def __init__(self) -> None:
        self._mapped: bool | None = None
        self._files: OrderedDict[Path, OpenShard] = OrderedDict()
        self._tails: OrderedDict[Path, Tail] = OrderedDict()
        self._lock = Lock()

    def held(self, paths: Iterable[Path]) -> list[OpenShard | None]:
        """The open shards at `paths`, None where one is to be opened first: one lock for a whole batch."""
        with self._lock:
            return [self._used(path) for path in paths]

    def get(self, path: Path, array: ArraySpec, digest: str | None = None) -> OpenShard:
        """The open shard of `array` at `path`; arguments and errors are those of `ShardFile`."""
        with self._lock:
            if (held := self._used(path)) is not None:
                return held
            tail = self._tails.get(path)
        file: OpenShard
        if isinstance(path, BucketPath):
            file = ShardObject(path, tail or _tail_at(path, array, digest))
        else:
            file = ShardFile(path, array, digest=digest, tail=tail, mapped=self._is_local(path))
        with self._lock:
            self._files[path], self._tails[path] = file, file.tail
            self._tails.move_to_end(path)
            if len(self._files) > MAX_OPEN_SHARDS:
                self._files.popitem(last=False)
            if len(self._tails) > MOST_TAILS:
                self._tails.popitem(last=False)
        return file

    def may_map(self, path: Path) -> bool:
        """Whether files below `path` may be handed out as mapped pages.

        That is where nobody else can cut them, and a disk that fails is an error, not the end of the process.
        """
        return can_populate() and self._is_local(path)

    def _is_local(self, path: Path) -> bool:
        if self._mapped is None:
            self._mapped = is_local(path)
        return self._mapped

    def _used(self, path: Path) -> OpenShard | None:
        file = self._files.get(path)
        if file is not None:
            self._files.move_to_end(path)
        return file


def _tail_at(path: BucketPath, array: ArraySpec, digest: str | None) -> Tail:
    """The tail of a shard in a bucket, once it was found to have `digest`, if one is given."""
    fd = open_shard(path, array)
    try:
        return _trusted_tail(fd, array, digest)
    finally:
        os.close(fd)


def _trusted_tail(fd: int, array: ArraySpec, digest: str | None) -> Tail:
    """The tail of an open shard, once it was found to have `digest`, if one is given."""
    tail = read_tail(fd, array)
    if digest is None:
        return tail
    tail = tail.with_sums(fd)
    tail.refuse_other(digest)
    return tail


def misshapen(path: Path, array: ArraySpec, skipped: Collection[int]) -> Iterator[str]:
    """Shard files of a finished store that are missing or not of the one size they can have.

    From a `stat` each of `MOST_LOOKED_AT` at the most, the first and the last among them: what is wrong with
    others shows when they are read. In a bucket from a list; where that would be thousands of requests, a few
    are asked for. `skipped` are the rows that were not written.
    """
    n_skipped = Counter(row // array.rows_per_shard for row in skipped)
    n_rows = array.rows.n_rows
    n_shards, most = ceil(n_rows / array.rows_per_shard), MOST_LOOKED_AT
    listed = None
    if isinstance(path, BucketPath):
        listed = (path / array.name).sizes() if n_shards <= most else None
        most = MOST_ASKED_FOR if listed is None else most
    n = min(n_shards, most)
    for shard in (i * (n_shards - 1) // max(1, n - 1) for i in range(n)):
        kept = min(array.rows_per_shard, n_rows - shard * array.rows_per_shard) - n_skipped[shard]
        key = shard_key(array, shard)
        file = f"{path}/{key}"
        try:
            size = _size_of(path, key, listed)
        except (FileNotFoundError, KeyError):
            yield f"{file} is missing"
        except OSError as problem:
            yield f"{file} cannot be looked at ({problem.strerror})"
        else:
            if size != (wanted := file_bytes(array, kept * array.rows.chunks_per_row)):
                yield f"{file} has {size} bytes instead of {wanted}"


def _size_of(path: Path, key: str, listed: Mapping[str, int] | None) -> int:
    if listed is not None:
        return listed[key.rpartition("/")[2]]
    if isinstance(path, BucketPath):
        return (path / key).stat().st_size
    return os.stat(f"{path}/{key}").st_size  # noqa: PTH116 - of thousands, each a name of a dozen parts
