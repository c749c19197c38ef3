"""An object as a file of which no more is asked for than is read."""

import io
import os
from typing import Any, BinaryIO, cast

from featcache.buckets.client import PIECE
from featcache.buckets.path import BucketPath

AT_LEAST = 2**18
"""Bytes of a request: a larger one costs little more than a smaller."""


def opened_object(path: BucketPath) -> BinaryIO:
    """An object, opened for reading.

    Raises:
        FileNotFoundError: there is no such object.
        BucketError: it cannot be had.
    """
    return cast(BinaryIO, io.BufferedReader(_Object(path), AT_LEAST))


class _Object(io.RawIOBase):
    mode = "rb"

    def __init__(self, path: BucketPath) -> None:
        self.name = str(path)
        self._path, self._size, self._at = path, path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        into = memoryview(buffer).cast("B")
        length = min(len(into), PIECE, self._size - self._at)
        if length <= 0:
            return 0
        into[:length] = self._path.bucket.range(self._path.key, self._at, length)
        self._at += length
        return length
