"""What a bundle brings has its own name and its own files; what is there is the same, or in the way."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import DamagedFileError, StoreError
from featcache.sharing.bundle import SharedFile, SharedFolder
from featcache.sharing.checks import check_store, check_targets, is_there
from featcache.sharing.sources import read_bundle
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.target_writer import write_targets
from tests.featcache.conftest import flip
from tests.featcache.sharing.conftest import write
from tests.featcache.sharing.small_cache import LAYERS, clips_of, make_store
from tests.featcache.store.small_header import forge, redigest


def folder_of(bundle: Path, name: str) -> SharedFolder:
    return next(folder for folder in read_bundle(str(bundle)).folders if f"train/{name}" in folder.path)


def check(bundle: Path, folder: SharedFolder) -> None:
    """As an import does, with the files as they are now."""
    targets = folder_of(bundle, "targets")
    groups = {targets.path: check_targets(bundle / targets.path, targets)}
    check_store(bundle / folder_of(bundle, "tiny").path, folder, groups)


def test_what_was_exported_passes(bundle: Path) -> None:
    check(bundle, folder_of(bundle, "tiny"))


def test_another_name_or_other_files_are_refused(bundle: Path) -> None:
    store, targets = folder_of(bundle, "tiny"), folder_of(bundle, "targets")
    other = replace(store, path=store.path.replace("train", "val"))
    with pytest.raises(DamagedFileError, match=r"says of itself that it is 'flyvsfly/train/tiny-"):
        check(bundle, other)
    extra = SharedFile(path="tokens_11/run.sh", n_bytes=3, sha256="ab" * 32)
    for changed in (replace(store, files=(*store.files, extra)), replace(store, files=store.files[1:])):
        with pytest.raises(DamagedFileError, match="has files that it should not have, or lacks them: "):
            check(bundle, changed)
    pictures = [file for file in store.files if file.path != "previews.parquet"]
    check(bundle, replace(store, files=tuple(pictures)))
    with pytest.raises(DamagedFileError, match=r"says of itself that it is 'targets-"):
        check_targets(bundle / targets.path, replace(targets, path="flyvsfly/train/targets-00000000.zarr"))
    with pytest.raises(DamagedFileError, match="should not have"):
        check_targets(bundle / targets.path, replace(targets, files=(*targets.files, extra)))


def test_a_store_comes_with_its_own_targets(bundle: Path) -> None:
    store = folder_of(bundle, "tiny")
    with pytest.raises(DamagedFileError, match=r"came without its targets, '\.\./targets-"):
        check_store(bundle / store.path, store, {})

    def elsewhere(document: dict) -> None:  # type: ignore[type-arg]
        document["attributes"]["scivid"]["targets"]["path"] = "../../../../../etc"

    forge(bundle / store.path / "zarr.json", elsewhere)
    with pytest.raises(DamagedFileError, match=r"came without its targets, '\.\./\.\./"):
        check(bundle, store)


def test_every_shard_is_held_against_the_header(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    """One that nobody opens at first has the bytes of another: its own sums are right."""
    make_store(tmp_path / "ten", "train", n_clips=30)
    write(tmp_path / "ten", tmp_path / "bundle")
    store = folder_of(tmp_path / "bundle", "tiny")
    first, second = (tmp_path / "bundle" / store.path / "tokens_11" / f"c.{n}.0.0.0.0.0" for n in (2, 4))
    shutil.copy(first, second)
    open_features(tmp_path / "bundle" / store.path)
    with pytest.raises(
        DamagedFileError, match=r"tokens_11/c\.4\..* is not the shard that this store was finished"
    ):
        check(tmp_path / "bundle", store)


def test_tokens_that_are_not_the_golden_ones_are_refused(bundle: Path) -> None:
    store = folder_of(bundle, "tiny")
    moved = replace(store.golden[0], sha256="0" * 64)
    with pytest.raises(DamagedFileError, match=r"does not give the tokens that were exported: .* 5 of 6"):
        check(bundle, replace(store, golden=(moved, *store.golden[1:])))


def test_what_is_there_is_the_same_or_in_the_way(
    bundle: Path, stores: dict[str, FeatureStore], tmp_path: Path
) -> None:
    folder, targets = folder_of(bundle, "tiny"), folder_of(bundle, "targets")
    came = bundle / folder.path
    assert not is_there(tmp_path / "nothing", came, folder)
    # The exporter's own has other words in its header.
    assert is_there(stores["train"].path, came, folder)
    assert is_there(tmp_path / "features" / targets.path, bundle / targets.path, targets)
    with pytest.raises(
        StoreError, match=r"tiny-.* is another one than the bundle's, of the same name\. Move it away"
    ):
        is_there(stores["val"].path, came, folder)
    other = write_targets(tmp_path / "t", clips_of("train", 7), {"labels": np.ones((7, 3), np.uint8)}, {})
    with pytest.raises(StoreError, match="is another one than the bundle's"):
        is_there(other, bundle / targets.path, targets)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for strange in ("thesis", "dangling"):
        with pytest.raises(StoreError, match=rf"{strange} is in the way of the bundle's: "):
            is_there(tmp_path / strange, came, folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: (store / "zarr.json").unlink(),
        lambda store: flip(store / "zarr.json", 200),
        lambda store: next(store.glob("tokens_11/c.1*")).unlink(),
    ],
)
def test_a_broken_store_is_in_the_way(
    change: Callable[[Path], object], bundle: Path, stores: dict[str, FeatureStore]
) -> None:
    folder = folder_of(bundle, "tiny")
    change(stores["train"].path)
    with pytest.raises(StoreError, match="is in the way of the bundle's"):
        is_there(stores["train"].path, bundle / folder.path, folder)


def test_equal_names_of_other_tokens_are_told_apart(bundle: Path, stores: dict[str, FeatureStore]) -> None:
    """The same extraction rounded otherwise: its fingerprint is the same, its shards are not."""
    folder, path = folder_of(bundle, "tiny"), stores["train"].path
    shard = path / LAYERS[0].array / "c.0.0.0.0.0.0"
    other = (path / LAYERS[1].array / "c.0.0.0.0.0.0").read_bytes()
    shard.write_bytes(other)
    redigest(path)
    assert open_features(path).fingerprint == open_features(bundle / folder.path).fingerprint
    with pytest.raises(StoreError, match="is another one than the bundle's, of the same name"):
        is_there(path, bundle / folder.path, folder)
