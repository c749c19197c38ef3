"""A name leads to all of its bytes or to nothing, and there is one writer at a time."""

import errno
import os
from pathlib import Path

import pytest

from featcache.errors import StoreError
from featcache.system.files import (
    Staged,
    append_line,
    failures_explained,
    make_directory,
    publish,
    read_regular,
    write_file,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_staged_file_has_its_name_only_once_it_is_published(tmp_path: Path) -> None:
    with Staged(tmp_path / "deep" / "file") as staged:
        os.write(staged.fd, b"content")
        assert [n.startswith(".file.") and n.endswith(".partial") for n in names(tmp_path / "deep")] == [True]
        staged.publish()
    assert names(tmp_path / "deep") == ["file"]
    assert (tmp_path / "deep" / "file").read_bytes() == b"content"


def test_an_error_leaves_nothing_new_and_nothing_less(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), Staged(tmp_path / "file") as staged:
        os.write(staged.fd, b"new")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the operating system is asked to write, sync and rename, and to what, in order."""
    calls: list[tuple[str, str]] = []
    for name in ("writev", "fsync", "replace"):
        real = getattr(os, name)

        def spy(*args: object, real: object = real, name: str = name) -> object:
            what = Path(f"/proc/self/fd/{args[0]}").readlink() if isinstance(args[0], int) else args[1]
            path = Path(str(what))
            calls.append((name, path.suffix or path.name))
            return real(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, spy)
    return calls


def test_the_order_is_write_fsync_rename_fsync_of_the_folder(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    publish(tmp_path / "file", b"content")
    folder = tmp_path.name
    assert calls == [("writev", ".partial"), ("fsync", ".partial"), ("replace", "file"), ("fsync", folder)]


def test_publishing_the_same_bytes_touches_nothing(tmp_path: Path) -> None:
    publish(tmp_path / "file", b"content")
    before = (tmp_path / "file").stat()
    publish(tmp_path / "file", b"content")
    assert (tmp_path / "file").stat().st_ino == before.st_ino
    publish(tmp_path / "file", b"other")
    assert (tmp_path / "file").read_bytes() == b"other"


def test_folders_and_files_of_a_folder(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    write_file(tmp_path / "a" / "c" / "file", [b"one", memoryview(b"two")])
    assert (tmp_path / "a" / "c" / "file").read_bytes() == b"onetwo"


def test_a_file_of_a_folder_and_a_line_of_a_log_are_on_the_disk_when_written(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    """The folder gets its name later: a power cut after that must not leave it with torn files."""
    write_file(tmp_path / "file.bin", [b"content"])
    assert calls == [("writev", ".bin"), ("fsync", ".bin")]
    append_line(tmp_path / "file.log", "line")
    assert calls[2:] == [("fsync", ".log")]
    make_directory(tmp_path / "new")
    assert calls[3:] == [("fsync", tmp_path.name)]


def test_a_torn_line_stays_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append_line(path, "one")
    with path.open("ab") as file:
        file.write(b'{"torn')
    append_line(path, "two")
    append_line(path, "three")
    assert path.read_text().splitlines() == ["one", '{"torn', "two", "three"]


def test_a_full_disk_and_other_refusals_become_messages(tmp_path: Path) -> None:
    with (
        pytest.raises(
            StoreError, match=r"disk of .* is full: [\d,]+ bytes are free, 1,000 are needed now and 5,000"
        ),
        failures_explained(tmp_path, needed=1000, left=lambda: 5000),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreError, match="Permission denied"), failures_explained(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "file")


def test_a_log_is_a_regular_file_and_named_where_it_is_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        append_line(tmp_path / "pipe", "a line")
    append_line(tmp_path / "log", "a line")
    assert (tmp_path / "log").stat().st_mode & 0o111 == 0


def test_a_short_file_takes_no_memory_for_what_it_might_have_been(tmp_path: Path) -> None:
    file = tmp_path / "short"
    file.write_bytes(b"0123")
    assert read_regular(file, limit=2**60) == b"0123"
    assert read_regular(file, limit=4) == b"0123"
    with pytest.raises(OSError, match="longer than the 3 bytes"):
        read_regular(file, limit=3)


def test_a_file_lost_once_it_is_open_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "there"
    file.write_bytes(b"0123")

    def lost(fd: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as disk, pytest.raises(OSError, match="there") as found:
        disk.setattr(os, "fstat", lost)
        read_regular(file, limit=4)
    assert found.value.errno == errno.ESTALE
