"""Targets are read back to the bit by us and by zarr, and others are refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from featcache.buckets.path import place
from featcache.clips import Clip, ClipIndex
from featcache.errors import CallError, StoreError
from featcache.store import targets as module
from featcache.store.target_writer import write_targets
from featcache.store.targets import TargetArray, Targets, open_targets
from tests.featcache.store.small_header import forge
from tests.featcache.store.small_targets import INDEX, N, fields_and_clips, in_pieces, small_arrays


@pytest.fixture
def index() -> ClipIndex:
    return INDEX


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return small_arrays()


@pytest.fixture(params=[40, 4 * 2**20])
def chunk_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", request.param)


@pytest.mark.usefixtures("chunk_bytes")
def test_every_value_comes_back_through_us_and_through_zarr(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray]
) -> None:
    path = write_targets(tmp_path, index, arrays, {"classes": ["a"]})
    ours, theirs = open_targets(path), zarr.open_group(path, mode="r")
    assert set(ours.metadata) == set(arrays) == set(theirs.array_keys())
    for name, values in arrays.items():
        assert ours.read(name).dtype == values.dtype
        assert np.array_equal(ours.read(name), values)
        assert np.array_equal(theirs[name][...], values)
    assert theirs["labels"].metadata.dimension_names == ("clip", "class")
    assert theirs["tracks"].metadata.dimension_names == ("clip", "tracks_1", "tracks_2")


@pytest.mark.parametrize(
    "changes", [{"axes": ("clip",)}, {"axes": ("clip", "clip")}, {"dtype": np.dtype("U3")}]
)
def test_an_array_is_checked_at_birth(changes: dict[str, Any]) -> None:
    with pytest.raises(CallError, match=r"name each axis|cannot be stored"):
        TargetArray(
            **{"shape": (2, 3), "dtype": np.dtype("u1"), "axes": ("clip", "class"), "blocks": [], **changes}
        )


def test_other_targets_and_no_targets_are_refused(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray]
) -> None:
    path = write_targets(tmp_path, index, arrays, {})
    with pytest.raises(StoreError, match=r"holds the targets [0-9a-f]{64}, 1234 are wanted"):
        open_targets(path, expected="1234")
    with pytest.raises(StoreError, match="are missing"):
        open_targets(tmp_path / "none")
    (path / "zarr.json").write_text("{}")
    with pytest.raises(StoreError, match="cannot be read as a group of targets"):
        open_targets(path)


def test_an_edited_group_is_refused(tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray]) -> None:
    path = write_targets(tmp_path, index, arrays, {"classes": ["a"]})
    (path / "zarr.json").write_text((path / "zarr.json").read_text().replace('"a"', '"b"'))
    with pytest.raises(StoreError, match=r"was changed after it was written"):
        open_targets(path)
    forge(path / "zarr.json", lambda document: None)
    with pytest.raises(StoreError, match=r"its zarr\.json was edited"):
        open_targets(path)


def test_damage_names_the_file(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray], flip: Callable[[Path, int], None]
) -> None:
    path = write_targets(tmp_path, index, arrays, {})
    flip(path / "labels/c.0.0", 7)
    with pytest.raises(StoreError, match=r"labels/c.0.0 fails the checksum"):
        open_targets(path).read("labels")
    (path / "labels/c.0.0").unlink()
    with pytest.raises(StoreError, match=r"labels/c.0.0 is missing"):
        open_targets(path).read("labels")


@pytest.mark.usefixtures("chunk_bytes")
@pytest.mark.parametrize("numbers", [[10, 3, 3, 0, 10, 7], [5], [], list(range(N))])
def test_rows_come_in_the_order_given_and_may_repeat(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray], numbers: list[int]
) -> None:
    targets = open_targets(write_targets(tmp_path, index, arrays, {}))
    chosen = np.array(numbers, np.int64)
    for name, values in arrays.items():
        assert targets.shape(name) == values.shape
        found = targets.rows(name, chosen)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values[chosen])


def test_a_file_is_verified_when_its_first_row_is_read_and_only_then(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 24)  # four clips of 24 bytes a file
    targets = open_targets(write_targets(tmp_path, index, {"tracks": arrays["tracks"]}, {}))
    verified: list[int] = []
    real = module.read_chunk_into

    def counted(fd: int, offset: int, out: np.ndarray, *, verify: bool = True) -> None:
        if verify:
            verified.append(len(out))
        real(fd, offset, out, verify=verify)

    monkeypatch.setattr(module, "read_chunk_into", counted)
    for numbers, n_files in (([0, 3], 1), ([1, 2], 1), ([3, 4], 2), ([10], 3), ([0, 5, 9], 3)):
        np.testing.assert_array_equal(
            targets.rows("tracks", np.array(numbers)), arrays["tracks"][np.array(numbers)]
        )
        assert verified == [4] * n_files


def test_a_damaged_file_is_found_by_its_own_rows_each_time(
    tmp_path: Path,
    index: ClipIndex,
    arrays: dict[str, np.ndarray],
    flip: Callable[[Path, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 24)
    path = write_targets(tmp_path, index, {"tracks": arrays["tracks"]}, {})
    flip(path / "tracks/c.1.0.0", 70)  # in clip 6, of the file that holds 4 to 7
    targets = open_targets(path)
    np.testing.assert_array_equal(targets.rows("tracks", np.array([3, 8])), arrays["tracks"][[3, 8]])
    for numbers in ([4], [0, 6], [4]):
        with pytest.raises(StoreError, match=r"tracks/c\.1\.0\.0 fails the checksum.*Delete .*targets-"):
            targets.rows("tracks", np.array(numbers))
    (path / "tracks/c.2.0.0").unlink()
    with pytest.raises(StoreError, match=r"tracks/c\.2\.0\.0 is missing"):
        open_targets(path).rows("tracks", np.array([10]))


@pytest.mark.usefixtures("chunk_bytes")
def test_arrays_may_come_together_and_count_something_other_than_clips(
    tmp_path: Path, index: ClipIndex
) -> None:
    path = write_targets(tmp_path, index, fields_and_clips(), {}, in_pieces())
    targets = open_targets(path)
    np.testing.assert_array_equal(targets.read("fields"), np.arange(10).reshape(5, 2))
    np.testing.assert_array_equal(targets.read("first"), np.arange(N))
    np.testing.assert_array_equal(targets.rows("fields", np.array([4, 0])), [[8, 9], [0, 1]])
    assert zarr.open_group(path, mode="r")["fields"].metadata.dimension_names == ("time", "variable")


def test_a_file_holds_as_many_rows_as_fit() -> None:
    def rows(*shape: int) -> int:
        return TargetArray(
            shape=shape, dtype=np.dtype("f4"), axes=("time", "y", "x")[: len(shape)]
        ).chunk_rows

    # 4 MiB: 16 maps of 256 x 256 float32; one map larger than that; fewer rows than fit; rows of nothing
    assert [rows(100, 256, 256), rows(9, 2048, 2048), rows(7, 2), rows(7, 0)] == [16, 1, 7, 7]


def test_metadata_that_say_object_are_refused_before_a_byte_is_read(tmp_path: Path, index: ClipIndex) -> None:
    """Bytes read as pointers would end the process; the digested parts say what each array is."""
    path = write_targets(tmp_path, index, small_arrays(), {})

    def pointers(document: dict[str, Any]) -> None:
        document["consolidated_metadata"]["metadata"]["event"]["data_type"] = "object"

    forge(path / "zarr.json", pointers)
    with pytest.raises(StoreError, match="the array event is another one than its parts say"):
        open_targets(path)

    def parts_too(document: dict[str, Any]) -> None:
        document["attributes"]["scivid"]["parts"]["arrays"]["event"]["dtype"] = "object"

    forge(path / "zarr.json", parts_too)
    with pytest.raises(StoreError, match=r"its zarr\.json was edited"):
        open_targets(path)


@pytest.mark.parametrize("rows", [0, -1, 12, 10**12, 2.5, "4", None])
def test_a_chunk_of_impossible_length_is_refused(tmp_path: Path, index: ClipIndex, rows: object) -> None:
    path = write_targets(tmp_path, index, small_arrays(), {})

    def resize(document: dict[str, Any]) -> None:
        grid = document["consolidated_metadata"]["metadata"]["labels"]["chunk_grid"]
        grid["configuration"]["chunk_shape"][0] = rows

    forge(path / "zarr.json", resize)
    with pytest.raises(StoreError, match="the array labels is another one than its parts say"):
        open_targets(path)


def test_two_chunks_swapped_or_taken_from_other_targets_are_found(
    tmp_path: Path, index: ClipIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 24)
    tracks = small_arrays()["tracks"]
    ours = write_targets(tmp_path / "ours", index, {"tracks": tracks}, {})
    theirs = write_targets(tmp_path / "theirs", index, {"tracks": tracks + 1}, {})
    first, second = ours / "tracks/c.0.0.0", ours / "tracks/c.1.0.0"
    good = first.read_bytes(), second.read_bytes()
    first.write_bytes(good[1])
    second.write_bytes(good[0])
    for number, path in ((0, first), (5, second)):
        with pytest.raises(StoreError, match=f"{path} is not the chunk that was written here"):
            open_targets(ours).rows("tracks", np.array([number]))
        with pytest.raises(StoreError, match="is not the chunk that was written here"):
            open_targets(ours).read("tracks")
    first.write_bytes((theirs / "tracks/c.0.0.0").read_bytes())
    with pytest.raises(StoreError, match="is not the chunk that was written here"):
        open_targets(ours).read("tracks")


def test_other_values_have_another_digest(tmp_path: Path, index: ClipIndex) -> None:
    arrays = small_arrays()
    digest = open_targets(write_targets(tmp_path / "a", index, arrays, {})).digest
    assert open_targets(write_targets(tmp_path / "b", index, arrays, {})).digest == digest
    arrays["tracks"][3, 1, 0] += 1
    path = write_targets(tmp_path / "c", index, arrays, {})
    assert open_targets(path).digest != digest
    with pytest.raises(StoreError, match="holds other values than when the features were extracted"):
        open_targets(path, digest=digest)


def test_a_pipe_in_place_of_a_chunk_or_of_the_root_is_no_hang(tmp_path: Path, index: ClipIndex) -> None:
    path = write_targets(tmp_path, index, small_arrays(), {})
    for name, look in (
        ("event/c.0", lambda: open_targets(path).read("event")),
        ("zarr.json", lambda: open_targets(path)),
    ):
        good = (path / name).read_bytes()
        (path / name).unlink()
        os.mkfifo(path / name)
        with pytest.raises(StoreError, match=r"not? a? ?regular file"):
            look()
        (path / name).unlink()
        (path / name).write_bytes(good)


def test_targets_in_memory_are_read_once(make_targets, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"labels": np.arange(20, dtype=np.uint8).reshape(5, 4), "scores": np.arange(5, dtype=np.float32)}
    targets, rows = make_targets(5, **arrays), np.array([4, 0, 4])
    assert targets.nbytes == 20 + 20
    held = targets.in_memory()
    monkeypatch.setattr(Targets, "_opened", None)
    for name, values in arrays.items():
        assert np.array_equal(held.rows(name, rows), values[rows])
    held.rows("labels", rows)[...] = 0
    assert np.array_equal(held.rows("labels", rows), arrays["labels"][rows])


def test_the_files_of_a_group_are_all_that_is_there(make_targets) -> None:
    targets = make_targets(5, labels=np.zeros((5, 4), np.uint8), scores=np.zeros(5, np.float32))
    there = {path.relative_to(targets.path).as_posix() for path in targets.path.rglob("*") if path.is_file()}
    assert sorted(targets.files) == sorted(there)


def test_targets_in_a_bucket_are_read_once(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 64)
    clips = ClipIndex.from_clips(
        Clip(id=str(i), source="s", record=i, n_source=1, digest="0" * 16) for i in range(21)
    )
    values = np.arange(21 * 3, dtype=np.float32).reshape(21, 3)
    found = open_targets(write_targets(place(f"s3://{bucket.name}/val"), clips, {"x": values}, {}))
    assert found.n_chunks("x") == 5
    assert np.array_equal(found.read("x"), values)
    assert np.array_equal(np.concatenate([block.copy() for block in found.blocks("x")]), values)
    numbers = np.array([20, 0, 7, 7])
    assert np.array_equal(found.rows("x", numbers), values[numbers])
    for chunk in (bucket / "val" / found.path.name / "x").glob("c.*"):
        chunk.unlink()
    assert np.array_equal(found.rows("x", numbers), values[numbers])
    with pytest.raises(StoreError, match=r"x/c\.\d\.0 is missing"):
        found.read("x")
