"""Copies of objects are files without a name, whole or with the end alone."""

import os
from pathlib import Path

import numpy as np
import pytest

from featcache.buckets import client
from featcache.buckets.copies import copy_of, copy_of_end, opened_copy, unnamed_file, write_at
from featcache.buckets.path import place


@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 4500])
def test_a_copy_has_the_bytes_of_the_object(bucket: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(client, "PIECE", 1000)
    content = np.random.default_rng(0).bytes(size)
    (bucket / "x").write_bytes(content)
    with opened_copy(place(f"s3://{bucket.name}/x")) as file:
        assert file.read() == content


def test_a_copy_of_the_end_is_as_long_as_the_object(bucket: Path) -> None:
    (bucket / "x").write_bytes(b"0123456789")
    fd = copy_of_end(place(f"s3://{bucket.name}/x"), 4)
    assert os.pread(fd, 20, 0) == bytes(6) + b"6789"
    os.close(fd)
    fd = copy_of_end(place(f"s3://{bucket.name}/x"), 40)
    assert os.pread(fd, 20, 0) == b"0123456789"
    os.close(fd)


def test_without_an_object_nothing_stays_open(bucket: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for of in (copy_of, lambda path: copy_of_end(path, 4)):
        with pytest.raises(FileNotFoundError):
            of(place(f"s3://{bucket.name}/none"))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2  # sockets of the client


def test_without_files_in_memory_they_are_on_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    fd = unnamed_file()
    write_at(fd, 3, b"abc")
    assert os.pread(fd, 9, 0) == b"\0\0\0abc"
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)
