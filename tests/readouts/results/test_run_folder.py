"""A run's folder: where things lie, that one process holds it, that it is emptied as a whole; its curve."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featcache.errors import StoreError
from readouts.results.run_folder import Curve, RunFolder, read_curve, read_whole_curve


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
    Curve(path, []).add([{"step": step, "loss": 1.0 / (step + 1)} for step in (0, 100, 200)])
    resumed = Curve(path, [0, 100])
    resumed.add([{"step": 150}])
    assert [row["step"] for row in read_curve(path)] == [0, 100, 150]


def test_a_damaged_curve_is_named(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text('{"step": 0}\n{"st')
    with pytest.raises(StoreError, match=r"h\.jsonl cannot be read as a curve"):
        read_curve(tmp_path / "h.jsonl")


POINTS = [{"step": step, "readout": "linear", "mean_AP": 0.25 + step / 1000} for step in (0, 10, 20)]


def test_one_flipped_bit_of_a_curve_is_noticed(tmp_path: Path, flips: Callable[..., Iterator[int]]) -> None:
    Curve(tmp_path / "h.jsonl", []).add(POINTS)
    for _ in flips(tmp_path / "h.jsonl", 60):
        with pytest.raises(StoreError, match=r"h\.jsonl cannot be read as a curve"):
            read_curve(tmp_path / "h.jsonl")
    assert read_curve(tmp_path / "h.jsonl") == POINTS


def test_every_line_of_a_sealed_curve_is_a_point_to_any_program(tmp_path: Path) -> None:
    Curve(tmp_path / "h.jsonl", []).add(POINTS)
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert [line["mean_AP"] for line in lines] == [point["mean_AP"] for point in POINTS]


def test_a_curve_of_another_run_is_refused(tmp_path: Path) -> None:
    Curve(tmp_path / "toy-abc" / "h.jsonl", []).add(POINTS)
    (tmp_path / "toy-abc").rename(tmp_path / "toy-def")
    with pytest.raises(StoreError, match=r"h\.jsonl cannot be read as a curve \(is of another run\)"):
        read_curve(tmp_path / "toy-def" / "h.jsonl")


@pytest.mark.parametrize("n", [0, 2])
def test_a_curve_that_ends_before_its_run_is_not_whole(tmp_path: Path, n: int) -> None:
    Curve(tmp_path / "h.jsonl", []).add(POINTS[:n])
    with pytest.raises(StoreError, match=r"h\.jsonl does not reach the last step, 20"):
        read_whole_curve(tmp_path / "h.jsonl", 20)


def test_a_curve_cut_at_a_line_is_not_gone_on_from(tmp_path: Path) -> None:
    """Of before curves were sealed: nothing else tells."""
    path = tmp_path / "h.jsonl"
    path.write_text("".join(json.dumps(point) + "\n" for point in POINTS[:2]))
    with pytest.raises(StoreError, match=r"h\.jsonl lacks the points of steps 20, .*Delete both"):
        Curve(path, [0, 10, 20])
    assert Curve(path, [0, 10]).points == POINTS[:2]


def test_a_run_that_begins_anew_is_not_kept_from_it_by_a_damaged_curve(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text("{")
    Curve(tmp_path / "h.jsonl", []).add(POINTS)
    assert read_curve(tmp_path / "h.jsonl") == POINTS


@pytest.mark.parametrize("content", [None, b"3\n", b'{"step": "0"}\n', b'{"a":' * 50_000, b"\xff\n"])
def test_what_is_no_curve_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "h.jsonl"
    os.mkfifo(path) if content is None else path.write_bytes(content)
    with pytest.raises(StoreError, match=r"h\.jsonl cannot be read as a curve"):
        read_curve(path)


def test_a_lock_that_is_a_pipe_is_nobodys(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    assert not RunFolder(tmp_path).is_held()
