"""All calls of Dask: no other file imports it, and none of its modules is loaded before it is needed."""

import logging
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, Literal

from featcache.errors import CallError, ClusterError
from featcache.system.ahead import usable_cores

RESOURCE = "GPU"
"""What a worker says it has one of, for a task to be alone on it."""

SCHEDULER_WITHIN = 10.0
"""Seconds in which a scheduler answers."""

DEATHS = 20
"""Local workers that may die during one task: it is the same task each time, but not always its own fault."""

TO_BE_TOLD = 5.0
"""Seconds in which a result comes from a worker that lives."""

Client = Any
Future = Any


def require_dask() -> None:
    """Refuse to go on where it is not installed.

    Raises:
        CallError: says how to install it.
    """
    if find_spec("distributed") is None:
        raise CallError(
            "--scheduler and --local-workers need Dask, which is not installed: pip install 'scivid[dask]'."
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Let what Dask logs in this process go unsaid: what matters is said by us, in a line."""
    import distributed  # which sets up its loggers

    names = (distributed.__name__, "distributed.client", "distributed.batched", "tornado")
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def connected(address: str) -> Client:
    """A client of the scheduler at an address.

    Raises:
        CallError: it is no address.
        ClusterError: nobody answers there; says how to start one.
    """
    from distributed import Client

    try:
        return Client(address, timeout=SCHEDULER_WITHIN, set_as_default=False)
    except (OSError, TimeoutError):
        raise ClusterError(
            f"no Dask scheduler answers at {address}: start one with `dask scheduler`, which prints its "
            f"address, and workers with `dask worker {shlex.quote(address)} ...`."
        ) from None
    except ValueError as problem:
        raise CallError(f"--scheduler {address}: {problem}; write for example tcp://node1:8786.") from None


@contextmanager
def local_workers(n: int, *, on_gpu: bool) -> Iterator[Client]:
    """A client of `n` processes of this machine, which end with the block and are begun again if they die.

    Raises:
        CallError: there are fewer GPUs than workers.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    gpus = _gpus() if on_gpu else []
    if on_gpu and n > len(gpus):
        raise CallError(
            f"--local-workers {n}: there are {len(gpus)} GPUs here, and each worker needs its own."
        )
    # All cores, whoever they are for; a number that the user set goes to each.
    threads = str(max(1, usable_cores() // n))
    common = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    options = {
        "host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL,
        "resources": {RESOURCE: 1} if on_gpu else {},
    }  # fmt: skip
    workers = {
        i: {
            "cls": Nanny,
            # Told before it imports torch which GPU there is.
            "options": {**options, "env": common | ({"CUDA_VISIBLE_DEVICES": gpus[i]} if gpus else {})},
        }
        for i in range(n)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": True, "dashboard_address": "127.0.0.1:0"},
    }
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS,
        # One that is begun again on a busy machine may take longer than the 15 s after which it is given up.
        "distributed.deploy.lost-worker-timeout": "1 hour",
        # Not forked: what this process knows of CUDA would be theirs, and of no use.
        "distributed.worker.multiprocessing-method": "spawn",
    }
    with (
        dask.config.set(settings),
        SpecCluster(scheduler=scheduler, workers=workers, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [one for one in named.split(",") if one.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def dashboard(client: Client) -> str | None:
    """The address of the pages that show workers and tasks; None where the scheduler has none.

    A scheduler of ours shows them where bokeh is installed.
    """
    if client.cluster is not None and find_spec("bokeh") is None:
        return None
    return str(client.dashboard_link) or None


class Ended:
    """The futures that have ended of those that it was given."""

    def __init__(self, client: Client, futures: Iterable[Future]) -> None:
        from distributed import as_completed

        self._ended = as_completed(list(futures), loop=client.loop)

    def add(self, future: Future) -> None:
        """Tell of this one too."""
        self._ended.add(future)

    def now(self) -> list[Future]:
        """Those that have ended since it was asked last; does not wait."""
        found: list[Future] = self._ended.next_batch(block=False)
        return found


def outcome(future: Future) -> tuple[Literal["done", "lost", "killed", "cancelled", "failed"], Any]:
    """How a task ended, and its result or its exception.

    `lost` is a result whose worker died before it was told: the task is run again, and the future ends once
    more. `killed` is a task that was the end of more workers than the scheduler allows.
    """
    from distributed import CancelledError, KilledWorker

    try:
        return "done", future.result(timeout=TO_BE_TOLD)
    except TimeoutError as problem:
        return ("lost", None) if future.status != "error" else ("failed", problem)
    except KilledWorker as problem:
        return "killed", problem
    except CancelledError as problem:
        return "cancelled", problem
    except Exception as problem:
        return "failed", problem


def run_everywhere(client: Client, function: Callable[[], object]) -> None:
    """Have every worker that is there call a function, beside the task that it is at."""
    with suppress(Exception):
        client.run(function, on_error="ignore")


class CurrentTask:
    """The task that a worker is at, as seen by itself."""

    def __init__(self) -> None:
        from distributed import get_worker

        self._worker = get_worker()
        self._key = self._worker.get_current_task()

    def is_taken_back(self) -> bool:
        """Whether nobody waits for its result any more."""
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state == "cancelled"

    def tell(self, topic: str, said: dict[str, object]) -> None:
        """Say something to those who listen to a topic."""
        self._worker.log_event(topic, said)
