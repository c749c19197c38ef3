"""The classification task: its loss, its scores, its baseline, against numbers worked out by hand."""

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError, StoreError
from featcache.manifest import load_manifest
from readouts.results.baselines import score_baselines
from readouts.tasks import load_task
from readouts.tasks.base import Recipe


def test_the_benchmarks_settings() -> None:
    fly, mouse = (load_task(name, load_manifest()) for name in ("flyvsfly", "calms21"))
    assert fly.recipe.weight_decay == 0.0
    assert mouse.recipe == Recipe()
    assert (mouse.recipe.steps, mouse.recipe.batch, mouse.recipe.lr) == (40_000, 32, 3e-4)
    assert (fly.head_config("attention")["width"], mouse.head_config("attention")["width"]) == (128, 1024)
    assert fly.head_config("linear") == {}
    assert (fly.n_outputs, mouse.n_outputs) == (7, 4)


def test_the_loss_of_no_opinion_is_log_two() -> None:
    task = load_task("calms21", load_manifest())
    targets = {"labels": torch.tensor([[1, 0, 0, 1], [0, 0, 0, 1]], dtype=torch.uint8)}
    assert float(task.loss(torch.zeros(2, 4), targets)) == pytest.approx(log(2))


def test_the_baseline_scores_the_positive_rate_without_background(make_targets) -> None:
    task = load_task("calms21", load_manifest())
    train = make_targets(2, labels=np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.uint8))
    labels = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]], np.uint8)
    scores = score_baselines(task, train, make_targets(5, "val", labels=labels), np.arange(5))[
        "label frequency"
    ]
    # A constant prediction has the positive rate as its precision: 1/5, 2/5, none (counts 0), and the
    # background's 2/5, which would make it 0.25.
    assert scores["mean_AP"] == pytest.approx((0.2 + 0.4 + 0.0) / 3)
    assert [scores[f"{name}_AP"] for name in task.output_names] == pytest.approx([0.2, 0.4, 0.0, 0.4])


def test_labels_of_other_classes_are_refused(make_targets) -> None:
    task = load_task("calms21", load_manifest())
    first = np.arange(1)
    with pytest.raises(StoreError, match="have 7 columns, but task calms21 has 4 outputs"):
        task.select(make_targets(2, labels=np.zeros((2, 7), np.uint8)), first, first, None)
    with pytest.raises(StoreError, match="have no columns"):
        task.select(make_targets(2, "other", event=np.zeros(2)), first, first, None)


def test_the_rare_classes_leave_a_second_mean() -> None:
    """Clip i is of class i, and of each class only so many others are thought likelier: AP is 1 / rank."""
    task = load_task("flyvsfly", load_manifest())
    labels = torch.eye(7, dtype=torch.uint8)
    outputs = torch.zeros(7, 7)
    for clip, rank in enumerate((2, 1, 4, 3, 5, 1, 7)):
        outputs[clip, clip] = 5.0
        outputs[[i for i in range(7) if i != clip][: rank - 1], clip] = 9.0
    scores = task.scores(task.join([task.per_clip(outputs, {"labels": labels})]))
    each = [scores[f"{name}_AP"] for name in task.output_names]
    assert each == pytest.approx([1 / 2, 1, 1 / 4, 1 / 3, 1 / 5, 1, 1 / 7])
    assert scores["mean_AP"] == pytest.approx((1 / 2 + 1 + 1 / 4 + 1 / 3 + 1 / 5 + 1) / 6)
    without = "mean_AP_when_skipping_classes:wing_threat,tussling"
    assert scores[without] == pytest.approx((1 / 2 + 1 / 3 + 1 / 5 + 1) / 4)


def test_a_manifests_own_classification_needs_no_code(tmp_path: Path) -> None:
    manifest = tmp_path / "mine.yaml"
    manifest.write_text("""
datasets:
  cages: {title: C, source: s, licence: l, citation: c, version: "1", reader: video_file,
          classes: [dig, rest], splits: {all: {files: "*.mp4"}}}
tasks:
  cages: {title: C, kind: classification, splits: {train: cages/all, val: cages/all}}
  looking: {title: L, kind: features, splits: {all: cages/all}}
""")
    loaded = load_manifest(manifest)
    assert load_task("cages", loaded).output_names == ("dig", "rest")
    with pytest.raises(CallError, match="'features', which has no readout"):
        load_task("looking", loaded)


def test_a_users_own_task_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own_task.py"
    file.write_text(
        "from featcache.manifest import load_manifest\n"
        "from readouts.tasks import load_task\n"
        "TASK, OTHER = load_task('flyvsfly', load_manifest()), 3\n"
    )
    assert load_task(f"{file}:TASK", load_manifest()).name == "flyvsfly"
    with pytest.raises(CallError, match="OTHER lacks name, recipe, readouts, n_outputs"):
        load_task(f"{file}:OTHER", load_manifest())
    with pytest.raises(CallError, match="no Python file"):
        load_task(f"{tmp_path}/absent.py:TASK", load_manifest())


def test_clips_count_as_often_as_they_are_weighted() -> None:
    task = load_task("flyvsfly", load_manifest())
    rng = np.random.default_rng(0)
    labels = torch.from_numpy((rng.random((40, 7)) < 0.3).astype(np.uint8))
    outputs = torch.from_numpy(rng.normal(size=(40, 7)).astype(np.float32))
    batches = [task.per_clip(outputs[part], {"labels": labels[part]}) for part in (slice(25), slice(25, 40))]
    per_clip = task.join(batches)
    assert {name: rows.shape for name, rows in per_clip.items()} == {"ranks": (40, 7), "labels": (40, 7)}
    assert task.scores(per_clip, np.ones(40)) == task.scores(per_clip)
    counts = rng.integers(4, size=40)
    repeated = [rows.repeat_interleave(torch.from_numpy(counts), dim=0) for rows in (outputs, labels)]
    expected = task.scores(task.join([task.per_clip(repeated[0], {"labels": repeated[1]})]))
    assert task.scores(per_clip, counts.astype(np.float64)) == pytest.approx(expected, rel=1e-12)
    assert task.takes == "vector"
