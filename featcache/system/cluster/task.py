"""What happens on a worker: is it as the command is, does it see the same folders, then the work itself."""

import socket
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeVar, cast

from featcache.errors import ClusterError, ScividError, few
from featcache.system.cluster.dask import RESOURCE, CurrentTask
from featcache.system.console import Progress, message_of
from featcache.system.versions import version_of

Item = TypeVar("Item")
Result = TypeVar("Result")

TELL_EVERY = 1.0
"""Seconds between two words of a worker about its task."""

_VERSIONS = ("scivid", "torch", "distributed")

_KEPT: dict[Hashable, Any] = {}
_ALONE = Lock()
"""A worker's process does one task at a time."""
_LET_GO = Event()
"""What is kept is of no more use when the task has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What goes to workers with every task of a command."""

    topic: str
    """What progress is told under."""
    versions: Mapping[str, str] = field(hash=False)
    folders: tuple[Path, ...]
    """On disks."""
    mark: Path | None = None
    """A file that the command made in the first of the folders: who sees the same folder sees it."""

    def refuse_other_machine(self) -> None:
        """Refuse to work where versions or folders are not those of the command.

        Raises:
            ClusterError: says in what they differ, and how to mend it.
        """
        ours = versions()
        unlike = [f"{name} {ours[name]}, not {v}" for name, v in self.versions.items() if ours[name] != v]
        if unlike:
            raise ClusterError(f"it has {few(unlike)}: install there what the command has.")
        missing = [str(folder) for folder in self.folders if not folder.is_dir()]
        if not missing and self.mark is not None and not self.mark.exists():
            missing = [f"{self.folders[0]} of the command, but another folder of this name"]
        if missing:
            raise ClusterError(
                f"it does not see {few(missing)}: workers need the command's folders under the same paths, "
                "on a file system that all machines share."
            )


def versions() -> dict[str, str]:
    """What has to be the same on all machines, for the same numbers."""
    python = ".".join(map(str, sys.version_info[:2]))
    # Of one torch there are builds for CPUs and for GPUs.
    return {"Python": python} | {name: version_of(name).partition("+")[0] for name in _VERSIONS}


def at_work(name: str, item: Item, work: Callable[[Item, Progress], Result], about: About) -> Result | None:
    """Do a task on a worker; None where it was taken back meanwhile.

    Raises:
        ScividError: as `work`, with the host's name; or it cannot be done on this worker.
    """
    host = socket.gethostname()
    if not _ALONE.acquire(blocking=False):
        raise ClusterError(
            f"worker on {host}: it was given two tasks at once, and a task has a process to itself: start "
            f'workers with --nthreads 1, and on GPUs with --resources "{RESOURCE}=1".'
        )
    try:
        about.refuse_other_machine()
        return work(item, _Teller(name, about.topic))
    except _TakenBackError:
        return None
    except Exception as problem:
        if (told := message_of(problem)) is None:
            raise
        kind = type(problem) if isinstance(problem, ScividError) else ClusterError
        raise kind(f"worker on {host}: {told}") from None
    finally:
        if _LET_GO.is_set():
            _let_go()
        _ALONE.release()


def kept(key: Hashable, make: Callable[[], Result]) -> Result:
    """On a worker: what `make` gave for this key, a model for example; what was kept before is let go of."""
    if key not in _KEPT:
        _let_go()
        _KEPT[key] = make()
    return cast(Result, _KEPT[key])


def forget() -> None:
    """Let go of what is kept, when the task that may be using it has ended."""
    if _ALONE.acquire(blocking=False):
        try:
            _let_go()
        finally:
            _ALONE.release()
    else:
        _LET_GO.set()


def _let_go() -> None:
    """What has a method `close` is closed."""
    _LET_GO.clear()
    while _KEPT:
        _, thing = _KEPT.popitem()
        if hasattr(thing, "close"):
            thing.close()


class _TakenBackError(BaseException):
    """Nobody waits for the task any more."""


class _Teller:
    """The `Progress` of a task on a worker: told on to the command, and the end of a task taken back."""

    def __init__(self, name: str, topic: str) -> None:
        self._name, self._topic, self._task = name, topic, CurrentTask()
        self._told = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._told < TELL_EVERY:
            return
        self._told = time.monotonic()
        if self._task.is_taken_back():
            raise _TakenBackError
        self._task.tell(self._topic, {"name": self._name, "what": what, "done": done, "total": total})
