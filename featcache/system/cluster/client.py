"""A command's side of a cluster: who does its tasks, what they say, what to do when one is gone.

A task is a function of a module and a few words about what to do: no model, no array, no secret goes to a
scheduler. It finds on disk whether it is done, so that it may be run again at any time, and returns a few
bytes: a worker that dies takes nothing along but what it was at, which another one does.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, TypeVar

from featcache.buckets.path import BucketPath, absolute
from featcache.errors import CallError, ClusterError
from featcache.system.cluster.dask import (
    RESOURCE,
    Client,
    Ended,
    Future,
    connected,
    dashboard,
    local_workers,
    outcome,
    quiet,
    require_dask,
    run_everywhere,
)
from featcache.system.cluster.task import About, at_work, forget, versions
from featcache.system.console import Progress
from featcache.system.files import make_directory, publish, remove_leftovers, temporary_beside
from featcache.system.versions import version_of

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKER_WITHIN = 20.0
"""Seconds in which a worker that fits is there, or the command ends."""

WITHOUT_WORKER = 180.0
"""Seconds that are waited for another worker when the last one is gone."""

ROUNDS = 5
"""How often a task is begun on a scheduler that gives it up: one of others allows three deaths."""

LOOK_EVERY, ASK_EVERY = 0.02, 2.0
"""Seconds between looks for what is done, and between questions who is there."""

AGAIN = "What is done stays: give this command again to go on."


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Who does the work of a command: the workers of a scheduler, or processes that it starts itself."""

    scheduler: str | None = None
    """Its address."""
    local_workers: int | None = None
    """How many of them are to be started on this machine."""

    def __post_init__(self) -> None:
        if (self.scheduler is None) == (self.local_workers is None):
            raise CallError("give either --scheduler or --local-workers: one cluster does the work.")
        if self.local_workers is not None and self.local_workers < 1:
            raise CallError(f"--local-workers {self.local_workers} must be at least 1.")

    def device(self, name: str) -> Literal["cpu", "cuda"]:
        """What every worker has for itself, where `name` is the option `--device`.

        `auto` is a GPU on a scheduler's workers, whatever there is in this machine.

        Raises:
            CallError: one of several GPUs is named, or there is none here.
        """
        if name.startswith("cuda:"):
            raise CallError(f"--device {name}: each worker has a GPU of its own, so write cuda.")
        if self.scheduler is not None:
            if name not in ("auto", "cpu", "cuda"):
                raise CallError(f"--device {name}: write cpu, cuda or auto.")
            return "cpu" if name == "cpu" else "cuda"
        from featcache.system.device import choose_device  # imports torch

        return "cuda" if choose_device(name).type == "cuda" else "cpu"


@contextmanager
def open_cluster(
    where: Where, *, on_gpu: bool, folders: Sequence[Path], say: Callable[[str], None]
) -> Iterator["Cluster"]:
    """The workers that are asked for, until the block ends; then local ones end, and tasks are taken back.

    Args:
        where: who they are.
        on_gpu: whether a task takes a `GPU` that a worker offers.
        folders: what workers must see as this process does; a small file is in the first meanwhile.
        say: told of the dashboard, and of workers that are gone.

    Raises:
        CallError: Dask is not installed, the address is none, or more workers than GPUs are asked for.
        ClusterError: no scheduler answers, or none of its workers fits; says how to start one.
    """
    require_dask()
    with ExitStack() as stack:
        stack.enter_context(quiet())
        if where.scheduler is None:
            client = stack.enter_context(local_workers(where.local_workers or 1, on_gpu=on_gpu))
        else:
            client = stack.enter_context(connected(where.scheduler))
        about = stack.enter_context(_about(folders))
        cluster = Cluster(client, about, on_gpu=on_gpu, say=say)
        stack.callback(cluster.let_go)
        cluster.wait_for_worker()
        pages = f", dashboard: {link}" if (link := dashboard(client)) else ""
        say(f"workers: {cluster.n_workers}{pages}")
        yield cluster


@contextmanager
def _about(folders: Sequence[Path]) -> Iterator[About]:
    # A bucket is the same from everywhere.
    paths = [absolute(folder) for folder in folders if not isinstance(folder, BucketPath)]
    about = About(topic=f"scivid-{token_hex(8)}", versions=versions(), folders=tuple(paths))
    if isinstance(folders[0], BucketPath):
        yield about
        return
    make_directory(paths[0])
    remove_leftovers(paths[0])
    mark = temporary_beside(paths[0] / "workers")
    publish(mark, b"")
    try:
        yield replace(about, mark=mark)
    finally:
        mark.unlink(missing_ok=True)


