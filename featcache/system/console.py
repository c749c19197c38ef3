"""What people read on the console: progress, tables, commands to copy, messages of errors.

Progress comes with rate and time left, as a bar on a terminal and a line now and then in a log file. The
library only calls back with numbers; what is made of them is decided here, at the edge.
"""

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING

from featcache.errors import ScividError
from featcache.spec import SHUFFLED
from featcache.system.refusals import AGAIN, refusal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""

SECONDS_BETWEEN_LINES = 15.0

OWN_MODULE = "scivid_own_"
"""Beginning of the names under which Python files of the user's own are loaded: a backbone, a task."""


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


def show_table(console: "Console", rows: Sequence[Mapping[str, object]], *, empty: str) -> None:
    """Rows as a table whose columns are those of their keys that have values; `empty` without rows.

    The columns that matter most come first: where the console is too narrow the last are left out, and named.
    No word or number is cut.
    """
    from rich.table import Table

    if not rows:
        console.print(empty)
        return
    names = dict.fromkeys(key for row in rows for key in row)
    columns = {name: ["" if row.get(name) is None else str(row[name]) for row in rows] for name in names}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    shown, width = dict[str, int](), console.width
    for name, cells in columns.items():
        least = _narrowest([name, *cells])
        width -= least + _GAP * bool(shown)
        if shown and width < 0:
            break
        shown[name] = least
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for name, least in shown.items():
        numbers = all(map(_NUMBER.fullmatch, columns[name]))
        table.add_column(name, min_width=least, overflow="fold", justify="right" if numbers else "left")
    for row in zip(*(columns[name] for name in shown), strict=True):
        table.add_row(*row)
    console.print(table, markup=False, soft_wrap=False)
    if left := [name for name in columns if name not in shown]:
        console.print(f"Too narrow for: {', '.join(left)} (COLUMNS=200 shows more).", markup=False)


_GAP = 2
"""Blanks between columns of a table."""

_READABLE = 24
"""A column of text is folded to no fewer characters than these: a table is to be seen at once."""

_NUMBER = re.compile(r"(?:[-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?%?(?: ± [\d.,]+)?)?")
"""A cell that stands at the right of its column; an empty one stands anywhere."""


def _narrowest(cells: Sequence[str]) -> int:
    """Characters that a column needs: its longest word, and of text as much as can be read."""
    words = (len(word) for cell in cells for word in cell.split())
    return max(min(max(map(len, cells)), _READABLE), *words, 1)


def command_line(name: str, /, **options: object) -> str:
    """The call of command `name` that repeats this one, with every option that has a value."""
    words = ["scivid", name]
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [word for entry in value for word in (flag, str(entry))]
        elif value is not None and value is not False:
            words += [flag, str(value)]
    # A file's name may have bytes that are no text, which a results table cannot hold.
    return shlex.join(words).encode("utf-8", "backslashreplace").decode()


def extract_command(backbone: str, task: str, **options: object) -> str:
    """The call of `scivid extract` that makes the stores of `backbone`, named as the stores are."""
    plain = backbone.removesuffix(SHUFFLED)
    return command_line("extract", backbone=plain, task=task, shuffle_frames=plain != backbone, **options)


def is_of_the_output(problem: OSError) -> bool:
    """Whether what failed was to print: the pipe was closed, or the disk of the log is full."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(problem.__traceback__)]
    printing = ("rich.", "typer", "click", __name__)
    return problem.filename is None and bool(frames) and frames[-1].startswith(printing)


def flush_output() -> None:
    """Print what is still held back, so that it fails where it can be told."""
    if sys.stdout is not None:  # it was closed
        sys.stdout.flush()


def is_standard_output(path: Path) -> bool:
    """Whether a path leads where this process prints, as /dev/stdout does."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def print_bytes(content: bytes) -> None:
    """Write to standard output, after what was printed before."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def prepare_output() -> None:
    """Let every name be printed, and nothing be printed into a file of ours.

    What the terminal's encoding does not have becomes backslashes and digits. Standard streams that are
    closed lead nowhere: else the next file that is opened would have their number, and what a library prints.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def message_of(problem: Exception) -> str | None:
    """What a user is told of an exception; None where it is a bug of ours, whose traceback is wanted.

    An exception out of a file of the user's own is told with its file and line: it is theirs to mend.
    """
    if isinstance(problem, ScividError):
        return str(problem)
    if isinstance(problem, OSError):
        if is_of_the_output(problem):
            return f"standard output cannot be written ({problem.strerror}): send it elsewhere, and {AGAIN}."
        return refusal(problem)
    if isinstance(problem, MemoryError):
        return "there is not enough memory: do less at a time (--batch, --decode-threads), or get more."
    own = [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in walk_tb(problem.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(OWN_MODULE)
    ]
    if not own:
        return None
    return f"{own[-1]}: {type(problem).__name__}: {problem}\n`scivid --debug ...` shows the whole traceback."
