"""An object as a file: the bytes that are read, and requests for no more."""

import os
from pathlib import Path

import numpy as np
import pytest

from featcache.buckets import ranges
from featcache.buckets.client import Bucket
from featcache.buckets.path import place
from featcache.buckets.ranges import opened_object


def test_an_object_is_read_as_a_file_is(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "PIECE", 700)
    monkeypatch.setattr(ranges, "AT_LEAST", 16)
    content = np.random.default_rng(0).bytes(4500)
    (bucket / "x").write_bytes(content)
    with opened_object(place(f"s3://{bucket.name}/x")) as file:
        assert file.read() == content
        assert file.read() == b""
        assert (file.seek(-10, os.SEEK_END), file.read(3)) == (4490, content[4490:4493])
        assert (file.seek(4000), file.read(1000)) == (4000, content[4000:])
        assert (file.seek(100), file.seek(5, os.SEEK_CUR), file.read(2)) == (100, 105, content[105:107])


def test_no_more_is_asked_for_than_is_read(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = [], Bucket.range
    monkeypatch.setattr(
        Bucket, "range", lambda self, key, start, n: asked.append((start, n)) or real(self, key, start, n)
    )
    (bucket / "x").write_bytes(bytes(10_000_000))
    with opened_object(place(f"s3://{bucket.name}/x")) as file:
        file.seek(-1000, os.SEEK_END)
        assert len(file.read()) == 1000
        file.seek(5_000_000)
        assert len(file.read(2_000_000)) == 2_000_000
    assert sum(n for _, n in asked) <= 2_001_000 + ranges.AT_LEAST
    with pytest.raises(FileNotFoundError):
        opened_object(place(f"s3://{bucket.name}/none"))
