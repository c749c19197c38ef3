"""Targets are written once a split, read back to the bit by us and by zarr, and others are refused."""

import errno
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from featcache.clips import Clip, ClipIndex
from featcache.errors import CallError, StoreError
from featcache.store import targets as module
from featcache.store.targets import TargetArray, bytes_to_write, open_targets, write_targets
from featcache.system.files import temporary_beside

N = 11


@pytest.fixture
def index() -> ClipIndex:
    return ClipIndex.from_clips(
        Clip(id=str(i), source="s", record=i, n_source=1, labels=(), digest="0" * 16) for i in range(N)
    )


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "labels": rng.integers(0, 2, (N, 4)).astype(np.uint8),
        "tracks": rng.normal(size=(N, 3, 2)).astype(np.float32),
        "visible": rng.integers(0, 2, (N, 3)).astype(bool),
        "event": np.arange(N, dtype=np.int64),
        "pixels": rng.normal(size=(N, 2)).astype(np.float16),
    }


@pytest.fixture(params=[40, 4 * 2**20])
def chunk_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", request.param)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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


@pytest.mark.usefixtures("chunk_bytes")
def test_blocks_of_any_length_make_the_same_files(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray]
) -> None:
    whole = write_targets(tmp_path / "whole", index, {"tracks": arrays["tracks"]}, {})
    blocks = (arrays["tracks"][a:b] for a, b in ((0, 1), (1, 1), (1, 9), (9, 11)))
    stream = TargetArray(
        shape=(N, 3, 2), dtype=np.dtype("f4"), axes=("clip", "tracks_1", "tracks_2"), blocks=blocks
    )
    streamed = write_targets(tmp_path / "streamed", index, {"tracks": stream}, {})
    assert tree(whole) == tree(streamed)
    lengths = [len(block) for block in open_targets(whole).blocks("tracks")]
    assert lengths in ([1] * N, [N])


def test_they_are_written_once(tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray]) -> None:
    first = write_targets(tmp_path, index, arrays, {"classes": ["a"]})
    before = (first / "zarr.json").stat().st_ino
    assert write_targets(tmp_path, index, arrays, {"classes": ["a"]}) == first
    assert (first / "zarr.json").stat().st_ino == before
    other = write_targets(tmp_path, index, arrays, {"classes": ["b"]})
    assert other != first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.name, other.name])


def test_what_a_killed_writer_left_is_no_obstacle(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["true"]) as killed:
        killed.wait()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: killed.pid)
        left = temporary_beside(tmp_path / "targets-0123abcd.zarr")
    left.mkdir()
    (left / "zarr.json").touch()
    path = write_targets(tmp_path, index, arrays, {})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_two_writers_without_locks_leave_one_whole_group(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other begins, and is done, while the first has all of its group but the name."""
    alone = tree(write_targets(tmp_path / "alone", index, arrays, {}))

    def no_locks(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    write, others = module._write_folder, list[Path]()

    def and_the_other(*args: Any) -> None:
        write(*args)
        if not others:
            others.append(Path("begun"))
            others.append(write_targets(tmp_path / "both", index, arrays, {}))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(module, "_write_folder", and_the_other)
    path = write_targets(tmp_path / "both", index, arrays, {})
    assert others[1] == path
    assert tree(path) == alone
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_targets_that_are_there_are_found_on_a_disk_that_may_only_be_read(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_targets(tmp_path, index, arrays, {})
    real = os.open

    def read_only(file: Any, flags: int, *mode: int, **of: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(file))
        return real(file, flags, *mode, **of)

    monkeypatch.setattr(os, "open", read_only)
    assert write_targets(tmp_path, index, arrays, {}) == path


def test_rows_must_be_as_many_as_clips(tmp_path: Path, index: ClipIndex) -> None:
    with pytest.raises(CallError, match="'labels' have 3 rows for 11 clips"):
        write_targets(tmp_path, index, {"labels": np.zeros((3, 4), np.uint8)}, {})
    for blocks, why in (([np.zeros((5, 2))], "5 rows came for 11"), ([np.zeros((11, 3))], "not float64")):
        stream = TargetArray(shape=(N, 2), dtype=np.dtype("f8"), axes=("clip", "x"), blocks=blocks)
        with pytest.raises(CallError, match=why):
            write_targets(tmp_path, index, {"x": stream}, {})
    assert not list(tmp_path.glob("targets-*"))


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


def fields_and_clips() -> dict[str, TargetArray]:
    return {
        "fields": TargetArray(shape=(5, 2), dtype=np.dtype("f4"), axes=("time", "variable")),
        "first": TargetArray(shape=(N,), dtype=np.dtype("i8"), axes=("clip",)),
    }


def in_pieces(n_fields: int = 5) -> Iterator[dict[str, np.ndarray]]:
    """The first array ends before the second, whose pieces are of other lengths."""
    fields = np.arange(2 * n_fields, dtype=np.float32)
    yield {"fields": np.stack([fields[:6:2], fields[1:6:2]], axis=1), "first": np.arange(4)}
    yield {"fields": np.stack([fields[6::2], fields[7::2]], axis=1), "first": np.arange(4, 5)}
    yield {"first": np.arange(5, N)}


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


def test_what_comes_together_is_not_begun_where_the_group_is_there(tmp_path: Path, index: ClipIndex) -> None:
    path = write_targets(tmp_path, index, fields_and_clips(), {}, in_pieces())

    def never() -> Iterator[dict[str, np.ndarray]]:
        pytest.fail("the rows were made again")
        yield {}

    assert write_targets(tmp_path, index, fields_and_clips(), {}, never()) == path


@pytest.mark.parametrize("n_fields", [4, 6])
def test_rows_of_another_axis_must_be_as_many_as_it_is_long(
    tmp_path: Path, index: ClipIndex, n_fields: int
) -> None:
    with pytest.raises(CallError, match=f"'fields': {n_fields} rows came for 5 of axis time"):
        write_targets(tmp_path, index, fields_and_clips(), {}, in_pieces(n_fields))
    assert not list(tmp_path.glob("targets-*"))


def test_the_bytes_that_will_be_written(tmp_path: Path, index: ClipIndex) -> None:
    arrays = fields_and_clips()
    # One chunk of each, and its checksum.
    assert bytes_to_write(tmp_path, index, arrays, {}) == 5 * 2 * 4 + N * 8 + 2 * 4
    path = write_targets(tmp_path, index, arrays, {}, in_pieces())
    assert sum(file.stat().st_size for file in path.glob("*/c.*")) == 5 * 2 * 4 + N * 8 + 2 * 4
    assert bytes_to_write(tmp_path, index, arrays, {}) == 0
    assert bytes_to_write(tmp_path, index, arrays, {"other": 1}) > 0


def test_a_file_holds_as_many_rows_as_fit() -> None:
    def rows(*shape: int) -> int:
        return TargetArray(
            shape=shape, dtype=np.dtype("f4"), axes=("time", "y", "x")[: len(shape)]
        ).chunk_rows

    # 4 MiB: 16 maps of 256 x 256 float32; one map larger than that; fewer rows than fit; rows of nothing
    assert [rows(100, 256, 256), rows(9, 2048, 2048), rows(7, 2), rows(7, 0)] == [16, 1, 7, 7]
