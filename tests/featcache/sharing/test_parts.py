"""Which stores are meant, and what cannot be exported."""

from pathlib import Path

import pytest

from featcache.errors import CallError, StoreError
from featcache.sharing.cut import Cut
from featcache.sharing.parts import parse_roles, parts_of, stores_of
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from tests.featcache.sharing.conftest import write
from tests.featcache.sharing.small_cache import make_store
from tests.featcache.store.small_header import forge

EARLIER = Path(__file__).parents[2] / "earlier" / "features"


def test_stores_are_named_by_path_or_by_backbone_and_task(
    stores: dict[str, FeatureStore], tmp_path: Path
) -> None:
    cache, train, val = tmp_path / "features", stores["train"].path, stores["val"].path

    def found(*paths: Path, **names: str | None) -> list[Path]:
        return stores_of(paths, cache_dir=cache, backbone=names.get("backbone"), task=names.get("task"))

    assert found(train) == [train] and found(cache) == found(backbone="tiny") == [train, val]
    assert found(task="flyvsfly") == found(backbone="tiny", task="flyvsfly") == [train, val]
    for nothing in ({}, {"backbone": "tiny", "paths": True}):
        with pytest.raises(CallError, match="name the stores and last the new folder; or --backbone"):
            found(*([train] if nothing else []), **{k: v for k, v in nothing.items() if k != "paths"})  # type: ignore[arg-type]
    with pytest.raises(
        CallError, match=r"no store is at .*/flyvsfly/\*/other-\*\.zarr: `scivid list stores`"
    ):
        found(task="flyvsfly", backbone="other")
    with pytest.raises(CallError, match="no store is at"):
        found(train.parent / f"{next(train.parent.glob('targets-*')).name}")


def test_splits_are_some_of_three(stores: dict[str, FeatureStore]) -> None:
    assert parse_roles("all") == ("train", "val", "test") and parse_roles("val, train") == ("val", "train")
    with pytest.raises(CallError, match=r"--split tran: splits are train, val, test\. Did you mean 'train'"):
        parse_roles("tran")
    paths = [store.path for store in stores.values()]
    (part,) = parts_of(paths, cut=Cut(), roles=("val",))
    assert part.path == f"flyvsfly/val/{stores['val'].path.name}"
    assert part.targets_path is not None and part.targets_path.startswith("flyvsfly/val/targets-")
    with pytest.raises(CallError, match="nothing to export: no store of test was named"):
        parts_of(paths, cut=Cut(), roles=("test",))


def test_bytes_are_those_of_the_shards(stores: dict[str, FeatureStore]) -> None:
    for part in parts_of([store.path for store in stores.values()], cut=Cut()):
        shards = [path.stat().st_size for path in part.store.path.glob("tokens_*/c.*")]
        assert part.n_bytes == sum(shards)


def test_stores_that_become_the_same_are_refused(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    make_store(tmp_path / "features", "train", n_views=2, layers=(Layer(11),))
    with pytest.raises(
        StoreError, match="two of the stores hold the same, or differ only in what is left out"
    ):
        write(tmp_path / "features", tmp_path / "bundle", Cut(layers=(Layer(11),)))
    assert not (tmp_path / "bundle").exists()


def test_targets_of_one_name_and_other_values_are_refused(
    stores: dict[str, FeatureStore], tmp_path: Path
) -> None:
    other = make_store(tmp_path / "other", "val", n_clips=5, backbone="second", labels=(1, 1, 1, 0, 2))
    assert other.targets is not None and stores["val"].targets is not None
    assert other.targets.path.name == stores["val"].targets.path.name
    with pytest.raises(
        StoreError, match="are of several caches, whose targets have one name and other values"
    ):
        parts_of([stores["val"].path, other.path], cut=Cut())


def test_what_cannot_tell_damage_or_its_place_is_refused(
    stores: dict[str, FeatureStore], tmp_path: Path
) -> None:
    root = stores["train"].path / "zarr.json"

    def nameless(document: dict) -> None:  # type: ignore[type-arg]
        del document["attributes"]["scivid"]["backbone"]

    forge(root, nameless)
    with pytest.raises(StoreError, match="does not say of which backbone it is"):
        parts_of([root.parent], cut=Cut())
    (old,) = EARLIER.glob("typhoon/train/small_clips-*.zarr")
    with pytest.raises(
        StoreError, match=r"is of version 1, which cannot tell damage: .*`scivid validate --seal"
    ):
        parts_of([old], cut=Cut())
