"""The stores of a task: the one that fits is opened, all else is refused with the way out."""

from pathlib import Path

import pytest

from featcache.errors import StoreError
from readouts.features.find import open_task_splits
from tests.readouts.features.numbered import numbered, one_hot


def test_splits_must_be_extracted_alike(make_split, tmp_path: Path) -> None:
    make_split("train", numbered(6, 1), one_hot(6))
    make_split("val", numbered(6, 1), one_hot(6), seed=1)
    with pytest.raises(StoreError, match=r"backbone\.seed: 1 here, 0 asked for"):
        open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))


def test_a_missing_store_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="scivid extract --backbone toy --task flyvsfly"):
        open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))


def test_a_damaged_store_is_not_said_to_be_missing(make_split, tmp_path: Path) -> None:
    store = make_split("train", numbered(6, 1), one_hot(6))
    (store.path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=f"{store.path} is not a feature store .* its zarr.json gives"):
        open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))


def test_several_stores_are_listed_and_a_fingerprint_chooses(make_split, tmp_path: Path) -> None:
    stores = [make_split("train", numbered(6, 1), one_hot(6), seed=seed) for seed in (0, 1)]
    make_split("val", numbered(6, 1), one_hot(6), seed=1)
    cache = tmp_path / "features"
    with pytest.raises(StoreError, match=r"2 train stores of toy.*--fingerprint"):
        open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"))
    make_split("train", numbered(6, 1), one_hot(6), dtype="int8")
    with pytest.raises(StoreError, match=r"(?s)float16, computed in .*int8, computed in "):
        open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"))
    chosen = stores[1].fingerprint[:6]
    splits = open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"), fingerprint=chosen)
    assert splits["train"].store.path == stores[1].path
