"""A batch shared by threads: every chunk once, into its own row; problems are told when all have stopped."""

import os
from pathlib import Path

import numpy as np
import pytest

from featcache.spec import TokenGrid
from featcache.store.reading import shard_file
from featcache.store.reading.destinations import AsStored
from featcache.store.reading.layer_reader import LayerReader, UnreadableChunk
from featcache.store.reading.shard_file import OpenShards
from featcache.store.reading.threads import Threads
from featcache.store.rows import Rows
from featcache.store.shards import write_chunks
from featcache.store.spec import ArraySpec
from featcache.store.zarr_format import shard_key

ROWS = Rows(grid=TokenGrid(steps=1, rows=1, columns=1, channels=3), n_clips=8, n_views=2)
ARRAYS = tuple(
    ArraySpec(name=name, dtype=dtype, of_a_chunk=shape, rows=ROWS, rows_per_shard=2, alignment=1)
    for name, dtype, shape in (("numbers", "int8", (3,)), ("beside", "float32", (1,)))
)
ABSENT_CHUNK, MISSING_SHARD = 4, 3


@pytest.fixture
def reader(tmp_path: Path) -> LayerReader:
    """Chunk n holds n in the first array and n / 2 in the second; shard 3 is missing."""
    for shard in range(MISSING_SHARD):
        paths = [tmp_path / shard_key(array, shard) for array in ARRAYS]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
        chunks = (
            None if n == ABSENT_CHUNK else (np.full(3, n, np.int8), np.full(1, n / 2, np.float32))
            for n in range(4 * shard, 4 * shard + 4)
        )
        with paths[0].open("wb") as first, paths[1].open("wb") as second:
            write_chunks([first.fileno(), second.fileno()], chunks, ARRAYS)
    return LayerReader(tmp_path, ARRAYS, OpenShards())


def read(
    reader: LayerReader, chunks: list[int], *, threads: int = 1, verify: bool = True
) -> list[np.ndarray]:
    buffers = [np.full((len(chunks), *array.of_a_chunk), -1, array.dtype) for array in ARRAYS]
    numbers = np.array(chunks, np.int64)
    reader.read(numbers, lambda: AsStored(*buffers), verify=verify, threads=threads, pool=Threads())
    return buffers


@pytest.mark.parametrize("threads", [1, 2, 5, 40])
@pytest.mark.parametrize("verify", [True, False])
def test_rows_stay_in_the_order_of_the_call(reader: LayerReader, threads: int, verify: bool) -> None:
    chunks = [11, 0, 7, 7, 3, 8, 1, 0]
    first, second = read(reader, chunks, threads=threads, verify=verify)
    assert first[:, 0].tolist() == chunks
    assert second[:, 0].tolist() == [n / 2 for n in chunks]


def test_what_cannot_be_read_is_named_and_the_rest_is_there(reader: LayerReader) -> None:
    for threads in (1, 3):
        with pytest.raises(UnreadableChunk) as found:
            read(reader, [1, ABSENT_CHUNK], threads=threads)
        assert (found.value.chunk, found.value.problem) == (ABSENT_CHUNK, None)
        with pytest.raises(UnreadableChunk) as found:
            read(reader, [14], threads=threads)
        assert (found.value.chunk, found.value.problem) == (14, "is missing")
        assert found.value.array is ARRAYS[0]


def test_damage_in_either_array_is_found(reader: LayerReader, flip) -> None:
    path = reader.path / shard_key(ARRAYS[1], 2)
    flip(path, 8)  # the second chunk's four bytes, after the first's with its checksum
    read(reader, [8])
    with pytest.raises(UnreadableChunk) as found:
        read(reader, [8, 9], threads=2)
    assert (found.value.array, found.value.chunk) == (ARRAYS[1], 9)
    assert found.value.problem == "fails the checksum of the chunk at byte 8"
    assert read(reader, [9], verify=False)[0].tolist() == [[9, 9, 9]]


def test_a_checksum_that_was_right_is_not_asked_again(reader: LayerReader, flip) -> None:
    read(reader, [8])
    flip(reader.path / shard_key(ARRAYS[0], 2), 0)
    assert read(reader, [8])[0].tolist() == [[8 ^ 0x10, 8, 8]]


