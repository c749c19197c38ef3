"""The bytes of one Zarr v3 shard: written in one stream, read by ranges into the caller's buffers.

A shard is the chunks of a few clips, each followed by its crc32c, and at the end an index of (offset,
length) pairs with a crc32c of its own: the codec `sharding_indexed` of the Zarr v3 specification, so every
Zarr client reads it. We write chunks in C order at multiples of `ALIGNMENT`, hence which chunks are present
determines the whole index, and anything else is damage. There is no compression: a read is one `preadv`.

Before the index stand the checksums of all chunks once more, together. A finished store has a digest of them
and of the index for every shard: one small read tells whether a file is the shard that was written here, and
every chunk is then held against a sum that is known to be its own. Stores of version 1 have neither.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from einops import rearrange
from fastcrc import crc32
from jaxtyping import Bool, Shaped, UInt32, UInt64

from featcache.buckets.copies import copy_of, copy_of_end
from featcache.buckets.path import BucketPath
from featcache.errors import StoreError
from featcache.store.spec import CRC_BYTES, ArraySpec, FeatureSpec
from featcache.system.files import IrregularFileError, beyond, naming, open_regular, write_all

ABSENT = 2**64 - 1
"""Offset and length, in the index, of a chunk that was never written."""

DAMAGED = ".damaged"
"""Ending of a shard file set aside: not a chunk key, so no Zarr client sees it."""

DIGEST_DIGITS = 16
"""Hex digits of a shard's digest."""

INDEX_DTYPE = np.dtype("<u8")
SUM_DTYPE = np.dtype("<u4")


class DamagedShard(StoreError):  # noqa: N818 - the name of a finding
    """What is wrong with a shard file, as the end of a sentence that begins with its path."""


def shard_bytes(spec: FeatureSpec, n_present: int) -> int:
    """Exact size of the files of one shard of one layer, `n_present` chunks of each array in them."""
    return sum(file_bytes(array, n_present) for array in spec.arrays(spec.layers[0]))


def file_bytes(array: ArraySpec, n_present: int) -> int:
    """Exact size of a shard file that holds `n_present` chunks."""
    return n_present * array.stride + tail_bytes(array)


def tail_bytes(array: ArraySpec) -> int:
    """Bytes of a shard file behind its chunks: sums and index, each with its checksum."""
    n = array.chunks_per_shard
    sums = SUM_DTYPE.itemsize * n + CRC_BYTES if _has_sums(array) else 0
    return sums + 2 * INDEX_DTYPE.itemsize * n + CRC_BYTES


def _has_sums(array: ArraySpec) -> bool:
    return array.alignment > 1


def index_of(present: Bool[np.ndarray, " n"], array: ArraySpec) -> UInt64[np.ndarray, "n 2"]:
    """The index of a shard of `array` that holds the chunks marked `present`."""
    index = np.full((len(present), 2), ABSENT, INDEX_DTYPE)
    index[present, 0] = array.stride * np.arange(np.count_nonzero(present), dtype=INDEX_DTYPE)
    index[present, 1] = array.chunk_bytes + CRC_BYTES
    return index


