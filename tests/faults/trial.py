"""Call a function in a forked child with limits of time and memory, and say how it ended.

The parent has everything imported and starts no thread, so that a fork costs milliseconds; a child that
crashes, hangs or takes all memory takes nothing else along. Messages are those that the command line shows.
"""

import faulthandler
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from featcache.system.console import message_of
from tests.faults.digests import digests

SECONDS = 20.0
"""A child that takes longer hangs: what it does takes a tenth of a second."""
BYTES = 4 * 2**30
"""Address space beyond what the parent has: threads' stacks and all buffers of the tiny data are less."""

How = Literal["ok", "refused", "traceback", "signal", "hang"]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a call ended."""

    how: How
    numbers: dict[str, str] = field(default_factory=dict)
    """Digest of each part of what was read; empty unless `ok`."""
    message: str = ""
    """What the user is told of an error; of a traceback all of it; of a signal its name."""
    output: str = ""
    """All that was printed, warnings and log lines among it."""
    code: int = 0
    """Exit code, as the command line gives it."""
    facts: Any = None
    """What else the call noted, of whatever ended it."""


class Note:
    """What a call notes besides its result: known too of one that failed, hung or was killed."""

    fd = -1

    @classmethod
    def write(cls, facts: Any) -> None:
        """Note facts in the place of those before."""
        noted = pickle.dumps(facts)
        os.ftruncate(cls.fd, 0)
        os.pwrite(cls.fd, noted, 0)


Call = Callable[[], Any]


def run_all(
    calls: Iterable[Call], *, workers: int, seconds: float = SECONDS, n_bytes: int = BYTES
) -> Iterator[Ended]:
    """How each of `calls` ended, in their order; `workers` run at once."""
    running: dict[int, _Child] = {}
    ended: dict[int, Ended] = {}
    given, waiting = 0, enumerate(calls)
    more = True
    while more or running:
        while more and len(running) < workers:
            try:
                number, call = next(waiting)
            except StopIteration:
                more = False
                break
            running[number] = _Child(call, seconds, n_bytes)
        for number, child in list(running.items()):
            if (found := child.ended()) is not None:
                ended[number] = found
                del running[number]
        while given in ended:
            yield ended.pop(given)
            given += 1
        if running:
            fds = [child.pidfd for child in running.values()]
            select.select(fds, [], [], min(child.left() for child in running.values()))


def run(call: Call, *, seconds: float = SECONDS, n_bytes: int = BYTES) -> Ended:
    """How `call` ended in a child of its own."""
    (ended,) = run_all([call], workers=1, seconds=seconds, n_bytes=n_bytes)
    return ended


class _Child:
    """A forked process and its deadline."""

    def __init__(self, call: Call, seconds: float, n_bytes: int) -> None:
        self.seconds, self.deadline = seconds, time.monotonic() + seconds
        self.more, self.cpu_before = 5, -1
        self.answer, self.output, self.notes = map(os.memfd_create, ("answer", "output", "notes"))
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _in_child(call, n_bytes, self.answer, self.output, self.notes)
        self.pidfd = os.pidfd_open(self.pid)

    def left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def _end(self) -> None:
        """End it, after it has printed where it is."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR2)
            select.select([self.pidfd], [], [], 0.5)
            os.killpg(self.pid, signal.SIGKILL)

    def _works(self) -> bool:
        """Whether it gets on, on a machine that has little time for it."""
        with suppress(OSError):
            threads = [path.read_text().rpartition(")")[2].split() for path in self._threads()]
            before, self.cpu_before = self.cpu_before, sum(int(one[11]) + int(one[12]) for one in threads)
            return before != self.cpu_before or any(one[0] in "RD" for one in threads)
        return False

    def _threads(self) -> list[Path]:
        return list(Path(f"/proc/{self.pid}/task").glob("*/stat"))

    def ended(self) -> Ended | None:
        """None while it runs and has time left."""
        hangs = self.left() == 0.0
        if hangs and self.more and self._works():
            self.more, self.deadline, hangs = self.more - 1, time.monotonic() + self.seconds, False
        if hangs:
            self._end()
        pid, status = os.waitpid(self.pid, 0 if hangs else os.WNOHANG)
        if pid == 0:
            return None
        # Whatever it started itself, and left behind.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        output, answer = _content(self.output).decode(errors="replace"), _content(self.answer)
        noted = _content(self.notes)
        facts = pickle.loads(noted) if noted else None
        for fd in (self.pidfd, self.answer, self.output, self.notes):
            os.close(fd)
        if hangs:
            return Ended(how="hang", message=f"took too long: {_where(output)}", output=output, facts=facts)
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            return Ended(how="signal", message=name, output=output, code=-os.WTERMSIG(status), facts=facts)
        if not answer:
            left = f"left with {os.WEXITSTATUS(status)}"
            return Ended(how="signal", message=left, output=output, facts=facts)
        how, numbers, message, code = pickle.loads(answer)
        return Ended(how=how, numbers=numbers, message=message, output=output, code=code, facts=facts)


def _where(output: str) -> str:
    """The innermost frames of every thread of a stack that was printed."""
    beginnings = ('  File "', "Thread", "Current")
    lines = [line.strip() for line in output.splitlines() if line.startswith(beginnings)]
    return " < ".join([line for line in lines if "tests/faults" not in line][:12])


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _in_child(call: Call, n_bytes: int, answer: int, output: int, notes: int) -> None:
    """Run the call, write down how it ended, and leave without any clean-up of the parent's."""
    try:
        os.setpgid(0, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.enable(file=output)
        faulthandler.register(signal.SIGUSR2, file=output)
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + n_bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.unraisablehook = lambda _: None
        Note.fd = notes
        os.write(answer, pickle.dumps(_outcome(call)))
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)


def _outcome(call: Call) -> tuple[How, dict[str, str], str, int]:
    try:
        return "ok", digests(call()), "", 0
    except SystemExit as left:
        # The command line has said why.
        code = int(left.code or 0)
        return ("refused" if code else "ok"), {}, "", code
    except Exception as problem:
        message = message_of(problem)
        if message is None:
            return "traceback", {}, traceback.format_exc(), 1
        return "refused", {}, message, getattr(problem, "exit_code", 1)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
