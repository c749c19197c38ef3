"""Baselines: computed once, read back, and computed anew for other targets or from a damaged file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.manifest import load_manifest
from featcache.store.targets import TargetArray, Targets
from featcache.system.sealed import json_unsealed
from readouts.results.baselines import load_baselines, score_baselines
from readouts.tasks.base import Baseline
from readouts.tasks.regression import Regression

N_CLIPS = 35
"""Two batches and a part of one."""


@dataclass(frozen=True, kw_only=True)
class Counted(Regression):
    """A regression that writes down how often its baselines are asked for."""

    calls: list[Targets] = field(default_factory=list, compare=False)

    def baselines(self, train: Targets) -> Mapping[str, Baseline]:
        self.calls.append(train)
        return super().baselines(train)


@pytest.fixture
def task() -> Counted:
    made = Counted.of(load_manifest(), "typhoon")
    assert isinstance(made, Counted)
    return made


@pytest.fixture
def series(make_targets: Callable[..., Targets]) -> Callable[..., Targets]:
    """Series that fall by `rate` hPa an hour, from another value each clip."""

    def make(folder: str, rate: float = 1.0, n_clips: int = N_CLIPS) -> Targets:
        values = 990.0 + np.arange(n_clips)[:, None, None] - rate * np.arange(24)
        whole = values.astype("<f4")
        axes = ("clip", "view", "hour")
        array = TargetArray(shape=whole.shape, dtype=whole.dtype, axes=axes, blocks=[whole])
        return make_targets(n_clips, folder, series=array)

    return make


def lead_errors(scores: Mapping[str, Mapping[str, float]], name: str) -> list[float]:
    return [scores[name][f"pressure/t={lead}/rmse"] for lead in range(12)]


def kept(results: Path) -> Path:
    return results / "typhoon" / "baselines.json"


def test_every_clip_counts_once_whatever_the_batch(task: Counted, series: Callable[..., Targets]) -> None:
    val = series("val")
    scores = score_baselines(task, series("train", rate=0.0, n_clips=1), val, np.arange(N_CLIPS))
    future = 990.0 + np.arange(N_CLIPS)[:, None] - np.arange(12, 24)
    expected = np.sqrt(((990.0 - future) ** 2).mean(axis=0))
    np.testing.assert_allclose(lead_errors(scores, "training mean"), expected, rtol=1e-5)


def test_rows_are_computed_once_and_read_back(
    task: Counted, series: Callable[..., Targets], tmp_path: Path
) -> None:
    train, val = series("train"), series("val")
    rows = load_baselines(task, train, val, np.arange(N_CLIPS), tmp_path)
    assert list(rows) == ["last input value", "training mean"]
    np.testing.assert_allclose(lead_errors(rows, "last input value"), np.arange(1, 13), rtol=1e-4)
    assert len(json_unsealed(kept(tmp_path).read_bytes())[0]) == 1
    assert load_baselines(task, train, val, np.arange(N_CLIPS), tmp_path) == rows
    assert len(task.calls) == 1


def test_other_targets_clips_or_tasks_are_computed_anew(
    task: Counted, series: Callable[..., Targets], tmp_path: Path
) -> None:
    train, val = series("train"), series("val")
    asked: list[tuple[Any, ...]] = [
        (task, train, val, N_CLIPS),
        (task, series("other train", n_clips=4), val, N_CLIPS),
        (task, train, replace(series("other val", rate=2.0), fingerprint="f00"), N_CLIPS),
        (task, train, val, 2),
        (replace(task, offset=900.0), train, val, N_CLIPS),
    ]
    found = [load_baselines(*given, np.arange(n), tmp_path) for *given, n in asked]
    assert len(json_unsealed(kept(tmp_path).read_bytes())[0]) == len(task.calls) == 5
    np.testing.assert_allclose(lead_errors(found[2], "last input value"), 2 * np.arange(1, 13), rtol=1e-4)
    assert lead_errors(found[0], "training mean") != lead_errors(found[3], "training mean")
    again = [load_baselines(*given, np.arange(n), tmp_path) for *given, n in asked]
    assert again == found
    assert len(task.calls) == 5


@pytest.mark.parametrize("damage", [b"", b'{"1f": {"training me', b"[]", b"{}", b"3", b"\xff"])
def test_a_damaged_file_is_computed_anew(
    task: Counted, series: Callable[..., Targets], tmp_path: Path, damage: bytes
) -> None:
    val = series("val", n_clips=3)
    rows = load_baselines(task, val, val, np.arange(3), tmp_path)
    file = kept(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert load_baselines(task, val, val, np.arange(3), tmp_path) == rows
    assert len(task.calls) == 2
    assert file.read_bytes() == whole
