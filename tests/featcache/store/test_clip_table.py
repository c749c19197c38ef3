"""The clip table is the store's own, or the store is refused before anything is read of it."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featcache.errors import StoreError
from featcache.store.clip_table import preview_bytes
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.header import read_header
from tests.featcache.store.small_header import header


def test_it_says_whose_it_is_to_any_reader(example) -> None:
    store = example().write()
    metadata = pq.read_metadata(store.path / "clips.parquet").metadata
    assert metadata[b"clips_digest"].decode() == store.header.clips_digest
    assert store.clips["id"].to_pylist() == [f"clip-{i:03}" for i in range(7)]
    assert store.clips.schema.metadata is None


def test_the_clip_table_of_another_store_is_refused_at_open(example, tmp_path: Path) -> None:
    ours, theirs = example().write(), example(n_clips=5, folder=tmp_path / "theirs").write()
    shutil.copy(theirs.path / "clips.parquet", ours.path / "clips.parquet")
    with pytest.raises(StoreError, match="is not the clip table that this store was written with: 5 rows"):
        open_features(ours.path)
    # Who does not look at open is told as the table is read.
    with pytest.raises(StoreError, match="is not the clip table that this store was written with"):
        _ = FeatureStore(ours.path, read_header(ours.path)).clips


def test_a_clip_table_that_is_missing_or_cut_is_refused_at_open(example) -> None:
    path = example().write().path / "clips.parquet"
    good = path.read_bytes()
    for damage in (good[:-1], good[:100], b"", b"PAR1"):
        path.write_bytes(damage)
        with pytest.raises(StoreError, match=f"{path} cannot be read as the clip table"):
            open_features(path.parent)
    path.unlink()
    with pytest.raises(StoreError, match=r"No such file.*writes the table anew"):
        open_features(path.parent)


def test_a_flipped_bit_of_the_clip_table_is_found_when_it_is_read(example) -> None:
    path = example().write().path / "clips.parquet"
    good = path.read_bytes()
    for byte in range(0, len(good), 97):
        path.write_bytes(good[:byte] + bytes([good[byte] ^ 4]) + good[byte + 1 :])
        with pytest.raises(StoreError, match=r"clips\.parquet"):
            _ = open_features(path.parent).clips


def test_previews_that_are_damaged_or_of_another_store_say_so(example) -> None:
    store = example().write()
    assert store.previews() == {0: b"jpeg 0", 6: b"jpeg 1"}
    path = store.path / "previews.parquet"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"jpeg 1", b"jpeg 7"))
    with pytest.raises(StoreError, match=r"cannot be read as previews: was changed.*pictures alone: delete"):
        store.previews()
    path.write_bytes(preview_bytes(header(), [(0, b"theirs")]))
    with pytest.raises(StoreError, match="has the previews of another store"):
        store.previews()
    path.unlink()
    assert store.previews() == {}
