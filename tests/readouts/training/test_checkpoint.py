"""Checkpoints and predictions come back bit for bit; a curve is cut back to its checkpoint; damage is
named."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from featcache.errors import StoreError
from readouts.training.checkpoint import (
    History,
    forget,
    load_state,
    read_history,
    read_predictions,
    restore_training,
    save_state,
    training_state,
    write_predictions,
)
from readouts.training.optim import ReferenceAdamW

IDS = pa.chunked_array([pa.array(["a", "b"]), pa.array(["c"])])


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {"a/b": torch.randn(3, 4), "step": torch.tensor(7)}
    save_state(tmp_path / "deep" / "s.safetensors", tensors, step=7, decisions={"lr": 0.1})
    loaded, about = load_state(tmp_path / "deep" / "s.safetensors")
    assert about == {"step": 7, "decisions": {"lr": 0.1}}
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["s.safetensors"]


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_state(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"s\.safetensors cannot be read"):
        load_state(path)


def test_a_state_of_other_weights_is_refused() -> None:
    """What is missing in it would stay at its initial value, what is of one element fill a whole weight."""
    head = torch.nn.Linear(2, 3)
    optimizer = ReferenceAdamW(head.parameters(), schedule=lambda update: 1e-3)
    state = training_state(head, optimizer)
    for other in ({"weight/weight": state["weight/weight"]}, {**state, "weight/bias": torch.zeros(1)}):
        with pytest.raises(StoreError, match="heads of other weights"):
            restore_training(head, optimizer, other, 1)
    restore_training(head, optimizer, state, 1)
    assert optimizer.n_updates == 1


def test_a_curve_is_cut_back_to_the_step_that_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    History(path, 0).add([{"step": step, "loss": 1.0 / (step + 1)} for step in (0, 100, 200)])
    resumed = History(path, upto_step=100)
    resumed.add([{"step": 150}])
    assert [row["step"] for row in read_history(path)] == [0, 100, 150]


def test_a_state_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "s.safetensors", []
    fsync = os.fsync

    def listen(fd: int) -> None:
        synced.append((os.fstat(fd).st_size, path.exists()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", listen)
    save_state(path, {"a": torch.zeros(100)})
    assert (path.stat().st_size, False) in synced  # the bytes
    assert synced[-1][1]  # and then the name


def test_a_damaged_curve_is_named(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text('{"step": 0}\n{"st')
    with pytest.raises(StoreError, match=r"h\.jsonl cannot be read as a curve"):
        read_history(tmp_path / "h.jsonl")


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (16, 4, 5, 3)])
def test_predictions_of_any_number_of_axes_come_back_bit_for_bit(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "deep" / "p.parquet"
    rng = np.random.default_rng(0)
    given = {kind: rng.normal(size=(3, *shape)).astype(np.float32) for kind in ("linear", "dpt")}
    write_predictions(path, np.array([4, 0, 9]), IDS, given)
    table, found = read_predictions(path)
    assert table.column("clip").to_pylist() == [4, 0, 9]
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    assert list(found) == ["linear", "dpt"]
    for kind, values in given.items():
        np.testing.assert_array_equal(found[kind], values, strict=True)
        assert found[kind].flags.writeable  # torch warns of memory that is not


def test_predictions_of_swapped_axes_keep_their_order(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(3, 2, 4).transpose(0, 2, 1)
    write_predictions(tmp_path / "p.parquet", np.arange(3), IDS, {"tracking": values})
    np.testing.assert_array_equal(read_predictions(tmp_path / "p.parquet")[1]["tracking"], values)


def test_predictions_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(StoreError, match=r"p\.parquet cannot be read as predictions .*--again"):
        read_predictions(path)
    write_predictions(path, np.arange(3), IDS, {"linear": np.zeros((3, 2), np.float32)})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"p\.parquet cannot be read as predictions .*--again"):
        read_predictions(path)


def test_other_programs_read_predictions_as_lists(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", np.arange(3), IDS, {"linear": np.eye(3, dtype=np.float32)})
    rows = pq.read_table(tmp_path / "p.parquet").column("linear").to_pylist()
    assert [list(row) for row in rows] == np.eye(3).tolist()


def test_what_a_run_left_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    left = ("last.safetensors", "history.jsonl", "best_dpt.safetensors", "predictions_val.parquet")
    for name in (*left, "notes.txt"):
        (tmp_path / name).write_text("x")
    forget(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
