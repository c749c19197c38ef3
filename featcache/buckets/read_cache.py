"""What was read from buckets, kept on the local disk up to a bound: the second epoch comes from there.

For each object a file with holes, in which every piece that was read has its own place. Nothing says which
pieces are there: whoever reads one knows its checksum, and a hole has another. So no note can be wrong, a
kill leaves nothing to mend, and several processes share the folder. What does not fit is not kept, unless
something in it was not used for a while: an epoch that is larger than the cache would otherwise push out all
of it before it comes round again.

    SCIVID_READ_CACHE      the folder, or off; ~/.cache/scivid/reads unless said otherwise
    SCIVID_READ_CACHE_GB   how much may be kept there; 20 unless said otherwise
"""

import errno
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock

from featcache.errors import CallError

FOLDER, GIGABYTES = "SCIVID_READ_CACHE", "SCIVID_READ_CACHE_GB"

OFF = ("off", "0", "no")

DEFAULT_GIGABYTES = 20.0

IN_USE = 600.0
"""Seconds since its last use in which nothing is removed."""

LOOK_AGAIN_AFTER = 1 / 32
"""Part of the bound that one process writes before it looks how much there is."""

LEAST_FREE = 1 << 30
"""Bytes of the disk that stay free for others."""

BLOCK = 512
"""Bytes of what `st_blocks` counts."""


@dataclass
class ReadCache:
    """A folder of pieces of objects, shared by processes; safe for any threads."""

    folder: Path
    limit: int
    """Bytes."""
    _room: int = 0
    """Bytes that may be written before the next look."""
    _lock: Lock = field(default_factory=Lock)

    def may_keep(self, n_bytes: int) -> bool:
        """Whether there is room for so many bytes, for which some is made where that is possible."""
        with self._lock:
            if self._room < n_bytes:
                self._room = min(self._free(), max(n_bytes, int(self.limit * LOOK_AGAIN_AFTER)))
            if self._room < n_bytes:
                return False
            self._room -= n_bytes
            return True

    def _free(self) -> int:
        """Bytes that are left below the bound, once what was not used for a while is removed."""
        found = []
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process removed it
                about = path.stat()
                found.append((about.st_mtime, about.st_blocks * BLOCK, path))
        disk = os.statvfs(self.folder)
        bound = min(
            self.limit, sum(size for _, size, _ in found) + disk.f_bavail * disk.f_frsize - LEAST_FREE
        )
        free = bound - sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if free >= self.limit * LOOK_AGAIN_AFTER or time.time() - used < IN_USE:
                break
            path.unlink(missing_ok=True)
            free += size
        return free


class Mirror:
    """The pieces of one object that are kept; a piece that cannot be had, or kept, costs only time."""

    __slots__ = ("_cache", "_fd", "_lock", "_path", "_used")

    def __init__(self, kept: ReadCache, name: str) -> None:
        """`name` is of the object's content: another content has another."""
        self._cache, self._path = kept, kept.folder / name
        self._fd, self._lock, self._used = -1, Lock(), 0.0

    def read(self, offset: int, into: memoryview) -> bool:
        """Whether there may be a piece, which is then in `into`; compare its checksum."""
        try:
            fd = self._open(make=False)
            # Of a hole nothing is read; a file system without holes has data everywhere.
            if fd < 0 or os.lseek(fd, offset, os.SEEK_DATA) >= offset + len(into):
                return False
            return os.preadv(fd, [into], offset) == len(into)
        except OSError as problem:
            if problem.errno != errno.ENXIO:  # there is nothing from there on
                self._say(problem)
            return False

    def keep(self, offset: int, content: memoryview) -> None:
        """Put a piece in its place, as far as there is room."""
        try:
            if self._cache.may_keep(len(content)):
                os.pwrite(self._open(make=True), content, offset)
        except OSError as problem:
            self._say(problem)

    def _open(self, *, make: bool) -> int:
        with self._lock:
            # A file that was removed takes its room until it is closed.
            if self._fd >= 0 and make and not os.fstat(self._fd).st_nlink:
                self._close()
            if self._fd < 0:
                flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0)
                with suppress(FileNotFoundError):
                    self._fd = os.open(self._path, flags, 0o600)
            if self._fd >= 0 and time.monotonic() - self._used > IN_USE / 10:
                self._used = time.monotonic()
                os.utime(self._fd)
            return self._fd

    def _say(self, problem: OSError) -> None:
        _say_once(f"what is read from buckets is not kept in {self._cache.folder} ({problem.strerror})")

    def _close(self, close: Callable[[int], None] = os.close) -> None:
        # `close` is bound above: when the interpreter ends, modules may be gone before objects.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)

    def __del__(self) -> None:
        self._close()


def read_cache() -> ReadCache | None:
    """The cache that the environment asks for; None where it is off, or cannot be had.

    Raises:
        CallError: its size is no number.
    """
    return _read_cache(os.environ.get(FOLDER, ""), os.environ.get(GIGABYTES, ""), os.getpid())


@cache
def _read_cache(folder: str, gigabytes: str, process: int) -> ReadCache | None:
    if folder.lower() in OFF:
        return None
    try:
        limit = int(float(gigabytes or DEFAULT_GIGABYTES) * 1e9)
    except (ValueError, OverflowError):
        raise CallError(f"{GIGABYTES}={gigabytes}: give a number of GB, as 20, or {FOLDER}=off.") from None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - may be none
    where = Path(folder).expanduser() if folder else Path(home) / "scivid" / "reads"
    if limit <= 0:
        return None
    try:
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as problem:
        _say_once(f"what is read from buckets is not kept: {where} cannot be made ({problem.strerror})")
        return None
    return ReadCache(where, limit)


@cache
def _say_once(line: str) -> None:
    logging.getLogger(__name__).warning(line)
