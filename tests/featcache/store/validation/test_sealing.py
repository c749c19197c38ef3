"""Stores of before get their digests after a full check; nothing that is stored changes."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import StoreError
from featcache.store.feature_store import open_features
from featcache.store.validation.caches import seal_any, validate_any

EARLIER = Path(__file__).parents[3] / "earlier" / "features" / "typhoon"
STORES = sorted(path.relative_to(EARLIER) for path in EARLIER.glob("*/small_*.zarr"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return shutil.copytree(EARLIER, tmp_path / "typhoon")


def payload(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("c.*") if path.is_file()}


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.stem)
def test_a_store_of_before_is_told_apart_sealed_and_then_like_any_other(cache: Path, store: Path) -> None:
    path = cache / store
    assert "is of version 1" in validate_any(path).notes[0]
    before, opened = payload(path), open_features(path)
    tokens, clips, previews = opened.read(range(opened.spec.n_clips)), opened.clips, opened.previews()
    assert seal_any(path)[1]
    assert payload(path) == before
    sealed = open_features(path)
    assert sealed.header.is_sealed
    assert sealed.header.targets is not None
    assert sealed.header.targets.digest == sealed.targets.digest
    assert (sealed.fingerprint, sealed.provenance) == (opened.fingerprint, opened.provenance)
    assert np.array_equal(sealed.read(range(opened.spec.n_clips)), tokens)
    assert sealed.clips.equals(clips)
    assert sealed.previews() == previews
    found = validate_any(path)
    assert found.ok
    assert not any("version 1" in note for note in found.notes)
    assert not seal_any(path)[1]


def test_a_shard_put_in_place_of_another_is_found_once_a_store_is_sealed(cache: Path) -> None:
    (path,) = (cache / store for store in STORES if store.match("train/small_clips*"))
    shard = next((path / "tokens_1").glob("c.*"))
    good = shard.read_bytes()
    seal_any(path)
    # Another payload whose own checksums are right, as of a store of the same shape.
    store = open_features(path)
    chunk = store.spec.all_arrays[0].chunk_bytes + 4
    shard.write_bytes(good[chunk : 2 * chunk] + good[:chunk] + good[2 * chunk :])
    with pytest.raises(StoreError, match="is not the shard that this store was finished with"):
        open_features(path)


def test_a_kill_while_sealing_leaves_a_store_of_before(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache / STORES[0]
    replace, calls = Path.replace, []

    def dying(self: Path, target: Path) -> Path:
        calls.append(target)
        if target.name == "zarr.json" and target.parent == path:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            seal_any(path)
    assert len(calls) > 2
    assert not open_features(path).header.is_sealed
    assert validate_any(path).ok
    assert seal_any(path)[1]
