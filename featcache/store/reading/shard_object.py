"""A shard in a bucket: its tail by one request, each chunk by another, verified as it arrives."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

from featcache.buckets.path import BucketPath
from featcache.store.shards import DamagedShard, Tail, checksum
from featcache.store.spec import CRC_BYTES

REQUESTS_AT_ONCE = 32
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

    def pages_of(self, slot: int, n_bytes: int, *, verify: bool) -> UInt8[np.ndarray, " n_bytes"]:
        """The bytes of chunk number `slot`."""
        ...


class ShardObject:
    """An `OpenShard` in a bucket; nothing of it is open, for requests share the bucket's client."""

    __slots__ = ("_path", "tail")

    def __init__(self, path: BucketPath, tail: Tail) -> None:
        """`tail` was read and compared before (`shard_file`)."""
        self._path, self.tail = path, tail

    def fill(self, slot: int, out: Shaped[np.ndarray, "..."], *, verify: bool) -> None:
        """Bring chunk number `slot` of the index into `out`; what comes over a network is always verified.

        Raises:
            DamagedShard: it came with another checksum, twice.
            OSError: the bucket refuses, or does not answer.
        """
        offset, sums = int(self.tail.index[slot, 0]), self.tail.sums
        behind = 0 if sums is not None else CRC_BYTES
        into = out.ravel().view(np.uint8)
        for _ in range(ATTEMPTS):
            content = self._path.bucket.range(self._path.key, offset, out.nbytes + behind)
            came = np.frombuffer(content, np.uint8)
            wanted = came[out.nbytes :].tobytes() if sums is None else sums[slot].tobytes()
            if len(came) == out.nbytes + behind:
                np.copyto(into, came[: out.nbytes])
                if checksum(out) == wanted:
                    return
        raise DamagedShard(f"fails the checksum of the chunk at byte {offset}")

    def pages_of(self, slot: int, n_bytes: int, *, verify: bool) -> UInt8[np.ndarray, " n_bytes"]:
        """The bytes of chunk number `slot`, in memory of their own; raises as `fill`."""
        pages = np.empty(n_bytes, np.uint8)
        self.fill(slot, pages, verify=verify)
        return pages
