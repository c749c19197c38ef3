"""What changed since a store was extracted, and what its splits share, is told where it can be known."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import StoreError
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from featcache.system.sealed import state_of
from readouts.features.origins import Remarked, remarks
from tests.readouts.features.numbered import numbered, one_hot

MakeSplit = Callable[..., FeatureStore]
LISTED = """
datasets:
  flyvsfly:
    splits: {train: {clips: labels.csv}, val: {clips: labels.csv}}
"""


@pytest.fixture
def listed(tmp_path: Path, make_split: MakeSplit) -> Any:
    """A clip list, the store that was extracted by it, and the manifest that names it."""
    file = tmp_path / "labels.csv"
    file.write_text("video,first_frame,labels\na.mp4,0,rest\n")
    (tmp_path / "own.yaml").write_text(LISTED)
    store = make_split("val", numbered(6, 1), one_hot(6))
    about = {
        "provenance": {"clip_list": {"name": "labels.csv", **state_of(file)}},
        "parts": {**store.parts, "clips": {"dataset": "flyvsfly", "split": "val"}},
    }
    return (
        file,
        FeatureStore(store.path, replace(store.header, **about)),
        load_manifest(tmp_path / "own.yaml"),
    )


def said(store: FeatureStore, manifest: Any) -> list[str]:
    return remarks({"val": store}, manifest, extract="scivid extract --task flyvsfly")


def test_labels_that_were_edited_after_extraction_are_told_with_the_command(listed: Any) -> None:
    file, store, manifest = listed
    assert said(store, manifest) == []
    file.write_text(file.read_text().replace("rest", "jump"))
    os.utime(file, ns=(0, 0))
    (line,) = said(store, manifest)
    assert line.startswith(f"{file} was edited since {store.path.name} (val) was extracted by it. ")
    assert f"`scivid extract --task flyvsfly --split val --layers 1 --data-dir {file.parent}/`" in line
    file.unlink()  # as on a cluster that does not see the data
    assert said(store, manifest) == []


def test_a_manifest_that_names_another_list_or_split_is_told(listed: Any, tmp_path: Path) -> None:
    _, store, _ = listed
    (tmp_path / "own.yaml").write_text(LISTED.replace("val: {clips: labels.csv}", "val: {clips: new.csv}"))
    (line,) = said(store, load_manifest(tmp_path / "own.yaml"))
    assert line.startswith(
        f"the manifest has the clips of val in new.csv, {store.path.name} was extracted by "
    )
    moved = "\ntasks:\n  flyvsfly: {splits: {val: flyvsfly/test}}\n"
    (tmp_path / "own.yaml").write_text(LISTED + moved)
    (line,) = said(store, load_manifest(tmp_path / "own.yaml"))
    assert line.startswith(f"the manifest has flyvsfly/test for val, {store.path.name} was extracted from ")


def test_labels_of_other_classes_are_refused(listed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, store, manifest = listed
    classes = manifest.dataset("flyvsfly").classes
    for then in (classes, (*classes[1:], classes[0])):
        targets = replace(store.targets, parts={"classes": list(then)})
        monkeypatch.setattr(FeatureStore, "targets", targets)
        if then == classes:
            assert said(store, manifest) == []
            continue
        with pytest.raises(
            StoreError, match=r"are of the classes .*, the manifest lists .*: run `scivid extract"
        ):
            said(store, manifest)


def test_splits_that_share_clips_are_told_of_every_run(make_split: MakeSplit) -> None:
    stores = {role: make_split(role, numbered(6, 1), one_hot(6)) for role in ("train", "val")}
    manifest = load_manifest()
    assert remarks(stores, manifest, extract="") == []
    leaking = {**stores, "test": stores["train"]}
    (line,) = remarks(leaking, manifest, extract="")
    assert line.startswith("6 of the 6 clips of test are clips of train as well")
    videos = {
        role: FeatureStore(
            of.path, replace(of.header, parts={**of.parts, "decoding": {"reader": "video_file"}})
        )
        for role, of in leaking.items()
    }
    (line,) = remarks(videos, manifest, extract="")
    assert line.startswith("1 of the 1 videos of test are videos of train as well (train.bin)")


def test_the_stores_of_many_runs_are_looked_at_once(listed: Any) -> None:
    file, store, manifest = listed
    file.write_text(file.read_text().replace("rest", "jump"))
    os.utime(file, ns=(0, 0))
    remarked = Remarked(manifest)
    assert len(remarked.new({"val": store}, extract="scivid extract")) == 1
    assert remarked.new({"val": store}, extract="scivid extract") == []
    # In another role it is another set of stores.
    assert len(remarked.new({"test": store}, extract="scivid extract")) == 1
