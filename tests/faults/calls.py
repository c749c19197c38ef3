"""Every call that a process makes on files below some folders: counted, and made to fail or to be the last.

Python's own calls (`os`, `open`, what `pathlib` and `shutil` make of them) and those of Parquet, which has
its own way to the disk; what other libraries do in C is not seen.
"""

import builtins
import fcntl
import io
import mmap
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

BY_PATH = ("stat", "lstat", "unlink", "remove", "mkdir", "rmdir", "listdir", "scandir")
BY_TWO_PATHS = ("rename", "replace", "link", "symlink")
READS = ("read", "pread", "readv", "preadv")
WRITES = ("write", "writev", "pwrite")
ON_FILE = ("fsync", "ftruncate", "fstat")
CHANGING = ("create", "mkdir", *WRITES, *BY_TWO_PATHS, "fsync", "ftruncate", "write_table")
"""Calls that a full disk refuses."""


@dataclass(frozen=True)
class Call:
    """One call that was made."""

    name: str
    path: str


@dataclass(kw_only=True)
class Act:
    """What is to happen at one call: it fails, or the process ends; a write does half of its work first."""

    at: int
    """Number of the call, from 0."""
    errno: int = 0
    """0: the process is killed."""
    half: bool = False

    def done(self, call: Call, by_path: bool) -> None:
        if not self.errno:
            os.kill(os.getpid(), signal.SIGKILL)
        # The kernel tells of a path what it was, of an open file nothing.
        raise OSError(self.errno, os.strerror(self.errno), *([call.path] if by_path else []))


@dataclass
class Calls:
    """The calls on files below `roots`, from `install` on; for a process that ends afterwards."""

    roots: tuple[str, ...]
    act: Act | None = None
    note: Callable[[Call], None] = lambda call: None
    """Told of the call before anything happens to it: threads make theirs in another order each time."""
    made: list[Call] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)
    """Open file descriptor -> its path."""

    @classmethod
    def below(cls, *roots: Path, **how: Any) -> "Calls":
        return cls(tuple(map(str, roots)), **how)

    def at(
        self, name: str, path: str, *, by_path: bool = True, half: Callable[[], Any] | None = None
    ) -> None:
        """Before a call: count it, and act if it is the one."""
        call, number = Call(name, path), len(self.made)
        self.made.append(call)
        if self.act is not None and number == self.act.at:
            self.note(call)
            if half is not None and self.act.half:
                half()
            self.act.done(call, by_path)

    def ours(self, path: Any) -> str | None:
        """The path as text, if it is below one of the roots."""
        if isinstance(path, int):
            return None
        text = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  (of what may be bytes)
        return text if text.startswith(self.roots) else None

    def install(self) -> None:
        """Put the hooks in the place of the functions."""
        for name in BY_PATH:
            self._hook_path(name)
        for name in BY_TWO_PATHS:
            self._hook_paths(name)
        for name in (*READS, *ON_FILE):
            self._hook_file(name)
        for name in WRITES:
            self._hook_write(name)
        self._hook_open()
        self._hook_close()
        io.open = builtins.open = self._opener(io.open)  # type: ignore[assignment]
        for name in ("read_table", "write_table"):
            setattr(pq, name, self._parquet(name, getattr(pq, name)))
        fcntl.flock = self._on_file("flock", fcntl.flock)
        mmap.mmap = self._on_file("mmap", mmap.mmap)  # type: ignore[misc, assignment]

    def _hook_path(self, name: str) -> None:
        real = getattr(os, name)

        def hooked(path: Any = ".", *args: Any, **options: Any) -> Any:
            if (text := self.ours(path)) is not None:
                self.at(name, text)
            return real(path, *args, **options)

        setattr(os, name, hooked)

    def _hook_paths(self, name: str) -> None:
        real = getattr(os, name)

        def hooked(source: Any, target: Any, *args: Any, **options: Any) -> Any:
            if (text := self.ours(target)) is not None:
                self.at(name, text)
            return real(source, target, *args, **options)

        setattr(os, name, hooked)

    def _on_file(self, name: str, real: Any) -> Any:
        def hooked(fd: Any, *args: Any, **options: Any) -> Any:
            if isinstance(fd, int) and (text := self.files.get(fd)) is not None:
                self.at(name, text, by_path=False)
            return real(fd, *args, **options)

        return hooked

    def _hook_file(self, name: str) -> None:
        setattr(os, name, self._on_file(name, getattr(os, name)))

    def _hook_write(self, name: str) -> None:
        real = getattr(os, name)

        def hooked(fd: int, data: Any, *args: Any) -> Any:
            if (text := self.files.get(fd)) is not None:
                pieces = [memoryview(one).cast("B") for one in (data if name == "writev" else [data])]
                some = b"".join(pieces)[: sum(map(len, pieces)) // 2]
                half = (lambda: real(fd, [some])) if name == "writev" else (lambda: real(fd, some, *args))
                self.at(name, text, by_path=False, half=half)
            return real(fd, data, *args)

        setattr(os, name, hooked)

    def _hook_open(self) -> None:
        real = os.open

        def hooked(path: Any, flags: int, *args: Any, **options: Any) -> int:
            text = self.ours(path)
            if text is not None:
                self.at("create" if flags & os.O_CREAT else "open", text)
            fd = real(path, flags, *args, **options)
            if text is not None:
                self.files[fd] = text
            return fd

        os.open = hooked

    def _hook_close(self) -> None:
        real = os.close

        def hooked(fd: int) -> None:
            self.files.pop(fd, None)
            real(fd)

        os.close = hooked

    def _parquet(self, name: str, real: Any) -> Any:
        def hooked(*args: Any, **options: Any) -> Any:
            where = args[1] if name == "write_table" else args[0]
            if isinstance(where, str | Path) and (text := self.ours(where)) is not None:
                self.at(name, text)
            return real(*args, **options)

        return hooked

    def _opener(self, real: Any) -> Any:
        def hooked(
            file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
            newline: Any = None, closefd: bool = True, opener: Any = None,
        ) -> Any:  # fmt: skip
            text = self.ours(file)
            if text is None:
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            self.at("open" if mode.startswith("r") else "create", text)
            raw = _Raw(self, text, file, mode.replace("b", "").replace("t", ""), closefd, opener)
            return _dressed(raw, mode, buffering, encoding, errors, newline)

        return hooked


class _Raw(io.FileIO):
    """An open file whose reads and writes are counted."""

    def __init__(self, calls: Calls, path: str, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        super().__init__(file, mode, closefd, opener)
        self._calls, self._path = calls, path
        calls.files[self.fileno()] = path

    def readinto(self, buffer: Any) -> int | None:
        self._calls.at("read", self._path, by_path=False)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._calls.at("read", self._path, by_path=False)
        return super().readall()

    def write(self, data: Any) -> int | None:
        some = bytes(data)[: len(data) // 2]
        self._calls.at("write", self._path, by_path=False, half=lambda: io.FileIO.write(self, some))
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            self._calls.files.pop(self.fileno(), None)
        super().close()


def _dressed(raw: _Raw, mode: str, buffering: int, encoding: Any, errors: Any, newline: Any) -> Any:
    """The raw file with the buffer, and the text layer, that `open` gives it."""
    if buffering == 0:
        return raw
    if "+" in mode:
        buffered: Any = io.BufferedRandom(raw)
    elif mode[0] in "wax":
        buffered = io.BufferedWriter(raw)
    else:
        buffered = io.BufferedReader(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)
