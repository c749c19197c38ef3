"""Intervals: those of the bootstrap, computed once, none where a run kept no statistics."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.manifest import load_manifest
from featcache.store.targets import Targets
from readouts.results.per_clip import write_per_clip
from readouts.results.run_folder import RunFolder
from readouts.results.significance import kept
from readouts.results.significance.bootstrap import (
    Clusters,
    MeanScore,
    Resampled,
    WeightedScore,
    clusters_of,
    interval,
    resampled,
)
from readouts.results.significance.differences import paired_difference
from readouts.results.significance.kept import Intervals
from readouts.tasks import load_task

MakeRow = Callable[..., dict[str, Any]]
CLIPS = np.arange(12)
VIDEOS = np.repeat(np.arange(4), 3).astype("<i4")


@pytest.fixture
def about(make_row: MakeRow, make_targets: Callable[..., Targets], tmp_path: Path) -> Any:
    """A task, targets of four videos, and two rows whose runs kept statistics of val, and their scores."""
    task, rng = load_task("calms21", load_manifest()), np.random.default_rng(0)
    labels = np.eye(4, dtype=np.uint8)[np.arange(12) % 4]
    targets = make_targets(12, labels=labels, video=VIDEOS)
    rows = [make_row(run=run, task="calms21") for run in "ab"]
    scores = []
    for noise, row in zip((0.5, 2.0), rows, strict=True):
        outputs = (labels + rng.normal(scale=noise, size=(12, 4))).astype(np.float32)
        batch = task.per_clip(torch.from_numpy(outputs), {"labels": torch.from_numpy(labels)})
        per_clip = task.join([batch])
        scores.append(MeanScore(task, [per_clip]))
        row["val"] = scores[-1](np.ones(12))
        folder = RunFolder.of(tmp_path, row)
        folder.path.mkdir(parents=True)
        write_per_clip(folder, "val", CLIPS, {"linear": per_clip})
    return task, targets, rows, scores


def test_they_are_those_of_the_bootstrap(about: Any, tmp_path: Path) -> None:
    task, targets, rows, scores = about
    found, clusters = Intervals(task, {"val": targets}, tmp_path), clusters_of(targets, CLIPS)
    assert len(clusters) == 4
    ours, wanted = found.of(rows[:1], "val"), interval(scores[0], clusters).of_score("mean_AP")
    assert ours is not None
    # Kept in float32.
    assert (ours.low, ours.high) == pytest.approx((wanted.low, wanted.high), rel=1e-6)
    both, alone = found.between(rows[:1], rows[1:], "val"), paired_difference(*scores, clusters)
    assert both is not None
    assert (both.value, both.flips) == (alone.value, alone.flips)
    assert (both.interval.low, both.interval.high) == pytest.approx(
        (alone.interval.low, alone.interval.high), rel=1e-5
    )


def test_several_at_once_can_be_subtracted_and_one_without_statistics_is_left_out(
    about: Any, make_row: MakeRow, tmp_path: Path
) -> None:
    task, targets, rows, _ = about
    found = Intervals(task, {"val": targets}, tmp_path)
    without = make_row(run="c", task="calms21")
    places, (first, second) = found.together([rows[:1], [without], rows[1:]], "val")
    wanted = found.between(rows[:1], rows[1:], "val")
    assert places == [0, 2]
    assert wanted is not None
    assert (first - second).interval() == wanted.interval


def test_another_score_has_its_own(about: Any, tmp_path: Path) -> None:
    task, targets, rows, scores = about
    found = Intervals(task, {"val": targets}, tmp_path)
    twice = found.of_score(rows[0], "val", "twice", lambda _: lambda weights: 2 * scores[0](weights), CLIPS)
    once = interval(scores[0], clusters_of(targets, CLIPS))
    assert twice is not None
    assert (twice.low, twice.high) == pytest.approx((2 * once.low, 2 * once.high))
    assert found.of_score(rows[0], "test", "twice", lambda _: scores[0], CLIPS) is None


def test_none_reaches_beyond_what_its_score_can_be(about: Any, tmp_path: Path) -> None:
    task, targets, rows, scores = about
    found = Intervals(task, {"val": targets}, tmp_path)
    near = {"low": lambda w: 0.1 * scores[1](w), "high": lambda w: 1 - 0.1 * scores[1](w)}
    for score in near.values():
        free = found.of_score(rows[1], "val", f"free {id(score)}", lambda _, of=score: of, CLIPS)
        assert free is not None
        shown = free.of_score("macro_F1")
        assert (shown.low, shown.high) == (max(0.0, free.low), min(1.0, free.high))
    wide = replace(free, low=-0.2, high=1.3)
    for name, ends in (("mean_AP", (0.0, 1.0)), ("pressure/rmse", (0.0, 1.3)), ("mine", (-0.2, 1.3))):
        assert (wide.of_score(name).low, wide.of_score(name).high) == ends
    # What a page shows of a task's own score is bounded, too: few clusters make it reach far.
    low = found.of(rows[1:], "val")
    assert low is not None
    assert 0.0 <= low.low <= low.high <= 1.0


def test_that_of_several_seeds_is_of_their_mean(about: Any, tmp_path: Path) -> None:
    task, targets, rows, scores = about
    values = [score(np.ones(12)) for score in scores]
    assert values[0] != values[1]
    found = Intervals(task, {"val": targets}, tmp_path).of(rows, "val")
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx(np.mean(values))


def test_they_are_computed_once(about: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, targets, rows, _ = about
    first = Intervals(task, {"val": targets}, tmp_path)
    wanted = first.of(rows, "val"), first.between(rows[:1], rows[1:], "val")
    first.keep()
    monkeypatch.delattr(kept, "load_per_clip")
    again = Intervals(task, {"val": targets}, tmp_path)
    assert (again.of(rows, "val"), again.between(rows[:1], rows[1:], "val")) == wanted


def test_there_are_none_without_statistics_or_targets(about: Any, make_row: MakeRow, tmp_path: Path) -> None:
    task, targets, rows, _ = about
    found = Intervals(task, {"val": targets}, tmp_path)
    without = [make_row(run="c", task="calms21")]
    assert found.of(rows[:1], "test") is None
    assert found.of(without, "val") is None
    assert found.between(rows[:1], without, "val") is None
    # Asked for three times in vain.
    assert [why.partition(" kept no statistics of")[0] for why in found.refusals] == [
        "run a",
        "run c",
        "run c",
    ]
    assert Intervals(task, {}, tmp_path).of(rows[:1], "val") is None


def test_each_split_has_its_own_interval(about: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "RESAMPLES", 50)
    task, targets, rows, _ = about
    labels, rng = np.eye(4, dtype=np.uint8)[np.arange(12) % 4], np.random.default_rng(1)
    for noise, row in zip((1.5, 0.8), rows, strict=True):
        outputs = (labels + rng.normal(scale=noise, size=(12, 4))).astype(np.float32)
        per_clip = task.join([task.per_clip(torch.from_numpy(outputs), {"labels": torch.from_numpy(labels)})])
        row["test"] = task.scores(per_clip)[task.score]
        write_per_clip(RunFolder.of(tmp_path, row), "test", CLIPS, {"linear": per_clip})
    first = Intervals(task, {"val": targets, "test": targets}, tmp_path)
    wanted = {
        role: (first.of(rows, role), first.between(rows[:1], rows[1:], role)) for role in ("val", "test")
    }
    for val, test in zip(wanted["val"], wanted["test"], strict=True):
        assert val is not None and test is not None and val != test
    # Of a row and of its twin, of a difference and of the one the other way round, too.
    assert first.of(rows[:1], "val") != first.of(rows[1:], "val")
    ahead, behind = first.between(rows[:1], rows[1:], "val"), first.between(rows[1:], rows[:1], "val")
    assert ahead is not None and behind is not None and ahead.value == -behind.value != 0
    first.keep()
    again = Intervals(task, {"val": targets, "test": targets}, tmp_path)
    for role in ("test", "val"):
        assert (again.of(rows, role), again.between(rows[:1], rows[1:], role)) == wanted[role]


@pytest.mark.parametrize("changed", [{"run": "b"}, {"finished": "later"}, {"targets": '{"val": null}'}])
def test_another_training_has_its_own_interval(
    about: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    task, targets, rows, _ = about
    found, asked = Intervals(task, {"val": targets}, tmp_path), []

    def counted(score: WeightedScore, clusters: Clusters, **_: object) -> Resampled:
        asked.append(score)
        return resampled(score, clusters, n=10)

    monkeypatch.setattr(kept, "resampled", counted)
    twin = {**rows[0], "val": rows[1]["val"]} if "run" in changed else rows[0]
    for row in (rows[0], dict(rows[0]), {**twin, **changed}):
        found.of([row], "val")
    assert len(asked) == 2, "once for the row, and once for what is not it"


def test_a_row_on_other_clips_or_another_score_has_none(about: Any, tmp_path: Path) -> None:
    task, targets, rows, _ = about
    found = Intervals(task, {"val": targets}, tmp_path)
    assert found.of([{**rows[0], "targets": '{"val": "other"}'}], "val") is None
    # The task's file was edited since: what it counts now is no interval of what it counted then.
    assert found.of([{**rows[0], "val": 0.123}], "val") is None
    assert ["on other clips or labels of val" in why for why in found.refusals] == [True, False]
    assert "has val 0.1230 in the table, and its statistics give" in found.refusals[1]
