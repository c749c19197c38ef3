"""Progress with rate and time left: a bar on a terminal, a line now and then in a log file.

The library only calls back with numbers; what is made of them is decided here, at the edge.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""

SECONDS_BETWEEN_LINES = 15.0


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that nobody follows."""


class Reporter:
    """A `Progress` that shows what it is told."""

    def __init__(self, console: "Console", bars: "Bars | None") -> None:
        self.console, self.bars = console, bars
        self.started: dict[str, tuple[float, int]] = {}
        self.last_done: dict[str, int] = {}
        self.bar_of: dict[str, TaskID] = {}
        self.last_line = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` of `what` are done."""
        if done < self.last_done.get(what, done):
            # The same work begins anew, as the scoring of val does at every point of a curve.
            self.started.pop(what, None)
        self.last_done[what] = done
        started, at = self.started.setdefault(what, (time.monotonic(), done))
        rate = (done - at) / max(time.monotonic() - started, 1e-9)
        if self.bars is not None:
            self._move(self.bars, what, done, total, rate)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            # The first word of a piece of work says how much of it is done, and not how fast.
            speed = f", {rate:.1f}/s" if rate else ""
            left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
            self.console.print(f"{what}: {done:,} of {total:,}{speed}{left}", markup=False)

    def of(self, what: str) -> Callable[[int, int], None]:
        """The same for a caller that says only how much is done, and of how much."""
        return lambda done, total: self(what, done, total)

    def _move(self, bars: "Bars", what: str, done: int, total: int, rate: float) -> None:
        if what not in self.bar_of:
            self.bar_of[what] = bars.add_task(what, rate="")
        bars.update(self.bar_of[what], completed=done, total=total, rate=f"{rate:.1f}/s" if rate else "")


@contextmanager
def reporter(console: "Console") -> Iterator[Reporter]:
    """A reporter for the time of the block; its bars end with it."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    if not console.is_terminal:
        yield Reporter(console, None)
        return
    rate = TextColumn("{task.fields[rate]}")
    name, left = TextColumn("{task.description}"), TimeRemainingColumn()
    with Bars(name, BarColumn(), MofNCompleteColumn(), rate, left, console=console) as bars:
        yield Reporter(console, bars)
