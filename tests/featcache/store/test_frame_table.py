"""The table of distinct frames: whole on disk or refused."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from featcache.errors import StoreError
from featcache.spec import Layer, TokenGrid
from featcache.store.frame_table import (
    read_frame_table,
    table_bytes,
    table_metadata,
    to_bytes,
    write_frame_table,
)
from featcache.store.rows import FrameTable
from featcache.store.spec import FeatureSpec
from featcache.store.zarr_format import json_bytes

# Clip 0 shows a, b; clip 1 b, c; clip 2 a, a.
KEYS = np.frombuffer(b"".join(bytes([letter]) * 16 for letter in b"abbcaa"), np.uint8).reshape(3, 1, 2, 16)
TABLE = FrameTable.of_keys(KEYS)
SPEC = FeatureSpec(
    grid=TokenGrid(steps=2, rows=1, columns=1, channels=4),
    layers=(Layer(1),),
    n_clips=3,
    n_views=1,
    clips_per_shard=2,
    n_frames=3,
)


def test_it_comes_back_from_disk_and_any_zarr_client_reads_it(tmp_path: Path) -> None:
    write_frame_table(tmp_path, TABLE)
    (tmp_path / "frames" / "zarr.json").write_bytes(json_bytes(table_metadata(SPEC)["frames"]))
    assert np.array_equal(read_frame_table(tmp_path, SPEC, TABLE.digest).numbers, TABLE.numbers)
    array = zarr.open_array(tmp_path / "frames", mode="r")
    assert np.array_equal(array[:], TABLE.numbers)
    assert array.metadata.dimension_names == ("clip", "view", "step")
    assert (tmp_path / "frames" / "c.0.0.0").stat().st_size == table_bytes(SPEC) == 3 * 2 * 4 + 4


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-5], "is truncated or damaged"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "is truncated or damaged"),
        (lambda data: to_bytes(FrameTable(TABLE.numbers[::-1].copy())), "is not the table"),
    ],
)
def test_a_table_that_is_not_the_stores_is_refused(tmp_path: Path, change, problem: str) -> None:
    write_frame_table(tmp_path, TABLE)
    path = tmp_path / "frames" / "c.0.0.0"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StoreError, match=problem):
        read_frame_table(tmp_path, SPEC, TABLE.digest)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"frames/c\.0\.0\.0 cannot be read \(No such file"):
        read_frame_table(tmp_path, SPEC, TABLE.digest)
