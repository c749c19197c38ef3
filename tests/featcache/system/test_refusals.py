"""Each thing that the operating system says has its file, its reason and its way out, in one message."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from featcache.system.refusals import WAYS_OUT, no_room, refusal


def error(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize("number", WAYS_OUT, ids=lambda number: errno.errorcode[number])
def test_every_refusal_names_the_file_and_a_way_out(number: int) -> None:
    told = refusal(error(number, "results/last.safetensors"))
    assert told == f"results/last.safetensors: {os.strerror(number)}. {WAYS_OUT[number]}"
    assert "\n" not in told


def test_two_names_an_unknown_number_and_a_librarys_own_error() -> None:
    assert refusal(OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b")).startswith(
        "a -> b: Inv"
    )
    assert refusal(OSError("Couldn't deserialize thrift")) == "Couldn't deserialize thrift"
    assert refusal(OSError()) == "OSError()"


def room(monkeypatch: pytest.MonkeyPatch, *, free: int, files: int) -> None:
    found = SimpleNamespace(f_bavail=free, f_frsize=1, f_favail=files, f_files=1000)
    monkeypatch.setattr(os, "statvfs", lambda path: found)


def test_a_quota_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, free=5_000_000, files=9)
    told = refusal(error(errno.EDQUOT, str(tmp_path / "not" / "there")))
    assert told.startswith(
        f"the quota on the disk of {tmp_path}/not/there is used up; on the disk itself 5,000,000"
    )
    assert "`quota -s`" in told
    assert "full" not in told


def test_a_full_disk_says_what_is_free_and_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, free=12, files=9)
    told = no_room(error(errno.ENOSPC), tmp_path, ", 20 are needed")
    assert told.startswith(
        f"the disk of {tmp_path} is full: 12 bytes are free, 20 are needed. Make room, or "
    )
    assert refusal(error(errno.ENOSPC)).startswith("the disk is full. Make room")


def test_a_disk_without_room_for_files_is_not_called_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, free=5_000_000, files=0)
    told = refusal(error(errno.ENOSPC, str(tmp_path / "file")))
    assert "holds no more files (inodes), though 5,000,000 bytes are free" in told


def test_a_disk_that_says_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: Path) -> None:
        raise error(errno.ESTALE)

    monkeypatch.setattr(os, "statvfs", gone)
    assert refusal(error(errno.ENOSPC, str(tmp_path))).startswith(
        f"the disk of {tmp_path} is full. Make room"
    )
