"""Targets are written once a split, whole or not at all, by whoever comes first."""

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.clips import ClipIndex
from featcache.errors import CallError
from featcache.store import target_writer
from featcache.store import targets as module
from featcache.store.target_writer import bytes_to_write, write_targets
from featcache.store.targets import TargetArray, open_targets
from featcache.system.files import temporary_beside
from tests.featcache.store.small_targets import INDEX, N, fields_and_clips, in_pieces, small_arrays, tree


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

    write, others = target_writer._write_folder, list[Path]()

    def and_the_other(*args: Any) -> None:
        write(*args)
        if not others:
            others.append(Path("begun"))
            others.append(write_targets(tmp_path / "both", index, arrays, {}))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(target_writer, "_write_folder", and_the_other)
    path = write_targets(tmp_path / "both", index, arrays, {})
    assert others[1] == path
    assert tree(path) == alone
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_targets_that_are_there_are_found_on_a_disk_that_may_only_be_read(
    tmp_path: Path, index: ClipIndex, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_targets(tmp_path, index, arrays, {})
    monkeypatch.delattr(target_writer, "Lock")
    assert write_targets(tmp_path, index, arrays, {}) == path


def test_rows_must_be_as_many_as_clips(tmp_path: Path, index: ClipIndex) -> None:
    with pytest.raises(CallError, match="'labels' have 3 rows for 11 clips"):
        write_targets(tmp_path, index, {"labels": np.zeros((3, 4), np.uint8)}, {})
    for blocks, why in (([np.zeros((5, 2))], "5 rows came for 11"), ([np.zeros((11, 3))], "not float64")):
        stream = TargetArray(shape=(N, 2), dtype=np.dtype("f8"), axes=("clip", "x"), blocks=blocks)
        with pytest.raises(CallError, match=why):
            write_targets(tmp_path, index, {"x": stream}, {})
    assert not list(tmp_path.glob("targets-*"))


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
