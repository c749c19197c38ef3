"""How a process ends that was told to: by Ctrl-C, by a batch system, by nobody reading what it says.

All that is written is written whole, so a process may end at any moment: it says so, tidies up for a few
seconds, and is gone, whatever its threads still do.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread, current_thread, main_thread
from types import FrameType

from featcache.system.console import is_of_the_output, message_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C, a batch system, a terminal that was closed, a batch system some time before the end."""

GRACE = 10.0
"""Seconds for tidying up, after which nothing is waited for: a batch system kills after thirty."""

AT_ONCE = b"\nscivid: ended at once; files are whole. Run the same command again to go on from here.\n"


class Stopped(KeyboardInterrupt):
    """The process was sent a signal that asks it to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stops_raised() -> Iterator[None]:
    """Raise `Stopped` in the main thread at the first signal; end at once at a second, or after `GRACE`.

    A signal that is ignored stays so, as SIGHUP below nohup. In another thread nothing is changed.
    """
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number, how in before.items() if how not in (signal.SIG_IGN, None)]
    read, write = os.pipe()
    os.set_blocking(write, False)
    was_told = False

    def tell(number: int, frame: FrameType | None) -> None:
        nonlocal was_told
        if was_told:
            _end_now(number)
        was_told = True
        raise Stopped(number)

    for number in ours:
        signal.signal(number, tell)
    told = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    Thread(target=_wait_for_one, args=(read, ours), name="signals", daemon=True).start()
    try:
        yield
    finally:
        # A second signal, and a thread that does not end, are to find us for as long as there is a process.
        if not was_told:
            signal.set_wakeup_fd(told)
            os.close(write)
            for number in ours:
                signal.signal(number, before[number])


def ending_of(problem: BaseException) -> tuple[str, int] | None:
    """What a user is told of that which ended the work, and the exit code; None for a bug of ours.

    That nobody reads what is printed is told to nobody: the text is empty. A shell knows by the code which
    signal it was. A standard output that cannot be written is let go of: nothing more is tried on it.
    """
    if isinstance(problem, KeyboardInterrupt):
        number = signal.Signals(getattr(problem, "number", signal.SIGINT))
        by = "" if number == signal.SIGINT else f" by {number.name}"
        return f"stopped{by}. Run the same command again to go on from here.", 128 + number
    of_the_output = isinstance(problem, OSError) and is_of_the_output(problem)
    message = message_of(problem) if isinstance(problem, Exception) else None
    if of_the_output:
        _leave_output()
    if of_the_output and isinstance(problem, BrokenPipeError):
        return "", 128 + signal.SIGPIPE  # as of any program whose reader has seen enough
    return None if message is None else (message, getattr(problem, "exit_code", 1))


def _leave_output() -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _wait_for_one(read: int, ours: list[signal.Signals]) -> None:
    """See a signal come, which the main thread may be too deep in other code to see, and end the process."""
    while came := os.read(read, 1):
        if came[0] in ours:
            time.sleep(GRACE)
            _end_now(came[0])
    os.close(read)


def _end_now(number: int) -> None:
    with suppress(OSError):
        os.write(2, AT_ONCE)
    os._exit(128 + number)
