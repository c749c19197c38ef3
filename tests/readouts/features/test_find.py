"""The stores of a task: the one that fits is opened, all else is refused with the way out."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import StoreError
from featcache.listings import store_rows
from featcache.store.matching import misplaced
from featcache.store.validation.stores import validate
from readouts.features.find import evaluated_store, open_task_splits
from readouts.results.task_results import finished_stores
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


def test_a_damaged_store_is_not_passed_over_in_silence(
    make_split, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that is left is taken, and a line says which one is not."""
    damaged, left = (make_split("train", numbered(6, 1), one_hot(6), seed=seed) for seed in (0, 1))
    make_split("val", numbered(6, 1), one_hot(6), seed=1)
    content = (damaged.path / "zarr.json").read_bytes()
    (damaged.path / "zarr.json").write_bytes(content.replace(b'"n_clips": 6', b'"n_clips": 5'))
    splits = open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))
    assert splits["train"].store.path == left.path
    assert f"not considered: {damaged.path}/zarr.json was changed after it was written" in caplog.text
    (problem,) = finished_stores(tmp_path / "features")[1]
    assert problem.startswith(f"{damaged.path}/zarr.json was changed after it was written")


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


def test_of_stores_that_differ_in_their_clips_the_newest_is_read_and_the_other_named(
    make_split, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a clip was added to a list: nobody has to move a store away."""
    cache = tmp_path / "features"
    trains = [make_split("train", numbered(n, 1), one_hot(n)) for n in (6, 5)]
    vals = [make_split("val", numbered(n, 1), one_hot(n)) for n in (4, 6)]
    for newest in (0, 1):
        for stores in (trains, vals):
            os.utime(stores[1 - newest].path / "zarr.json", (1e9, 1e9))
            os.utime(stores[newest].path / "zarr.json", (2e9, 2e9))
        caplog.clear()
        splits = open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"))
        assert splits["train"].store.path == trains[newest].path
        assert splits["val"].store.path == vals[newest].path
        first, second = vals[newest].path.name, vals[1 - newest].path.name
        assert f"2 val stores fit: {first} is read, the newest, not {second}" in caplog.text
        assert "which differs in clips: " in caplog.text
    chosen = open_task_splits(
        cache, "flyvsfly", "toy", roles=("train", "val"), fingerprint=trains[0].fingerprint[:8]
    )
    assert chosen["train"].store.path == trains[0].path


def copied(store: Path, to: Path) -> None:
    """The store and its targets, as whoever copies a folder of a cache brings both."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(store, to)
    if to.parent != store.parent:
        for targets in store.parent.glob("targets-*"):
            shutil.copytree(targets, to.parent / targets.name, dirs_exist_ok=True)


def linked(store: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.symlink_to(store)


DIGITS = "0123abcd"


@pytest.mark.parametrize("how", [copied, linked])
@pytest.mark.parametrize(
    ("task", "role", "name"),
    [
        ("flyvsfly", "val", "{}"),
        ("calms21", "train", "{}"),
        ("calms21", "val", "{}"),
        ("flyvsfly", "train", f"toy-{DIGITS}.zarr"),
        ("flyvsfly", "train", f"other-{DIGITS}.zarr"),
        ("flyvsfly", "test", "other-{:.8}.zarr"),
    ],
)
def test_a_store_where_another_belongs_is_refused_with_what_it_is(
    make_split, tmp_path: Path, how: Callable[[Path, Path], None], task: str, role: str, name: str
) -> None:
    train, cache = make_split("train", numbered(6, 1), one_hot(6)), tmp_path / "features"
    if task != "flyvsfly" and role != "train":  # or that one would be said to be missing
        make_split("train", numbered(6, 1), one_hot(6), task=task)
    name = train.path.name if name == "{}" else name.format(train.fingerprint)
    wrong = cache / task / role / name
    how(train.path, wrong)
    says = f"{wrong} says of itself that it is the train store of toy for flyvsfly, with the digits "
    backbone = name.partition("-")[0]
    if backbone != "toy" and role != "train":
        make_split("train", numbered(6, 1), one_hot(6), backbone=backbone)
    with pytest.raises(StoreError, match=re.escape(f"{says}{train.fingerprint[:8]}")) as refusal:
        open_task_splits(cache, task, backbone, roles=(role,))
    (problem,) = [line for line in validate(wrong).problems if line.startswith(says)]
    assert problem == str(refusal.value)
    assert [row["store"] for row in store_rows(cache) if row["what is wrong"]] == [wrong]
    stores, problems = finished_stores(cache)
    assert (wrong not in [store.path for store in stores], problems) == (True, [problem])
    with pytest.raises(StoreError, match=re.escape(says)):
        evaluated_store(cache, {"task": task, "run": "a", f"{role}_fingerprint": train.fingerprint}, role)
    # The way out is one: what is left is as it was before.
    subprocess.run(
        shlex.split(str(refusal.value).splitlines()[0].partition("Put that right: ")[2]), check=True
    )
    assert (wrong.exists(), train.path.exists()) == (False, True)
    assert not any(row["what is wrong"] for row in store_rows(cache))


def test_a_store_that_was_moved_is_moved_back(make_split, tmp_path: Path) -> None:
    store = make_split("val", numbered(6, 1), one_hot(6))
    make_split("train", numbered(6, 1), one_hot(6))
    elsewhere = store.path.with_name(f"toy-{DIGITS}.zarr")
    store.path.rename(elsewhere)
    with pytest.raises(StoreError) as refusal:
        open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("val",))
    assert f"Put that right: mv {elsewhere} {store.path}\n" in str(refusal.value)
    elsewhere.rename(store.path)
    assert set(open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("val",))) == {"train", "val"}


def test_a_store_outside_a_cache_is_what_it_says(make_split, tmp_path: Path) -> None:
    store = make_split("train", numbered(6, 1), one_hot(6))
    for path in (tmp_path / "kept" / store.path.name, tmp_path / "kept" / "mine.zarr"):
        copied(store.path, path)
        assert misplaced(path, store.header) is None
