"""What can go of a cache: targets that no store names, leftovers, shards set aside; never a store."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.store.feature_store import FeatureStore
from featcache.store.validation.cleaning import YOUNG, removable_of
from featcache.system.files import ABANDONED_AFTER


def aged(path: Path, seconds: float = YOUNG + 60) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.fixture
def store(make_split: Callable[..., FeatureStore]) -> FeatureStore:
    return make_split("val", np.ones((3, 1, 1, 1, 1, 4)), np.zeros((3, 7), int))


def test_targets_that_no_store_names_can_go(store: FeatureStore, tmp_path: Path) -> None:
    targets = store.targets
    assert targets is not None
    other = targets.path.with_name("targets-00000000.zarr")
    shutil.copytree(targets.path, other)
    aged(targets.path)
    # An extraction that has just begun has no store yet.
    assert removable_of(tmp_path / "features") == {}
    aged(other)
    ((path, why),) = removable_of(tmp_path / "features").items()
    assert (path.name, "no store refers to" in why) == (other.name, True)


def test_beside_a_store_that_cannot_be_read_nothing_is_taken_for_orphaned(
    store: FeatureStore, tmp_path: Path
) -> None:
    assert store.targets is not None
    aged(store.targets.path)
    (store.path / "zarr.json").write_text("{")
    assert removable_of(tmp_path / "features") == {}


def test_leftovers_and_damaged_shards_can_go(store: FeatureStore, tmp_path: Path) -> None:
    shard = next(store.path.glob("*/c.*"))
    aside = shard.with_name(f"{shard.name}.damaged")
    shutil.copy(shard, aside)
    left = store.path / ".zarr.json.elsewhere-1-ab.partial"
    left.write_bytes(b"123")
    assert [*removable_of(tmp_path / "features")] == [aside]
    aged(left, ABANDONED_AFTER + 60)
    assert removable_of(tmp_path / "features").keys() == {aside, left}


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert removable_of(tmp_path / "none") == {}
