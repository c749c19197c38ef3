"""A user's task file: whatever is wrong with it is one message, and its bytes identify the task."""

from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.tasks import load_task
from readouts.tasks.base import Task, clip_rows, evidence_of, no_inputs

GOOD = (
    "from featcache.manifest import load_manifest\n"
    "from readouts.tasks import load_task\n"
    "TASK = load_task('flyvsfly', load_manifest())\n"
)
LACKING = """
class Lacking:
    name = recipe = loss = metric = head_config = None
TASK = Lacking()
"""
BARE = """
from types import SimpleNamespace
from readouts.tasks.base import Recipe
TASK = SimpleNamespace(
    name="bare", recipe=Recipe(), readouts=["linear"], n_outputs=1, score="s", higher_is_better=True,
    output_names=["depth"], head_config=lambda readout: {}, loss=lambda outputs, targets: outputs.sum(),
    metric=lambda: None, controls=lambda train: {},
)
"""
"""All that a task must have, and nothing more."""


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


def test_what_a_file_leaves_out_is_taken_as_the_plainest(tmp_path: Path, make_targets) -> None:
    task = load(tmp_path / "own.py", BARE)
    assert isinstance(task, Task)
    assert (task.select, task.inputs, task.predictions_kept) == (clip_rows, no_inputs, None)
    assert (task.readouts, task.output_names) == (("linear",), ("depth",))
    targets = make_targets(3, depth=np.arange(6.0).reshape(3, 2), labels=np.eye(3, dtype=np.uint8))
    rows = task.select(targets, np.array([2, 0]), np.array([0, 0]), None)
    assert rows.keys() == {"depth", "labels"}
    assert rows["depth"].tolist() == [[4, 5], [0, 1]]
    assert task.inputs({"depth": torch.zeros(1)}) == {}


def test_what_a_file_says_itself_is_taken(tmp_path: Path, make_targets) -> None:
    task = load(
        tmp_path / "own.py",
        BARE
        + "TASK.select = lambda targets, clips, views, rng: {'depth': targets.rows('depth', clips) + 1}\n"
        + "TASK.inputs = lambda targets: {'queries': targets['depth']}\n"
        + "TASK.predictions_kept = 5\n",
    )
    rows = task.select(make_targets(2, depth=np.array([1.0, 7.0])), np.array([1]), np.array([0]), None)
    assert rows["depth"].tolist() == [8.0]
    assert task.inputs({"depth": torch.ones(1)})["queries"].tolist() == [1.0]
    assert task.predictions_kept == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TASK = 1 / 0", r"own\.py raises ZeroDivisionError"),
        ("TASK = (", r"own\.py raises SyntaxError"),
        ("OTHER = 1", "defines no TASK"),
        (LACKING, "TASK lacks readouts, n_outputs, score, higher_is_better, output_names, controls of"),
        (GOOD + "object.__setattr__(TASK, 'score', 3)", "score=3 is not what"),
        (BARE + "TASK.select = 'labels'", "select='labels' is not what"),
        (BARE + "TASK.inputs = None", "inputs=None is not what"),
        (BARE + "TASK.score_of = 3", "score_of=3 is not what"),
        (BARE + "TASK.takes = 'sound'", "takes='sound' is not what"),
        (BARE + "TASK.predictions_kept = 'all'", "predictions_kept='all' is not what"),
        (BARE + "TASK.predictions_kept = 0", "predictions_kept=0 is not what"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        load(tmp_path / "own.py", text)


def test_a_file_without_score_of_trains_and_has_no_interval(tmp_path: Path) -> None:
    task = load(tmp_path / "own.py", BARE)
    assert evidence_of(task.metric()) == {}
    with pytest.raises(
        CallError, match=r"without an interval: its file defines no score_of\(evidence, weights\)"
    ):
        task.score_of({"values": np.ones(2)}, np.ones(2))
    own = load(
        tmp_path / "own.py",
        BARE
        + "TASK.score_of = lambda evidence, weights: float(weights @ evidence['depth'])\n"
        + "TASK.metric = lambda: SimpleNamespace(evidence=lambda: {'depth': [1.0, 2.0]})\n",
    )
    assert own.score_of(evidence_of(own.metric()), np.array([1.0, 3.0])) == 7.0
