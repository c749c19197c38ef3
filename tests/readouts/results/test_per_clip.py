"""What runs keep on disk: written and read back a readout at a time, compared on the same clips only."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.errors import CallError, StoreError
from readouts.results.per_clip import (
    load_per_clip,
    paired_per_clip,
    read_predictions,
    write_per_clip,
    write_predictions,
)
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
    write_per_clip(folder, "val", np.array(clips), every)


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


IDS = pa.chunked_array([pa.array(["a", "b"]), pa.array(["c"])])


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (16, 4, 5, 3)])
def test_predictions_of_any_number_of_axes_come_back_bit_for_bit(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    folder = RunFolder(tmp_path / "deep" / "toy-abc")
    rng = np.random.default_rng(0)
    given = {kind: rng.normal(size=(3, *shape)).astype(np.float32) for kind in ("linear", "dpt")}
    write_predictions(folder, "val", np.array([4, 0, 9]), IDS, given)
    table, found = read_predictions(folder, "val")
    assert table.column("clip").to_pylist() == [4, 0, 9]
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    assert list(found) == ["linear", "dpt"]
    for kind, values in given.items():
        np.testing.assert_array_equal(found[kind], values, strict=True)
        assert found[kind].flags.writeable  # torch warns of memory that is not


def test_predictions_of_swapped_axes_keep_their_order(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(3, 2, 4).transpose(0, 2, 1)
    write_predictions(RunFolder(tmp_path), "val", np.arange(3), IDS, {"tracking": values})
    np.testing.assert_array_equal(read_predictions(RunFolder(tmp_path), "val")[1]["tracking"], values)


def test_predictions_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = folder.predictions("val")
    with pytest.raises(StoreError, match=r"val\.parquet cannot be read as predictions .*--again"):
        read_predictions(folder, "val")
    write_predictions(folder, "val", np.arange(3), IDS, {"linear": np.zeros((3, 2), np.float32)})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"val\.parquet cannot be read as predictions .*--again"):
        read_predictions(folder, "val")


def test_other_programs_read_predictions_as_lists(tmp_path: Path) -> None:
    write_predictions(RunFolder(tmp_path), "val", np.arange(3), IDS, {"linear": np.eye(3, dtype=np.float32)})
    rows = pq.read_table(tmp_path / "predictions_val.parquet").column("linear").to_pylist()
    assert [list(row) for row in rows] == np.eye(3).tolist()


def test_one_flipped_bit_of_statistics_is_noticed(
    tmp_path: Path, flips: Callable[..., Iterator[int]]
) -> None:
    keep(tmp_path, ROW, [3, 5], values=np.array([1.0, 2.0]))
    for _ in flips(RunFolder.of(tmp_path, ROW).per_clip("val"), 60):
        with pytest.raises(StoreError, match=r"evidence_val\.npz cannot be read as per-clip statistics"):
            load_per_clip(tmp_path, ROW, "val")
    assert load_per_clip(tmp_path, ROW, "val")[0].tolist() == [3, 5]


def test_one_flipped_bit_of_predictions_is_noticed(
    tmp_path: Path, flips: Callable[..., Iterator[int]]
) -> None:
    folder = RunFolder(tmp_path)
    write_predictions(folder, "val", np.arange(3), IDS, {"linear": np.ones((3, 2), np.float32)})
    for _ in flips(folder.predictions("val"), 60):
        with pytest.raises(StoreError, match=r"predictions_val\.parquet cannot be read as predictions"):
            read_predictions(folder, "val")
    assert read_predictions(folder, "val")[1]["linear"].sum() == 6


def test_files_of_another_run_or_split_are_refused(tmp_path: Path) -> None:
    other = {**ROW, "run": "def"}
    ours, theirs = RunFolder.of(tmp_path, ROW), RunFolder.of(tmp_path, other)
    keep(tmp_path, ROW, [3], values=np.ones(1))
    keep(tmp_path, other, [3], values=np.zeros(1))
    write_predictions(theirs, "val", np.arange(3), IDS, {"linear": np.zeros((3, 2), np.float32)})
    shutil.copy(theirs.per_clip("val"), ours.per_clip("val"))
    shutil.copy(theirs.predictions("val"), ours.predictions("val"))
    with pytest.raises(StoreError, match=r"evidence_val\.npz .*\(is of run def\)"):
        load_per_clip(tmp_path, ROW, "val")
    with pytest.raises(StoreError, match=r"predictions_val\.parquet .*\(is of run def\)"):
        read_predictions(ours, "val")
    shutil.copy(theirs.per_clip("val"), theirs.per_clip("test"))
    with pytest.raises(StoreError, match=r"evidence_test\.npz .*\(is of role val\)"):
        load_per_clip(tmp_path, other, "test")


def test_pipes_are_neither_statistics_nor_predictions(tmp_path: Path) -> None:
    folder = RunFolder.of(tmp_path, ROW)
    folder.path.mkdir(parents=True)
    for file in (folder.per_clip("val"), folder.predictions("val")):
        os.mkfifo(file)
    with pytest.raises(StoreError, match="not a regular file"):
        load_per_clip(tmp_path, ROW, "val")
    with pytest.raises(StoreError, match="not a regular file"):
        read_predictions(folder, "val")


def test_predictions_of_before_are_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_predictions(folder, "val", np.arange(3), IDS, {"linear": np.ones((3, 2), np.float32)})
    table = pq.read_table(folder.predictions("val")).replace_schema_metadata(None)
    pq.write_table(table, folder.predictions("val"))
    assert read_predictions(folder, "val")[1]["linear"].sum() == 6
