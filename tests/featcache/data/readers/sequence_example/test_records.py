"""Which record files make a split, and what array_record keeps silent about."""

import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.sequence_example.records import RecordFiles, find_shards
from featcache.errors import CallError, DataError
from featcache.manifest import Split


def find(shards: Any, **changes: Any) -> Any:
    dataset = shards.dataset(**changes)
    return find_shards(dataset, dataset.split("val"), shards.folder)


def test_finds_a_set_of_any_number(shards: Any) -> None:
    shards.write([[b"a"], [], [b"b"]])
    found = find(shards)
    assert (found.n_shards, found.problem, found.notes) == (3, None, ())
    assert [shards.folder / source for source in found.found] == [shards.path(i, 3) for i in range(3)]
    official = find(shards, n_shards=100)
    assert official.problem is None
    assert official.notes == ("val: 3 shards found, the official release has 100.",)


def test_other_files_do_not_matter(shards: Any) -> None:
    shards.write([[b"a"], [b"b"]])
    for name in (
        "val.array_record-00000-of-00002.part",
        "val.array_record-1-of-2",
        "train.array_record-00000-of-00009",
    ):
        (shards.path(0, 2).parent / name).touch()
    shards.path(7, 2).touch()
    assert find(shards).found == find(shards, n_shards=2).found
    assert len(find(shards).found) == 2


def test_names_what_is_missing_and_the_command_that_fetches_it(shards: Any) -> None:
    shards.write([[b"a"], [b"b"], [b"c"]])
    shards.path(1, 3).unlink()
    problem = find(shards).problem
    assert "mice/val has 2 of its 3 files" in problem
    assert "missing: val.array_record-00001-of-00003." in problem
    folder = shards.folder / "full/mice"
    assert f"gcloud storage cp gs://bucket/full/mice/val.array_record-00001-of-00003 {folder}/" in problem


def test_without_any_file_the_official_ones_are_missing(shards: Any) -> None:
    problem = find(shards, n_shards=100).problem
    assert "0 of its 100 files" in problem
    assert "val.array_record-00002-of-00100 and 97 more" in problem
    assert "gcloud storage cp 'gs://bucket/full/mice/val.array_record-*'" in problem


def test_the_bucket_is_not_named_for_files_it_does_not_hold(shards: Any) -> None:
    shards.write([[b"a"], [b"b"]])
    shards.path(0, 2).unlink()
    problem = find(shards, n_shards=100).problem
    assert "gs://" not in problem
    assert "https://example.org/mice" in problem


def test_a_whole_set_is_taken_beside_a_part_of_another(shards: Any) -> None:
    shards.write([[b"a"], [b"b"]])
    for shard in range(3):
        shards.path(shard, 5).touch()
    assert (find(shards).n_shards, find(shards).problem) == (2, None)


def test_two_whole_sets_are_refused(shards: Any) -> None:
    shards.write([[b"a"], [b"b"]])
    shards.write([[b"a"]])
    with pytest.raises(DataError, match="in 1 and 2 files"):
        find(shards)


@pytest.mark.parametrize(
    "files", ["a/b.array_record", "a/b-{shard:05d}", "a/b-{shard}-{shard}-{n_shards}", "{x}"]
)
def test_a_pattern_without_places_for_numbers_is_a_wrong_call(shards: Any, files: str) -> None:
    with pytest.raises(CallError, match="must end in a file name"):
        find(shards, splits={"val": Split(name="val", files=files)})


@pytest.mark.parametrize("options", ["group_size:1", "group_size:4,uncompressed", "group_size:65536"])
def test_reads_any_record_of_any_grouping(shards: Any, options: str) -> None:
    records = [bytes([i]) * (i + 1) for i in range(11)]
    shards.write([records], options)
    files, path = RecordFiles(), shards.path(0, 1)
    assert files.n_records(path) == 11
    assert [files.read(path, i) for i in (3, 0, 10, 3)] == [records[i] for i in (3, 0, 10, 3)]


def test_an_empty_file_holds_no_record_not_an_empty_one(shards: Any) -> None:
    shards.write([[]])
    files = RecordFiles()
    assert files.n_records(shards.path(0, 1)) == 0
    with pytest.raises(UnreadableError, match="it has 0 records"):
        files.read(shards.path(0, 1), 0)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "foreign", "folder"])
def test_files_that_array_record_opens_in_silence_are_refused(shards: Any, damage: str) -> None:
    shards.write([[os.urandom(300_000)]])
    path = shards.path(0, 1)
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"cut": whole[:-1], "empty": b"", "foreign": bytes(len(whole))}[damage])
    with pytest.raises(UnreadableError):
        RecordFiles().n_records(path)


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WholeFileError, match="not a regular file"):
        RecordFiles().n_records(tmp_path / "pipe")


def test_a_damaged_record_is_refused_and_the_others_are_read(shards: Any) -> None:
    records = [os.urandom(100_000) for _ in range(3)]
    shards.write([records], "group_size:1,uncompressed")
    path = shards.path(0, 1)
    data = bytearray(path.read_bytes())
    at = data.index(records[1][100:140])
    data[at] ^= 255
    path.write_bytes(data)
    files = RecordFiles()
    with pytest.raises(UnreadableError, match="damaged"):
        files.read(path, 1)
    assert [files.read(path, i) for i in (0, 2)] == [records[0], records[2]]


def test_few_files_stay_open_under_many_threads(shards: Any) -> None:
    n_shards, n_records = 12, 20
    shards.write([[f"{s}/{r}".encode() for r in range(n_records)] for s in range(n_shards)])
    files = RecordFiles(capacity=3)
    wanted = np.random.default_rng(0).integers((n_shards, n_records), size=(400, 2)).tolist()

    def read(which: list[int]) -> bytes:
        return files.read(shards.path(which[0], n_shards), which[1])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, wanted))
    assert found == [f"{s}/{r}".encode() for s, r in wanted]
    (opened,) = files._readers._of_process.values()
    assert len(opened.values) == 3


def _read_in_child(files: RecordFiles, path: Path) -> None:
    os._exit(0 if files.read(path, 1) == b"b" else 1)


def test_forked_and_spawned_processes_open_their_own(shards: Any) -> None:
    shards.write([[b"a", b"b"]])
    files = RecordFiles()
    assert files.read(shards.path(0, 1), 0) == b"a"
    child = multiprocessing.get_context("fork").Process(
        target=_read_in_child, args=(files, shards.path(0, 1))
    )
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert pickle.loads(pickle.dumps(files)).read(shards.path(0, 1), 1) == b"b"
