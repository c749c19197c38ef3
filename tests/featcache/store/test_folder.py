"""What lies beside the shards, and whose a folder is."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featcache.errors import StoreError
from featcache.store.folder import few, hold, refuse_foreign


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "not there")
    store = tmp_path / "store.zarr"
    store.mkdir()
    (store / ".lock").touch()
    (store / ".zarr.json.1f2e.partial").touch()
    refuse_foreign(store)
    (store / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"is not a feature store \(it has thesis\.tex\): move it away"):
        refuse_foreign(store)
    with pytest.raises(StoreError, match=r"it has thesis\.tex"):
        refuse_foreign(store / "thesis.tex")


def test_one_process_holds_a_store(tmp_path: Path) -> None:
    lock = hold(tmp_path)
    with pytest.raises(StoreError, match="is being written by another process"):
        hold(tmp_path)
    lock.release()
    hold(tmp_path).release()


def test_the_clip_table_says_where_a_clip_is_unless_frames_are_stored(example, tmp_path: Path) -> None:
    table = pq.read_table(example().write().path / "clips.parquet")
    assert table["shard"].to_pylist() == [0, 0, 0, 1, 1, 1, 2]
    assert table["position"].to_pylist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_few_of_many() -> None:
    assert few([]) == ""
    assert few("ab") == "a, b"
    assert few(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert few(range(3), n=1) == "0 and 2 more"
