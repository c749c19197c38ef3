"""Open shard files: few at a time, read or mapped, and damage told in either way."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from featcache.store.reading import shard_file
from featcache.store.reading.shard_file import OpenShards, ShardFile
from featcache.store.shards import DamagedShard, examine, read_chunk_into, read_tail
from featcache.store.spec import ArraySpec
from tests.featcache.store.small_shards import ALIGNED, ARRAY, chunk, write


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_file, "MAX_OPEN_SHARDS", 2)
    paths = [write(tmp_path / str(n), [chunk(n)]) for n in range(4)]
    opened = OpenShards()
    held = opened.get(paths[0], ARRAY)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in paths * 3:
        opened.get(path, ARRAY)
    # Evicted, but still ours to read from: one more than the two that are kept.
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    buffer = chunk(-1.0)
    read_chunk_into(held.fd, 0, buffer)
    assert (buffer == 0.0).all()
    with pytest.raises(FileNotFoundError):
        opened.get(tmp_path / "none", ARRAY)


def test_an_index_is_read_once_however_often_its_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, reads = [write(tmp_path / str(n), [chunk(n)]) for n in range(4)], []
    monkeypatch.setattr(shard_file, "MAX_OPEN_SHARDS", 1)
    monkeypatch.setattr(shard_file, "read_tail", lambda fd, array: reads.append(fd) or read_tail(fd, array))
    opened, buffer = OpenShards(), chunk(-1.0)
    for number in (0, 1, 2, 3, 2, 1, 0, 3):
        file = opened.get(paths[number], ARRAY)
        file.fill(0, buffer, verify=True)
        assert (buffer == number).all()
    assert len(reads) == 4


def test_only_so_many_tails_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, reads = [write(tmp_path / str(n), [chunk(n)]) for n in range(4)], []
    monkeypatch.setattr(shard_file, "MAX_OPEN_SHARDS", 1)
    monkeypatch.setattr(shard_file, "MOST_TAILS", 2)
    monkeypatch.setattr(shard_file, "read_tail", lambda fd, array: reads.append(fd) or read_tail(fd, array))
    opened = OpenShards()
    for number in (0, 1, 0, 2, 0, 1):  # 0 is used again and again, 1 is dropped for 2
        opened.get(paths[number], ARRAY)
    assert len(reads) == 4


def numbers(sources: list[np.ndarray] | None) -> list[float]:
    assert sources is not None
    return [float(source.view(np.float16)[0]) for source in sources]


def test_where_chunks_lie_in_the_mapped_file(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0), None])
    file, whole = ShardFile(path, ARRAY), path.read_bytes()
    assert numbers(file.sources([1, 0, 1], 8)) == [2.0, 1.0, 2.0]
    assert file.sources([0, 2], 8) is file.sources([0], 4) is None
    # In place, as the file is mapped: a touch of what is cut off would end the process.
    os.truncate(path, 15)
    assert numbers(file.sources([0], 8)) == [1.0]
    assert file.sources([0, 1], 8) is None
    with pytest.raises(DamagedShard, match="is truncated: it ends at byte 15"):
        file.fill(1, chunk(0.0), verify=False)
    path.write_bytes(whole)
    assert numbers(file.sources([1], 8)) == [2.0]


def test_a_file_mapped_short_is_mapped_again(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0)])
    file, whole = ShardFile(path, ARRAY), path.read_bytes()
    os.truncate(path, 10)
    assert numbers(file.sources([0], 8)) == [1.0]
    path.write_bytes(whole)
    assert numbers(file.sources([1], 8)) == [2.0]


def test_a_flipped_bit_of_an_aligned_shard_is_found_or_lies_in_a_gap(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0)], ALIGNED)
    good, buffer = path.read_bytes(), chunk(0.0)
    digest = examine(path, ALIGNED, 0, sums=True)[1].digest
    payload = {slot * 4096 + byte for slot in (0, 1) for byte in range(8)}
    for byte in [*range(20), *range(4090, 4120), *range(8190, len(good))]:
        path.write_bytes(good[:byte] + bytes([good[byte] ^ 1]) + good[byte + 1 :])
        if byte >= 8192:
            with pytest.raises(DamagedShard, match="fails the checksum of its"):
                ShardFile(path, ALIGNED, digest=digest)
            continue
        file = ShardFile(path, ALIGNED, digest=digest)
        for slot, value in enumerate((1.0, 2.0)):
            if byte in payload and byte // 4096 == slot:
                with pytest.raises(DamagedShard, match=f"checksum of the chunk at byte {4096 * slot}"):
                    file.fill(slot, buffer, verify=True)
            else:
                # Gaps hold nothing, and a chunk is held against its sum before the index.
                file.fill(slot, buffer, verify=True)
                assert (buffer == value).all()


@pytest.mark.parametrize("array", [ARRAY, ALIGNED], ids=["packed", "aligned"])
def test_another_shard_of_the_same_shape_does_not_pass_for_this_one(tmp_path: Path, array: ArraySpec) -> None:
    ours = write(tmp_path / "ours", [chunk(1.0), chunk(2.0)], array)
    theirs = write(tmp_path / "theirs", [chunk(1.0), chunk(3.0)], array)
    digest = examine(ours, array, 0, sums=True)[1].digest
    ShardFile(ours, array, digest=digest)
    theirs.replace(ours)
    ShardFile(ours, array)
    with pytest.raises(DamagedShard, match="is not the shard that this store was finished with"):
        ShardFile(ours, array, digest=digest)


def test_two_chunks_swapped_with_their_checksums_are_found(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0)], ALIGNED)
    good = path.read_bytes()
    digest = examine(path, ALIGNED, 0, sums=True)[1].digest
    path.write_bytes(good[4096:8192] + good[:4096] + good[8192:])
    with pytest.raises(DamagedShard, match="checksum of the chunk at byte 4096"):
        ShardFile(path, ALIGNED, digest=digest).fill(1, chunk(0.0), verify=True)


def test_a_pipe_or_a_device_is_no_shard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(DamagedShard, match="is no regular file"):
            examine(tmp_path / name, ARRAY, 0, sums=False)
        with pytest.raises(DamagedShard, match="is no regular file"):
            ShardFile(tmp_path / name, ARRAY)


def test_nothing_is_mapped_on_a_file_system_of_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, buffer = write(tmp_path / "0", [chunk(1.0), chunk(2.0)]), chunk(0.0)
    monkeypatch.setattr(shard_file, "is_local", lambda path: False)
    monkeypatch.setattr(shard_file.mmap, "mmap", None)
    file = OpenShards().get(path, ARRAY)
    assert file.sources([1], 8) is None
    file.fill(1, buffer, verify=False)
    assert (buffer == 2.0).all()
    # As a server may do it, in place: an error where a mapped file would have ended the process.
    os.truncate(path, 15)
    with pytest.raises(DamagedShard, match="ends at byte 15"):
        file.fill(1, buffer, verify=False)


@pytest.mark.parametrize("array", [ARRAY, ALIGNED], ids=["packed", "aligned"])
def test_pages_of_a_chunk_are_its_bytes_and_are_compared_with_its_checksum(
    tmp_path: Path, array: ArraySpec, flip
) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0)], array)
    file = ShardFile(path, array)
    pages = file.pages_of(1, 8, verify=True)
    assert pages.tobytes() == chunk(2.0).tobytes()
    assert not pages.flags.writeable
    flip(path, array.stride)
    with pytest.raises(DamagedShard, match=f"fails the checksum of the chunk at byte {array.stride}"):
        file.pages_of(1, 8, verify=True)
    file.pages_of(0, 8, verify=True)
    del file
    assert pages.tobytes() != chunk(2.0).tobytes()  # of the same file still, though that is closed


def test_a_disk_that_fails_under_a_map_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ShardFile(write(tmp_path / "0", [chunk(1.0)], ALIGNED), ALIGNED)
    file.pages_of(0, 8, verify=True)

    class Refused:
        def madvise(self, advice: int, start: int, length: int) -> None:
            assert advice == 22
            raise OSError(errno.EFAULT, "Bad address")

        def __len__(self) -> int:
            return 2**20

    def fails(fd: int, pieces: object, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(file, "_map", Refused())
    with pytest.raises(OSError, match="Bad address"):
        file.pages_of(0, 8, verify=True)
    monkeypatch.setattr(os, "preadv", fails)
    with pytest.raises(OSError, match="Input/output error"):
        file.pages_of(0, 8, verify=True)