def test_what_is_verified_is_copied_from_the_mapped_files(
    reader: LayerReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(reader, [8, 9, 1])
    monkeypatch.setattr(shard_file, "read_chunk_into", None)
    for threads in (1, 3):
        assert read(reader, [9, 8, 1, 9], threads=threads)[0][:, 0].tolist() == [9, 8, 1, 9]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_cut_off_a_mapped_file_is_named_and_the_rest_is_there(
    reader: LayerReader, threads: int
) -> None:
    read(reader, [4 * 1 + 1, 4 * 1 + 3, 0])
    os.truncate(reader.path / shard_key(ARRAYS[0], 1), 9)
    with pytest.raises(UnreadableChunk, match="is truncated") as found:
        read(reader, [5, 7, 0], threads=threads)
    assert found.value.chunk in (5, 7)
    assert read(reader, [0])[0].tolist() == [[0, 0, 0]]


def test_a_forked_child_has_threads_of_its_own(reader: LayerReader) -> None:
    pool, buffers = Threads(), [np.zeros((4, *array.of_a_chunk), array.dtype) for array in ARRAYS]

    def go() -> None:
        reader.read(np.arange(4), lambda: AsStored(*buffers), verify=True, threads=4, pool=pool)

    go()
    child = os.fork()
    if child == 0:
        buffers[0][:] = 0
        go()
        os._exit(0 if buffers[0][:, 0].tolist() == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def pages(reader: LayerReader, chunks: list[int], *, verify: bool = True) -> list[list[list[int | float]]]:
    found = reader.pages(np.array(chunks, np.int64), verify=verify, threads=3, pool=Threads())
    assert found is not None
    return [
        [piece.view(array.dtype).tolist() for piece in of] for array, of in zip(ARRAYS, found, strict=True)
    ]


def test_pages_are_the_bytes_that_are_read(reader: LayerReader) -> None:
    chunks = [11, 0, 7, 7, 3]
    assert pages(reader, chunks) == [[[n] * 3 for n in chunks], [[n / 2] for n in chunks]]


def test_what_cannot_be_mapped_is_named_as_what_cannot_be_read(reader: LayerReader, flip) -> None:
    path = reader.path / shard_key(ARRAYS[1], 2)
    flip(path, 8)
    for chunk, problem in (
        (ABSENT_CHUNK, None),
        (14, "is missing"),
        (9, "fails the checksum of the chunk at byte 8"),
    ):
        with pytest.raises(UnreadableChunk) as found:
            pages(reader, [1, chunk])
        assert (found.value.chunk, found.value.problem) == (chunk, problem)
    assert pages(reader, [9], verify=False)[0] == [[9, 9, 9]]


def test_pages_are_verified_once_as_reads_are(reader: LayerReader, flip) -> None:
    pages(reader, [8])
    flip(reader.path / shard_key(ARRAYS[0], 2), 0)
    assert read(reader, [8])[0].tolist() == pages(reader, [8])[0] == [[8 ^ 0x10, 8, 8]]


def test_pages_of_a_cut_file_are_refused_and_those_handed_out_before_it_stay(reader: LayerReader) -> None:
    path = reader.path / shard_key(ARRAYS[0], 0)
    before = reader.pages(np.array([0]), verify=True, threads=1, pool=Threads())
    # A new file of the same name, as extraction leaves one: what is mapped is the old one's.
    other = path.with_name("other")
    other.write_bytes(b"")
    other.replace(path)
    assert before is not None and before[0][0].tolist() == [0, 0, 0]
    os.truncate(path := reader.path / shard_key(ARRAYS[0], 1), 9)
    with pytest.raises(UnreadableChunk, match="is truncated"):
        pages(reader, [5, 6, 7])


def test_nothing_is_mapped_where_it_may_not_be(reader: LayerReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_file, "is_local", lambda path: False)
    assert reader.pages(np.array([1]), verify=True, threads=1, pool=Threads()) is None
