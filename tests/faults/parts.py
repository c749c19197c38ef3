"""The parts of `make faults`, each of which prints its table and gives the number of its faults."""

import sys
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path

from tests.faults.damage import BAD, VERDICTS, Damage, Judged, Trial, share
from tests.faults.kinds import all_kinds
from tests.faults.world import World


def say(line: str) -> None:
    """A line that is seen at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def mutations(world: World, scratch: Path, asked: Namespace) -> int:
    """Files damaged, kind by kind."""
    kinds = [
        kind for kind in all_kinds().values() if not asked.kind or any(part in kind.name for part in asked.kind)
    ]
    if asked.number is not None:
        trials = [Trial(kind=kind, seed=asked.seed, number=asked.number) for kind in kinds]
    else:
        trials = share(kinds, asked.tries, asked.seed)
    judged, started = [], time.monotonic()
    for found in Damage(world, scratch, workers=asked.workers).judge_all(trials):
        judged.append(found)
        if found.verdict in BAD or asked.number is not None:
            say(f"{found.verdict}: {found.what}\n    {found.detail.strip()[-600:]}\n    repeat: {found.repeat}")
        if len(judged) % 250 == 0:
            say(f"{len(judged)} of {len(trials)} mutations, {time.monotonic() - started:.0f} s")
    say(table(judged))
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
