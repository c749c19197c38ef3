"""The bytes of a shard, counted by hand; damage anywhere in them is found.

They are packed, as stores of version 1 have them, but where the test is of the gaps and sums of today's.
"""

import os
import sys
import threading
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import StoreError
from featcache.spec import Layer, TokenGrid
from featcache.store import shards
from featcache.store.shards import (
    ABSENT,
    DamagedShard,
    OpenShards,
    ShardFile,
    examine,
    file_bytes,
    index_of,
    read_chunk_into,
    read_tail,
    shard_bytes,
    write_chunks,
)
from featcache.store.spec import ArraySpec, FeatureSpec

GRID = TokenGrid(steps=1, rows=1, columns=2, channels=2)  # 8 bytes a chunk
SPEC = FeatureSpec(grid=GRID, layers=(Layer(3),), n_clips=5, n_views=2, clips_per_shard=2, alignment=1)
(ARRAY,) = SPEC.arrays(Layer(3))
(ALIGNED,) = replace(SPEC, alignment=4096).arrays(Layer(3))


def chunk(value: float) -> np.ndarray:
    return np.full(GRID.shape, value, np.float16)


def write(path: Path, chunks: list[np.ndarray | None], array: ArraySpec = ARRAY) -> Path:
    with path.open("wb") as file:
        write_chunks([file.fileno()], (None if chunk is None else (chunk,) for chunk in chunks), [array])
    return path


def presence(path: Path, array: ArraySpec, shard: int) -> np.ndarray:
    return examine(path, array, shard, sums=False)[0]


def u64(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def crc(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
    ids=["nothing", "check", "zeros", "ones", "rising", "falling"],
)
def test_crc32c_is_the_one_of_the_standard(data: bytes, known: int) -> None:
    # RFC 3720 (iSCSI), B.4, and the check value every catalogue of checksums gives.
    assert shards.checksum(data) == known.to_bytes(4, "little")
    assert shards.checksum(np.frombuffer(data, np.uint8)) == known.to_bytes(4, "little")


@given(st.binary(max_size=2000), st.integers(0, 70))
def test_another_crc32c_agrees_on_any_bytes(data: bytes, start: int) -> None:
    assert shards.checksum(np.frombuffer(data, np.uint8)[start:]) == crc(data[start:])


@pytest.mark.parametrize("nbytes", [2**14 - 1, 2**14, 2**20 + 3, 2_408_448])
@pytest.mark.parametrize("start", [0, 1, 13])
def test_another_crc32c_agrees_on_many_bytes(nbytes: int, start: int) -> None:
    data = np.random.default_rng(nbytes).integers(256, size=nbytes + start, dtype=np.uint8)[start:]
    assert shards.checksum(data) == crc(data.tobytes())


def test_the_checksum_of_an_array_is_that_of_its_bytes() -> None:
    tokens = np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float16)
    assert shards.checksum(tokens) == crc(tokens.tobytes())
    for gaps in (tokens[:, ::2], tokens.T):
        with pytest.raises(BufferError):
            shards.checksum(gaps)


def test_other_threads_run_while_many_bytes_are_summed() -> None:
    many, patience = np.zeros(2**27, np.uint8), sys.getswitchinterval()

    def lets_us_in() -> bool:
        """Whether this thread sees the other one between the two: it is never made to give way."""
        seen: list[str] = []

        def summing() -> None:
            seen.append("in")
            shards.checksum(many)
            seen.append("out")

        other = threading.Thread(target=summing)
        other.start()
        between = seen == ["in"]
        other.join()
        return between

    sys.setswitchinterval(60.0)
    try:
        # A busy machine may wake us too late, many times.
        assert any(lets_us_in() for _ in range(50))
    finally:
        sys.setswitchinterval(patience)


def test_a_changed_byte_is_found_wherever_it_lies_in_a_large_chunk(tmp_path: Path) -> None:
    grid = TokenGrid(steps=2, rows=14, columns=14, channels=96)  # 75,264 bytes a chunk
    (array,) = replace(SPEC, grid=grid).arrays(Layer(3))
    tokens = np.random.default_rng(0).standard_normal(grid.shape).astype(np.float16)
    path, out = write(tmp_path / "0", [tokens], array), np.empty_like(tokens)
    edges = {at + near for at in (0, 16, 64, 256, 4096, 16384, 65536, 75264) for near in (-1, 0, 1)}
    spots = sorted(spot for spot in edges | {75267} if 0 <= spot < 75268)
    with path.open("r+b", buffering=0) as file:
        for spot in spots:
            (was,) = os.pread(file.fileno(), 1, spot)
            os.pwrite(file.fileno(), bytes([was ^ 0x80]), spot)
            with pytest.raises(DamagedShard, match="fails the checksum of the chunk at byte 0"):
                read_chunk_into(file.fileno(), 0, out)
            os.pwrite(file.fileno(), bytes([was]), spot)
        read_chunk_into(file.fileno(), 0, out)
    assert np.array_equal(out, tokens)


