"""A split is listed once: again only where a file, the manifest's entry or the code changed."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.data import index_cache
from featcache.data.index_cache import scan_once
from featcache.data.readers import open_reader
from featcache.data.readers.base import Scan
from featcache.data.readers.sequence_example.reader import SequenceExampleReader
from featcache.data.readers.sequence_example.records import RecordFiles
from featcache.manifest import Dataset, load_manifest
from featcache.system import row_groups
from featcache.system.row_groups import RowGroups

Scanned = Callable[..., Scan]


@pytest.fixture
def data_dir(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def dataset() -> Dataset:
    return load_manifest().dataset("flyvsfly")


@pytest.fixture
def n_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number a record that was read."""
    read, numbers = RecordFiles.read, list[int]()

    def counted(self: RecordFiles, path: Path, record: int) -> bytes:
        numbers.append(record)
        return read(self, path, record)

    monkeypatch.setattr(RecordFiles, "read", counted)
    return numbers


@pytest.fixture
def scanned(data_dir: Path, dataset: Dataset, n_read: list[int]) -> Scanned:
    """The scan of the val split, after which `n_read` holds what it read."""

    def scan(of: Dataset = dataset, *, skip_bad: bool = False) -> Scan:
        n_read.clear()
        reader = open_reader(of, "val", data_dir)
        cache_dir = data_dir.parent / "features"
        return scan_once(reader, of, "val", data_dir=data_dir, cache_dir=cache_dir, skip_bad=skip_bad)

    return scan


def a_file(data_dir: Path) -> Path:
    return min(data_dir.rglob("val_fly*"))


def test_the_second_scan_reads_no_record_and_gives_the_same(scanned: Scanned, n_read: list[int]) -> None:
    first = scanned()
    assert len(n_read) == len(first.index) == 18
    second = scanned()
    assert not n_read
    assert second.index.clips.equals(first.index.clips)
    assert (second.index.digest, second.notes, second.skipped) == (first.index.digest, first.notes, ())


def test_a_touched_file_is_read_again(scanned: Scanned, n_read: list[int], data_dir: Path) -> None:
    scanned()
    a_file(data_dir).touch()
    assert len(scanned().index) == len(n_read) == 18
    scanned()
    assert not n_read


def test_other_bytes_under_the_old_size_and_time_are_noticed(
    scanned: Scanned, n_read: list[int], data_dir: Path
) -> None:
    scanned()
    path = a_file(data_dir)
    was = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    scanned()
    assert len(n_read) == 18


@pytest.mark.parametrize("change", [{"version": "2"}, {"classes": ("a",) * 7}])
def test_another_entry_of_the_manifest_is_another_scan(
    scanned: Scanned, n_read: list[int], dataset: Dataset, change: dict[str, object]
) -> None:
    scanned()
    scanned(replace(dataset, **change))  # type: ignore[arg-type]
    assert len(n_read) == 18


def test_other_code_scans_again(scanned: Scanned, n_read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    scanned()
    monkeypatch.setattr(index_cache, "reading_code", lambda: "tomorrow's")
    scanned()
    assert len(n_read) == 18


@pytest.mark.parametrize("spoil", ["empty", "torn", "another", "a flipped bit", "no seal"])
def test_a_broken_cache_costs_a_scan(scanned: Scanned, n_read: list[int], data_dir: Path, spoil: str) -> None:
    scanned()
    (kept,) = (data_dir.parent / "features" / "index").iterdir()
    content = kept.read_bytes()
    spoilt = {
        "empty": b"",
        "torn": content[:-100],
        "another": b"not Parquet" * 100,
        "a flipped bit": content[:70] + bytes([content[70] ^ 1]) + content[71:],
        "no seal": content.replace(b"scivid-sha256:", b"scivid-sha512:"),
    }
    kept.write_bytes(spoilt[spoil])
    assert len(scanned().index) == len(n_read) == 18
    scanned()
    assert not n_read


def test_records_left_out_are_remembered_and_are_not_when_they_may_not_be(
    scanned: Scanned, n_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.data.readers.base import UnreadableError
    from featcache.errors import DataError

    parse = SequenceExampleReader._parse

    def broken(self: SequenceExampleReader, data: bytes) -> object:
        if n_read[-1] == 1:
            raise UnreadableError("torn")
        return parse(self, data)

    monkeypatch.setattr(SequenceExampleReader, "_parse", broken)
    monkeypatch.setattr("featcache.data.readers.base.SCAN_THREADS", 1)
    first = scanned(skip_bad=True)
    assert first.skipped
    second = scanned(skip_bad=True)
    assert not n_read
    assert second.skipped == first.skipped
    with pytest.raises(DataError, match="torn"):
        scanned()


def test_a_file_that_changes_meanwhile_is_not_remembered(
    scanned: Scanned, n_read: list[int], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = SequenceExampleReader.scan

    def slow(self: SequenceExampleReader, **options: object) -> Scan:
        found = scan(self, **options)  # type: ignore[arg-type]
        a_file(data_dir).touch()
        return found

    monkeypatch.setattr(SequenceExampleReader, "scan", slow)
    scanned()
    assert not (data_dir.parent / "features" / "index").exists()


def test_a_long_list_is_kept_in_groups_of_rows_and_used_without_being_read(
    scanned: Scanned, n_read: list[int], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = scanned()
    kept = next((data_dir.parent / "features" / "index").glob("*.parquet"))
    kept.unlink()
    monkeypatch.setattr(row_groups, "MOST_HELD", 4)
    first, second = scanned(), scanned()
    assert not n_read
    for scan in (first, second):
        assert isinstance(scan.index.clips, RowGroups)
        assert scan.index.clips.path == kept
        assert scan.index.digests == few.index.digests
        assert [scan.index.clip(i) for i in range(18)] == [few.index.clip(i) for i in range(18)]
    # An end that was changed, and it is listed again.
    content = bytearray(kept.read_bytes())
    content[-100] ^= 1
    kept.write_bytes(content)
    assert scanned().index.digests == few.index.digests
    assert len(n_read) == 18
