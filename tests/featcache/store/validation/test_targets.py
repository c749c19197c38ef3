"""Targets are validated by themselves, as stores are: no user is sent to delete healthy ones."""

from pathlib import Path

import numpy as np
import pytest

from featcache.store.target_writer import write_targets
from featcache.store.targets import TargetArray, open_targets
from featcache.store.validation.targets import array_problems, validate_targets
from tests.featcache.store.small_header import forge
from tests.featcache.store.small_targets import INDEX, small_arrays


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_targets(tmp_path, INDEX, small_arrays(), {})


def test_healthy_targets_have_no_problems(path: Path) -> None:
    calls: list[tuple[int, int]] = []
    found = validate_targets(path, lambda done, total: calls.append((done, total)))
    assert (found.problems, found.notes) == ((), ())
    assert calls == [(n, 5) for n in range(1, 6)]
    assert found.n_chunks == 5
    assert found.n_bytes == sum(file.stat().st_size for file in path.glob("*/c.*"))


def test_all_damage_is_named(path: Path, flip) -> None:
    flip(path / "tracks/c.0.0.0", 3)
    (path / "event/c.0").unlink()
    forge(path / "labels/zarr.json", lambda document: document.update(fill_value=1))
    event, labels, tracks = validate_targets(path).problems
    assert f"{path}/event/c.0 is missing" in event
    assert labels == f"{path}/labels/zarr.json was edited: it does not describe these targets."
    assert f"{path}/tracks/c.0.0.0 fails the checksum" in tracks


def test_what_is_no_group_of_targets_is_one_problem(tmp_path: Path) -> None:
    (problem,) = validate_targets(tmp_path / "targets-0.zarr").problems
    assert "are missing" in problem


def test_targets_that_are_not_finite_are_found(tmp_path: Path) -> None:
    fields = np.ones((40, 3), np.float32)

    def problems(folder: str) -> list[str]:
        array = TargetArray(shape=(40, 3), dtype=np.dtype("<f4"), axes=("time", "row"), blocks=[fields])
        targets = open_targets(write_targets(tmp_path / folder, INDEX, {"fields": array}, {}))
        return list(array_problems(targets, "fields"))

    assert problems("good") == []
    fields[17, 1] = np.inf
    assert problems("bad") == ["targets 'fields' hold a value that is not finite, at time 17."]
