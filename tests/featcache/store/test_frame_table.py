"""The table of distinct frames: numbered as they appear, whole on disk or refused."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import StoreError
from featcache.spec import Layer, TokenGrid
from featcache.store.frame_table import FrameTable, read_frame_table, table_bytes, write_frame_table
from featcache.store.spec import FeatureSpec

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


def test_frames_are_numbered_as_they_appear() -> None:
    assert TABLE.numbers.tolist() == [[[0, 1]], [[1, 2]], [[0, 0]]]
    assert TABLE.n_frames == 3
    assert TABLE.first_shown.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert TABLE.clips_with(np.array([1])).tolist() == [True, True, False]
    assert TABLE.clips_with(np.array([0, 2])).tolist() == [True, True, True]


@given(st.lists(st.integers(0, 5), min_size=12, max_size=12))
def test_equal_frames_and_only_those_have_one_number(frames: list[int]) -> None:
    keys = np.zeros((2, 3, 2, 16), np.uint8)
    keys[..., 9] = np.array(frames, np.uint8).reshape(2, 3, 2)
    table = FrameTable.of_keys(keys)
    numbers = table.numbers.ravel()
    assert np.array_equal(numbers[:, None] == numbers, np.array(frames)[:, None] == np.array(frames))
    clips = table.first_shown[:, 0]
    assert (np.diff(clips) >= 0).all()
    for number, place in enumerate(table.first_shown):
        assert table.numbers[tuple(place)] == number


def test_it_comes_back_from_disk_and_any_zarr_client_reads_it(tmp_path: Path) -> None:
    write_frame_table(tmp_path, SPEC, TABLE)
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
        (lambda data: FrameTable(TABLE.numbers[::-1].copy()).to_bytes(), "is not the table"),
    ],
)
def test_a_table_that_is_not_the_stores_is_refused(tmp_path: Path, change, problem: str) -> None:
    write_frame_table(tmp_path, SPEC, TABLE)
    path = tmp_path / "frames" / "c.0.0.0"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StoreError, match=problem):
        read_frame_table(tmp_path, SPEC, TABLE.digest)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"frames/c\.0\.0\.0 cannot be read \(No such file"):
        read_frame_table(tmp_path, SPEC, TABLE.digest)
