"""A run's folder: where things lie, that one process holds it, that it is emptied as a whole; its curve."""

from pathlib import Path

import pytest

from featcache.errors import StoreError
from readouts.results.run_folder import Curve, RunFolder, read_curve


def test_things_lie_where_every_version_looks_for_them(tmp_path: Path) -> None:
    folder = RunFolder.of(tmp_path, {"task": "stir", "backbone": "vjepa_h", "run": "0123456789ab", "val": 1})
    assert folder.path == tmp_path / "stir" / "vjepa_h-0123456789ab"
    files = (folder.state, folder.curve, folder.predictions("val"), folder.per_clip("test"))
    assert [file.name for file in files] == [
        "last.safetensors", "history.jsonl", "predictions_val.parquet", "evidence_test.npz",
    ]  # fmt: skip
    assert {file.parent for file in files} == {folder.path}


def test_one_process_holds_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    assert not folder.is_held()
    lock = folder.hold()
    assert folder.is_held()
    with pytest.raises(StoreError, match="is being trained by another process"):
        folder.hold()
    lock.release()
    assert not folder.is_held()
    assert list(folder.path.iterdir()) == []


def test_what_a_run_left_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    left = (folder.state, folder.curve, folder.predictions("val"), folder.per_clip("test"))
    for file in (*left, tmp_path / "best_dpt.safetensors", tmp_path / "notes.txt"):
        file.write_text("x")
    folder.forget()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_curve_is_cut_back_to_the_step_that_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    Curve(path, 0).add([{"step": step, "loss": 1.0 / (step + 1)} for step in (0, 100, 200)])
    resumed = Curve(path, upto_step=100)
    resumed.add([{"step": 150}])
    assert [row["step"] for row in read_curve(path)] == [0, 100, 150]


def test_a_damaged_curve_is_named(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text('{"step": 0}\n{"st')
    with pytest.raises(StoreError, match=r"h\.jsonl cannot be read as a curve"):
        read_curve(tmp_path / "h.jsonl")
