"""Intervals: those of the bootstrap, computed once, none where a run kept no evidence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.manifest import load_manifest
from featcache.store.targets import Targets
from readouts.results import intervals
from readouts.results.bootstrap import interval, paired_difference, units_of
from readouts.results.intervals import Intervals, MeanOfSeeds
from readouts.results.run_folder import RunFolder
from readouts.tasks import load_task

MakeRow = Callable[..., dict[str, Any]]
CLIPS = np.arange(12)
VIDEOS = np.repeat(np.arange(4), 3).astype("<i4")


@pytest.fixture
def about(make_row: MakeRow, make_targets: Callable[..., Targets], tmp_path: Path) -> Any:
    """A task, targets of four videos, and two rows whose runs kept evidence on val."""
    task, rng = load_task("calms21", load_manifest()), np.random.default_rng(0)
    labels = np.eye(4, dtype=np.uint8)[np.arange(12) % 4]
    targets = make_targets(12, labels=labels, video=VIDEOS)
    rows = [make_row(run=run, task="calms21") for run in "ab"]
    evidence = []
    for noise, row in zip((0.5, 2.0), rows, strict=True):
        metric = task.metric()
        outputs = (labels + rng.normal(scale=noise, size=(12, 4))).astype(np.float32)
        metric.update(torch.from_numpy(outputs), {"labels": torch.from_numpy(labels)})
        evidence.append(metric.evidence())
        folder = RunFolder.of(tmp_path, row).path
        folder.mkdir(parents=True)
        named = {f"linear/{name}": values for name, values in evidence[-1].items()}
        np.savez(folder / "evidence_val.npz", clips=CLIPS, **named)
    return task, targets, rows, evidence


def test_they_are_those_of_the_bootstrap(about: Any, tmp_path: Path) -> None:
    task, targets, rows, evidence = about
    found, units = Intervals(task, {"val": targets}, tmp_path), units_of(targets, CLIPS)
    assert units.n_units == 4
    assert found.of(rows[:1], "val") == interval(task, evidence[0], units)
    assert found.between(rows[:1], rows[1:], "val") == paired_difference(task, *evidence, units)


def test_that_of_several_seeds_is_of_their_mean(about: Any, tmp_path: Path) -> None:
    task, targets, rows, evidence = about
    both = {f"{i}/{name}": of for i, own in enumerate(evidence) for name, of in own.items()}
    scores = [task.score_of(own, np.ones(12)) for own in evidence]
    assert scores[0] != scores[1]
    assert MeanOfSeeds(task=task).score_of(both, np.ones(12)) == pytest.approx(np.mean(scores))
    found = Intervals(task, {"val": targets}, tmp_path).of(rows, "val")
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx(np.mean(scores))


def test_they_are_computed_once(about: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, targets, rows, _ = about
    first = Intervals(task, {"val": targets}, tmp_path)
    wanted = first.of(rows, "val"), first.between(rows[:1], rows[1:], "val")
    first.keep()
    monkeypatch.delattr(intervals, "paired_evidence")
    again = Intervals(task, {"val": targets}, tmp_path)
    assert (again.of(rows, "val"), again.between(rows[:1], rows[1:], "val")) == wanted


def test_there_are_none_without_evidence_or_targets(about: Any, make_row: MakeRow, tmp_path: Path) -> None:
    task, targets, rows, _ = about
    found = Intervals(task, {"val": targets}, tmp_path)
    without = [make_row(run="c", task="calms21")]
    assert found.of(rows[:1], "test") is None
    assert found.of(without, "val") is None
    assert found.between(rows[:1], without, "val") is None
    # Asked for three times in vain.
    assert [why.partition(" kept no evidence of")[0] for why in found.refusals] == ["run a", "run c", "run c"]
    assert Intervals(task, {}, tmp_path).of(rows[:1], "val") is None
