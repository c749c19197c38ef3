"""Files of a bucket are brought once, whole, and where there is room for them."""

import os
import time
from pathlib import Path

import pytest

from featcache.buckets import fetched as module
from featcache.buckets.client import Bucket
from featcache.buckets.fetched import fetched
from featcache.buckets.path import BucketPath, place
from featcache.errors import CallError, DataError


@pytest.fixture
def data(bucket: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BucketPath:
    monkeypatch.setenv("SCIVID_FETCHED", str(tmp_path / "fetched"))
    for name in ("a/x", "a/y/z", "b"):
        file = bucket / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() * 1000)
    there = place(f"s3://{bucket.name}/data")
    assert isinstance(there, BucketPath)
    return there


def test_what_is_wanted_is_brought_once(
    data: BucketPath, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, whole = [], Bucket.whole

    def counted(self: Bucket, key: str, put: object) -> int:
        asked.append(key)
        return whole(self, key, put)

    monkeypatch.setattr(Bucket, "whole", counted)
    wanted = data.bucket.all_below("data/a")
    folder = fetched(data, wanted)
    assert fetched(data, wanted) == folder
    assert sorted(asked) == ["data/a/x", "data/a/y/z"]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"a/x": b"a/x" * 1000, "a/y/z": b"a/y/z" * 1000}
    (bucket / "data/a/x").write_bytes(b"new")
    assert fetched(data, data.bucket.all_below("data/a")) == folder
    assert (folder / "a/x").read_bytes() == b"new"
    assert asked.count("data/a/y/z") == 1


def test_what_breaks_off_leaves_no_file(
    data: BucketPath, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def half(self: Bucket, key: str, put: object) -> int:
        put(0, b"1")
        raise KeyboardInterrupt

    monkeypatch.setattr(Bucket, "whole", half)
    with pytest.raises(KeyboardInterrupt):
        fetched(data, data.bucket.all_below("data"))
    assert not [path for path in (tmp_path / "fetched").rglob("*") if path.is_file()]
    monkeypatch.setattr(Bucket, "whole", lambda self, key, put: put(0, b"1") or 1)
    with pytest.raises(DataError, match="data/a/x has 1 bytes instead of 3,000: it was written to meanwhile"):
        fetched(data, data.bucket.all_below("data")[:1])


def test_without_room_it_is_said_and_what_is_not_in_use_makes_some(
    data: BucketPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = data.bucket.all_below("data")
    monkeypatch.setenv("SCIVID_FETCHED_GB", "0.000007")  # 7,000 bytes
    folder = fetched(data, [one])
    with pytest.raises(DataError, match=r"0\.00 GB are to be brought to .* raise SCIVID_FETCHED_GB"):
        fetched(data, [two])
    old = time.time() - 2 * module.IN_USE
    os.utime(folder / "a/x", (old, one.modified))
    fetched(data, [two])
    assert not (folder / "a/x").exists()
    assert (folder / "a/y/z").is_file()
    monkeypatch.setenv("SCIVID_FETCHED_GB", "much")
    with pytest.raises(CallError, match="SCIVID_FETCHED_GB=much: give a number of GB"):
        fetched(data, [three])
