"""Tables have a column a key; a command names every option that has a value, and a shell reads it back."""

import shlex
from collections.abc import Callable
from io import StringIO

from rich.console import Console

from featcache.errors import CallError
from featcache.system.console import OWN_MODULE, command_line, extract_command, message_of, show_table


def printed(rows: list[dict[str, object]]) -> str:
    buffer = StringIO()
    show_table(Console(file=buffer, width=80), rows, empty="nothing yet")
    return buffer.getvalue()


def test_a_table_has_the_columns_of_all_rows() -> None:
    lines = printed([{"name": "a", "val": 0.5}, {"name": "b", "test": None, "more": "x"}]).splitlines()
    assert [line.split() for line in lines] == [["name", "val", "more"], ["a", "0.5"], ["b", "x"]]


def test_on_a_narrow_console_the_last_columns_are_named_and_nothing_is_cut() -> None:
    row = {"run": "nipig-tarog", "val": "0.5123 ± 0.0012", "what": "words that are folded at blanks only"}
    wide = row | {"path": "a/very/long/path/that/cannot/be/folded.zarr", "more": 1}
    lines = printed([wide]).splitlines()
    assert lines[0].split() == ["run", "val", "what"]
    assert "0.5123 ± 0.0012" in lines[1]
    assert lines[-1] == "Too narrow for: path, more (COLUMNS=200 shows more)."
    # All of the text, in words.
    assert " ".join(" ".join(line[30:].split()) for line in lines[1:-1]) == row["what"]
    assert max(map(len, lines)) <= 80


def test_numbers_stand_at_the_right() -> None:
    lines = printed([{"name": "a", "MB": "1,200.5"}, {"name": "b", "MB": "3.0"}]).splitlines()
    assert [line.rstrip()[-3:] for line in lines[1:]] == ["0.5", "3.0"]
    assert len({len(line.rstrip()) for line in lines}) == 1


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


def test_stores_of_shuffled_frames_are_made_of_the_backbone_itself() -> None:
    assert extract_command("videomae_random_shuffled", "calms21", manifest="my.yaml") == (
        "scivid extract --backbone videomae_random --task calms21 --shuffle-frames --manifest my.yaml"
    )


def test_an_error_is_a_message_a_bug_of_ours_is_none_and_one_of_the_users_own_names_the_line() -> None:
    def raised(work: Callable[[], object]) -> Exception:
        try:
            work()
        except Exception as problem:
            return problem
        raise AssertionError

    assert message_of(CallError("say which")) == "say which"
    assert message_of(FileNotFoundError(2, "No such file", "a.bin")) == (
        "a.bin: No such file. Is the name right, and the folder mounted?"
    )
    assert message_of(raised(lambda: 1 / 0)) is None
    own: dict[str, Callable[[], object]] = {"__name__": f"{OWN_MODULE}my_model"}  # type: ignore[dict-item]
    exec(compile("def encode():\n    return 1 / 0", "my_model.py", "exec"), own)
    said = message_of(raised(own["encode"]))
    assert said is not None
    assert said.startswith("my_model.py, line 2: ZeroDivisionError: division by zero\n")
