"""Which part of a split is this process's: `3/8` as it is written, or what a cluster's scheduler says.

Parts are contiguous runs of shards and counted from 1. All that they decide is who makes which shard: what is
done is what is on disk, so a store that was begun by 8 workers may be finished by 3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from featcache.errors import CallError

AUTO = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One of some parts of all shards of a store."""

    number: int
    """Counted from 1."""
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise CallError(f"--shards {self}: parts are counted from 1, as in 1/8 to 8/8.")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def shards(self, n_shards: int) -> range:
        """Those of a store that has so many; none where there are more parts than shards."""
        return range((self.number - 1) * n_shards // self.of, self.number * n_shards // self.of)


def part_named(text: str, environment: Mapping[str, str]) -> Part:
    """The part that `i/n` or `auto` names.

    Raises:
        CallError: it is neither, there is no such part, or `auto` finds no scheduler.
    """
    if text == AUTO:
        return _scheduled(environment)
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None:
        raise CallError(f"--shards {text}: write part/parts, as 3/8, or auto in a job of SLURM or torchrun.")
    return Part(number=int(found[1]), of=int(found[2]))


def _scheduled(environment: Mapping[str, str]) -> Part:
    """The task of a SLURM array, the process of a torchrun, or the one in the other."""
    tasks, processes = _of_the_array(environment), _of_the_processes(environment)
    if tasks is None and processes is None:
        raise CallError(
            "--shards auto: there is neither SLURM_ARRAY_TASK_ID, as in a job that was begun with `sbatch "
            "--array=0-7`, nor RANK and WORLD_SIZE, as below torchrun: write part/parts, as 3/8."
        )
    task, n_tasks = tasks or (0, 1)
    process, n_processes = processes or (0, 1)
    return Part(number=task * n_processes + process + 1, of=n_tasks * n_processes)


def _of_the_array(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Position of a SLURM array's task among its tasks, counted from 0, and their number."""
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    task, first, last, count = (
        _whole(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "MAX", "COUNT")
    )
    step = _whole(environment, "SLURM_ARRAY_TASK_STEP", 1)
    if step < 1 or not first <= task <= last or (last - first) // step + 1 != count or (task - first) % step:
        raise CallError(
            f"--shards auto: {count} tasks from {first} to {last} in steps of {step} leave open which task "
            f"{task} is. Begin the array as --array=0-7, or write part/parts, as 3/8."
        )
    return (task - first) // step, count


def _of_the_processes(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Position of this process among those that torchrun began, counted from 0, and their number."""
    if not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    return _whole(environment, "RANK"), _whole(environment, "WORLD_SIZE")


def _whole(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d{1,18}", text):
        raise CallError(f"--shards auto: {name}={text} is no whole number: write part/parts, as 3/8.")
    return int(text)
