"""A shard in a bucket: its tail by one request, each chunk by another, verified as it arrives."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

from featcache.buckets.path import BucketPath
from featcache.buckets.read_cache import Mirror, read_cache
from featcache.store.shards import DamagedShard, Tail, checksum
from featcache.store.spec import CRC_BYTES

REQUESTS_AT_ONCE = 16
"""Chunks of a batch that are asked for side by side: one request waits most of its time, for a far server."""

ATTEMPTS = 2
"""What arrives with another checksum is asked for once more: it may have been damaged on the way."""


@runtime_checkable
class OpenShard(Protocol):
    """What a reader has of an open shard, wherever that is."""

    tail: Tail

    def fill(self, slot: int, out: Shaped[np.ndarray, "..."], *, verify: bool) -> None:
        """Bring chunk number `slot` of the index into `out`."""
        ...

    def sources(self, slots: Sequence[int], n_bytes: int) -> list[UInt8[np.ndarray, " n_bytes"]] | None:
        """The bytes of some chunks if they are in memory, to be copied; else None."""
        ...

    def pages_of(self, slot: int, n_bytes: int, *, verify: bool) -> UInt8[np.ndarray, " n_bytes"]:
        """The bytes of chunk number `slot`."""
        ...


class ShardObject:
    """An `OpenShard` in a bucket, of which requests share the client, and what was read before is kept."""

    __slots__ = ("_mirror", "_path", "tail")

    def __init__(self, path: BucketPath, tail: Tail) -> None:
        """`tail` was read and compared before (`shard_file`)."""
        self._path, self.tail = path, tail
        kept = read_cache()
        self._mirror: Mirror | None = None
        # Without sums nothing tells what is kept from what is not.
        if kept is not None and tail.sums is not None:
            whose = blake2b(str(path).encode(), digest_size=8).hexdigest()
            self._mirror = Mirror(kept, f"{whose}-{tail.digest}")

    def fill(self, slot: int, out: Shaped[np.ndarray, "..."], *, verify: bool) -> None:
        """Bring chunk number `slot` of the index into `out`; it is verified each time.

        Raises:
            DamagedShard: it came with another checksum, twice.
            OSError: the bucket refuses, or does not answer.
        """
        into = out.reshape(-1).view(np.uint8)
        if not self._kept(slot, into):
            np.copyto(into, self._arrived(slot, out.nbytes))

    def sources(self, slots: Sequence[int], n_bytes: int) -> None:
        """None: nothing is in memory."""

    def pages_of(self, slot: int, n_bytes: int, *, verify: bool) -> UInt8[np.ndarray, " n_bytes"]:
        """The bytes of chunk number `slot` where they arrived; arguments and errors are those of `fill`."""
        if self._mirror is not None:
            pages = np.empty(n_bytes, np.uint8)
            if self._kept(slot, pages):
                return pages
        return self._arrived(slot, n_bytes)

    def _kept(self, slot: int, into: UInt8[np.ndarray, " n"]) -> bool:
        """Whether the chunk was kept, and is in `into` now."""
        if self._mirror is None or self.tail.sums is None:
            return False
        there = self._mirror.read(int(self.tail.index[slot, 0]), into.data)
        return there and checksum(into) == self.tail.sums[slot].tobytes()

    def _arrived(self, slot: int, n_bytes: int) -> UInt8[np.ndarray, " n_bytes"]:
        """The bytes of a chunk from the bucket, with the checksum that they must have."""
        offset, sums = int(self.tail.index[slot, 0]), self.tail.sums
        for _ in range(ATTEMPTS):
            came = self._path.bucket.range(
                self._path.key, offset, n_bytes if sums is not None else n_bytes + CRC_BYTES
            )
            wanted = came[n_bytes:].tobytes() if sums is None else sums[slot].tobytes()
            chunk = np.frombuffer(came[:n_bytes], np.uint8)
            if len(chunk) == n_bytes and checksum(chunk) == wanted:
                if self._mirror is not None:
                    self._mirror.keep(offset, came[:n_bytes])
                return chunk
        raise DamagedShard(f"fails the checksum of the chunk at byte {offset}")