def test_a_shard_byte_by_byte(tmp_path: Path) -> None:
    # Clips 0 and 1, views 0 and 1, in C order: (0, 0), (0, 1) absent, (1, 0), (1, 1).
    path = write(tmp_path / "0", [chunk(1.0), None, chunk(2.0), chunk(-1.0)])
    one, two, minus = (bytes([0, high]) * 4 for high in (0x3C, 0x40, 0xBC))
    index = u64(0, 12, ABSENT, ABSENT, 12, 12, 24, 12)
    assert path.read_bytes() == one + crc(one) + two + crc(two) + minus + crc(minus) + index + crc(index)
    assert path.stat().st_size == shard_bytes(SPEC, 3) == 3 * 12 + 4 * 16 + 4


def test_the_index_reads_back_and_chunks_come_into_the_callers_buffer(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), None, chunk(2.0), chunk(3.0)])
    buffer = np.zeros((4, *GRID.shape), np.float16)
    with path.open("rb") as file:
        index = read_tail(file.fileno(), ARRAY).index
        for row in (0, 2, 3):
            read_chunk_into(file.fileno(), int(index[row, 0]), buffer[row])
    assert index.tolist() == [[0, 12], [ABSENT, ABSENT], [12, 12], [24, 12]]
    assert buffer[:, 0, 0, 0, 0].tolist() == [1.0, 0.0, 2.0, 3.0]


def test_chunks_left_out_at_the_end_are_absent(tmp_path: Path) -> None:
    last = write(tmp_path / "2", [chunk(1.0), chunk(2.0)])  # shard 2 holds clip 4 alone
    assert presence(last, ARRAY, 2).tolist() == [[True, True]]
    with pytest.raises(DamagedShard, match="holds chunks beyond the 5 clips"):
        presence(write(tmp_path / "long", [chunk(1.0)] * 3), ARRAY, 2)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0), None, None])
    good = path.read_bytes()
    for byte in range(len(good)):
        path.write_bytes(good[:byte] + bytes([good[byte] ^ 1]) + good[byte + 1 :])
        with path.open("rb") as file:
            if byte < 24:
                presence(path, ARRAY, 0)
                with pytest.raises(DamagedShard, match=f"checksum of the chunk at byte {12 * (byte // 12)}"):
                    read_chunk_into(file.fileno(), 12 * (byte // 12), chunk(0.0))
                read_chunk_into(file.fileno(), 12 * (1 - byte // 12), chunk(0.0))
                read_chunk_into(file.fileno(), 12 * (byte // 12), chunk(0.0), verify=False)
            else:
                with pytest.raises(DamagedShard, match="checksum of its index"):
                    presence(path, ARRAY, 0)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0), None, None])
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(DamagedShard, match=r"is truncated|checksum of its index"):
            presence(path, ARRAY, 0)
    path.write_bytes(b"\0" * 8 + good)
    with pytest.raises(DamagedShard, match="has 100 bytes where its index describes 92"):
        presence(path, ARRAY, 0)


def test_an_index_with_a_right_checksum_but_not_ours_is_found(tmp_path: Path) -> None:
    index = u64(12, 12, 0, 12, ABSENT, ABSENT, ABSENT, ABSENT)
    (tmp_path / "0").write_bytes(b"\0" * 24 + index + crc(index))
    with pytest.raises(DamagedShard, match="does not describe chunks of this store"):
        presence(tmp_path / "0", ARRAY, 0)


def test_a_chunk_beyond_the_end_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0)])
    with path.open("rb") as file, pytest.raises(DamagedShard, match="ends at byte"):
        read_chunk_into(file.fileno(), path.stat().st_size - 4, chunk(0.0))


