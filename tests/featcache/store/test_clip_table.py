"""The clip table is the store's own, or the store is refused before anything is read of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.errors import StoreError
from featcache.store.clip_table import ClipTable, preview_bytes, write_clip_table
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.header import StoreHeader, read_header
from featcache.system.row_groups import GROUP_ROWS
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


def very_many(n: int) -> ClipIndex:
    columns = {
        "id": [f"clip-{i}" for i in range(n)],
        "source": ["a"] * n,
        "record": range(n),
        "n_source": [16] * n,
        "labels": [[i % 2] for i in range(n)],
        "digest": [f"{i:016x}" for i in range(n)],
    }
    return ClipIndex(pa.table(columns, schema=CLIP_SCHEMA))


def header_of(index: ClipIndex) -> StoreHeader:
    one = header()
    return replace(one, spec=replace(one.spec, n_clips=len(index)), clips_digest=index.digest)


def test_of_very_many_clips_those_are_read_that_are_asked_for(tmp_path: Path) -> None:
    index = very_many(GROUP_ROWS + 100)
    about = header_of(index)
    write_clip_table(tmp_path, about, index)
    table = ClipTable(tmp_path, about)
    table.check_end()
    per_shard, last = about.spec.clips_per_shard, GROUP_ROWS + 99
    assert (len(table), table.id(last)) == (GROUP_ROWS + 100, f"clip-{last}")
    assert table.take([last, 1], "shard", "position").to_pydict() == {
        "shard": [last // per_shard, 0], "position": [last % per_shard, 1]
    }  # fmt: skip
    assert table.index().digest == index.digest
    assert table.column("n_source").to_pylist() == [16] * len(index)
    # Any program reads the file, and the same rows that a table in one piece has.
    whole = pq.read_table(tmp_path / "clips.parquet")
    assert whole.select(CLIP_SCHEMA.names).cast(CLIP_SCHEMA).equals(index.clips)
    assert table.whole().equals(whole.replace_schema_metadata(None))


def test_a_long_table_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    index = very_many(GROUP_ROWS + 100)
    about, path = header_of(index), tmp_path / "clips.parquet"
    write_clip_table(tmp_path, about, index)
    before = path.stat().st_ino
    write_clip_table(tmp_path, about, index)
    assert path.stat().st_ino == before
    for other in (
        replace(about, clips_digest="0" * 64),
        replace(about, spec=replace(about.spec, clips_per_shard=about.spec.clips_per_shard + 1)),
    ):
        written = path.stat().st_ino
        write_clip_table(tmp_path, other, index)
        assert path.stat().st_ino != written


def test_damage_to_a_long_table_is_told_and_the_way_out_works(tmp_path: Path) -> None:
    index = very_many(GROUP_ROWS + 100)
    about, path = header_of(index), tmp_path / "clips.parquet"
    write_clip_table(tmp_path, about, index)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    table = ClipTable(tmp_path, about)
    assert table.id(GROUP_ROWS + 1) == f"clip-{GROUP_ROWS + 1}"  # of another group
    for use in (lambda: table.id(3), lambda: table.column("id"), lambda: table.index().digest):
        with pytest.raises(StoreError, match=f"{path} cannot be read as the clip table: .*Delete it"):
            use()
    path.unlink()
    write_clip_table(tmp_path, about, index)
    assert ClipTable(tmp_path, about).id(3) == "clip-3"
    with pytest.raises(StoreError, match="is not the clip table that this store was written with"):
        ClipTable(tmp_path, replace(about, clips_digest="0" * 64)).id(3)
