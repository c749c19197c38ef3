"""What the command line prints: tables, and the call that repeats a run."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


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
