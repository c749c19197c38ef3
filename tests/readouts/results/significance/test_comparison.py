"""Two configurations in words: what `scivid compare` prints, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.manifest import load_manifest
from featcache.store.targets import Targets
from readouts.results.configurations import configurations
from readouts.results.per_clip import write_per_clip
from readouts.results.run_folder import RunFolder
from readouts.results.significance.comparison import UNKNOWN, Comparison, common_role, compared
from readouts.results.significance.differences import SELECTED
from readouts.tasks import load_task

MakeRow = Callable[..., dict[str, Any]]
N = 40


def compare(
    make_row: MakeRow, make_targets: Callable[..., Targets], folder: Path, *, videos: int, role: str = "val"
) -> tuple[Comparison, list[dict[str, Any]]]:
    task, rng = load_task("calms21", load_manifest()), np.random.default_rng(0)
    labels = np.eye(4, dtype=np.uint8)[np.arange(N) % 4]
    targets = make_targets(N, labels=labels, video=(np.arange(N) % videos).astype("<i4"))
    rows = []
    for readout, noise in (("linear", 0.4), ("attention", 1.5)):
        for seed in range(2):
            row = make_row(run=f"{readout}{seed}", task="calms21", readout=readout, seed=seed)
            outputs = torch.from_numpy((labels + rng.normal(scale=noise, size=(N, 4))).astype(np.float32))
            per_clip = task.join([task.per_clip(outputs, {"labels": torch.from_numpy(labels)})])
            row["val"] = task.scores(per_clip)["mean_AP"]
            RunFolder.of(folder, row).path.mkdir(parents=True)
            write_per_clip(RunFolder.of(folder, row), "val", np.arange(N), {readout: per_clip})
            rows.append(row)
    first, second = configurations(rows)
    found = compared(first, second, role, task=task, targets=targets, results_dir=folder, resamples=200)
    return found, rows


def test_means_over_seeds_their_difference_and_the_verdict(
    make_row: MakeRow, make_targets: Callable[..., Targets], tmp_path: Path
) -> None:
    found, rows = compare(make_row, make_targets, tmp_path, videos=8)
    mean = [np.mean([row["val"] for row in rows[i : i + 2]]) for i in (0, 2)]
    assert found.first.startswith(f"{mean[0]:.3f} ± ")
    assert "(2 seeds), " in found.first and "(95 %, 8 videos)" in found.first
    assert found.difference.startswith(f"{mean[0] - mean[1]:+.4g}, ")
    assert (found.verdict, found.higher_is_better) == (SELECTED, True)


def test_without_enough_videos_there_is_a_difference_and_no_verdict(
    make_row: MakeRow, make_targets: Callable[..., Targets], tmp_path: Path
) -> None:
    found, rows = compare(make_row, make_targets, tmp_path, videos=2)
    assert found.verdict == UNKNOWN
    assert "; no interval: 40 clips are of two of the videos" in found.first
    assert float(found.difference) == pytest.approx(
        np.mean([r["val"] for r in rows[:2]]) - np.mean([r["val"] for r in rows[2:]]), abs=1e-3
    )


def test_a_split_that_was_not_scored_is_refused(
    make_row: MakeRow, make_targets: Callable[..., Targets], tmp_path: Path
) -> None:
    with pytest.raises(CallError, match=r"toy linear was not scored on test: .*--test"):
        compare(make_row, make_targets, tmp_path, videos=8, role="test")


def test_the_split_is_test_where_both_have_it_and_one_that_runs_are_scored_on(make_row: MakeRow) -> None:
    both = configurations([make_row(run=readout, readout=readout, test=0.5) for readout in "ab"])
    (alone,) = configurations([make_row(run="c", readout="c")])
    assert common_role(*both) == "test"
    assert common_role(both[0], alone) == common_role(*both, "val") == "val"
    with pytest.raises(CallError, match="--role train: runs are scored on val or test, name one of them"):
        common_role(*both, "train")
    with pytest.raises(CallError, match="toy c was not scored on test"):
        common_role(both[0], alone, "test")
