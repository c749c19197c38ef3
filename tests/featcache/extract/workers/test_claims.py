"""A claim is one worker's: until it lets go, is gone, or was silent for long by the clock of the disk."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.extract.workers import claims
from featcache.extract.workers.claims import FileClaims, Owner

HERE = Owner.this_process({})
ELSEWHERE = replace(HERE, machine="other", host="other")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_one_at_a_time_and_free_when_it_is_released(tmp_path: Path) -> None:
    first, second = (FileClaims(tmp_path / "claims", owner) for owner in (HERE, ELSEWHERE))
    assert first.claim("7")
    assert not second.claim("7")
    assert second.claim("8")
    second.release("7")  # it is not its own
    assert not second.claim("7")
    first.release("7")
    assert second.claim("7")
    for one in (first, second):
        one.close()
    assert names(tmp_path) == []


def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    workers = [FileClaims(tmp_path / "claims", ELSEWHERE) for _ in range(8)]
    barrier, had = threading.Barrier(8), []

    def work(worker: FileClaims) -> None:
        for number in range(25):
            barrier.wait(30)
            if worker.claim(str(number)):
                had.append(number)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(had) == list(range(25))


CLAIM = """
import os, sys, time
from pathlib import Path
from featcache.extract.workers.claims import FileClaims, Owner
claims = FileClaims(Path(sys.argv[1]), Owner.this_process(os.environ))
print(claims.claim("3"), flush=True)
time.sleep(60)
"""


def test_a_killed_process_of_this_machine_has_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(tmp_path / "claims")]
    ours = FileClaims(tmp_path / "claims", HERE)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        assert not ours.claim("3")
        process.kill()
    assert ours.claim("3")
    ours.close()
    assert names(tmp_path) == []


def test_a_process_that_has_the_number_of_one_that_ended_is_another(tmp_path: Path) -> None:
    earlier = FileClaims(tmp_path / "claims", replace(HERE, started="1"))
    assert earlier.claim("0")
    assert FileClaims(tmp_path / "claims", HERE).claim("0")


def slurm(restart: str, task: str = "3") -> dict[str, str]:
    return {"SLURM_ARRAY_JOB_ID": "50", "SLURM_ARRAY_TASK_ID": task, "SLURM_RESTART_COUNT": restart}


def test_a_requeued_task_takes_over_what_it_had_on_another_machine(tmp_path: Path) -> None:
    before = replace(Owner.this_process({**slurm("0"), "SLURM_JOB_ID": "53"}), machine="other")
    assert FileClaims(tmp_path / "claims", before).claim("0")
    neighbour = Owner.this_process({**slurm("1", task="4"), "SLURM_JOB_ID": "54"})
    assert not FileClaims(tmp_path / "claims", neighbour).claim("0")
    again = Owner.this_process({**slurm("1"), "SLURM_JOB_ID": "61"})
    assert FileClaims(tmp_path / "claims", again).claim("0")


def aged(path: Path, seconds: float) -> None:
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))


def test_a_claim_from_elsewhere_is_free_when_nobody_touched_it_for_long(tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    assert FileClaims(folder, ELSEWHERE).claim("0")
    ours = FileClaims(folder, HERE, expires=300.0)
    aged(folder / "0", 290)
    assert not ours.claim("0")
    aged(folder / "0", 20)
    assert ours.claim("0")
    assert names(folder) == ["0"]


@pytest.mark.parametrize("wrong_by", [-7200.0, 7200.0])
def test_a_clock_that_is_wrong_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_by: float
) -> None:
    folder, right = tmp_path / "claims", time.time
    assert FileClaims(folder, ELSEWHERE).claim("0")
    monkeypatch.setattr(time, "time", lambda: right() + wrong_by)
    ours = FileClaims(folder, HERE, expires=300.0)
    assert not ours.claim("0")
    aged(folder / "0", 310)
    assert ours.claim("0")


def test_a_claim_is_touched_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    folder = tmp_path / "claims"
    with FileClaims(folder, ELSEWHERE) as theirs:
        assert theirs.claim("0")
        aged(folder / "0", 1000)
        limit = time.monotonic() + 20
        while time.monotonic() < limit and not time.time() - (folder / "0").stat().st_mtime < 100:
            time.sleep(0.01)
        assert not FileClaims(folder, HERE, expires=300.0).claim("0")


def test_whoever_lost_a_claim_leaves_it_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    folder = tmp_path / "claims"
    slow, ours = FileClaims(folder, ELSEWHERE), FileClaims(folder, HERE, expires=300.0)
    monkeypatch.setattr(slow, "_is_ours", lambda path: False)  # suspended: it touches nothing
    assert slow.claim("0")
    aged(folder / "0", 1000)
    assert ours.claim("0")
    monkeypatch.undo()
    slow.release("0")
    slow.close()
    assert names(folder) == ["0"]
    assert not FileClaims(folder, ELSEWHERE).claim("0")


def test_of_two_who_take_over_at_once_the_second_gives_back_what_the_first_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has judged the old claim when the first replaces it."""
    folder = tmp_path / "claims"
    gone = replace(HERE, started="1")
    assert FileClaims(folder, gone).claim("0")
    first, second = FileClaims(folder, HERE), FileClaims(folder, HERE)
    judge = second._is_free

    def late(path: Path, seconds: float) -> bool:
        found = judge(path, seconds)
        assert found == (path.read_bytes() != first._content)
        if found:
            assert first.claim("0")
        return found

    monkeypatch.setattr(second, "_is_free", late)
    assert not second.claim("0")
    assert (folder / "0").read_bytes() == first._content
    assert names(folder) == ["0"]
    first.release("0")
    assert names(folder) == []


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first, second = FileClaims(tmp_path / "claims", HERE), FileClaims(tmp_path / "claims", ELSEWHERE)
    assert first.claim("0")
    assert not second.claim("0")
    first.release("0")
    assert second.claim("0")


def test_a_link_whose_answer_was_lost_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lost(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", lost)
    assert FileClaims(tmp_path / "claims", HERE).claim("0")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"worker": 1, "pid": "x"}'])
def test_a_claim_that_says_nothing_goes_by_its_time(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / "0").write_bytes(content)
    ours = FileClaims(folder, HERE, expires=300.0)
    assert not ours.claim("0")
    aged(folder / "0", 310)
    assert ours.claim("0")


def test_a_finished_store_is_cleared_of_all_claims_and_a_worker_at_that_moment_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, link = tmp_path / "claims", os.link
    assert FileClaims(folder, ELSEWHERE).claim("1")
    ours, cleared = FileClaims(folder, HERE), []

    def late(source: Path, target: Path) -> None:
        if not cleared:
            FileClaims(folder, ELSEWHERE).clear()
            cleared.append(names(tmp_path))
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert ours.claim("1")
    assert cleared == [[]]
    ours.close()
    assert names(tmp_path) == []
