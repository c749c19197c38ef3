"""What is kept in memory for a pass and the passes after it, from one budget; and what is read from disk."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.store.reading.layer_reader import LayerReader
from featcache.store.targets import Targets
from featcache.system.console import silent
from readouts.features import batches, preloading
from readouts.features.preloading import Preloads, preload_choice, usable_bytes
from readouts.features.splits import FeatureSplit
from readouts.results.run_folder import read_curve
from readouts.training.loop import train, train_together
from readouts.training.run import Run
from readouts.training.trainer import load_state

CPU = torch.device("cpu")
GB = 10**9


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Path, int]]]:
    """Every chunk that comes from a file: the store's path, and its number."""
    seen: list[tuple[Path, int]] = []
    plan = LayerReader._plan

    def counted(self: LayerReader, chunks: np.ndarray, **options: object) -> object:
        seen.extend((self.path, int(chunk)) for chunk in chunks)
        return plan(self, chunks, **options)

    monkeypatch.setattr(LayerReader, "_plan", counted)
    return seen


@pytest.fixture
def target_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file of targets that is opened."""
    seen: list[str] = []
    opened = Targets._opened
    monkeypatch.setattr(Targets, "_opened", lambda self, key: seen.append(key) or opened(self, key))
    return seen


def test_training_and_minival_read_the_disk_once_for_all_passes(
    run: Run, tmp_path: Path, chunks_read: list[tuple[Path, int]], target_files: list[str]
) -> None:
    run = replace(run, splits={role: of for role, of in run.splits.items() if role != "test"})
    preloads = Preloads(CPU, "yes")
    for seed in (1, 2):
        train_together([replace(run, seed=seed)], results_dir=tmp_path, device=CPU, preloads=preloads)
    n_chunks = {role: run.splits[role].store.spec.rows.n_chunks for role in ("train", "val")}
    assert len(chunks_read) == len(set(chunks_read)) == sum(n_chunks.values())
    while_preloading = list(target_files)
    train_together([replace(run, seed=3)], results_dir=tmp_path, device=CPU, preloads=preloads)
    assert len(chunks_read) == sum(n_chunks.values())
    # What is written of a run looks at targets as well, batches do not.
    per_run = len(target_files) - len(while_preloading)
    assert per_run < run.recipe.steps


def test_training_from_memory_and_into_buffers_gives_the_same_bits(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, weights, points = [], [], []
    for name, wish in (("mapped", "no"), ("preloaded", "yes"), ("copied", "no")):
        if name == "copied":
            monkeypatch.setattr(batches, "mapped_tokens", lambda *_: None)
        rows.append(train(run, results_dir=tmp_path / name, device=CPU, resident=wish))
        folder = run.folder(tmp_path / name)
        weights.append(load_state(folder.state)[0])
        points.append(read_curve(folder.curve))
    for other in (1, 2):
        assert [(row["val"], row["test"]) for row in rows[0]] == [(r["val"], r["test"]) for r in rows[other]]
        assert points[0] == points[other]
        assert weights[0].keys() == weights[other].keys()
        assert all(torch.equal(weights[0][name], weights[other][name]) for name in weights[0])


def needed(split: FeatureSplit, n_clips: int | None = None, n_views: int | None = None) -> int:
    clips = len(split.usable) if n_clips is None else n_clips
    return clips * (n_views or split.n_views) * split.store.spec.grid.nbytes


def held_by(preloads: Preloads, run: Run) -> dict[str, int]:
    """Role -> how many clips are held."""
    found = preloads.for_pass(run.training, run.splits["val"], minival_clips=5, progress=silent)
    return {role: int((held.row_of >= 0).sum()) for role, held in found.items()}


def test_what_does_not_fit_is_read_or_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    train_bytes, val = needed(run.training), run.splits["val"]

    def free(n_bytes: int) -> None:
        monkeypatch.setattr(preloading, "usable_bytes", lambda free: n_bytes)

    free(train_bytes + needed(val, n_views=1))
    assert held_by(Preloads(CPU, "yes"), run) == {"train": 48, "val": 24}
    free(train_bytes + needed(val, n_views=1) - 1)
    assert held_by(Preloads(CPU, "yes"), run) == {"train": 48, "val": 5}
    free(train_bytes)
    assert held_by(Preloads(CPU, "yes"), run) == {"train": 48}
    free(train_bytes - 1)
    with pytest.raises(CallError, match=r"--resident yes: .* takes .* may be used: read it from disk"):
        held_by(Preloads(CPU, "yes"), run)
    gpu = Preloads(CPU)
    gpu.device = torch.device("cuda")  # of which nothing is asked but its kind where nothing fits
    free(0)
    monkeypatch.setattr(preloading, "free_memory", lambda device: 0)
    assert held_by(gpu, run) == {}
    assert held_by(Preloads(CPU), run) == {}
    assert held_by(Preloads(CPU, "no"), run) == {}
    with pytest.raises(CallError, match="--resident perhaps: one of auto, yes, no"):
        preload_choice("perhaps")


def test_another_pass_makes_room_for_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    both = needed(run.training) + needed(run.splits["val"], n_views=1)
    monkeypatch.setattr(preloading, "usable_bytes", lambda free: both)
    preloads = Preloads(CPU, "yes")
    half = replace(run, recipe=replace(run.recipe, train_fraction=0.5))
    assert held_by(preloads, run) == {"train": 48, "val": 24}
    assert held_by(preloads, half) == {"train": 24, "val": 24}
    assert sum(held.nbytes for held in preloads._held.values()) <= both
    preloads.drop()
    assert not preloads._held


def test_a_large_device_keeps_a_reserve_and_a_small_one_half() -> None:
    assert usable_bytes(140 * GB) == 112 * GB
    assert usable_bytes(24 * GB) == 16 * GB
    assert usable_bytes(6 * GB) == 3 * GB


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_training_and_val_are_preloaded_unasked(run: Run) -> None:
    assert held_by(Preloads(torch.device("cuda")), run) == {"train": 48, "val": 24}
