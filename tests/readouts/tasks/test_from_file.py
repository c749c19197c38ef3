"""A user's task file: whatever is wrong with it is one message, and its bytes identify the task."""

from pathlib import Path

import pytest

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.tasks import load_task
from readouts.tasks.base import Task

GOOD = (
    "from featcache.manifest import load_manifest\n"
    "from readouts.tasks.flyvsfly import task\n"
    "TASK = task(load_manifest())\n"
)
LACKING = """
class Lacking:
    name = recipe = loss = metric = head_config = None
TASK = Lacking()
"""


def load(file: Path, text: str) -> Task:
    file.write_text(text)
    return load_task(f"{file}:TASK", load_manifest())


def test_the_file_identifies_the_task(tmp_path: Path) -> None:
    first = load(tmp_path / "own.py", GOOD)
    assert isinstance(first, Task)
    assert first.spec == f"{tmp_path}/own.py:TASK"
    assert load(tmp_path / "copy.py", GOOD).identity() == first.identity()
    assert load(tmp_path / "own.py", GOOD + "# changed").identity() != first.identity()
    assert first.head_config("attention") == {"width": 128, "heads": 16, "dropout": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TASK = 1 / 0", r"own\.py raises ZeroDivisionError"),
        ("TASK = (", r"own\.py raises SyntaxError"),
        ("OTHER = 1", "defines no TASK"),
        (LACKING, "TASK lacks readouts, n_outputs, score, higher_is_better, output_names, controls of"),
        (GOOD + "object.__setattr__(TASK, 'score', 3)", "score=3 is not what"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        load(tmp_path / "own.py", text)
