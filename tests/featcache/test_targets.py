"""Targets are written once a split, read back to the bit by us and by zarr, and others are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from featcache import targets as module
from featcache.clips import Clip, ClipIndex
from featcache.errors import CallError, StoreError
from featcache.targets import TargetArray, open_targets, write_targets

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
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def kill(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(module, "_write_chunk", kill)
        write_targets(tmp_path, index, arrays, {})
    assert [p.name[:9] for p in tmp_path.iterdir()] == [".targets-"]
    path = write_targets(tmp_path, index, arrays, {})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_rows_must_be_as_many_as_clips(tmp_path: Path, index: ClipIndex) -> None:
    with pytest.raises(CallError, match="'labels' have 3 rows for 11 clips"):
        write_targets(tmp_path, index, {"labels": np.zeros((3, 4), np.uint8)}, {})
    for blocks, why in (([np.zeros((5, 2))], "5 rows came for 11"), ([np.zeros((11, 3))], "not float64")):
        stream = TargetArray(shape=(N, 2), dtype=np.dtype("f8"), axes=("clip", "x"), blocks=blocks)
        with pytest.raises(CallError, match=why):
            write_targets(tmp_path, index, {"x": stream}, {})
    assert not list(tmp_path.glob("targets-*"))


@pytest.mark.parametrize(
    "changes", [{"axes": ("clip",)}, {"axes": ("class", "clip")}, {"dtype": np.dtype("U3")}]
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
