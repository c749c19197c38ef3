"""The bytes of one Zarr v3 shard: written in one stream, read by ranges into the caller's buffers.

A shard is the chunks of a few clips, each followed by its crc32c, and at the end an index of (offset,
length) pairs with a crc32c of its own: the codec `sharding_indexed` of the Zarr v3 specification, so every
Zarr client reads it. We write chunks in C order without gaps, hence which chunks are present determines the
whole index, and anything else is damage. There is no compression: a read is one `preadv`.
"""

import mmap
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from einops import rearrange
from fastcrc import crc32
from jaxtyping import Bool, Shaped, UInt64

from featcache.errors import StoreError
from featcache.store.spec import ArraySpec, FeatureSpec
from featcache.system.files import beyond, write_all

ABSENT = 2**64 - 1
"""Offset and length, in the index, of a chunk that was never written."""

CRC_BYTES = 4
MAX_OPEN_SHARDS = 128
"""Shards that a store keeps open, two file descriptors each once mapped; 1,024 is the usual limit."""

DAMAGED = ".damaged"
"""Ending of a shard file set aside: not a chunk key, so no Zarr client sees it."""


INDEX_DTYPE = np.dtype("<u8")


class DamagedShard(StoreError):  # noqa: N818 - the name of a finding
    """What is wrong with a shard file, as the end of a sentence that begins with its path."""


def shard_bytes(spec: FeatureSpec, n_present: int) -> int:
    """Exact size of the files of one shard of one layer, `n_present` chunks of each array in them."""
    return sum(file_bytes(array, n_present) for array in spec.arrays(spec.layers[0]))


def file_bytes(array: ArraySpec, n_present: int) -> int:
    """Exact size of a shard file that holds `n_present` chunks."""
    return n_present * (array.chunk_bytes + CRC_BYTES) + index_bytes(array.chunks_per_shard)


def index_bytes(n_chunks: int) -> int:
    """Size of a shard's index with its checksum."""
    return 2 * INDEX_DTYPE.itemsize * n_chunks + CRC_BYTES


def index_of(present: Bool[np.ndarray, " n"], nbytes: int) -> UInt64[np.ndarray, "n 2"]:
    """The index of a shard that holds the chunks marked `present`, each of `nbytes` with its checksum."""
    index = np.full((len(present), 2), ABSENT, INDEX_DTYPE)
    index[present, 0] = nbytes * np.arange(np.count_nonzero(present), dtype=INDEX_DTYPE)
    index[present, 1] = nbytes
    return index


class ShardFile:
    """An open shard and its index; closed when the last thread that reads from it lets go."""

    __slots__ = ("_bytes", "_map", "fd", "index")

    def __init__(
        self, path: Path, n_chunks: int, index: UInt64[np.ndarray, "{n_chunks} 2"] | None = None
    ) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY)
        self.index = read_index(self.fd, n_chunks) if index is None else index
        self._map: mmap.mmap | None = None

    def copy_into(self, offset: int, out: Shaped[np.ndarray, "..."]) -> None:
        """Copy the chunk at `offset` to `out` from the mapped file, unverified.

        A copy between memories takes half the processor's time of `preadv`, which goes page by page; but it
        cannot report a disk that fails, so a chunk that was never read comes by `read_chunk_into`.

        Raises:
            DamagedShard: the file ends too early.
        """
        end, size = offset + out.nbytes, os.fstat(self.fd).st_size
        # Asked each time: to touch a page that is no more is the end of the process.
        if size < end:
            raise DamagedShard(f"is truncated: {size} bytes, the chunk at byte {offset} ends at {end}")
        if self._map is None or len(self._map) < end:
            mapped = mmap.mmap(self.fd, 0, prot=mmap.PROT_READ)
            # The order matters to other threads: who sees the map finds the bytes.
            self._bytes, self._map = np.frombuffer(mapped, np.uint8), mapped
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        # Pages that have left the cache come in one go, not as they are touched.
        self._map.madvise(mmap.MADV_WILLNEED, start, end - start)
        np.copyto(out.ravel().view(np.uint8), self._bytes[offset:end])

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class OpenShards:
    """Shards kept open between reads, the least recently used closed first; for any number of threads.

    Indexes are small and are all kept: random reads of ten thousand shards find few of them still open.
    """

    def __init__(self, n_chunks: int) -> None:
        self.n_chunks = n_chunks
        self._files: OrderedDict[Path, ShardFile] = OrderedDict()
        self._indexes: dict[Path, UInt64[np.ndarray, "n 2"]] = {}
        self._lock = Lock()

    def held(self, paths: Iterable[Path]) -> list[ShardFile | None]:
        """The open shards at `paths`, None where one is to be opened first: one lock for a whole batch."""
        with self._lock:
            return [self._used(path) for path in paths]

    def get(self, path: Path) -> ShardFile:
        """The open shard at `path`.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedShard: its index cannot be trusted.
        """
        with self._lock:
            if (held := self._used(path)) is not None:
                return held
            index = self._indexes.get(path)
        file = ShardFile(path, self.n_chunks, index)
        with self._lock:
            self._files[path], self._indexes[path] = file, file.index
            if len(self._files) > MAX_OPEN_SHARDS:
                self._files.popitem(last=False)
        return file

    def _used(self, path: Path) -> ShardFile | None:
        file = self._files.get(path)
        if file is not None:
            self._files.move_to_end(path)
        return file


