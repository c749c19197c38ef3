"""Statistics on disk: written and read back a readout at a time, compared on the same clips only."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CallError, StoreError
from readouts.results.per_clip import load_per_clip, paired_per_clip, write_per_clip
from readouts.results.run_folder import RunFolder

ROW = {
    "run": "abc", "task": "toy", "backbone": "resize", "readout": "linear", "metric": "mean_AP",
    "targets": json.dumps({"val": "f00"}),
}  # fmt: skip


def keep(results_dir: Path, row: Mapping[str, Any], clips: list[int], **linear: np.ndarray) -> None:
    """Statistics of a linear readout on val, and of another one."""
    folder = RunFolder.of(results_dir, row)
    folder.path.mkdir(parents=True, exist_ok=True)
    every = {"linear": linear, "attention": {"values": np.zeros(len(clips))}}
    write_per_clip(folder.per_clip("val"), np.array(clips), every)


def test_statistics_are_read_back_a_readout_at_a_time(tmp_path: Path) -> None:
    keep(tmp_path, ROW, [3, 5], values=np.array([1.0, 2.0]))
    clips, per_clip = load_per_clip(tmp_path, ROW, "val")
    assert clips.tolist() == [3, 5]
    assert {name: rows.tolist() for name, rows in per_clip.items()} == {"values": [1.0, 2.0]}
    with pytest.raises(StoreError, match="nothing of readout dpt"):
        load_per_clip(tmp_path, {**ROW, "readout": "dpt"}, "val")
    with pytest.raises(
        StoreError, match=r"no statistics of single clips of test: .*evidence_test\.npz is missing"
    ):
        load_per_clip(tmp_path, ROW, "test")
    for role in ("tst", "train"):
        with pytest.raises(CallError, match=f"role '{role}': runs are scored on val or test"):
            load_per_clip(tmp_path, ROW, role)


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_told(tmp_path: Path, damage: bytes) -> None:
    keep(tmp_path, ROW, [1], values=np.zeros(1))
    (tmp_path / "toy" / "resize-abc" / "evidence_val.npz").write_bytes(damage)
    with pytest.raises(StoreError, match="cannot be read as per-clip statistics"):
        load_per_clip(tmp_path, ROW, "val")


def test_rows_of_other_clips_are_told(tmp_path: Path) -> None:
    keep(tmp_path, ROW, [1, 2], values=np.zeros(3))
    with pytest.raises(StoreError, match=r"evidence_val\.npz has other rows than its 2 clips: train with"):
        load_per_clip(tmp_path, ROW, "val")


def test_a_file_that_was_written_as_evidence_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "toy" / "resize-abc"
    folder.mkdir(parents=True)
    ranks, labels = np.array([[1], [0]], np.int32), np.array([[0], [1]], np.uint8)
    arrays = {"linear/ranks": ranks, "linear/labels": labels}
    np.savez(folder / "evidence_val.npz", clips=np.array([4, 6]), **arrays)
    clips, per_clip = load_per_clip(tmp_path, ROW, "val")
    assert clips.tolist() == [4, 6]
    np.testing.assert_array_equal(per_clip["ranks"], ranks)
    np.testing.assert_array_equal(per_clip["labels"], labels)


def test_only_what_was_scored_on_the_same_clips_is_compared(tmp_path: Path) -> None:
    other = {**ROW, "run": "def"}
    keep(tmp_path, ROW, [3, 5], values=np.array([1.0, 2.0]))
    keep(tmp_path, other, [3, 5], values=np.array([0.0, 2.0]))
    clips, a, b = paired_per_clip(tmp_path, ROW, other, "val")
    assert (clips.tolist(), a["values"].tolist(), b["values"].tolist()) == ([3, 5], [1.0, 2.0], [0.0, 2.0])
    with pytest.raises(StoreError, match="on 2 and 2 clips of val, none of them the same"):
        paired_per_clip(tmp_path, ROW, {**other, "targets": json.dumps({"val": "ba4"})}, "val")
    keep(tmp_path, other, [5, 6, 7], values=np.zeros(3))
    with pytest.raises(StoreError, match="on 2 and 3 clips of val, 1 of them the same"):
        paired_per_clip(tmp_path, ROW, other, "val")
    with pytest.raises(CallError, match="role 'tst': runs are scored on val or test"):
        paired_per_clip(tmp_path, ROW, other, "tst")
    with pytest.raises(CallError, match="have task 'toy' and 'fly': only runs of one task"):
        paired_per_clip(tmp_path, ROW, {**other, "task": "fly"}, "val")
