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
    examine,
    file_bytes,
    index_of,
    read_chunk_into,
    read_tail,
    shard_bytes,
)
from featcache.store.spec import ArraySpec
from tests.featcache.store.small_shards import ALIGNED, ARRAY, GRID, SPEC, chunk, write


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
