"""Local copies of objects, as files without a name: gone when they are closed, however that happens.

What reads and checks files reads and checks these. A copy may have the end of an object alone: then it is as
long as the object, and empty before.
"""

import os
import tempfile
from typing import BinaryIO

from featcache.buckets.client import Content
from featcache.buckets.path import BucketPath


def unnamed_file() -> int:
    """An empty file in memory, where the system has such; else on the disk of temporary files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("scivid", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def copy_of(path: BucketPath) -> int:
    """An open copy of an object.

    Raises:
        FileNotFoundError: there is no such object.
        BucketError: it cannot be had.
    """
    fd = unnamed_file()
    try:
        path.read_into(lambda at, piece: write_at(fd, at, piece))
    except BaseException:
        os.close(fd)
        raise
    return fd


def opened_copy(path: BucketPath) -> BinaryIO:
    """The same as a file of Python's."""
    return os.fdopen(copy_of(path), "rb")


def copy_of_end(path: BucketPath, length: int) -> int:
    """An open copy of an object that has its last bytes alone, at their place.

    Raises:
        FileNotFoundError: there is no such object.
        BucketError: it cannot be had.
    """
    content, size = path.bucket.end(path.key, length)
    fd = unnamed_file()
    try:
        os.ftruncate(fd, size)
        write_at(fd, size - len(content), content)
    except BaseException:
        os.close(fd)
        raise
    return fd


def write_at(fd: int, offset: int, content: Content) -> None:
    """Write all of a piece at its place."""
    left = memoryview(content).cast("B")
    while len(left):
        done = os.pwrite(fd, left, offset)
        left, offset = left[done:], offset + done
