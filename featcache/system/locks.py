"""One writer at a time, or several of one mind, where the file system can tell; a word to those who wait."""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from featcache.buckets.path import BucketPath
from featcache.errors import StoreError
from featcache.system.files import name_file, naming

NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}
"""What flock says on a network file system that was mounted without locks, or has none for readers."""

NOT_OURS_TO_WRITE = {errno.EROFS, errno.EACCES, errno.EPERM}
"""What the operating system says where we may read only."""

SECONDS_IN_SILENCE = 1.0
"""After which somebody who waits for a lock is told."""


class Lock:
    """A lock held through a file: gone with its process, however that ends.

    It is exclusive, or `shared` among those who ask for it so: they refuse the others, and these them.

    Where the file system has no locks, or may only be read, and in a bucket, there is none: then two writers
    cost time and not data, as every file is published whole, with equal bytes; and a reader does not disturb
    anybody.
    """

    def __init__(self, path: Path, *, wait: bool, busy: str, shared: bool = False) -> None:
        """Take the lock; when it is taken, wait for it or raise a StoreError with the text `busy`.

        Args:
            path: of the file.
            wait: for whoever holds it, which is said after a second.
            busy: what is held, as a sentence.
            shared: with all who ask for it so.
        """
        self.path, self._shared = path, shared
        self.fd = -1
        while not self._is_of_the_path():
            self.close()
            self.fd = self._opened()
            if self.fd < 0:
                return
            self._acquire(wait=wait, busy=busy)
        with suppress(OSError):  # for those who wait; a lock without it is as good
            os.pwrite(self.fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Remove the file, unless others share the lock, and let go of it."""
        try:
            if self.fd >= 0 and self._is_last():
                with suppress(OSError):  # a file that stays is harmless
                    self.path.unlink()
        finally:
            self.close()

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Let go of the lock and leave the file: what a kill does."""
        # `close` is bound above: when the interpreter ends, modules may be gone before objects.
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close(fd)

    def __del__(self) -> None:
        self.close()

    def _opened(self) -> int:
        """The file, made if need be; -1 where that is not ours to do and it is not there to be read."""
        if isinstance(self.path, BucketPath):
            return -1
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as problem:
            if problem.errno not in NOT_OURS_TO_WRITE:
                raise
        try:
            return os.open(self.path, os.O_RDONLY)
        except OSError:
            return -1

    def _acquire(self, *, wait: bool, busy: str) -> None:
        started = time.monotonic()
        try:
            while not self._took_it():
                is_long = time.monotonic() - started > SECONDS_IN_SILENCE
                # The last of those who shared it has it alone for a moment, to remove the file.
                if not wait and (is_long or not self._shared):
                    raise StoreError(f"{busy} It is {self._holder()}.")
                if is_long:
                    logging.getLogger(__name__).warning(f"waiting: {busy} It is {self._holder()}.")
                    fcntl.flock(self.fd, self._kind)
                    return
                time.sleep(SECONDS_IN_SILENCE / 50)
        except OSError as problem:
            if problem.errno not in NO_LOCKS_HERE:
                name_file(problem, self.path)
                raise

    def _took_it(self) -> bool:
        try:
            fcntl.flock(self.fd, self._kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_last(self) -> bool:
        """Whether nobody shares the lock any more; then it is exclusive from here on."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no locks here: nobody holds one
            return True
        return True

    @property
    def _kind(self) -> int:
        return fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX

    def _holder(self) -> str:
        said = b""
        with suppress(OSError):
            said = os.pread(self.fd, 200, 0).partition(b"\n")[0]
        return said.decode(errors="replace") or "of a process that did not say its number"

    def _is_of_the_path(self) -> bool:
        # The holder before us removes the file: then we hold the lock of a file that nobody else can find.
        try:
            with naming(self.path):
                return self.fd >= 0 and os.path.samestat(os.fstat(self.fd), self.path.stat())
        except FileNotFoundError:
            return False
