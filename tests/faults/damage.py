"""The seeded mutation run: damage one file in a copy of the world, use it, and judge what came of it."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from tests.faults.kinds.base import Kind
from tests.faults.mutations import BYTES, JSON, SWAPPED, mutate, names_for
from tests.faults.trial import Ended, Note, run, run_all
from tests.faults.world import World, copy

VERDICTS = ("refused", "said", "made anew", "harmless", "allowed", "unnamed", "silent", "crash", "hang")
"""In the table's order; from `unnamed` on they are faults of ours."""
BAD = VERDICTS[VERDICTS.index("unnamed") :]
GONE = ("missing", "dangling")
"""What is not there is told by what was looked for, and not by a file's name."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One mutation of one file of one kind: the same for the same seed and number."""

    kind: Kind
    seed: int
    number: int

    @property
    def rng(self) -> random.Random:
        return random.Random(f"{self.seed} {self.kind.name} {self.number}")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What came of a trial."""

    trial: Trial
    verdict: str
    what: str
    """The file and what was done to it."""
    detail: str
    """What was said, or what differs."""

    @property
    def repeat(self) -> str:
        """The command that repeats it."""
        trial = self.trial
        return f'--kind "{trial.kind.name}" --seed {trial.seed} --number {trial.number}'


_names = count()


def attempt(world: World, scratch: Path, trial: Trial) -> Any:
    """In a child: copy, damage and read; notes what was done, and whether the file was written anew."""
    kind, rng = trial.kind, trial.rng
    ours = copy(world, scratch, *kind.folders)
    path = rng.choice(kind.damageable(world))
    damaged = kind.damaged(ours, path)
    names = names_for(damaged, kind.without)
    name = names[trial.number % len(names)]
    what = mutate(name, damaged, rng)
    before = _state(damaged.path)
    Note.write((str(path), name, what, False))
    found = kind.read(ours, damaged.path)
    Note.write((str(path), name, what, _state(damaged.path) != before))
    return found


def _state(path: Path) -> Any:
    """What tells whether a file was written anew."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Damage:
    """The mutation run over some kinds, in a world that was built."""

    def __init__(self, world: World, scratch: Path, *, workers: int) -> None:
        self.world, self.scratch, self.workers = world, scratch, workers
        self._calm: dict[tuple[str, str], Ended] = {}

    def judge_all(self, trials: Sequence[Trial]) -> Iterator[Judged]:
        """What came of each, in their order."""
        folders = [self.scratch / f"trial-{next(_names)}" for _ in trials]
        calls = [
            partial(attempt, self.world, folder, one) for one, folder in zip(trials, folders, strict=True)
        ]
        for trial, folder, ended in zip(trials, folders, run_all(calls, workers=self.workers), strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            yield self._judged(trial, ended)

    def calm(self, kind: Kind, path: str) -> Ended:
        """How the reader ends on the undamaged world; asked for once a file, for some readers look at it."""
        key = kind.name, path
        if key not in self._calm:
            folder = self.scratch / f"calm-{next(_names)}"
            self._calm[key] = run(partial(_undamaged, self.world, folder, kind, path), seconds=120)
            shutil.rmtree(folder, ignore_errors=True)
            assert self._calm[key].how == "ok", f"{kind.name} on the undamaged world: {self._calm[key]}"
        return self._calm[key]

    def _judged(self, trial: Trial, ended: Ended) -> Judged:
        path, name, what, anew = ended.facts
        calm = self.calm(trial.kind, path)
        touched = [path, what.removeprefix(SWAPPED)] if name == "swap" else [path]
        verdict, detail = self._verdict(trial.kind, touched, name, ended, calm, anew=anew)
        return Judged(trial=trial, verdict=verdict, what=f"{path}: {what}", detail=detail)

    def _verdict(
        self, kind: Kind, touched: Sequence[str], name: str, ended: Ended, calm: Ended, *, anew: bool
    ) -> tuple[str, str]:
        if ended.how == "hang":
            return "hang", ended.message
        if ended.how in ("signal", "traceback"):
            return "crash", ended.message[-1500:]
        said = _new_lines(ended.output, calm.output)
        if ended.how == "refused":
            message = ended.message or ended.output
            named = name in GONE or _allowed(kind, name) is not None or _names_one(message, touched)
            return ("refused" if named else "unnamed"), message
        differing = sorted(
            k for k in ended.numbers | calm.numbers if ended.numbers.get(k) != calm.numbers.get(k)
        )
        if not differing:
            return ("made anew" if anew else "harmless"), ""
        if _names_one(said, touched):
            return "said", said
        if (reason := _allowed(kind, name)) is not None:
            return "allowed", reason
        return "silent", f"{', '.join(differing[:4])} differ; said: {said[-300:]!r}"


def _undamaged(world: World, scratch: Path, kind: Kind, path: str) -> Any:
    ours = copy(world, scratch, *kind.folders)
    return kind.read(ours, ours.root / path)


def _allowed(kind: Kind, name: str) -> str | None:
    """Why a mutation may change numbers in silence; None where it may not."""
    if name in kind.allowed:
        return kind.allowed[name]
    inside = kind.allowed.get("bytes") if name in BYTES or name in JSON else None
    return inside or kind.allowed.get("*")


def _names_one(text: str, touched: Sequence[str]) -> bool:
    """Whether a text names one of the files that were touched, or the store or run that it belongs to."""
    # Of a path within the world, whose own folder has a name of the same form.
    paths = [
        path.rpartition("/scratch/")[2].partition("/")[2] if "/scratch/" in path else path for path in touched
    ]
    own = {part for path in map(Path, paths) for part in path.parts if "-" in part or part.endswith(".zarr")}
    names = own | {Path(path).name for path in paths}
    return any(name in text for name in names)


def _new_lines(output: str, calm: str) -> str:
    """What was printed beyond what always is."""
    known = Counter(calm.splitlines())
    new = []
    for line in output.splitlines():
        known[line] -= 1
        if known[line] < 0:
            new.append(line)
    return "\n".join(new)


def share(kinds: Sequence[Kind], tries: int, seed: int) -> list[Trial]:
    """`tries` trials in all, by the weights of the kinds and at least one of each."""
    whole = sum(kind.weight for kind in kinds)
    return [
        Trial(kind=kind, seed=seed, number=number)
        for kind in kinds
        for number in range(max(1, round(tries * kind.weight / whole)))
    ]
