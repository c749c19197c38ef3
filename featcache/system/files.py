"""Atomic file writes, and a disk that is full or refuses.

Write under a temporary name, fsync, rename, fsync the directory: after a crash or a power cut a name leads
to all of its bytes or to nothing. What a kill leaves behind has a name of its own and is swept up later.

In a bucket a file is put whole, which needs none of that: what is written there is gathered in memory first.
"""

import errno
import logging
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import BinaryIO

from featcache.buckets.copies import opened_copy, unnamed_file
from featcache.buckets.path import BucketPath
from featcache.buckets.ranges import opened_object
from featcache.errors import ScividError, StoreError
from featcache.system.refusals import nearest_folder, no_room, refusal

PARTIAL = ".partial"
"""Ending of a temporary name, which also begins with a dot."""

LONGEST_STEM = 50
"""Characters of a file's own name in its temporary one, which may have 255 bytes."""

ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a write after which what a process elsewhere was writing is taken for left behind."""

NO_SYNC_HERE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
"""What fsync says of folders on a file system that cannot sync them."""


class IrregularFileError(OSError):
    """A pipe, a device or a folder stands where a file should."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(errno.EINVAL, "not a regular file", str(path))


class Staged:
    """A file being written under a temporary name beside its own; a `with` block leaves it or nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = temporary_beside(path)
        if isinstance(path, BucketPath):
            self.fd = unnamed_file()
            return
        make_directory(path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            self.fd = os.open(self.temporary, flags, 0o666)
        except FileNotFoundError:  # another process found the folder empty, and took it away
            make_directory(path.parent)
            self.fd = os.open(self.temporary, flags, 0o666)

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if isinstance(problem, OSError):
            name_file(problem, self.path)
        with suppress(OSError):  # what goes wrong in tidying up would hide what went wrong before
            self._close()
            if not isinstance(self.path, BucketPath):
                self.temporary.unlink(missing_ok=True)

    def publish(self) -> None:
        """Sync the bytes to the disk, then give them their name; or put them in their bucket."""
        if isinstance(self.path, BucketPath):
            self.path.write_whole(_content(self.fd))
            return
        os.fsync(self.fd)
        self._close()
        self.temporary.replace(self.path)
        sync_directory(self.path.parent)

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def open_regular(path: str | Path, flags: int) -> int:
    """A file descriptor of a regular file, as an `opener`: nothing else is waited for, or read without end.

    Raises:
        IrregularFileError: it is a pipe, a device or a folder.
        OSError: it cannot be opened.
    """
    # A pipe without a writer would block the call itself.
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        with naming(Path(path)):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise IrregularFileError(path)
    except OSError:
        os.close(fd)
        raise
    return fd


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened for reading; of an object in a bucket, a copy of it.

    Raises:
        OSError: as `open_regular`, or the bucket refuses.
    """
    return opened_copy(path) if isinstance(path, BucketPath) else open(path, "rb", opener=open_regular)


def opened_ranges(path: Path) -> BinaryIO:
    """As `open_file`, for who reads little of it: of an object in a bucket no more is asked for."""
    return opened_object(path) if isinstance(path, BucketPath) else open_file(path)


def read_regular(path: Path, *, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer.
    """
    with naming(path), open_file(path) as file:
        # To ask for as much as the limit would take that much memory, however short the file is.
        content = file.read() if os.fstat(file.fileno()).st_size <= limit else None
    if content is None or len(content) > limit:
        raise OSError(errno.EFBIG, f"longer than the {limit:,} bytes that it can have", str(path))
    return content


def publish(path: Path, content: bytes) -> None:
    """Write a small file whole, unless it is there with the same bytes."""
    with suppress(OSError):  # one that cannot be read is written anew
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    with Staged(path) as staged:
        write_all(staged.fd, [content])
        staged.publish()


def publish_first(path: Path, content: bytes) -> None:
    """Write a small file whole, unless there is one of that name: then that one stays, whatever it holds."""
    if isinstance(path, BucketPath):
        path.create(content)
        return
    with Staged(path) as staged:
        write_all(staged.fd, [content])
        os.fsync(staged.fd)
        try:
            os.link(staged.temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            staged.publish()
        sync_directory(path.parent)


def keep(path: Path, content: bytes, *, what: str) -> None:
    """Publish what only saves time; where that fails it is said in one line, and the work goes on.

    Args:
        path: of the file.
        content: of it.
        what: is kept, as the subject of that line.
    """
    with unless_kept(path, what=what):
        publish(path, content)


@contextmanager
def unless_kept(path: Path, *, what: str) -> Iterator[None]:
    """Say in one line that `what` cannot be kept, as `keep` does, where the block finds so."""
    try:
        yield
    except OSError as problem:
        logging.getLogger(__name__).warning(
            f"{what} cannot be kept in {path} ({problem.strerror or problem}): next time it is made again"
        )


def write_file(path: Path, pieces: list[memoryview | bytes]) -> None:
    """Write a file of a folder that is itself published whole."""
    if isinstance(path, BucketPath):
        path.write_whole(b"".join(pieces))
        return
    make_directory(path.parent)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with naming(path):
            write_all(fd, pieces)
            os.fsync(fd)
    finally:
        os.close(fd)


def append_line(path: Path, line: str) -> None:
    """Append to a log that people read; a line torn by a kill stays a line of its own.

    In a bucket the log is written anew: of two lines at the same moment one may be lost.
    """
    if isinstance(path, BucketPath):
        path.write_whole((path.read_bytes() if path.is_file() else b"") + line.encode() + b"\n")
        return
    torn = path.is_file() and not path.read_bytes().endswith(b"\n")
    with naming(path), open(path, "ab", opener=open_regular) as file:
        file.write(("\n" if torn else "").encode() + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def temporary_beside(path: Path) -> Path:
    """A name beside `path` that nobody else takes, and that says whose it is (`remove_leftovers`)."""
    owner = f"{this_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name[:LONGEST_STEM]}.{owner}{PARTIAL}")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder (not below it), and nothing that is being written.

    What a process of this machine had is left over once that process is gone; what is another machine's, or
    has a name of an older version, when nothing was written to it for a day. What cannot be removed stays.
    """
    for leftover in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):  # another process sweeps too, or may not be disturbed
            if is_left_over(leftover):
                remove(leftover)