class Cluster:
    """Workers that wait for tasks; made by `open_cluster`."""

    def __init__(self, client: Client, about: About, *, on_gpu: bool, say: Callable[[str], None]) -> None:
        self._client, self._about, self._say = client, about, say
        self._resources = {RESOURCE: 1} if on_gpu else {}
        self._there: dict[str, str] = {}
        """Address -> host of the workers that fitted at the last look."""
        self._last_seen = self._asked = time.monotonic()
        self._heard: dict[str, tuple[str, int, int]] = {}
        client.subscribe_topic(about.topic, self._hear)

    @property
    def n_workers(self) -> int:
        """Those that fitted at the last look."""
        return len(self._there)

    def wait_for_worker(self) -> None:
        """Return as soon as a worker fits.

        Raises:
            ClusterError: there is none after `WORKER_WITHIN` seconds; says how to start one.
        """
        started = time.monotonic()
        while not self._look():
            if time.monotonic() - started > WORKER_WITHIN:
                raise ClusterError(self._none_fits())
            time.sleep(0.2)

    def let_go(self) -> None:
        """Have all workers close what they keep from task to task, and give back its memory."""
        run_everywhere(self._client, forget)

    def run(
        self,
        work: Callable[[Item, Progress], Result],
        items: Mapping[str, Item],
        *,
        hear: Callable[[str, str, int, int], None] = lambda name, what, done, total: None,
    ) -> Iterator[tuple[str, Result]]:
        """The name and the result of each task, as they end; the rest is taken back if the caller stops.

        Args:
            work: a function of a module that workers can import; it is given the item and a `Progress`,
                which ends the task where it was taken back, and may be run again at any time.
            items: name of a task -> what it is about, in a few words.
            hear: told what workers say of the tasks they are at: name, what, how much is done, of how much.

        Raises:
            ScividError: what a task raised, with the host that it was on.
            ClusterError: no worker is left, or a task was the end of too many.
        """
        futures = self._begin(work, items)
        ended, rounds = Ended(self._client, futures.values()), Counter[str]()
        try:
            while futures:
                for future in ended.now():
                    name = str(future.key[1])
                    how, what = outcome(future)
                    if how == "done":
                        # Held any longer, it would be computed again when its worker dies.
                        futures.pop(name).release()
                        yield name, what
                        continue
                    if how != "lost":
                        self._refuse(name, how, what, rounds)
                        futures |= self._begin(work, {name: items[name]})
                    ended.add(futures[name])
                self._pass_on(futures, hear)
                self._look_now_and_then()
                time.sleep(LOOK_EVERY)
        finally:
            with suppress(Exception):  # what ended the work is to be told, not that nobody answers
                self._client.cancel(list(futures.values()))

    def _begin(self, work: Any, items: Mapping[str, Any]) -> dict[str, Future]:
        keys = [(f"{work.__name__}-{token_hex(4)}", name) for name in items]
        futures = self._client.map(
            at_work, list(items), list(items.values()), work=work, about=self._about, key=keys, pure=False,
            retries=0, resources=self._resources,
        )  # fmt: skip
        return dict(zip(items, futures, strict=True))

    def _refuse(self, name: str, how: str, problem: Exception, rounds: Counter[str]) -> None:
        """Raise what a task failed with; return where it is to be begun anew, its workers having died."""
        if how == "cancelled":
            raise ClusterError(f"the scheduler at {self._address} is gone or took {name} back. {AGAIN}")
        if how == "killed":
            rounds[name] += 1
            if rounds[name] < ROUNDS and self._client.cluster is None:
                return
            raise ClusterError(
                f"{name} was the end of every worker that tried it: look into a worker's log (out of memory? "
                f"Start workers with --memory-limit 0, or give a smaller --batch). {AGAIN}"
            )
        if isinstance(problem, ImportError) or "deserializ" in str(problem):
            raise ClusterError(
                f"the scheduler at {self._address} or a worker of it cannot load scivid ({problem}): install "
                f"scivid {version_of('scivid')} wherever they run."
            )
        raise problem

    def _hear(self, event: Any) -> None:
        """Keep what a worker said, in the client's thread, for the one that shows it."""
        _, said = event
        self._heard[said["name"]] = said["what"], said["done"], said["total"]

    def _pass_on(self, futures: Mapping[str, Future], hear: Callable[[str, str, int, int], None]) -> None:
        while self._heard:
            name, (what, done, total) = self._heard.popitem()
            if name in futures:
                hear(name, what, done, total)

    @property
    def _address(self) -> str:
        return str(self._client.scheduler.address)

    def _look_now_and_then(self) -> None:
        if time.monotonic() - self._asked < ASK_EVERY:
            return
        before = self._there
        if self._look():
            self._last_seen = time.monotonic()
        for address in before.keys() - self._there.keys():
            left = f"{self.n_workers} are left" if self._there else "none is left, others are waited for"
            self._say(f"a worker on {before[address]} is gone ({left}): what it was at is done by others")
        if time.monotonic() - self._last_seen > WITHOUT_WORKER:
            raise ClusterError(f"{self._none_fits()} {AGAIN}")

    def _look(self) -> bool:
        """Find out which workers are there; whether any fits."""
        self._there = {
            address: str(worker.get("host") or address)
            for address, worker in self._workers().items()
            if all(worker["resources"].get(name, 0) >= n for name, n in self._resources.items())
        }
        self._asked = time.monotonic()
        return bool(self._there)

    def _workers(self) -> dict[str, dict[str, Any]]:
        try:
            return dict(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError):
            raise ClusterError(f"the scheduler at {self._address} is gone. {AGAIN}") from None

    def _none_fits(self) -> str:
        there, address = self._workers(), self._address
        if not self._resources:
            start = f"dask worker {address} --nworkers 4 --nthreads 1 --memory-limit 0"
            return f"the scheduler at {address} has no worker: start some with `{start}`."
        start = f'dask worker {address} --nthreads 1 --resources "{RESOURCE}=1" --memory-limit 0'
        have = f"none of the {len(there)} workers" if there else "no worker"
        return (
            f"{have} at {address} offers a GPU (resource {RESOURCE}): start one for each GPU with `{start}`, "
            "each with a CUDA_VISIBLE_DEVICES of its own, or compute on CPUs with --device cpu."
        )
