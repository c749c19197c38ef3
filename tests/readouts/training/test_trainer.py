"""A run in training: what it refuses, and that its checkpoint gives back every bit."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import StoreError, TrainingError
from readouts.features.batches import Batch
from readouts.results.run_folder import RunFolder
from readouts.tasks.classification import Classification
from readouts.training.arithmetic import training_arithmetic
from readouts.training.optim import ReferenceAdamW
from readouts.training.run import Run
from readouts.training.step import build_preparation, take_step
from readouts.training.trainer import Trainer, checkpoint_tensors, load_state, restore, save_state

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> Batch:
    tokens = torch.randn(4, 2, 4, 8, generator=torch.Generator().manual_seed(0)).half()
    return Batch(clips=np.arange(4), tokens=tokens, targets={"labels": torch.ones(4, 7)})


def test_a_loss_that_is_no_number_is_refused(run: Run, batch: Batch, tmp_path: Path) -> None:
    trainer = Trainer(run, RunFolder(tmp_path), CPU)
    trainer.refuse_divergence()
    with torch.no_grad():
        trainer.state.heads["attention"].classifier.bias.fill_(torch.inf)
    (losses,) = take_step([trainer.state], build_preparation(run)(batch.tokens), batch.targets)
    trainer.remember(losses)
    with pytest.raises(TrainingError, match=r"loss of attention .* seed 3, is no number before step 1"):
        trainer.refuse_divergence()


@pytest.mark.parametrize(("higher_is_better", "step", "value"), [(True, 20, 7.0), (False, 30, 3.0)])
def test_the_best_point_of_a_curve_is_the_highest_or_the_lowest(
    run: Run, tmp_path: Path, higher_is_better: bool, step: int, value: float
) -> None:
    assert isinstance(run.task, Classification)
    task = replace(run.task, higher_is_better=higher_is_better)
    trainer = Trainer(replace(run, task=task), RunFolder(tmp_path), CPU)
    points = {"linear": (5.0, 7.0, 3.0, 4.0), "attention": (9.0, 9.0, 0.0, 9.0)}
    trainer.curve.add(
        {"step": 10 * (i + 1), "readout": kind, "mean_AP": score, "train_loss": -score}
        for kind, scores in points.items()
        for i, score in enumerate(scores)
    )
    found = trainer.learned()
    assert (found["linear"].best_step, found["linear"].best_val) == (step, value)
    assert found["attention"].best_step == (10 if higher_is_better else 30), "the first of equals"
    assert found["linear"].parameters == 8 * 7 + 7


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
    state = checkpoint_tensors(head, optimizer)
    for other in ({"weight/weight": state["weight/weight"]}, {**state, "weight/bias": torch.zeros(1)}):
        with pytest.raises(StoreError, match="heads of other weights"):
            restore(head, optimizer, other, 1)
    restore(head, optimizer, state, 1)
    assert optimizer.n_updates == 1


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


def test_one_flipped_bit_of_a_checkpoint_is_noticed(
    tmp_path: Path, flips: Callable[..., Iterator[int]]
) -> None:
    path = tmp_path / "s.safetensors"
    save_state(path, {"a": torch.arange(12.0)}, step=7)
    for _ in flips(path, 60):
        with pytest.raises(StoreError, match=r"s\.safetensors cannot be read as a checkpoint.*Delete it"):
            load_state(path)
    assert load_state(path)[1] == {"step": 7}


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.safetensors")
    with pytest.raises(StoreError, match="not a regular file"):
        load_state(tmp_path / "s.safetensors")


def test_a_checkpoint_of_another_run_is_refused(run: Run, tmp_path: Path) -> None:
    """Its weights fit, and the run would be recorded under this one's name."""
    other = replace(run, seed=run.seed + 1)
    for one in (run, other):
        Trainer(one, one.folder(tmp_path), CPU)._save()
    shutil.copy(other.folder(tmp_path).state, run.folder(tmp_path).state)
    with pytest.raises(StoreError, match=f"is the checkpoint of run {other.id}, and this is {run.id}"):
        Trainer(run, run.folder(tmp_path), CPU)


def test_a_checkpoint_without_its_curve_is_refused(run: Run, tmp_path: Path) -> None:
    """The best point would be the best of those that are to come."""
    Trainer(run, run.folder(tmp_path), CPU)._save()
    with pytest.raises(StoreError, match=r"history\.jsonl lacks the points of steps 0"):
        Trainer(run, run.folder(tmp_path), CPU)


def test_a_run_that_has_ended_keeps_its_weights_alone(run: Run, batch: Batch, tmp_path: Path) -> None:
    """A third of the bytes; they are all that scoring it on a further split reads."""
    short = replace(run, recipe=replace(run.recipe, steps=2, warmup=0))
    trainer = Trainer(short, RunFolder(tmp_path), CPU)
    n_bytes = sum(4 * weight.numel() for weight in trainer.state.heads.parameters())
    sizes = []
    for _ in range(2):
        take_step([trainer.state], build_preparation(short)(batch.tokens), batch.targets)
        trainer._save()
        sizes.append(trainer.folder.state.stat().st_size)
    during, ended = load_state(trainer.folder.state)[0], dict(trainer.state.heads.named_parameters())
    assert 3 * n_bytes < sizes[0] < 3 * n_bytes + 20_000
    assert n_bytes < sizes[1] < n_bytes + 10_000
    assert during.keys() == {f"weight/{name}" for name in ended}
    # As a run does that is scored on test later.
    trainer.folder.curve.write_bytes(b"")
    trainer.curve.add({"step": step, "readout": kind} for step in (0, 2) for kind in short.readouts)
    again = Trainer(short, RunFolder(tmp_path), CPU)
    assert again.was_trained
    for name, weight in again.state.heads.named_parameters():
        assert torch.equal(weight, ended[name])


def test_a_killed_run_goes_on_bit_for_bit(
    run: Run, batch: Batch, tmp_path: Path, device: torch.device
) -> None:
    """Dropout, moments and clip included."""
    clipped = replace(run, recipe=replace(run.recipe, clip_update=1e-3, warmup=0))
    prepare = build_preparation(clipped).to(device)
    tokens, targets = batch.tokens.to(device), {"labels": batch.targets["labels"].to(device)}

    def steps(trainer: Trainer, n: int) -> None:
        with training_arithmetic():
            for _ in range(n):
                take_step([trainer.state], prepare(tokens), targets)

    whole, killed = (Trainer(clipped, RunFolder(tmp_path / name), device) for name in ("whole", "killed"))
    steps(whole, 4)
    steps(killed, 2)
    killed.curve.add({"step": 0, "readout": kind} for kind in run.readouts)
    killed.curve.add({"step": 2, "readout": kind} for kind in run.readouts)
    killed._save()
    resumed = Trainer(clipped, killed.folder, device)
    assert resumed.step == 2
    steps(resumed, 2)
    expected = dict(whole.state.heads.named_parameters())
    assert all(torch.equal(weight, expected[name]) for name, weight in resumed.state.heads.named_parameters())
