"""Claims in a bucket keep the promises of those on a disk."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.buckets.path import BucketPath, place
from featcache.extract.workers import claims
from featcache.extract.workers.bucket_claims import BucketClaims, claims_at
from featcache.extract.workers.claims import FileClaims, Owner

HERE = Owner.this_process({})
ELSEWHERE = replace(HERE, machine="other", host="other")


@pytest.fixture
def folder(bucket: Path) -> BucketPath:
    found = place(f"s3://{bucket.name}/store.zarr/claims")
    assert isinstance(found, BucketPath)
    return found


def names(folder: BucketPath) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_at_a_time_and_free_when_it_is_released(folder: BucketPath, tmp_path: Path) -> None:
    first, second = claims_at(folder, HERE), claims_at(folder, ELSEWHERE)
    assert isinstance(first, BucketClaims) and isinstance(claims_at(tmp_path, HERE), FileClaims)
    assert first.claim("7")
    assert not second.claim("7")
    assert second.claim("70")
    second.release("7")  # it is not its own
    assert not second.claim("7")
    first.release("7")
    assert second.claim("7")
    assert names(folder) == ["7.0", "70.0"]
    second.close()
    assert names(folder) == []


def test_of_many_at_once_one_has_it(folder: BucketPath) -> None:
    workers = [BucketClaims(folder, ELSEWHERE) for _ in range(4)]
    barrier, had = threading.Barrier(4), []

    def work(worker: BucketClaims) -> None:
        for number in range(10):
            barrier.wait(60)
            if worker.claim(str(number)):
                had.append(number)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(had) == list(range(10))


def test_what_a_process_had_that_is_gone_is_taken_over_by_one(folder: BucketPath) -> None:
    assert BucketClaims(folder, replace(HERE, started="1")).claim("0")
    first, second = BucketClaims(folder, HERE), BucketClaims(folder, HERE)
    assert first.claim("0")
    assert not second.claim("0")
    assert names(folder) == ["0.1"]
    first.release("0")
    assert second.claim("0")


def test_of_two_who_take_over_at_once_one_has_it(folder: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has judged the old claim when the first replaces it."""
    assert BucketClaims(folder, replace(HERE, started="1")).claim("0")
    first, second = BucketClaims(folder, HERE), BucketClaims(folder, HERE)

    def late(path: BucketPath) -> bool:
        assert first.claim("0")
        return True

    monkeypatch.setattr(second, "_is_over", late)
    assert not second.claim("0")
    assert (folder / "0.1").read_bytes() == first._content


def test_a_claim_from_elsewhere_is_free_when_nobody_touched_it_for_long(
    folder: BucketPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BucketClaims(folder, ELSEWHERE).claim("0")
    ours = BucketClaims(folder, HERE)
    assert not ours.claim("0")
    assert names(folder) == ["0.0"]
    ours.expires = 1.0
    time.sleep(3)  # a bucket's clock shows seconds
    assert ours.claim("0")
    assert names(folder) == ["0.1"]


def test_a_claim_is_touched_while_it_is_held(folder: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.2)
    theirs, ours = BucketClaims(folder, ELSEWHERE), BucketClaims(folder, HERE)
    assert theirs.claim("0")
    before = (folder / "0.0").stat().st_mtime
    limit = time.monotonic() + 30
    while time.monotonic() < limit and (folder / "0.0").stat().st_mtime < before + 3:
        time.sleep(0.2)
    ours.expires = 3.0
    assert not ours.claim("0")
    theirs.close()
    assert names(folder) == []


def test_a_put_whose_answer_was_lost_was_made(folder: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    create = BucketPath.create

    def lost(self: BucketPath, content: bytes) -> bool:
        assert create(self, content)
        return False

    monkeypatch.setattr(BucketPath, "create", lost)
    assert BucketClaims(folder, HERE).claim("0")


def test_a_finished_store_is_cleared_of_all_claims(folder: BucketPath) -> None:
    assert BucketClaims(folder, ELSEWHERE).claim("1")
    BucketClaims(folder, HERE).clear()
    assert names(folder) == []
