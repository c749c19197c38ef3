"""SIGKILL at random calls and times, again and again; then the same command to its end, and compared."""

import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.calls import Act, Calls
from tests.faults.commands import SLOW, Command, repeated, undisturbed
from tests.faults.trial import Ended, run_all
from tests.faults.world import World

IN_A_ROW = 3
"""Kills of one command on one folder, before it is let go to its end."""


@dataclass(frozen=True, kw_only=True)
class Killed:
    """What became of one chain of kills."""

    command: str
    n_kills: int
    """Of those that came before the command's own end."""
    problem: str
    """Empty where the last call left what an undisturbed one leaves."""


def kill_all(
    world: World, scratch: Path, commands: Sequence[Command], *, kills: int, seed: int, workers: int
) -> Iterator[Killed]:
    """At least so many kills, spread over some commands."""
    for command in commands:
        folder = scratch / "calm"
        calm, calls = undisturbed(world, command, folder)
        chains = -(-kills // (len(commands) * IN_A_ROW)) + 1
        rngs = [random.Random(f"{seed} {command.name} {chain}") for chain in range(chains)]
        yield from _chains(world, scratch, command, rngs, n_calls=len(calls), calm=calm, workers=workers)


def _chains(
    world: World,
    scratch: Path,
    command: Command,
    rngs: Sequence[random.Random],
    *,
    n_calls: int,
    calm: Ended,
    workers: int,
) -> Iterator[Killed]:
    folders = [command.begin(world, scratch / f"kill-{number}") for number in range(len(rngs))]
    n_kills = [0] * len(rngs)
    problems = [""] * len(rngs)
    for _ in range(IN_A_ROW):
        calls = [
            partial(_killed, command, here, _act(rng, n_calls), rng.uniform(0, 1))
            for here, rng in zip(folders, rngs, strict=True)
        ]
        for number, ended in enumerate(run_all(calls, workers=workers, seconds=SLOW)):
            killed = ended.how == "signal" and ended.message in ("SIGKILL", "SIGALRM")
            n_kills[number] += killed
            if not killed and ended.how != "ok":
                problems[number] = f"{ended.how} after a kill: {ended.message or ended.output}"
    last = run_all([partial(repeated, command, here) for here in folders], workers=workers, seconds=SLOW)
    for here, n, problem, ended in zip(folders, n_kills, problems, last, strict=True):
        shutil.rmtree(here.root)
        yield Killed(command=command.name, n_kills=n, problem=problem or difference(ended, calm))


def _act(rng: random.Random, n_calls: int) -> Act | None:
    """A kill at a call, two times of three; the third is by the clock."""
    if rng.random() < 1 / 3:
        return None
    return Act(at=rng.randrange(n_calls), half=rng.random() < 0.5)


def _killed(command: Command, here: World, act: Act | None, share: float) -> dict[str, Any]:
    if act is None:
        # The default action of the signal is the end of the process, as that of SIGKILL.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.01 + share)
    else:
        Calls.below(here.root, here.data, act=act).install()
    command.call(here)
    return {}


def difference(ended: Ended, calm: Ended) -> str:
    """In what the end of a command differs from the undisturbed one; empty where in nothing."""
    if ended.how != "ok":
        return f"{ended.how} at last: {ended.message or ended.output}"
    names = sorted(n for n in ended.numbers | calm.numbers if ended.numbers.get(n) != calm.numbers.get(n))
    return f"{', '.join(names[:5])} differ" if names else ""