def write_chunks(
    fds: Sequence[int],
    chunks: Iterable[tuple[Shaped[np.ndarray, "..."], ...] | None],
    arrays: Sequence[ArraySpec],
) -> None:
    """Write one shard of each of `arrays` to its empty file: chunks in C order of (clip, view).

    Args:
        fds: one file per array.
        chunks: one chunk per array, C-contiguous, or None where they are absent; done with when the next is
            asked for, so one buffer will do.
        arrays: of one layer.
    """
    present = np.zeros(arrays[0].chunks_per_shard, np.bool_)
    for number, pieces in enumerate(chunks):
        if pieces is not None:
            for fd, piece, array in zip(fds, pieces, arrays, strict=True):
                assert piece.nbytes == array.chunk_bytes
                write_all(fd, [piece.data.cast("B"), checksum(piece)])
            present[number] = True
    for fd, array in zip(fds, arrays, strict=True):
        index = index_of(present, array.chunk_bytes + CRC_BYTES)
        write_all(fd, [index.data.cast("B"), checksum(index)])


def read_index(fd: int, n_chunks: int) -> UInt64[np.ndarray, "{n_chunks} 2"]:
    """The index of an open shard: (offset, length) of every chunk, both `ABSENT` where it was not written.

    Raises:
        DamagedShard: the file is too short or the index fails its checksum.
    """
    size, wanted = os.fstat(fd).st_size, index_bytes(n_chunks)
    if size < wanted:
        raise DamagedShard(f"is truncated: {size} bytes, its index alone takes {wanted}")
    index, crc = np.empty((n_chunks, 2), INDEX_DTYPE), bytearray(CRC_BYTES)
    _read_all(fd, [index.data.cast("B"), memoryview(crc)], size - wanted)
    if checksum(index) != bytes(crc):
        raise DamagedShard("fails the checksum of its index")
    return index


def read_chunk_into(fd: int, offset: int, out: Shaped[np.ndarray, "..."], *, verify: bool = True) -> None:
    """Read the chunk at `offset` into `out` (C-contiguous, of a chunk's size), with one system call.

    Raises:
        DamagedShard: the file ends too early, or (with `verify`) the chunk fails its checksum.
    """
    data = out.data.cast("B")
    if not verify:
        _read_all(fd, [data], offset)
        return
    crc = bytearray(CRC_BYTES)
    _read_all(fd, [data, memoryview(crc)], offset)
    if checksum(out) != bytes(crc):
        raise DamagedShard(f"fails the checksum of the chunk at byte {offset}")


def presence(path: Path, array: ArraySpec, shard: int) -> Bool[np.ndarray, "B V"]:
    """Which chunks of a shard file are there, once its size and index were found to be as we write them.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedShard: truncated, too long, or with an index that is damaged or not ours.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        index, size = read_index(fd, array.chunks_per_shard), os.fstat(fd).st_size
    finally:
        os.close(fd)
    present: Bool[np.ndarray, " n"] = index[:, 0] != ABSENT
    if not np.array_equal(index, index_of(present, array.chunk_bytes + CRC_BYTES)):
        raise DamagedShard("has an index that does not describe chunks of this store")
    if size != (wanted := file_bytes(array, int(present.sum()))):
        raise DamagedShard(f"has {size} bytes where its index describes {wanted}")
    rows = array.rows
    n_chunks = rows.n_chunks - shard * array.chunks_per_shard
    if present[n_chunks:].any():
        raise DamagedShard(f"holds chunks beyond the {rows.n_rows} {rows.axis}s of the store")
    return rearrange(present[:n_chunks], "(b v) -> b v", v=rows.chunks_per_row)


def checksum(data: Shaped[np.ndarray, "..."] | bytes) -> bytes:
    """crc32c of a C-contiguous array's bytes, as the four bytes that follow them on disk.

    Other Python threads run meanwhile, if there are many bytes.

    Raises:
        BufferError: the array is not C-contiguous.
    """
    buffer = data if isinstance(data, bytes) else data.data
    return crc32.iscsi(buffer).to_bytes(CRC_BYTES, "little")


def _read_all(fd: int, pieces: list[memoryview], offset: int) -> None:
    while pieces:
        got = os.preadv(fd, pieces, offset)
        if got == 0:
            raise DamagedShard(f"is truncated: it ends at byte {offset}")
        pieces, offset = beyond(pieces, got), offset + got
