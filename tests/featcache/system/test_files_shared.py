"""Folders that several processes write into: what is swept, who is waited for, what a reader may not do."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcache.system import files
from featcache.system.files import Staged, keep, publish, remove_leftovers, temporary_beside


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def aged(path: Path, hours: float) -> Path:
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))
    return path


def left_by_a_killed_process(path: Path) -> Path:
    """A temporary file whose writer has ended."""
    code = "import os, sys, pathlib; from featcache.system.files import Staged as S; "
    code += "staged = S(pathlib.Path(sys.argv[1])); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    (left,) = path.parent.glob(f".{path.name}.*.partial")
    return left


def test_sweeping_takes_what_a_killed_writer_left(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    left_by_a_killed_process(tmp_path / "shard")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["file"]
    remove_leftovers(tmp_path / "none")


def test_another_writers_file_is_not_swept(tmp_path: Path) -> None:
    """What a living process, or another machine, is writing keeps its name until it is published."""
    elsewhere = tmp_path / ".file.0123abcd-1-99.partial"
    elsewhere.touch()
    with Staged(tmp_path / "file") as staged:
        remove_leftovers(tmp_path)
        staged.publish()
    assert names(tmp_path) == [elsewhere.name, "file"]


def test_what_nobody_has_written_to_for_a_day_is_swept(tmp_path: Path) -> None:
    for name in (".file.0123abcd-1-99.partial", ".older-version.0a1b2c3d.partial", ".group.partial"):
        (tmp_path / name).touch()
        aged(tmp_path / name, 25)
    busy = tmp_path / ".targets.0123abcd-1-98.partial"
    busy.mkdir()
    (busy / "chunk").touch()
    aged(busy, 25)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [busy.name], "a folder is as old as the last write to anything in it"
    aged(busy / "chunk", 25)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_names_of_temporary_files_fit_where_the_files_fit(tmp_path: Path) -> None:
    publish(tmp_path / ("n" * 250), b"content")
    publish(tmp_path / ("\u4e2d" * 80), b"content")
    assert len(names(tmp_path)) == 2
    assert temporary_beside(tmp_path / "a") != temporary_beside(tmp_path / "a")


def test_a_sweep_that_may_not_remove_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(left_by_a_killed_process(tmp_path / "file"), 25)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    remove_leftovers(tmp_path)
    assert len(names(tmp_path)) == 1


def test_a_cache_that_cannot_be_kept_ends_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(fd: int, pieces: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    keep(tmp_path / "index", b"content", what="the clip index")
    assert "the clip index cannot be kept in" in caplog.text
    assert "No space left on device" in caplog.text
    assert names(tmp_path) == []


def test_an_error_of_a_write_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ("writev", "fsync"):

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            with pytest.raises(OSError, match=r"Input/output error: '.*/file'"):
                publish(tmp_path / "file", b"content")
        assert names(tmp_path) == []


def test_a_folder_that_cannot_be_synced_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def of_files_only(fd: int) -> None:
        if os.path.samestat(os.fstat(fd), tmp_path.stat()):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(fd)

    monkeypatch.setattr(os, "fsync", of_files_only)
    publish(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
