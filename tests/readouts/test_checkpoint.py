"""Checkpoints come back bit for bit; a curve is cut back to its checkpoint; damage is named."""

import os
from pathlib import Path

import pytest
import torch

from featcache.errors import StoreError
from readouts.checkpoint import History, load_state, read_history, save_state


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
