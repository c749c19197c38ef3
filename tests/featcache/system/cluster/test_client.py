import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from featcache.errors import CallError, ClusterError, DataError
from featcache.system.cluster import client
from featcache.system.cluster.client import Cluster, Where, open_cluster
from featcache.system.cluster.dask import SCHEDULER_WITHIN
from tests.featcache.system.cluster.work import Note, refuse, square, stumble

HOST = os.uname().nodename


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[tuple[Cluster, Path]]:
    """Two workers with a GPU each, as far as they know; and the folder that they see."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CUDA_VISIBLE_DEVICES", "5,7")
        with open_cluster(Where(local_workers=2), on_gpu=True, folders=[folder], say=said.append) as cluster:
            yield cluster, folder


def test_each_worker_has_a_gpu_of_its_own_and_tells_what_it_does(
    pair: tuple[Cluster, Path], tmp_path: Path, said: list[str]
) -> None:
    cluster, heard = pair[0], list[tuple[str, str, int, int]]()
    notes = {f"task {n}": Note(n, tmp_path, seconds=1.5) for n in range(4)}
    found = dict(cluster.run(square, notes, hear=lambda *words: heard.append(words)))
    assert {name: value for name, (value, _) in found.items()} == {f"task {n}": n * n for n in range(4)}
    assert {gpu for _, gpu in found.values()} == {"5", "7"}
    assert ("task 0", "resting", 1, 2) in heard
    assert cluster.n_workers == 2 and said[0].startswith("workers: 2")


def test_what_a_killed_worker_was_at_is_done_by_others_and_nothing_that_is_done_is_done_again(
    pair: tuple[Cluster, Path], tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ASK_EVERY", 0.1)
    notes = {f"task {n}": Note(n, tmp_path, seconds=0.4) for n in range(10)}
    found = 0
    for _ in pair[0].run(square, notes):
        found += 1
        if found == 4:
            os.kill(notes["task 0"].lines("begun")[-1][1], signal.SIGKILL)
    done = Counter(number for number, _ in notes["task 0"].lines("done"))
    assert found == 10 and set(done.values()) == {1} and len(done) == 10
    assert len(notes["task 0"].lines("begun")) == 11
    assert any(line.startswith("a worker on 127.0.0.1 is gone") for line in said)


def test_an_error_is_told_with_the_machine_it_happened_on(pair: tuple[Cluster, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^worker on {HOST}: clip 3 cannot be read.$"):
        list(pair[0].run(refuse, {"x": Note(3, tmp_path)}))
    with pytest.raises(AssertionError, match="3"):
        list(pair[0].run(stumble, {"x": Note(3, tmp_path)}))


def test_tasks_are_taken_back_when_nobody_waits_for_them(pair: tuple[Cluster, Path], tmp_path: Path) -> None:
    notes = {"short": Note(0, tmp_path), **{f"long {n}": Note(n, tmp_path, seconds=60) for n in range(1, 5)}}
    assert next(iter(pair[0].run(square, notes)))[0] == "short"
    started = time.monotonic()
    notes = {f"next {n}": Note(n, tmp_path) for n in (8, 9)}
    assert len(list(pair[0].run(square, notes))) == 2
    assert time.monotonic() - started < 30
    assert {number for number, _ in notes["next 8"].lines("done")} == {0, 8, 9}


def test_a_worker_that_does_not_see_the_folders_says_so(pair: tuple[Cluster, Path], tmp_path: Path) -> None:
    cluster, folder = pair
    (mark,) = folder.iterdir()
    mark.unlink()
    with pytest.raises(ClusterError, match=f"worker on {HOST}: it does not see {folder} of the command"):
        list(cluster.run(square, {"x": Note(0, tmp_path)}))
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(ClusterError, match=f"does not see {folder}: workers need the command's folders"):
        list(cluster.run(square, {"x": Note(0, tmp_path)}))
    moved.rename(folder)
    mark.touch()


@pytest.fixture
def others(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a scheduler of others, that allows a task no death."""
    import dask
    import distributed

    options = {"host": "127.0.0.1", "port": 0, "dashboard": False}
    scheduler = {"cls": distributed.Scheduler, "options": options}
    worker = {"cls": getattr(distributed, request.param), "options": {"nthreads": 1, "memory_limit": 0}}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.SpecCluster(scheduler=scheduler, workers={0: worker}, silence_logs=50) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.mark.parametrize("others", ["Worker"], indirect=True)
def test_a_cluster_without_a_gpu_is_refused_with_the_command_that_starts_one(
    others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SCHEDULER_WITHIN + client.WORKER_WITHIN < 60
    monkeypatch.setattr(client, "WORKER_WITHIN", 0.5)
    command = f'`dask worker {others} --nthreads 1 --resources "GPU=1" --memory-limit 0`'
    with (
        pytest.raises(ClusterError, match=f"none of the 1 workers at {others} offers a GPU.*{command}"),
        open_cluster(Where(scheduler=others), on_gpu=True, folders=[tmp_path], say=print),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("others", ["Nanny"], indirect=True)
def test_a_task_that_a_scheduler_gave_up_is_begun_again_but_not_for_ever(
    others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ROUNDS", 2)
    with open_cluster(Where(scheduler=others), on_gpu=False, folders=[tmp_path], say=print) as cluster:
        notes = {"bad luck": Note(3, tmp_path, kills=1)}
        assert [value for _, (value, _) in cluster.run(square, notes)] == [9]
        with pytest.raises(ClusterError, match="poison was the end of every worker that tried it"):
            list(cluster.run(square, {"poison": Note(4, tmp_path, kills=9)}))


@pytest.mark.parametrize("others", ["Worker"], indirect=True)
def test_a_cluster_whose_last_worker_is_gone_is_given_up(
    others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_cluster(Where(scheduler=others), on_gpu=False, folders=[tmp_path], say=print) as cluster:
        monkeypatch.setattr(client, "ASK_EVERY", 0.1)
        monkeypatch.setattr(client, "WITHOUT_WORKER", 0.5)
        monkeypatch.setattr(cluster, "_workers", dict)
        with pytest.raises(ClusterError, match=f"the scheduler at {others} has no worker: start some with"):
            list(cluster.run(square, {"long": Note(0, tmp_path, seconds=5)}))


@pytest.mark.parametrize(
    ("scheduler", "local", "device", "has"),
    [("tcp://x:1", None, "auto", "cuda"), ("tcp://x:1", None, "cpu", "cpu"), (None, 2, "cpu", "cpu")],
)
def test_the_device_is_that_of_the_workers(scheduler: str, local: int, device: str, has: str) -> None:
    assert Where(scheduler=scheduler, local_workers=local).device(device) == has


def test_calls_that_cannot_be_are_refused() -> None:
    for options in ({}, {"scheduler": "tcp://x:1", "local_workers": 2}):
        with pytest.raises(CallError, match="either --scheduler or --local-workers"):
            Where(**options)  # type: ignore[arg-type]
    with pytest.raises(CallError, match="--local-workers 0"):
        Where(local_workers=0)
    with pytest.raises(CallError, match="each worker has a GPU of its own, so write cuda"):
        Where(local_workers=2).device("cuda:1")
    with pytest.raises(CallError, match="--device tpu: write cpu, cuda or auto"):
        Where(scheduler="tcp://x:1").device("tpu")
