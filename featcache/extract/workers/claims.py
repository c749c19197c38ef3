"""Who is at which shard: a small file a shard, which one worker has at a time.

A claim keeps two workers from the same work; it guards no bytes, for every shard is written whole, and by
whomever, the same. So a claim may be lost to another worker at the worst of times: that costs the time of one
shard. It needs no locks of the file system, only names: to create one that is not there, and to rename one.

Whoever holds a claim touches it now and then. It is taken over at once from a process of this machine that
is gone, and from an earlier start of the same task of the batch system; from anybody else when it was not
touched for `EXPIRES` seconds, by the clock of the file system, the only one that all workers share.
"""

import json
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

from featcache.system.files import (
    Staged,
    is_running,
    read_regular,
    remove,
    remove_leftovers,
    temporary_beside,
    this_machine,
    write_all,
)

FOLDER = "claims"
"""In a store, until it is finished."""

HEARTBEAT = 20.0
"""Seconds from one touch of a claim to the next."""

EXPIRES = 300.0
"""Seconds without a touch after which a claim is free: network disks tell other machines of one late."""

TRIES = 5
"""To take a claim, of which each is lost only to somebody else's luck."""

MOST_BYTES = 1 << 16


@runtime_checkable
class Claims(Protocol):
    """What workers ask of a place where claims are.

    It has to create a name only where there is none, so that of several who try at once one succeeds: a link
    of a file system, or a put of an object store on condition that there is no such object.
    """

    def claim(self, name: str) -> bool:
        """Take a claim; whether it is ours now. One that we have is not asked for again."""
        ...

    def release(self, name: str) -> None:
        """Let go of a claim, if it is still ours."""
        ...

    def release_all(self) -> None:
        """Let go of all that we have."""
        ...

    def clear(self) -> None:
        """Remove all claims, whoever has them, from a store that is finished."""
        ...

    def close(self) -> None:
        """Let go of all, and of what else is kept for claims."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The process that has a claim, so that others know when it is gone."""

    host: str
    """For people."""
    machine: str
    """Tells apart whatever numbers its processes anew."""
    pid: int
    started: str
    """When the process began, as the kernel counts: a number may be another process's later."""
    task: str
    """Of a batch system, whichever machine it is on; empty outside of one."""
    restart: int
    """How often that task was requeued."""

    @classmethod
    def this_process(cls, environment: Mapping[str, str]) -> "Owner":
        """The one that asks."""
        job = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID")
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "RANK")
        task = "" if job is None else "-".join([job, *(environment.get(name, "") for name in names)])
        restart = environment.get("SLURM_RESTART_COUNT", "0")
        return cls(
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            started=_started(os.getpid()),
            task=task,
            restart=int(restart) if restart.isdecimal() else 0,
        )

    def is_gone(self, seen_by: "Owner") -> bool:
        """Whether it is certain that this process ended."""
        if self.machine == seen_by.machine:
            return not is_running(self.pid) or _started(self.pid) != self.started
        # A batch system ends a task before it begins it again.
        return bool(self.task) and self.task == seen_by.task and self.restart < seen_by.restart


class FileClaims:
    """Claims in a folder of a disk that all workers have."""

    def __init__(self, folder: Path, owner: Owner, *, expires: float = EXPIRES) -> None:
        self.folder, self.owner, self.expires = folder, owner, expires
        # Two workers may be threads of one process.
        self._content = json.dumps({**asdict(owner), "worker": secrets.token_hex(8)}).encode() + b"\n"
        self._held: set[str] = set()
        self._guard = threading.Lock()
        self._closed = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> "FileClaims":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def claim(self, name: str) -> bool:
        """Take a claim; whether it is ours now.

        Raises:
            OSError: the disk is full or refuses.
        """
        path = self.folder / name
        for _ in range(TRIES):
            # Whoever finds the store finished takes the folder away, with all that is in it.
            with suppress(FileNotFoundError), Staged(path) as note:
                write_all(note.fd, [self._content])
                if self._linked(note.temporary, path):
                    self._hold(name)
                    return True
                os.utime(note.fd)
                if not self._set_aside(path, now=os.fstat(note.fd).st_mtime):
                    return False
        return False

    def release(self, name: str) -> None:
        """Let go of a claim, if it is still ours."""
        with self._guard:
            self._held.discard(name)
            with suppress(OSError):  # it is not touched any more, and so is found to be nobody's
                if self._is_ours(self.folder / name):
                    (self.folder / name).unlink(missing_ok=True)

    def release_all(self) -> None:
        """Let go of all that we have."""
        for name in tuple(self._held):
            self.release(name)

    def close(self) -> None:
        """Let go of all claims, and take the folder away where nobody else has one."""
        self._closed.set()
        self.release_all()
        with suppress(OSError):
            remove_leftovers(self.folder)
            self.folder.rmdir()

    def clear(self) -> None:
        """Remove all claims, whoever has them: for a store that is finished, where they say nothing."""
        remove(self.folder)

    def _linked(self, note: Path, path: Path) -> bool:
        """Give `path` the note's content, unless there is a file of that name."""
        try:
            os.link(note, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            return self._created(path)
        # A network file system may have made the link and lost the answer.
        return note.stat().st_nlink == 2

    def _created(self, path: Path) -> bool:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            write_all(fd, [self._content])
        finally:
            os.close(fd)
        return True

    def _set_aside(self, path: Path, *, now: float) -> bool:
        """Take away a claim of somebody who is gone; whether the name is free."""
        aside = temporary_beside(path)
        try:
            judged = path.stat()
            if not self._is_free(path, now - judged.st_mtime):
                return False
            path.rename(aside)
        except FileNotFoundError:  # released, or another worker is about to take it
            return True
        found = aside.stat()
        is_the_judged = os.path.samestat(found, judged) and found.st_mtime_ns == judged.st_mtime_ns
        if not is_the_judged:
            # Another worker was first, and what we moved away is its claim: it gets it back.
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)
        return is_the_judged

    def _is_free(self, path: Path, seconds: float) -> bool:
        if seconds > self.expires:
            return True
        try:
            about = json.loads(read_regular(path, limit=MOST_BYTES))
            about.pop("worker")
            return Owner(**about).is_gone(self.owner)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return False  # of another version, or half written: it goes by its time

    def _is_ours(self, path: Path) -> bool:
        try:
            return read_regular(path, limit=MOST_BYTES) == self._content
        except OSError:
            return False

    def _hold(self, name: str) -> None:
        with self._guard:
            self._held.add(name)
            if self._beating is None:
                self._beating = threading.Thread(target=self._beat, name="claims", daemon=True)
                self._beating.start()

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT):
            for name in tuple(self._held):
                with self._guard, suppress(OSError):  # taken over; or the next beat comes through
                    if name in self._held:
                        self._touch(name)

    def _touch(self, name: str) -> None:
        if self._is_ours(self.folder / name):
            os.utime(self.folder / name)


def _started(pid: int) -> str:
    """When a process of this machine began, in ticks since the boot; empty where the system does not tell."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return ""
