"""Claims in a bucket: one worker's at a time, free when it is gone or was silent by the server's clock."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.buckets.path import BucketPath, place
from featcache.extract.workers import claims
from featcache.extract.workers.bucket_claims import BucketClaims, claims_in
from featcache.extract.workers.claims import FileClaims, Owner

HERE = Owner.this_process({})
ELSEWHERE = replace(HERE, machine="other", host="other")


@pytest.fixture
def folder(bucket: Path) -> BucketPath:
    there = place(f"s3://{bucket.name}/store.zarr/claims")
    assert isinstance(there, BucketPath)
    return there


def test_one_at_a_time_and_free_when_it_is_released(folder: BucketPath, tmp_path: Path) -> None:
    assert type(claims_in(tmp_path, HERE)) is FileClaims
    first, second = (claims_in(folder, owner) for owner in (HERE, ELSEWHERE))
    assert isinstance(first, BucketClaims)
    assert first.claim("7")
    assert not second.claim("7")
    assert second.claim("8")
    second.release("7")  # it is not its own
    assert not second.claim("7")
    first.release("7")
    assert second.claim("7")
    for one in (first, second):
        one.close()
    assert list(folder.iterdir()) == []


def test_of_many_at_once_one_has_it(folder: BucketPath) -> None:
    workers = [BucketClaims(folder, ELSEWHERE) for _ in range(4)]
    barrier, had = threading.Barrier(4), []

    def work(worker: BucketClaims) -> None:
        for number in range(10):
            barrier.wait(30)
            if worker.claim(str(number)):
                had.append(number)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(had) == list(range(10))
    for worker in workers:
        worker.close()


def test_who_is_silent_for_long_has_nothing(
    folder: BucketPath, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, ours = BucketClaims(folder, ELSEWHERE), BucketClaims(folder, HERE, expires=30.0)
    assert silent.claim("3")
    assert silent.claim("4")
    assert not ours.claim("3")
    file = bucket / "store.zarr/claims/3"
    os.utime(file, (time.time() - 60, time.time() - 60))
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    beating = BucketClaims(folder, ELSEWHERE, expires=30.0)
    assert beating.claim("5")
    five = bucket / "store.zarr/claims/5"
    os.utime(five, (time.time() - 60, time.time() - 60))
    deadline = time.monotonic() + 20
    while time.time() - five.stat().st_mtime > 30:  # until it is touched
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not ours.claim("5")
    assert ours.claim("3")
    silent.release("3")  # no longer its own
    assert file.exists()
    ours.release_all()
    ours.clear()
    assert sorted(path.name for path in folder.iterdir()) == ["4", "5"]
    for one in (silent, beating):
        one.close()


def test_a_killed_process_of_this_machine_has_nothing(folder: BucketPath) -> None:
    code = """
import os, sys, time
from featcache.buckets.path import place
from featcache.extract.workers.bucket_claims import claims_in
from featcache.extract.workers.claims import Owner
print(claims_in(place(sys.argv[1]), Owner.this_process(os.environ)).claim("3"), flush=True)
time.sleep(60)
"""
    ours = BucketClaims(folder, HERE)
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not ours.claim("3")
        process.kill()
        process.wait()
    assert ours.claim("3")
    ours.close()
