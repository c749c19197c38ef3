"""The parts of `make faults`, each of which prints its table and gives the number of its faults."""

import sys
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path

from tests.faults import arrays as of_tasks
from tests.faults import failures as failing
from tests.faults import kills as killing
from tests.faults import together as at_once
from tests.faults.commands import COMMANDS, Command
from tests.faults.damage import BAD, VERDICTS, Damage, Judged, Trial, share
from tests.faults.kinds.base import Kind, all_kinds
from tests.faults.world import World


def say(line: str) -> None:
    """A line that is seen at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def kinds_of(asked: Namespace) -> list[Kind]:
    """The kinds of files that were asked for; without a word all of them."""
    known = all_kinds().values()
    return [kind for kind in known if not asked.kind or any(part in kind.name for part in asked.kind)]


def commands_of(asked: Namespace) -> list[Command]:
    """The commands that were asked for; without a word all of them."""
    return [one for one in COMMANDS if not asked.command or any(part in one.name for part in asked.command)]


def folders_of(asked: Namespace) -> set[str]:
    """The folders of the world that are needed for what was asked."""
    folders = {"data"}
    if {"kills", "failures"} & set(asked.only):
        folders |= {folder for command in commands_of(asked) for folder in command.folders}
    if "mutations" in asked.only:
        folders |= {folder for kind in kinds_of(asked) for folder in kind.folders}
    return folders


def mutations(world: World, scratch: Path, asked: Namespace) -> int:
    """Files damaged, kind by kind."""
    kinds = kinds_of(asked)
    if asked.number is not None:
        trials = [Trial(kind=kind, seed=asked.seed, number=asked.number) for kind in kinds]
    else:
        trials = share(kinds, asked.tries, asked.seed)
    judged, started = [], time.monotonic()
    for found in Damage(world, scratch, workers=asked.workers).judge_all(trials):
        judged.append(found)
        if found.verdict in BAD or asked.number is not None:
            say(f"{found.verdict}: {found.what}\n    {found.detail.strip()[-600:]}")
            say(f"    repeat: {found.repeat}")
        if len(judged) % 250 == 0:
            say(f"{len(judged)} of {len(trials)} mutations, {time.monotonic() - started:.0f} s")
    say(table(judged))
    for line in exceptions(judged):
        say(line)
    return sum(found.verdict in BAD for found in judged)


def table(judged: list[Judged]) -> str:
    """A Markdown row a kind of file, and one of all."""
    lines = ["| kind of file | tried |" + "".join(f" {verdict} |" for verdict in VERDICTS)]
    lines.append("|---" * (len(VERDICTS) + 2) + "|")
    names = dict.fromkeys(one.trial.kind.name for one in judged)
    groups = {name: [one for one in judged if one.trial.kind.name == name] for name in names}
    for name, ours in {**groups, "**all**": judged}.items():
        counts = Counter(one.verdict for one in ours)
        cells = "".join(f" {counts[verdict] or ''} |" for verdict in VERDICTS)
        lines.append(f"| {name} | {len(ours)} |{cells}")
    return "\n".join(lines)


def exceptions(judged: list[Judged]) -> list[str]:
    """Why other numbers in silence are allowed of some kinds, a line a reason."""
    kinds: dict[str, list[str]] = {}
    for one in judged:
        if one.verdict == "allowed" and one.trial.kind.name not in kinds.setdefault(one.detail, []):
            kinds[one.detail].append(one.trial.kind.name)
    return [f"allowed of {', '.join(names)}: {reason}" for reason, names in kinds.items()]


def kills(world: World, scratch: Path, asked: Namespace) -> int:
    """Commands killed at random moments, and then let go to their ends."""
    found = []
    for one in killing.kill_all(
        world, scratch, commands_of(asked), kills=asked.kills, seed=asked.seed, workers=asked.workers
    ):
        found.append(one)
        if one.problem:
            say(f"killed {one.command} {one.n_kills} times: {one.problem[-800:]}")
    lines = ["| command | kills | folders | different |", "|---|---|---|---|"]
    for name in [*dict.fromkeys(one.command for one in found), None]:
        ours = [one for one in found if name in (one.command, None)]
        bad = sum(bool(one.problem) for one in ours)
        lines.append(f"| {name or '**all**'} | {sum(one.n_kills for one in ours)} | {len(ours)} | {bad} |")
    say("\n".join(lines))
    return sum(bool(one.problem) for one in found)


def failures(world: World, scratch: Path, asked: Namespace) -> int:
    """Each call of each command fails once, and the command is called again."""
    found = []
    for one in failing.fail_all(
        world, scratch, commands_of(asked), tries=asked.failures, seed=asked.seed, workers=asked.workers
    ):
        found.append(one)
        if one.verdict in failing.BAD:
            say(f"{one.verdict}: {one.what}, {one.reason}\n    {one.detail.strip()[-800:]}")
    lines = ["| command | failed calls |" + "".join(f" {verdict} |" for verdict in failing.VERDICTS)]
    lines.append("|---" * (len(failing.VERDICTS) + 2) + "|")
    for name in [*dict.fromkeys(one.command for one in found), None]:
        ours = [one for one in found if name in (one.command, None)]
        counts = Counter(one.verdict for one in ours)
        cells = "".join(f" {counts[verdict] or ''} |" for verdict in failing.VERDICTS)
        lines.append(f"| {name or '**all**'} | {len(ours)} |{cells}")
    say("\n".join(lines))
    return sum(one.verdict in failing.BAD for one in found)


def together(world: World, scratch: Path, asked: Namespace) -> int:
    """Three jobs at once on a fresh cache."""
    found = []
    for one in at_once.rounds(world, scratch, n=asked.rounds):
        found.append(one)
        if one.problem:
            say(f"{one.jobs}, {'with' if one.locks else 'without'} locks: {one.problem[-800:]}")
    lines = ["| three jobs at once | locks | rounds | well |", "|---|---|---|---|"]
    for name, locks in dict.fromkeys((one.jobs, one.locks) for one in found):
        ours = [one for one in found if (one.jobs, one.locks) == (name, locks)]
        well = sum(not one.problem for one in ours)
        lines.append(f"| {name} | {'with' if locks else 'without'} | {len(ours)} | {well} |")
    say("\n".join(lines))
    return sum(bool(one.problem) for one in found)


def arrays(world: World, scratch: Path, asked: Namespace) -> int:
    """Simulated arrays over the parts of one split, whose tasks are killed and requeued."""
    del world
    found = []
    for one in of_tasks.arrays(scratch, n=asked.arrays, tasks=asked.tasks, seed=asked.seed):
        found.append(one)
        if one.problem:
            say(f"{one.machines}, {'with' if one.locks else 'without'} locks: {one.problem[-1500:]}")
    lines = [
        "| tasks of an array on | locks | arrays | kills | encodings a shard | equal |",
        "|---" * 6 + "|",
    ]
    for machines, locks in dict.fromkeys((one.machines, one.locks) for one in found):
        ours = [one for one in found if (one.machines, one.locks) == (machines, locks)]
        encodings = sum(one.n_encoded for one in ours) / sum(one.n_shards for one in ours)
        well = sum(not one.problem for one in ours)
        lines.append(
            f"| {machines} | {'with' if locks else 'without'} | {len(ours)} | "
            f"{sum(one.n_kills for one in ours)} | {encodings:.2f} | {well} of {len(ours)} |"
        )
    say("\n".join(lines))
    return sum(bool(one.problem) for one in found)


PARTS = {
    "mutations": mutations,
    "kills": kills,
    "failures": failures,
    "together": together,
    "arrays": arrays,
}
