"""What the command line prints: tables, the call that repeats a run or makes a store, and what went wrong."""

import shlex
from collections.abc import Mapping, Sequence
from traceback import walk_tb
from typing import TYPE_CHECKING

from featcache.errors import ScividError
from featcache.spec import SHUFFLED

if TYPE_CHECKING:
    from rich.console import Console

OWN_MODULE = "scivid_own_"
"""Beginning of the names under which Python files of the user's own are loaded: a backbone, a task."""


def show_table(console: "Console", rows: Sequence[Mapping[str, object]], *, empty: str) -> None:
    """Rows as a table whose columns are their keys; `empty` where there are none."""
    from rich.table import Table

    if not rows:
        console.print(empty)
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(key) is None else str(row[key]) for key in columns))
    console.print(table)


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
    return shlex.join(words)


def extract_command(backbone: str, task: str, **options: object) -> str:
    """The call of `scivid extract` that makes the stores of `backbone`, named as the stores are."""
    plain = backbone.removesuffix(SHUFFLED)
    return command_line("extract", backbone=plain, task=task, shuffle_frames=plain != backbone, **options)


def message_of(problem: Exception) -> str | None:
    """What a user is told of an exception; None where it is a bug of ours, whose traceback is wanted.

    An exception out of a file of the user's own is told with its place there: it is theirs to mend.
    """
    if isinstance(problem, ScividError):
        return str(problem)
    if isinstance(problem, OSError):
        return ": ".join(map(str, filter(None, (problem.strerror, problem.filename)))) or repr(problem)
    own = [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in walk_tb(problem.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(OWN_MODULE)
    ]
    if not own:
        return None
    return f"{own[-1]}: {type(problem).__name__}: {problem}\n`scivid --debug ...` shows the whole traceback."
