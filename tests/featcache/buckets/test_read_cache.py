"""Pieces of objects are kept as far as there is room; what was not used for a while makes some."""

import logging
import os
import time
from pathlib import Path

import pytest

from featcache.buckets import read_cache as module
from featcache.buckets.read_cache import Mirror, ReadCache, read_cache
from featcache.errors import CallError

PIECE = 1 << 16


def kept(mirror: Mirror, number: int) -> bytes | None:
    buffer = bytearray(PIECE)
    return bytes(buffer) if mirror.read(number * PIECE, memoryview(buffer)) else None


def test_a_piece_is_there_when_it_was_kept_and_only_then(tmp_path: Path) -> None:
    cache = ReadCache(tmp_path, 1 << 30)
    mirror = Mirror(cache, "a")
    assert kept(mirror, 0) is None
    for number in (3, 1):
        mirror.keep(number * PIECE, memoryview(bytes([number]) * PIECE))
    assert [kept(mirror, number) for number in range(5)] == [
        None, bytes([1]) * PIECE, None, bytes([3]) * PIECE, None
    ]  # fmt: skip
    assert kept(Mirror(cache, "a"), 3) == bytes([3]) * PIECE
    assert kept(Mirror(cache, "b"), 3) is None
    assert (tmp_path / "a").stat().st_blocks * 512 < 3 * PIECE
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0


def test_the_bound_holds_and_what_is_in_use_stays(tmp_path: Path) -> None:
    limit = 20 * PIECE
    mirrors = [Mirror(ReadCache(tmp_path, limit), f"{number}") for number in range(6)]
    content = memoryview(os.urandom(PIECE))
    for mirror in mirrors:
        for number in range(5):
            mirror.keep(number * PIECE, content)
        assert sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir()) <= limit + 2 * PIECE
    assert kept(mirrors[0], 0) == content
    assert kept(mirrors[5], 4) is None
    long_ago = time.time() - 2 * module.IN_USE
    os.utime(tmp_path / "1", (long_ago, long_ago))
    mirrors[5].keep(4 * PIECE, content)
    assert kept(mirrors[5], 4) == content
    assert not (tmp_path / "1").exists()
    assert kept(mirrors[1], 0) == content  # its file is still open here
    mirrors[1].keep(0, content)
    assert (tmp_path / "1").exists()


def test_a_disk_that_is_full_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = Mirror(ReadCache(tmp_path, 1 << 30), "a")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            mirror.keep(0, memoryview(bytes(PIECE)))
    assert [record.message for record in caplog.records] == [
        f"what is read from buckets is not kept in {tmp_path} (No space left on device)"
    ]
    monkeypatch.setattr(module, "LEAST_FREE", 1 << 60)
    assert not ReadCache(tmp_path, 1 << 30).may_keep(1)


def test_the_environment_says_where_and_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SCIVID_READ_CACHE", raising=False)
    found = read_cache()
    assert found is not None
    assert (found.folder, found.limit) == (tmp_path / "scivid" / "reads", 20_000_000_000)
    assert read_cache() is found
    monkeypatch.setenv("SCIVID_READ_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("SCIVID_READ_CACHE_GB", "0.5")
    found = read_cache()
    assert found is not None
    assert (found.folder, found.limit) == (tmp_path / "own", 500_000_000)
    monkeypatch.setenv("SCIVID_READ_CACHE_GB", "much")
    with pytest.raises(CallError, match="SCIVID_READ_CACHE_GB=much: give a number of GB"):
        read_cache()
    monkeypatch.setenv("SCIVID_READ_CACHE", "off")
    assert read_cache() is None
    monkeypatch.setenv("SCIVID_READ_CACHE_GB", "1")
    monkeypatch.setenv("SCIVID_READ_CACHE", "/proc/none")
    assert read_cache() is None
