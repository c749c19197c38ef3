"""A file with a seal is read as it was written, or refused; one without is one of before."""

import json
import os
import tracemalloc
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.system.files import read_regular
from featcache.system.sealed import (
    KEY,
    UNSEALED,
    BrokenSealError,
    changed_since,
    check_file,
    check_seal,
    json_sealed,
    json_unsealed,
    parquet_sealed,
    read_parquet,
    seal,
    state_of,
)

TABLE = pa.table({"clip": [1, 2, 3], "score": [0.25, 0.5, 0.75]}, metadata={"about": "a test"})


def npz() -> bytes:
    buffer = BytesIO()
    np.savez(buffer, clips=np.arange(3))
    with ZipFile(buffer, "a") as archive:
        archive.comment = UNSEALED.encode()
    return seal(buffer.getvalue())


KINDS = {"json": json_sealed({"score": 0.2747}), "parquet": parquet_sealed(TABLE), "npz": npz()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_anywhere_breaks_the_seal_or_leaves_the_content(kind: str) -> None:
    content = KINDS[kind]
    mark = content.index(UNSEALED[:14].encode())
    assert check_seal(content)
    for byte in range(len(content)):
        damaged = bytearray(content)
        damaged[byte] ^= 1 << byte % 8
        if mark <= byte < mark + 14:
            assert not check_seal(bytes(damaged))  # of before there were seals, by its looks
            with pytest.raises(BrokenSealError):
                check_seal(bytes(damaged), required=True)
        else:
            with pytest.raises(BrokenSealError):
                check_seal(bytes(damaged))


def test_the_seal_is_the_sha256_of_the_file_with_zeros_in_its_place() -> None:
    content = KINDS["json"]
    digits = json.loads(content)[KEY].removeprefix("scivid-sha256:")
    assert digits == sha256(content.replace(digits.encode(), b"0" * 64)).hexdigest()


def test_a_file_cut_in_its_seal_is_refused() -> None:
    content = KINDS["npz"]
    with pytest.raises(BrokenSealError, match="was changed after it was written"):
        check_seal(content[:-20])


def test_json_of_before_is_read_and_told_apart() -> None:
    assert json_unsealed(KINDS["json"]) == ({"score": 0.2747}, True)
    assert json_unsealed(b'{"score": 0.2747}') == ({"score": 0.2747}, False)


@pytest.mark.parametrize("content", [b"[1]", b"{", b'{"a":' * 100_000, b"\xff\xfe"])
def test_what_is_no_json_object_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json_unsealed(content)


def test_a_sealed_table_is_plain_parquet(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(KINDS["parquet"])
    assert pq.read_table(path).to_pydict() == TABLE.to_pydict()
    assert pq.read_table(path).schema.metadata[b"about"] == b"a test"
    assert read_parquet(path, columns=["score"]).to_pydict() == {"score": [0.25, 0.5, 0.75]}
    with ZipFile(BytesIO(KINDS["npz"])) as archive:
        assert archive.testzip() is None


def test_a_large_file_is_checked_without_being_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(seal(b"\1" * 5000 + UNSEALED.encode() + b"\2" * 100_000))
    assert check_file(path)
    with path.open("r+b") as file:
        file.seek(70_000)
        file.write(b"\3")
    with pytest.raises(BrokenSealError):
        check_file(path)


@pytest.mark.parametrize("read", [partial(read_regular, limit=10), check_file])
def test_a_pipe_a_folder_or_a_device_is_neither_waited_for_nor_read(tmp_path: Path, read: object) -> None:
    assert callable(read)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros", "."):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            read(tmp_path / name)


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(101))
    with pytest.raises(OSError, match="longer than the 100 bytes"):
        read_regular(tmp_path / "long", limit=100)


def test_reading_takes_the_memory_of_the_file_and_not_of_its_limit(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"short")
    tracemalloc.start()
    assert read_regular(tmp_path / "short", limit=2**36) == b"short"
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_file_that_was_edited_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("a.mp4,0,rest")
    state = state_of(file)
    assert changed_since(state) is None
    file.write_text("a.mp4,0,jump")
    os.utime(file, ns=(0, state["mtime_ns"] + 1))  # of the same length, a moment later
    assert changed_since(state) == file
    file.write_text("a.mp4,0,rest;jump")
    os.utime(file, ns=(0, state["mtime_ns"]))  # the time put back
    assert changed_since(state) == file


def test_a_file_that_was_touched_or_copied_back_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("a.mp4,0,rest")
    state = state_of(file)
    os.utime(file, ns=(0, 0))
    assert changed_since(state) is None


def test_what_cannot_be_reached_is_not_said_to_have_changed(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("a.mp4,0,rest")
    state = state_of(file)
    file.unlink()
    assert changed_since(state) is None
    file.mkdir()
    assert changed_since(state) is None
    with pytest.raises(FileNotFoundError):
        state_of(tmp_path / "gone.csv")
