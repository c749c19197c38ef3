"""The pressure task: what is asked of a view, the offset, the baselines, against the reference, by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError, StoreError
from featcache.manifest import load_manifest
from featcache.store.targets import TargetArray, Targets
from readouts.results.baselines import score_baselines
from readouts.tasks import load_task
from readouts.tasks.benchmark import MEAN_PRESSURE
from readouts.tasks.regression import Regression

MakeTargets = Callable[..., Targets]


@pytest.fixture
def task() -> Regression:
    """The benchmark's."""
    typhoon = load_task("typhoon", load_manifest())
    assert isinstance(typhoon, Regression)
    return typhoon


def series_of(make_targets: MakeTargets, values: np.ndarray, folder: str = "targets") -> Targets:
    """Targets of values [clip, view, hour]."""
    whole = values.astype("<f4")
    array = TargetArray(shape=whole.shape, dtype=whole.dtype, axes=("clip", "view", "hour"), blocks=[whole])
    return make_targets(len(whole), folder, series=array)


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def rows_of(task: Regression, targets: Targets) -> dict[str, torch.Tensor]:
    clips = np.arange(targets.shape("series")[0])
    rows = task.select(targets, clips, np.zeros_like(clips), None)
    return {name: torch.from_numpy(values) for name, values in rows.items()}


def test_the_benchmarks_settings(task: Regression) -> None:
    assert (task.n_inputs, task.n_outputs) == (12, 12)
    assert task.output_names[::11] == ("+1 h", "+12 h")
    assert task.readouts == ("linear", "attention")
    assert not task.higher_is_better
    assert task.head_config("linear") == {}


def test_the_offset_is_the_references(shared: Path) -> None:
    files = sorted(shared.glob("golden/reference/data_constants*.json"))
    assert files
    for file in files:
        constants = json.loads(file.read_text())["constants"]
        assert constants["typhoon_AVERAGE_TRAIN_PRESSURE"] == MEAN_PRESSURE


def test_targets_and_baselines_are_the_references(
    task: Regression, shared: Path, make_targets: MakeTargets
) -> None:
    files = sorted(shared.glob("golden/records*/expected/typhoon_eval*.npz"))
    assert files
    for n, file in enumerate(files):
        with np.load(file, allow_pickle=False) as arrays:
            n_clips = len({key.partition("/")[0] for key in arrays.files})
            expected = {
                name: torch.from_numpy(np.stack([arrays[f"{i}/{name}"] for i in range(n_clips)]))
                for name in (
                    "pressure",
                    "normalized_pressure",
                    "global_mean_pressure",
                    "repeated_last_pressure",
                )
            }
        past = expected["repeated_last_pressure"][:, :1] + torch.linspace(9, 0, 12)
        values = torch.cat([past, expected["pressure"]], dim=1)[:, None].numpy()
        targets = series_of(make_targets, values, f"targets {n}")
        rows = rows_of(task, targets)
        assert torch.equal(rows["future"], expected["pressure"])
        # The squares of float32's last digits at a thousand hPa.
        assert float(task.loss(expected["normalized_pressure"], rows)) < 1e-8
        last = task.baselines(targets)["last input value"](rows) + task.offset
        torch.testing.assert_close(last, expected["repeated_last_pressure"], rtol=1e-6, atol=0)
        torch.testing.assert_close(
            torch.zeros(n_clips, 12) + task.offset, expected["global_mean_pressure"], rtol=1e-7, atol=0
        )


def test_each_view_has_its_own_hours(task: Regression, make_targets: MakeTargets) -> None:
    # Clip c and view v: the hours v, v + 1, ... of a series that starts at 100 c.
    clip, view, hour = np.meshgrid(np.arange(3), np.arange(4), np.arange(24), indexing="ij")
    targets = series_of(make_targets, 100 * clip + view + hour)
    rows = task.select(targets, numbers(2, 0), numbers(3, 1), np.random.default_rng(0))
    np.testing.assert_array_equal(rows["past"], np.array([[203], [1]]) + np.arange(12))
    np.testing.assert_array_equal(rows["future"], np.array([[215], [13]]) + np.arange(12))


