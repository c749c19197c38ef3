"""What can go of a results folder: old weights and leftovers; a run in training is left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from readouts.results.cleaning import removable_of
from readouts.results.run_folder import RunFolder
from readouts.results.table import add_run

MakeRow = Callable[..., dict[str, Any]]


def folder_of(row: dict[str, Any], results_dir: Path) -> RunFolder:
    folder = RunFolder.of(results_dir, row)
    folder.path.mkdir(parents=True)
    for name in ("last.safetensors", "best_linear.safetensors", "history.jsonl"):
        (folder.path / name).write_bytes(b"12345")
    return folder


def test_weights_of_ended_runs_go_when_asked_and_those_of_others_never(
    make_row: MakeRow, tmp_path: Path
) -> None:
    ended, held = (make_row(run=run * 12) for run in "ab")
    folders = [folder_of(row, tmp_path) for row in (ended, held, make_row(run="c" * 12))]
    for row in (ended, held):
        add_run(tmp_path, row["run"], [row])
    lock = folders[1].hold()
    try:
        assert [path.name for path in removable_of(tmp_path)] == ["best_linear.safetensors"]
        found = removable_of(tmp_path, weights=True)
    finally:
        lock.release()
    assert [*found] == [folders[0].path / name for name in ("best_linear.safetensors", "last.safetensors")]


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert removable_of(tmp_path / "none") == {}
