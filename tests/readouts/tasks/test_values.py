"""Values that a clip shows: what is unknown counts nowhere, and heads predict standardised."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError, StoreError
from featcache.manifest import load_manifest
from featcache.store.targets import TargetArray, Targets
from readouts.tasks import load_task
from readouts.tasks.values import ShownValues

MANIFEST = """
datasets:
  heat:
    {{title: t, source: s, licence: l, citation: c, version: "1", reader: video_file,
     features: {{series: glow}},
     values: {{of: {of}, mean: 10.0, std: 2.0, unit: lx}}, splits: {{train: {{files: "*.mp4"}}}}}}
tasks:
  heat: {{title: t, kind: regression, splits: {{train: heat/train}}, clip: {{n_frames: 3, stride: 4}}}}
"""
NUMBERS = np.arange(2)


@pytest.fixture
def task(tmp_path: Path) -> ShownValues:
    (tmp_path / "m.yaml").write_text(MANIFEST.format(of="frame"))
    task = load_task("heat", load_manifest(tmp_path / "m.yaml"))
    assert isinstance(task, ShownValues)
    return task


@pytest.fixture
def targets(make_targets: Callable[..., Targets]) -> Targets:
    values = np.array([[[9.0, math.nan, 14.0]], [[10.0, 12.0, math.nan]]], np.float32)
    array = TargetArray(
        shape=values.shape, dtype=values.dtype, axes=("clip", "view", "frame"), blocks=[values]
    )
    return make_targets(2, series=array)


def rows(task: ShownValues, targets: Targets) -> dict[str, torch.Tensor]:
    chosen = task.select(targets, NUMBERS, np.zeros_like(NUMBERS), None)
    return {name: torch.from_numpy(values) for name, values in chosen.items()}


def test_the_manifest_says_what_is_predicted(task: ShownValues, tmp_path: Path) -> None:
    assert (task.n_outputs, task.offset, task.scale, task.score) == (3, 10.0, 2.0, "glow/rmse")
    assert task.output_names == ("frame 0", "frame 1", "frame 2")
    (tmp_path / "m.yaml").write_text(MANIFEST.format(of="video"))
    assert load_task("heat", load_manifest(tmp_path / "m.yaml")).output_names == ("glow",)
    assert (
        len({str(one.identity()) for one in (task, replace(task, scale=1.0), replace(task, n_outputs=1))})
        == 3
    )


def test_the_loss_is_of_known_values_in_deviations(task: ShownValues, targets: Targets) -> None:
    found = rows(task, targets)
    # Standardised -0.5, 2, 0, 1: of zeros the mean square is 5.25 / 4.
    outputs = torch.zeros(2, 3, requires_grad=True)
    loss = task.loss(outputs, found)
    loss.backward()
    assert loss.item() == pytest.approx(5.25 / 4)
    assert outputs.grad is not None
    assert (outputs.grad[0, 1], outputs.grad[1, 2]) == (0, 0)


def test_the_baseline_is_the_training_mean(task: ShownValues, targets: Targets) -> None:
    found = rows(task, targets)
    scores = task.scores(task.per_clip(task.baselines(targets)["training mean"](found), found))
    # Of 9, 14, 10, 12 around 10.
    assert scores["glow/rmse"] == pytest.approx((21 / 4) ** 0.5)


def test_other_targets_are_refused(task: ShownValues, targets: Targets) -> None:
    with pytest.raises(StoreError, match="does not hold 1 values a clip"):
        replace(task, n_outputs=1).select(targets, NUMBERS, NUMBERS, None)


def test_a_regression_needs_starts_or_values(tmp_path: Path) -> None:
    text = MANIFEST.format(of="frame").replace("features: {series: glow},\n", "")
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(CallError, match=r"tasks\.heat: a regression needs `starts`"):
        load_task("heat", load_manifest(tmp_path / "m.yaml"))
    (tmp_path / "m.yaml").write_text(MANIFEST.format(of="frame").replace("std: 2.0", "std: 0.0"))
    with pytest.raises(CallError, match=r"values\.std: expected a number above 0"):
        load_manifest(tmp_path / "m.yaml")