def test_targets_of_another_length_or_task_are_refused(task: Regression, make_targets: MakeTargets) -> None:
    short = series_of(make_targets, np.zeros((2, 1, 23)))
    labels = make_targets(2, "labels", labels=np.zeros((2, 7), np.uint8))
    for targets in (short, labels):
        with pytest.raises(StoreError, match=r"does not hold series of 12 \+ 12 steps: run the same `scivid"):
            task.select(targets, numbers(0), numbers(0), None)


def test_the_loss_is_the_mean_square_relative_to_the_offset(task: Regression) -> None:
    future = torch.full((2, 12), 1000.0)
    targets = {"future": future}
    perfect = future - MEAN_PRESSURE
    assert float(task.loss(perfect, targets)) == 0.0
    assert float(task.loss(perfect + 3.0, targets)) == pytest.approx(9.0, rel=1e-4)
    assert float(task.loss(torch.zeros(2, 12), targets)) == pytest.approx(
        (1000 - MEAN_PRESSURE) ** 2, rel=1e-4
    )
    assert task.inputs(targets) == {}


def test_scores_are_in_the_series_unit(task: Regression) -> None:
    future = 990.0 + torch.arange(24.0).view(2, 12)
    outputs = future - task.offset
    outputs[0] += 3.0
    outputs[1] -= 4.0
    scores = task.scores(task.per_clip(outputs, {"future": future}))
    assert scores["pressure/rmse"] == pytest.approx(sqrt((9 + 16) / 2), rel=1e-4)
    assert scores["pressure/t=3/abs_error"] == pytest.approx(3.5, rel=1e-4)
    assert task.score in scores


def test_the_baselines_by_hand(task: Regression, make_targets: MakeTargets) -> None:
    # Pressure falls by 1 hPa an hour from 1000 and from 980: the last value is h hPa too high after h hours.
    fall = np.array([1000.0, 980.0])[:, None, None] - np.arange(24)
    # Of further views the baselines know nothing.
    train = series_of(make_targets, np.concatenate([fall, np.zeros((2, 2, 24))], axis=1), "train")
    evaluated = series_of(make_targets, fall[:1], "val")
    scores = score_baselines(task, train, evaluated, numbers(0))
    assert list(scores) == ["last input value", "training mean"]
    for step in (0, 5, 11):
        assert scores["last input value"][f"pressure/t={step}/rmse"] == pytest.approx(step + 1, rel=1e-4)
        assert scores["training mean"][f"pressure/t={step}/rmse"] == pytest.approx(10, rel=1e-4)
    assert scores["last input value"]["pressure/rmse"] == pytest.approx((1 + 2 + 3 + 6 + 12) / 5, rel=1e-4)


def test_a_regression_needs_the_span_of_its_series(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("tasks: {storms: {title: S, kind: regression, splits: {train: digital_typhoon/train}}}")
    with pytest.raises(CallError, match=r"tasks\.storms: a regression needs `starts`"):
        load_task("storms", load_manifest(file))


def test_what_defines_score_and_loss_is_identified(task: Regression) -> None:
    changed = [replace(task, offset=1000.0), replace(task, n_inputs=6), replace(task, n_outputs=6)]
    identities = [dict(one.identity()) for one in (task, *changed)]
    assert all(identities.count(one) == 1 for one in identities)


def test_clips_counted_once_give_the_scores(task: Regression) -> None:
    generator = torch.Generator().manual_seed(0)
    future = 980 + 10 * torch.randn(6, task.n_outputs, generator=generator)
    per_clip = task.per_clip(torch.randn(6, task.n_outputs, generator=generator), {"future": future})
    assert task.scores(per_clip, np.ones(6)) == task.scores(per_clip)
    assert task.scores(per_clip)[task.score] > 0
    assert task.takes == "vector"