@dataclass(frozen=True, slots=True)
class Tail:
    """What a shard says of its chunks."""

    index: UInt64[np.ndarray, "n 2"]
    """(offset, length) of every chunk, both `ABSENT` where it was not written."""
    sums: UInt32[np.ndarray, " n"] | None
    """crc32c of every chunk, 0 where it was not written; None where they stand behind the chunks only."""

    @property
    def digest(self) -> str:
        """The digest of sums and index; of a shard without sums, `with_sums` first."""
        assert self.sums is not None
        return blake2b(self.sums.tobytes() + self.index.tobytes(), digest_size=DIGEST_DIGITS // 2).hexdigest()

    def refuse_other(self, digest: str | None) -> None:
        """Raise DamagedShard unless the digest is this one, or not known."""
        if digest is not None and digest != self.digest:
            raise DamagedShard(
                "is not the shard that this store was finished with: "
                f"its digest is {self.digest}, not {digest}"
            )

    def with_sums(self, fd: int) -> "Tail":
        """The tail with the sums of all chunks, collected from behind these where they stand nowhere else.

        Raises:
            DamagedShard: the file ends too early.
        """
        if self.sums is not None:
            return self
        sums = np.zeros(len(self.index), SUM_DTYPE)
        for chunk in np.flatnonzero(self.index[:, 0] != ABSENT):
            offset, length = self.index[chunk].tolist()
            _read_all(fd, [sums[chunk : chunk + 1].data.cast("B")], offset + length - CRC_BYTES)
        return Tail(self.index, sums)


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
    n = arrays[0].chunks_per_shard
    present, sums = np.zeros(n, np.bool_), np.zeros((len(arrays), n), SUM_DTYPE)
    gaps = [bytes(array.stride - array.chunk_bytes - CRC_BYTES) for array in arrays]
    for number, pieces in enumerate(chunks):
        if pieces is not None:
            for i, (fd, piece, array) in enumerate(zip(fds, pieces, arrays, strict=True)):
                assert piece.nbytes == array.chunk_bytes
                crc = checksum(piece)
                write_all(fd, [piece.data.cast("B"), crc, gaps[i]])
                sums[i, number] = int.from_bytes(crc, "little")
            present[number] = True
    for fd, array, of_array in zip(fds, arrays, sums, strict=True):
        index = index_of(present, array)
        if _has_sums(array):
            write_all(fd, [of_array.data.cast("B"), checksum(of_array)])
        write_all(fd, [index.data.cast("B"), checksum(index)])


def read_tail(fd: int, array: ArraySpec) -> Tail:
    """Sums and index of an open shard.

    Raises:
        DamagedShard: the file is too short, or they fail their checksums.
    """
    n, size, wanted = array.chunks_per_shard, os.fstat(fd).st_size, tail_bytes(array)
    if size < wanted:
        raise DamagedShard(f"is truncated: {size} bytes, its index alone takes {wanted}")
    index, crc = np.empty((n, 2), INDEX_DTYPE), bytearray(CRC_BYTES)
    pieces = [index.data.cast("B"), memoryview(crc)]
    if not _has_sums(array):
        _read_all(fd, pieces, size - wanted)
    else:
        sums, crc_of_sums = np.empty(n, SUM_DTYPE), bytearray(CRC_BYTES)
        _read_all(fd, [sums.data.cast("B"), memoryview(crc_of_sums), *pieces], size - wanted)
        if checksum(sums) != bytes(crc_of_sums):
            raise DamagedShard("fails the checksum of its chunks' checksums")
    if checksum(index) != bytes(crc):
        raise DamagedShard("fails the checksum of its index")
    return Tail(index, sums if _has_sums(array) else None)


def read_chunk_into(
    fd: int, offset: int, out: Shaped[np.ndarray, "..."], *, verify: bool = True, expected: int | None = None
) -> None:
    """Read the chunk at `offset` into `out` (C-contiguous, of a chunk's size), with one system call.

    Args:
        fd: the open file.
        offset: where the chunk begins.
        out: what to fill.
        verify: compare the checksum.
        expected: the checksum; None reads the one behind the chunk.

    Raises:
        DamagedShard: the file ends too early, or (with `verify`) the chunk has another checksum.
    """
    data = out.data.cast("B")
    crc = bytearray(0 if expected is not None or not verify else CRC_BYTES)
    _read_all(fd, [data, memoryview(crc)], offset)
    wanted = bytes(crc) if expected is None else expected.to_bytes(CRC_BYTES, "little")
    if verify and checksum(out) != wanted:
        raise DamagedShard(f"fails the checksum of the chunk at byte {offset}")


def examine(path: Path, array: ArraySpec, shard: int, *, sums: bool) -> tuple[Bool[np.ndarray, "B V"], Tail]:
    """Which chunks of a shard file are there, and its tail, once size and index were found to be as we write.

    Args:
        path: of the file.
        array: whose shard it is.
        shard: its number.
        sums: collect the sums of the chunks where they do not stand together.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedShard: truncated, too long, or with an index that is damaged or not ours.
    """
    fd = open_shard(path, array)
    try:
        with naming(path):
            tail, size = read_tail(fd, array), os.fstat(fd).st_size
            present: Bool[np.ndarray, " n"] = tail.index[:, 0] != ABSENT
            if not np.array_equal(tail.index, index_of(present, array)):
                raise DamagedShard("has an index that does not describe chunks of this store")
            if size != (wanted := file_bytes(array, int(present.sum()))):
                raise DamagedShard(f"has {size} bytes where its index describes {wanted}")
            rows = array.rows
            n_chunks = rows.n_chunks - shard * array.chunks_per_shard
            if present[n_chunks:].any():
                raise DamagedShard(f"holds chunks beyond the {rows.n_rows} {rows.axis}s of the store")
            held = rearrange(present[:n_chunks], "(b v) -> b v", v=rows.chunks_per_row)
            return held, tail.with_sums(fd) if sums else tail
    finally:
        os.close(fd)


def open_shard(path: Path, array: ArraySpec) -> int:
    """A file descriptor of the shard of `array` at `path`, for its tail and chunks.

    Of one in a bucket it is a copy's, with the tail alone unless sums stand behind the chunks only.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedShard: it is no regular file.
    """
    if isinstance(path, BucketPath):
        return copy_of_end(path, tail_bytes(array)) if _has_sums(array) else copy_of(path)
    try:
        return open_regular(path, os.O_RDONLY)
    except IrregularFileError:
        raise DamagedShard("is no regular file") from None


def checksum(data: Shaped[np.ndarray, "..."] | bytes) -> bytes:
    """crc32c of a C-contiguous array's bytes, as the four bytes that follow them on disk.

    Other Python threads run meanwhile, if there are many bytes.

    Raises:
        BufferError: the array is not C-contiguous.
    """
    buffer = data if isinstance(data, bytes) else data.data
    return crc32.iscsi(buffer).to_bytes(CRC_BYTES, "little")


def _read_all(fd: int, pieces: list[memoryview], offset: int) -> None:
    pieces = beyond(pieces, 0)
    while pieces:
        got = os.preadv(fd, pieces, offset)
        if got == 0:
            raise DamagedShard(f"is truncated: it ends at byte {offset}")
        pieces, offset = beyond(pieces, got), offset + got
