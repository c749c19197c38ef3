"""Each call of a command fails once: it has to say so in one message, and to end well if called again."""

import errno
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.calls import CHANGING, WRITES, Act, Call, Calls
from tests.faults.commands import SLOW, Command, repeated, undisturbed
from tests.faults.kills import difference
from tests.faults.trial import Ended, Note, run_all
from tests.faults.world import World

VERDICTS = ("said", "done all the same", "not reached", "unnamed", "traceback", "hang", "different")
"""From `unnamed` on they are faults of ours."""
BAD = VERDICTS[3:]
REFUSALS = (errno.EIO, errno.EACCES, errno.ESTALE)
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What came of one failed call."""

    command: str
    call: Call
    act: Act
    verdict: str
    detail: str

    @property
    def what(self) -> str:
        return f"{self.command}, call {self.act.at}: {self.call.name} {Path(self.call.path).name}"

    @property
    def reason(self) -> str:
        return errno.errorcode[self.act.errno] + (" after half of it" if self.act.half else "")


def fail_all(
    world: World, scratch: Path, commands: Sequence[Command], *, tries: int, seed: int, workers: int
) -> Iterator[Failed]:
    """About `tries` failures over some commands: each call in turn, or as many of them, evenly spaced."""
    whole = sum(command.weight for command in commands)
    for command in commands:
        each = -(-int(tries * command.weight) // int(whole))
        calm, calls = undisturbed(world, command, scratch / "calm")
        rng = random.Random(f"{seed} {command.name}")
        n = min(each, len(calls))
        first = rng.random()
        numbers = sorted({int((number + first) * len(calls) / n) for number in range(n)})
        acts = [_act(number, calls[number], rng) for number in numbers if number < len(calls)]
        for start in range(0, len(acts), 64):
            yield from _failed(world, scratch, command, acts[start : start + 64], calls, calm, workers)


def _act(number: int, call: Call, rng: random.Random) -> Act:
    half = call.name in WRITES and rng.random() < 0.5
    kinds = (*REFUSALS, *FULL) if call.name in CHANGING else REFUSALS
    return Act(at=number, errno=rng.choice(kinds), half=half)


def _failed(
    world: World, scratch: Path, command: Command, acts: Sequence[Act], calls: Sequence[Call], calm: Ended,
    workers: int,
) -> Iterator[Failed]:  # fmt: skip
    folders = [command.begin(world, scratch / f"fail-{act.at}") for act in acts]
    calls_of = [partial(_with, command, here, act) for here, act in zip(folders, acts, strict=True)]
    first = list(run_all(calls_of, workers=workers, seconds=SLOW))
    again = run_all([partial(repeated, command, here) for here in folders], workers=workers, seconds=SLOW)
    for act, here, ended, after in zip(acts, folders, first, again, strict=True):
        call = ended.facts or calls[act.at]
        verdict, detail = _verdict(call, ended, difference(after, calm))
        shutil.rmtree(here.root)
        yield Failed(command=command.name, call=call, act=act, verdict=verdict, detail=detail)


def _with(command: Command, here: World, act: Act) -> dict[str, Any]:
    Calls.below(here.root, here.data, act=act, note=Note.write).install()
    command.call(here)
    return {}


def _verdict(call: Call, ended: Ended, differing: str) -> tuple[str, str]:
    if ended.how == "hang":
        return "hang", ended.message
    if ended.how in ("traceback", "signal"):
        return "traceback", ended.message[-1200:]
    if differing:
        return "different", f"{differing}; said before: {ended.message or ended.output}"
    if ended.how == "ok":
        return ("done all the same" if ended.facts else "not reached"), ended.output
    text = ended.message or ended.output
    return (
        "said" if names_a_part(text, call.path) and ended.code == 1 else "unnamed"
    ), f"exit {ended.code}: {text}"


def names_a_part(text: str, path: str) -> bool:
    """Whether a message names a file, whatever its temporary name, or the store, group or run it is in."""
    within = path.rpartition("/scratch/")[2].partition("/")[2] or path
    if f"/{within}" in text:
        return True
    names = {word.strip(".") for word in re.split(r"[^\w.-]+", text)}
    return any(len(name) > 4 and re.search(r"[._-]", name) and name in within for name in names)
