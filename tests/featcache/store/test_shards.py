"""The bytes of a shard, counted by hand; damage anywhere in them is found."""

import os
import sys
import threading
from dataclasses import replace
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
    index_of,
    presence,
    read_chunk_into,
    read_index,
    shard_bytes,
    write_chunks,
)
from featcache.store.spec import ArraySpec, FeatureSpec

GRID = TokenGrid(steps=1, rows=1, columns=2, channels=2)  # 8 bytes a chunk
SPEC = FeatureSpec(grid=GRID, layers=(Layer(3),), n_clips=5, n_views=2, clips_per_shard=2)
(ARRAY,) = SPEC.arrays(Layer(3))


def chunk(value: float) -> np.ndarray:
    return np.full(GRID.shape, value, np.float16)


def write(path: Path, chunks: list[np.ndarray | None], array: ArraySpec = ARRAY) -> Path:
    with path.open("wb") as file:
        write_chunks([file.fileno()], (None if chunk is None else (chunk,) for chunk in chunks), [array])
    return path


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
        index = read_index(file.fileno(), 4)
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
        assert read_index(file.fileno(), 4)[1].tolist() == [12, 12]
        read_chunk_into(file.fileno(), 12, buffer)
    assert (buffer == 2.0).all()


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_OPEN_SHARDS", 2)
    paths = [write(tmp_path / str(n), [chunk(n)]) for n in range(4)]
    opened = OpenShards(4)
    held = opened.get(paths[0])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in paths * 3:
        opened.get(path)
    # Evicted, but still ours to read from: one more than the two that are kept.
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    buffer = chunk(-1.0)
    read_chunk_into(held.fd, 0, buffer)
    assert (buffer == 0.0).all()
    with pytest.raises(FileNotFoundError):
        opened.get(tmp_path / "none")


def test_an_index_is_read_once_however_often_its_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, reads = [write(tmp_path / str(n), [chunk(n)]) for n in range(4)], []
    monkeypatch.setattr(shards, "MAX_OPEN_SHARDS", 1)
    monkeypatch.setattr(shards, "read_index", lambda fd, n: reads.append(fd) or read_index(fd, n))
    opened, buffer = OpenShards(4), chunk(-1.0)
    for number in (0, 1, 2, 3, 2, 1, 0, 3):
        file = opened.get(paths[number])
        read_chunk_into(file.fd, int(file.index[0, 0]), buffer)
        assert (buffer == number).all()
    assert len(reads) == 4


def test_damage_is_an_error_for_users() -> None:
    assert issubclass(DamagedShard, StoreError)


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(5, 100))
def test_present_chunks_follow_each_other_without_gaps(present: list[bool], nbytes: int) -> None:
    index = index_of(np.array(present), nbytes)
    offsets = index[np.array(present), 0].tolist()
    assert offsets == [nbytes * rank for rank in range(sum(present))]
    assert (index[~np.array(present)] == ABSENT).all()


def test_a_chunk_is_copied_from_the_mapped_file(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0)])
    file, buffer = shards.ShardFile(path, 4), chunk(0.0)
    for _ in range(2):
        file.copy_into(12, buffer)
        assert (buffer == 2.0).all()
        file.copy_into(0, buffer)
        assert (buffer == 1.0).all()
    whole = path.read_bytes()
    # In place, as the file is mapped: a touch of what is cut off would end the process.
    os.truncate(path, 15)
    file.copy_into(0, buffer)
    with pytest.raises(DamagedShard, match="is truncated: 15 bytes, the chunk at byte 12 ends at 20"):
        file.copy_into(12, buffer)
    path.write_bytes(whole)
    file.copy_into(12, buffer)
    assert (buffer == 2.0).all()


def test_a_file_mapped_short_is_mapped_again(tmp_path: Path) -> None:
    path = write(tmp_path / "0", [chunk(1.0), chunk(2.0)])
    file, buffer, whole = shards.ShardFile(path, 4), chunk(0.0), path.read_bytes()
    os.truncate(path, 10)
    file.copy_into(0, buffer)
    path.write_bytes(whole)
    file.copy_into(12, buffer)
    assert (buffer == 2.0).all()
