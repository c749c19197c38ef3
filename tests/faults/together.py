"""Three jobs at once on a fresh cache, as an array of a cluster begins, with and without locks."""

import errno
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.commands import extract, state
from tests.faults.kills import difference
from tests.faults.trial import Ended, run, run_all
from tests.faults.world import World

BUSY = "is being written by another process"
JOBS: dict[str, list[dict[str, Any]]] = {
    "three splits": [{"objects": "CLIPS", "roles": (role,)} for role in ("train", "val", "test")],
    "three backbones": [
        {"objects": "CLIPS", "roles": ("val",)},
        {"objects": "FRAMES", "roles": ("val",)},
        {"objects": "CLIPS", "roles": ("val",), "shuffled": True},
    ],
    "the same split": 3 * [{"objects": "CLIPS", "roles": ("val",)}],
}


@dataclass(frozen=True, kw_only=True)
class Round:
    """What became of three jobs that began at once."""

    jobs: str
    locks: bool
    problem: str
    """Empty where all ended well, or said that another was writing, and the cache is the undisturbed one."""


def rounds(world: World, scratch: Path, *, n: int) -> Iterator[Round]:
    """`n` rounds of each kind, half-way through without locks."""
    for name, jobs in JOBS.items():
        calm = _calm(world, scratch / "calm", jobs)
        for locks in (True, False):
            for number in range(n):
                problem = _round(world, scratch / f"round-{number}", jobs, calm, locks=locks, number=number)
                yield Round(jobs=name, locks=locks, problem=problem)


def _calm(world: World, folder: Path, jobs: list[dict[str, Any]]) -> Ended:
    here = World(folder, world.data)
    folder.mkdir(parents=True)
    for job in jobs:
        assert run(partial(extract, here, "features", **job)).how == "ok"
    ended = run(partial(state, folder))
    shutil.rmtree(folder)
    return ended


def _round(
    world: World, folder: Path, jobs: list[dict[str, Any]], calm: Ended, *, locks: bool, number: int
) -> str:
    here = World(folder, world.data)
    folder.mkdir(parents=True)
    refusal = None if locks else (errno.ENOLCK, errno.EOPNOTSUPP)[number % 2]
    ended = list(run_all([partial(_job, here, refusal, job) for job in jobs], workers=len(jobs)))
    problem = ""
    for job, one in zip(jobs, ended, strict=True):
        if one.how == "refused" and BUSY in one.message and locks:
            one = run(partial(extract, here, "features", **job))
        if one.how != "ok":
            problem = f"{one.how}: {one.message or one.output}"
    problem = problem or difference(run(partial(state, folder)), calm)
    shutil.rmtree(folder)
    return problem


def _job(here: World, refusal: int | None, job: dict[str, Any]) -> dict[str, Any]:
    if refusal is not None:

        def missing(*_: Any) -> None:
            raise OSError(refusal, "no locks here")

        fcntl.flock = missing
    extract(here, "features", **job)
    return {}
