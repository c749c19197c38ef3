"""Shards in a bucket: chunks by ranges, verified as they arrive, and asked for once more."""

import os
from pathlib import Path

import numpy as np
import pytest

from featcache.buckets.client import Bucket
from featcache.buckets.path import place
from featcache.store.reading.shard_file import OpenShards
from featcache.store.reading.shard_object import OpenShard, ShardObject
from featcache.store.shards import DamagedShard, examine, read_tail
from featcache.store.spec import ArraySpec
from tests.featcache.store.small_shards import ALIGNED, ARRAY, chunk, write


@pytest.mark.parametrize("array", [ARRAY, ALIGNED])
def test_a_shard_in_a_bucket_reads_as_on_a_disk(bucket: Path, array: ArraySpec) -> None:
    local = write(bucket / "c.0", [chunk(1.0), None, chunk(2.0), chunk(3.0)], array)
    there, opened = place(f"s3://{bucket.name}/c.0"), OpenShards()
    fd = os.open(local, os.O_RDONLY)
    tail = read_tail(fd, array).with_sums(fd)
    os.close(fd)
    file = opened.get(there, array, tail.digest)
    assert isinstance(file, ShardObject)
    assert isinstance(file, OpenShard)
    assert opened.held([there]) == [file]
    assert not opened.may_map(there) and file.sources([0], 8) is None
    for slot, value in ((0, 1.0), (2, 2.0), (3, 3.0)):
        buffer = chunk(-1.0)
        file.fill(slot, buffer, verify=False)
        assert (buffer == value).all()
        assert np.array_equal(file.pages_of(slot, buffer.nbytes, verify=True), buffer.ravel().view(np.uint8))
    for sums in (True, False):
        (held, here), (present, its) = (examine(path, array, 0, sums=sums) for path in (local, there))
        assert np.array_equal(held, present)
        assert np.array_equal(here.index, its.index)
    with pytest.raises(DamagedShard, match="is not the shard that this store was finished with"):
        OpenShards().get(there, array, "0" * 16)
    with pytest.raises(FileNotFoundError):
        opened.get(place(f"s3://{bucket.name}/c.1"), array)


@pytest.mark.parametrize("array", [ARRAY, ALIGNED])
def test_a_chunk_that_arrives_damaged_is_asked_for_again(
    bucket: Path, monkeypatch: pytest.MonkeyPatch, array: ArraySpec
) -> None:
    monkeypatch.setenv("SCIVID_READ_CACHE", "off")
    write(bucket / "c.0", [chunk(1.0), chunk(2.0)], array)
    file, buffer = OpenShards().get(place(f"s3://{bucket.name}/c.0"), array), chunk(0.0)
    asked, bad, answer = [], 1, Bucket.range

    def damaged(self: Bucket, key: str, start: int, length: int) -> memoryview:
        came = bytearray(answer(self, key, start, length))
        asked.append(start)
        came[3] ^= len(asked) <= bad
        return memoryview(bytes(came))

    monkeypatch.setattr(Bucket, "range", damaged)
    file.fill(1, buffer, verify=False)
    assert (buffer == 2.0).all()
    assert len(asked) == 2
    bad = 9
    with pytest.raises(DamagedShard, match="fails the checksum of the chunk at byte"):
        file.fill(1, buffer, verify=False)
    assert len(asked) == 4


def test_what_was_read_once_is_read_from_the_local_disk(
    bucket: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    local = write(bucket / "c.0", [chunk(1.0), chunk(2.0)], ALIGNED)
    there, buffer = place(f"s3://{bucket.name}/c.0"), chunk(0.0)
    file = OpenShards().get(there, ALIGNED)
    file.fill(1, buffer, verify=True)
    (kept,) = (tmp_path / "reads").iterdir()
    whole = local.read_bytes()
    local.write_bytes(bytes(len(whole)))  # from now on the bucket has nothing that is right
    for other in (file, ShardObject(there, file.tail)):
        other.fill(1, buffer, verify=False)
        assert (buffer == 2.0).all()
        assert np.array_equal(other.pages_of(1, buffer.nbytes, verify=True), buffer.ravel().view(np.uint8))
    with pytest.raises(DamagedShard):
        file.fill(0, buffer, verify=True)
    local.write_bytes(whole)
    with kept.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff")
    file.fill(1, buffer, verify=True)
    assert (buffer == 2.0).all()
    assert kept.read_bytes()[4096:4104] == whole[4096:4104]
