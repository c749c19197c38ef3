"""One writer at a time, who holds the lock, and file systems that have none."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from featcache.errors import StoreError
from featcache.system import locks
from featcache.system.locks import Lock


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


HOLD = """
import sys, time
from pathlib import Path
from featcache.system.locks import Lock
lock = Lock(Path(sys.argv[1]), wait=False, busy="taken")
print("held", flush=True)
time.sleep(60)
"""


def test_another_process_holds_the_lock_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="taken"):
            Lock(path, wait=False, busy="taken")
        holder.send_signal(signal.SIGKILL)
    Lock(path, wait=False, busy="taken").release()
    assert names(tmp_path) == []


def test_one_at_a_time_though_the_file_goes_with_every_holder(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            lock = Lock(tmp_path / ".lock", wait=True, busy="")
            inside += 1
            most = max(most, inside)
            inside -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert names(tmp_path) == []


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    Lock(tmp_path / ".lock", wait=False, busy="taken").release()


def test_who_holds_a_lock_is_said_at_once_or_after_a_second_of_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "SECONDS_IN_SILENCE", 0.05)
    path, busy = tmp_path / ".lock", "the targets are being written by another process."
    holder = Lock(path, wait=True, busy=busy)
    with pytest.raises(StoreError, match=f"by another process. It is process {os.getpid()} on "):
        Lock(path, wait=False, busy=busy)
    with caplog.at_level(logging.WARNING):
        timer = threading.Timer(0.5, holder.release)
        timer.start()
        Lock(path, wait=True, busy=busy).release()
        timer.join()
    (record,) = caplog.records
    assert record.message.startswith(f"waiting: {busy} It is process {os.getpid()} on ")


def test_a_lock_on_a_disk_that_may_only_be_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def read_only(path: object, flags: int, *mode: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *mode)  # type: ignore[call-overload,no-any-return]

    path = tmp_path / ".lock"
    holder = Lock(path, wait=False, busy="")
    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreError, match="taken"):
        Lock(path, wait=False, busy="taken")
    holder.release()
    Lock(path, wait=False, busy="taken").release()
    assert names(tmp_path) == []


def test_a_file_system_that_has_no_locks_for_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    Lock(tmp_path / ".lock", wait=True, busy="").release()


def test_those_who_share_a_lock_refuse_the_others_and_are_refused_by_them(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first, second = (Lock(path, wait=False, busy="taken", shared=True) for _ in range(2))
    for one in (first, second):
        with pytest.raises(StoreError, match="taken"):
            Lock(path, wait=False, busy="taken")
        one.release()
    alone = Lock(path, wait=False, busy="taken")
    with pytest.raises(StoreError, match="taken"):
        Lock(path, wait=False, busy="taken", shared=True)
    alone.release()
    Lock(path, wait=False, busy="taken", shared=True).release()
    assert names(tmp_path) == []


def test_a_shared_lock_comes_and_goes_with_many_and_none_is_refused(tmp_path: Path) -> None:
    """The file goes with the last of them, at any moment of the next one's asking."""
    problems: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(100):
                Lock(tmp_path / ".lock", wait=False, busy="taken", shared=True).release()
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert names(tmp_path) == []


def test_shared_without_locks_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    Lock(tmp_path / ".lock", wait=False, busy="taken", shared=True).release()
    assert names(tmp_path) == []
