"""Tables have a column a key; a command names every option that has a value, and a shell reads it back."""

import shlex
from io import StringIO

from rich.console import Console

from featcache.terminal import command_line, show_table


def printed(rows: list[dict[str, object]]) -> str:
    buffer = StringIO()
    show_table(Console(file=buffer, width=80), rows, empty="nothing yet")
    return buffer.getvalue()


def test_a_table_has_the_columns_of_all_rows() -> None:
    lines = printed([{"name": "a", "val": 0.5}, {"name": "b", "test": None, "more": "x"}]).splitlines()
    assert [line.split() for line in lines] == [["name", "val", "test", "more"], ["a", "0.5"], ["b", "x"]]


def test_no_rows_are_said_to_be_none() -> None:
    assert printed([]) == "nothing yet\n"


def test_a_command_can_be_pasted_into_a_shell() -> None:
    line = command_line(
        "train-readout", task="my task", seed=0, set=["lr=1", "a=b c"], test=True, again=False, layer=None
    )
    assert shlex.split(line) == [
        "scivid", "train-readout", "--task", "my task", "--seed", "0", "--set", "lr=1", "--set",
        "a=b c", "--test",
    ]  # fmt: skip