def test_the_kernel_may_move_a_few_bytes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(tmp_path / "whole", [chunk(1.0), chunk(2.0)]).read_bytes()
    real_writev, real_preadv = os.writev, os.preadv
    calls = iter(range(10**6))

    def first_bytes(pieces: list[memoryview], n: int) -> list[memoryview]:
        left = []
        for piece in map(memoryview, pieces):
            left.append(piece[:n])
            n -= min(n, len(piece))
        return left

    monkeypatch.setattr(os, "writev", lambda fd, p: real_writev(fd, first_bytes(p, 1 + next(calls) % 11)))
    monkeypatch.setattr(
        os, "preadv", lambda fd, p, at: real_preadv(fd, first_bytes(p, 1 + next(calls) % 11), at)
    )
    path = write(tmp_path / "pieces", [chunk(1.0), chunk(2.0)])
    assert path.read_bytes() == whole
    buffer = chunk(0.0)
    with path.open("rb") as file:
        assert read_tail(file.fileno(), ARRAY).index[1].tolist() == [12, 12]
        read_chunk_into(file.fileno(), 12, buffer)
    assert (buffer == 2.0).all()


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_OPEN_SHARDS", 2)
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
    monkeypatch.setattr(shards, "MAX_OPEN_SHARDS", 1)
    monkeypatch.setattr(shards, "read_tail", lambda fd, array: reads.append(fd) or read_tail(fd, array))
    opened, buffer = OpenShards(), chunk(-1.0)
    for number in (0, 1, 2, 3, 2, 1, 0, 3):
        file = opened.get(paths[number], ARRAY)
        file.read_into(0, buffer)
        assert (buffer == number).all()
    assert len(reads) == 4


def test_damage_is_an_error_for_users() -> None:
    assert issubclass(DamagedShard, StoreError)


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 3000), st.sampled_from([1, 4096]))
def test_present_chunks_follow_each_other(present: list[bool], channels: int, alignment: int) -> None:
    grid = replace(GRID, channels=channels)
    (array,) = replace(SPEC, grid=grid, alignment=alignment).arrays(Layer(3))
    index, nbytes = index_of(np.array(present), array), 4 * channels + 4
    offsets = index[np.array(present), 0].tolist()
    stride = -(-nbytes // alignment) * alignment
    assert offsets == [stride * rank for rank in range(sum(present))]
    assert (index[np.array(present), 1] == nbytes).all()
    assert (index[~np.array(present)] == ABSENT).all()


def test_a_chunk_is_copied_from_the_mapped_file(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0)])
    file, buffer = ShardFile(path, ARRAY), chunk(0.0)
    for _ in range(2):
        file.copy_into(1, buffer)
        assert (buffer == 2.0).all()
        file.copy_into(0, buffer)
        assert (buffer == 1.0).all()
    whole = path.read_bytes()
    # In place, as the file is mapped: a touch of what is cut off would end the process.
    os.truncate(path, 15)
    file.copy_into(0, buffer)
    with pytest.raises(DamagedShard, match="is truncated: 15 bytes, the chunk at byte 12 ends at 20"):
        file.copy_into(1, buffer)
    path.write_bytes(whole)
    file.copy_into(1, buffer)
    assert (buffer == 2.0).all()


def test_a_file_mapped_short_is_mapped_again(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0)])
    file, buffer, whole = ShardFile(path, ARRAY), chunk(0.0), path.read_bytes()
    os.truncate(path, 10)
    file.copy_into(0, buffer)
    path.write_bytes(whole)
    file.copy_into(1, buffer)
    assert (buffer == 2.0).all()


def test_an_aligned_shard_byte_by_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), None, chunk(2.0)], ALIGNED)
    one, two = (bytes([0, high]) * 4 for high in (0x3C, 0x40))
    sums, index = (
        crc(one) + bytes(4) + crc(two) + bytes(4),
        u64(0, 12, ABSENT, ABSENT, 4096, 12, ABSENT, ABSENT),
    )
    chunks = b"".join((data + crc(data)).ljust(4096, b"\0") for data in (one, two))
    assert path.read_bytes() == chunks + sums + crc(sums) + index + crc(index)
    assert path.stat().st_size == file_bytes(ALIGNED, 2) == 2 * 4096 + 4 * 4 + 4 + 4 * 16 + 4
    present, tail = examine(path, ALIGNED, 0, sums=True)
    assert present.tolist() == [[True, False], [True, False]]
    assert tail.digest == blake2b(sums + index, digest_size=8).hexdigest()


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
                    file.read_into(slot, buffer)
            else:
                # Gaps hold nothing, and a chunk is held against its sum before the index.
                file.read_into(slot, buffer)
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
        ShardFile(path, ALIGNED, digest=digest).read_into(1, chunk(0.0))


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
    monkeypatch.setattr(shards, "is_local", lambda path: False)
    monkeypatch.setattr(shards.mmap, "mmap", None)
    file = OpenShards().get(path, ARRAY)
    file.copy_into(1, buffer)
    assert (buffer == 2.0).all()
    # As a server may do it, in place: an error where a mapped file would have ended the process.
    os.truncate(path, 15)
    with pytest.raises(DamagedShard, match="ends at byte 15"):
        file.copy_into(1, buffer)
