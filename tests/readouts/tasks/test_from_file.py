"""A user's task file: whatever is wrong with it is one message, and its bytes identify the task."""

from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.metrics.base import concatenated
from readouts.tasks import load_task
from readouts.tasks.base import Task, clip_rows, no_inputs

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
import numpy as np
from readouts.tasks.base import Recipe
TASK = SimpleNamespace(
    name="bare", recipe=Recipe(), readouts=["linear"], n_outputs=1, score="s", higher_is_better=True,
    output_names=["depth"], head_config=lambda readout: {}, loss=lambda outputs, targets: outputs.sum(),
    per_clip=lambda outputs, targets: {"error": (outputs - targets["depth"]).abs().numpy()},
    scores=lambda per_clip, weights=None: {"s": float(np.average(per_clip["error"], weights=weights))},
    baselines=lambda train: {},
)
"""
"""All that a task must have, and nothing more."""

BEFORE = """
from types import SimpleNamespace
import numpy as np
from readouts.tasks.base import Control, Evidence, Metric, Recipe, Rows
class Mean:
    def __init__(self):
        self.errors = []
    def update(self, outputs, targets):
        self.errors.extend((outputs - targets["depth"]).abs().tolist())
    def compute(self):
        return {"s": sum(self.errors) / len(self.errors), "n": float(len(self.errors))}
    def evidence(self):
        return {"errors": self.errors}
TASK = SimpleNamespace(
    name="before", recipe=Recipe(), readouts=["linear"], n_outputs=1, score="s", higher_is_better=False,
    output_names=["depth"], head_config=lambda readout: {}, loss=lambda outputs, targets: outputs.sum(),
    metric=Mean, controls=lambda train: {"zero": lambda rows: 0 * rows["depth"]},
)
"""
"""A task as it was before a metric was two functions."""


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
    assert (task.select, task.inputs, task.join) == (clip_rows, no_inputs, concatenated)
    assert task.predictions_kept is None
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
        (
            LACKING,
            r"TASK lacks readouts, n_outputs, .*, output_names, per_clip, scores, baselines of",
        ),
        (GOOD + "object.__setattr__(TASK, 'score', 3)", "score=3 is not what"),
        (BARE + "TASK.select = 'labels'", "select='labels' is not what"),
        (BARE + "TASK.inputs = None", "inputs=None is not what"),
        (BARE + "TASK.scores = 3", "scores=3 is not what"),
        (BEFORE + "TASK.metric = 3", "TASK lacks per_clip, scores of"),
        (BARE + "TASK.takes = 'sound'", "takes='sound' is not what"),
        (BARE + "TASK.predictions_kept = 'all'", "predictions_kept='all' is not what"),
        (BARE + "TASK.predictions_kept = 0", "predictions_kept=0 is not what"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        load(tmp_path / "own.py", text)


def test_statistics_of_a_file_give_its_scores(tmp_path: Path) -> None:
    task = load(tmp_path / "own.py", BARE)
    batches = [torch.tensor([1.0, 2.0]), torch.tensor([4.0])]
    per_clip = task.join([task.per_clip(torch.zeros_like(depth), {"depth": depth}) for depth in batches])
    assert task.scores(per_clip) == {"s": pytest.approx(7 / 3)}
    assert task.scores(per_clip, np.array([3.0, 0.0, 1.0])) == {"s": 7 / 4}


def test_a_file_of_before_is_scored_and_resampled_by_its_accumulator(tmp_path: Path) -> None:
    task = load(tmp_path / "own.py", BEFORE)
    assert isinstance(task, Task)
    batches = [torch.tensor([1.0, 2.0]), torch.tensor([4.0])]
    zero = task.baselines(None)["zero"]
    rows = [{"depth": depth} for depth in batches]
    per_clip = task.join([task.per_clip(zero(row), row) for row in rows])
    assert task.scores(per_clip) == {"s": 7 / 3, "n": 3}
    assert task.scores(per_clip, np.array([3.0, 0.0, 1.0])) == {"s": 7 / 4, "n": 4}


def test_a_file_of_before_may_override_what_a_class_of_ours_had(tmp_path: Path) -> None:
    overridden = """
from dataclasses import fields
from featcache.manifest import load_manifest
from readouts.tasks import load_task
from readouts.tasks.classification import Classification
class Mine(Classification):
    def metric(self):
        return Total()
    def controls(self, train):
        return {}
class Total:
    def update(self, outputs, targets):
        self.total = float(outputs.sum())
    def compute(self):
        return {"total": self.total}
fly = load_task("flyvsfly", load_manifest())
TASK = Mine(**{field.name: getattr(fly, field.name) for field in fields(fly)})
"""
    task = load(tmp_path / "own.py", overridden)
    labels = torch.ones(2, 7, dtype=torch.uint8)
    per_clip = task.join([task.per_clip(torch.ones(2, 7), {"labels": labels})])
    assert task.scores(per_clip) == {"total": 14.0}
    assert task.baselines(None) == {}


def test_what_a_run_of_before_kept_is_resampled_as_the_file_says(tmp_path: Path) -> None:
    kept, counts = {"errors": np.array([1.0, 2.0, 4.0])}, np.array([3.0, 0.0, 1.0])
    with pytest.raises(CallError, match=r"without an interval: .* define score_of\(evidence, weights\)"):
        load(tmp_path / "own.py", BEFORE).scores(kept, counts)
    score_of = "TASK.score_of = lambda evidence, weights: np.average(evidence['errors'], weights=weights)\n"
    task = load(tmp_path / "own.py", BEFORE + score_of)
    assert task.scores(kept, counts) == {"s": 7 / 4}
    assert task.scores(kept) == {"s": pytest.approx(7 / 3)}