def left_over(folder: Path) -> list[Path]:
    """What killed writers left anywhere below a folder (`remove_leftovers`)."""
    return [path for path in folder.rglob(f".*{PARTIAL}") if is_left_over(path)]


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there; another process may do so too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def name_file(problem: OSError, path: Path) -> None:
    """Give an error that came without a file's name the name of `path`; a write has none of its own."""
    if problem.filename is None and problem.errno is not None:
        problem.filename = str(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give what the operating system refuses in the block the name of `path`, where it has none."""
    try:
        yield
    except OSError as problem:
        name_file(problem, path)
        raise


def make_directory(path: Path) -> None:
    """Make a folder and those above it, each synced into the one that holds it; a bucket has none."""
    if not isinstance(path, BucketPath) and not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Sync the names in a folder to the disk."""
    if isinstance(path, BucketPath):
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as problem:
        if problem.errno not in NO_SYNC_HERE:
            name_file(problem, path)
            raise
    finally:
        os.close(fd)


@contextmanager
def failures_explained(path: Path, *, needed: int = 0, left: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Raise as a StoreError what the operating system refuses to a writer of the store at `path`.

    Args:
        path: of the store.
        needed: bytes about to be written.
        left: gives the bytes to the end of the extraction; called only where the disk is full.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            wanted = f", {needed:,} are needed now and {left():,} to the end"
            raise StoreError(no_room(problem, path, wanted)) from problem
        name_file(problem, path)
        raise StoreError(f"writing {path} failed: {refusal(problem)}") from problem


def require_room(
    path: Path, needed: int, *, what: str, way_out: str, error: type[ScividError] = StoreError
) -> None:
    """Refuse to begin what the disk of `path` cannot hold; `path` itself need not be there yet. Buckets do.

    Args:
        path: where the bytes go.
        needed: how many are still to come.
        what: of what they are, as the message's subject.
        way_out: what the user can do, beside making room.
        error: class of the error.

    Raises:
        ScividError: of class `error`; names what is needed and what is free.
    """
    if isinstance(path, BucketPath):
        return
    free = shutil.disk_usage(nearest_folder(path)).free
    if needed > free:
        said = (size(needed), size(free))
        if said[0] == said[1]:
            said = (f"{needed:,} bytes", f"{free:,}")
        raise error(
            f"{what} needs {said[0]} more and the disk of {path} has {said[1]} free: make room, or {way_out}"
        )


def size(n_bytes: int) -> str:
    """Bytes as people read them, by powers of ten."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= one:
            return f"{n_bytes / one:,.2f} {unit}"
    return f"{n_bytes:,.0f} bytes"


def write_all(fd: int, pieces: Sequence[memoryview | bytes]) -> None:
    """Write all of `pieces`; the kernel may take less than it was offered."""
    left = [memoryview(piece) for piece in pieces]
    while left:
        left = beyond(left, os.writev(fd, left))


def beyond(pieces: list[memoryview], done: int) -> list[memoryview]:
    """What is left of `pieces` after their first `done` bytes."""
    for number, piece in enumerate(pieces):
        if done < piece.nbytes:
            return [piece[done:], *pieces[number + 1 :]]
        done -= piece.nbytes
    return []


def _content(fd: int) -> memoryview:
    """All that was written to an unnamed file."""
    return memoryview(mmap(fd, 0, prot=PROT_READ)) if os.fstat(fd).st_size else memoryview(b"")


def is_left_over(temporary: Path) -> bool:
    """Whether whoever wrote this is gone, as far as it can be told."""
    machine, _, rest = temporary.name.removesuffix(PARTIAL).rpartition(".")[2].partition("-")
    pid = rest.partition("-")[0]
    if machine == this_machine() and pid.isdecimal() and not is_running(int(pid)):
        return True
    written = max(file.lstat().st_mtime for file in (temporary, *temporary.rglob("*")))
    return time.time() - written > ABANDONED_AFTER


def is_running(pid: int) -> bool:
    """Whether this machine has a process of that number; one that is somebody else's counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


@cache
def this_machine() -> str:
    """Tells apart whatever numbers its processes anew: another host, another boot, another container."""
    facts = [socket.gethostname()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return blake2b("\n".join(facts).encode(), digest_size=4).hexdigest()
