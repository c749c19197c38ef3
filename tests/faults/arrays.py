"""A simulated SLURM array over the parts of one split: its tasks are killed at random, and requeued.

Every task is the command line in a process of its own. In every other array each is on a machine of its own,
as far as it can tell, and comes back on another one. Some are killed outright, some are told to end; at last
each is let go to its end. The store has to be the one that a single process writes, and no shard that was
finished may be encoded again.
"""

import errno
import fcntl
import importlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from featcache.synthetic import generate
from tests.faults.trial import run

IMPORTED = (
    "cli", "rich.progress", "pyarrow.dataset", "featcache.extract.workers.shards",
    "featcache.data.readers.sequence_example.reader", "array_record.python.array_record_module",
)  # fmt: skip
"""By the process that the tasks are forks of."""

MODEL = """
import time
import torch
from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.spec import Layer, TokenGrid


class Slow:
    info = BackboneInfo(
        name="slow", title="slow", source="here", licence="none", commercial=True, public=True, params_m=0.0,
        n_blocks=0, input_size=(28, 28), grid=TokenGrid(steps=16, rows=7, columns=7, channels=288),
        default_layers=(Layer(0),), final_norm=False,
    )
    def weights_digest(self): return "slow"
    def architecture(self): return {}
    def preprocessing(self): return preprocessing(self.info)
    def load(self, layers, device, dtype):
        mix = torch.linspace(-1, 1, 3 * 288).reshape(3, 288)
        def encode(pixels):
            time.sleep(0.05)
            few = pixels[..., 16::32, 16::32]
            return {layer: torch.einsum("bfcyx,cd->bfyxd", few, mix) for layer in layers}
        return encode


BACKBONE = Slow()
"""

MOST_KILLS = 3
"""Of one task: after them it is let go."""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
LONGEST = 1.5
"""Seconds after which a task that is to be killed is killed at the latest: by then it is about done."""
AT_WORK = 0.3
"""The same from the first shard that it encodes on."""
HANGS = 240.0
"""Seconds in which an array has to come to its end."""
ENDINGS = {0, -signal.SIGKILL}
for _number in (signal.SIGTERM, signal.SIGUSR1):
    ENDINGS |= {128 + _number, -_number}  # that the command heeds, and that came before it could or after


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one array."""

    locks: bool
    machines: str
    n_kills: int
    """Signals that met a task before its own end."""
    n_shards: int
    n_encoded: int
    """Shards whose encoding was begun, those among them that a kill cut short."""
    problem: str
    """Empty where the store is equal to the undisturbed one and nothing was done twice."""


@dataclass
class _Task:
    """One task of the array, and its process of the moment."""

    number: int
    rng: random.Random
    restart: int = 0
    pid: int = 0
    kill_at: float = 0.0
    signal: int = 0
    at_work: bool = False
    """Whether the signal waits until it has begun to encode."""
    output: list[str] = field(default_factory=list)


def arrays(scratch: Path, *, n: int, tasks: int, seed: int) -> Iterator[Outcome]:
    """`n` arrays with locks and `n` without, of so many tasks each."""
    for name in IMPORTED:
        importlib.import_module(name)
    scratch.mkdir(parents=True, exist_ok=True)
    data, model = scratch / "data", scratch / "slow_model.py"
    assert run(partial(_generated, data)).how == "ok"  # in a child: the parent starts no threads
    model.write_text(MODEL)
    words = [
        "extract", "--backbone", f"{model}:BACKBONE", "--task", "flyvsfly", "--split", "train",
        "--batch", "1", "--shard-mb", "1", "--views", "2", "--device", "cpu", "--decode-threads", "1",
        "--data-dir", str(data),
    ]  # fmt: skip
    calm = scratch / "calm"
    _wait(_begun([*words, "--cache-dir", str(calm)], calm.with_suffix(".txt"), {}, locks=True, machine=""))
    undisturbed = contents(calm, everything=True)
    for locks in (True, False):
        for number in range(n):
            here = scratch / f"array-{number}"
            here.mkdir()
            rng = random.Random(f"{seed} {locks} {number}")
            yield _array(here, words, undisturbed, tasks, rng, locks=locks, several=number % 2 == 1)
            shutil.rmtree(here)


def _generated(data: Path) -> dict[str, Any]:
    generate("flyvsfly", data, profile="tiny", seed=0)
    return {}


def contents(cache: Path, *, everything: bool) -> dict[str, bytes]:
    """All files below a cache and folders that are empty, the log of runs excepted.

    Not `everything`: without what killed processes of other machines left, which is swept up a day later.
    Beside the stores that is left out in any case.
    """
    paths = [path for path in cache.rglob("*") if path.name != "runs.jsonl"]
    found = {str(path.relative_to(cache)): path.read_bytes() if path.is_file() else b"" for path in paths}
    return {
        name: content
        for name, content in found.items()
        if (everything and ".zarr/" in name) or not name.endswith((".partial", ".targets.lock"))
    }


def _array(
    here: Path,
    words: list[str],
    undisturbed: dict[str, bytes],
    n_tasks: int,
    rng: random.Random,
    *,
    locks: bool,
    several: bool,
) -> Outcome:
    cache = here / "cache"
    words = [*words, "--cache-dir", str(cache), "--shards", "auto"]
    waiting = [_Task(number=number, rng=random.Random(rng.random())) for number in range(n_tasks)]
    running: dict[int, _Task] = {}
    n_kills, problem, started = 0, "", time.monotonic()
    while (waiting or running) and not problem:
        for task in waiting:
            _start(task, words, here, n_tasks, locks=locks, several=several)
            running[task.pid] = task
        waiting = []
        for task in running.values():
            if task.at_work and (here / f"{task.number}-{task.restart}.encoded").exists():
                # From here on it is to be killed amid shards, not while it starts.
                task.at_work, task.kill_at = False, time.monotonic() + task.rng.uniform(0, AT_WORK)
            if task.signal and not task.at_work and time.monotonic() > task.kill_at:
                os.kill(task.pid, task.signal)
                task.signal = 0
        time.sleep(0.005)
        for pid, task in list(running.items()):
            if (status := _ended(pid)) is not None:
                del running[pid]
                n_kills += status != 0
                if status not in ENDINGS:
                    problem = f"task {task.number} left with {status}: {task.output[-1]}"
                elif status:
                    task.restart += 1
                    waiting.append(task)
        if time.monotonic() - started > HANGS:
            problem = f"tasks {[task.number for task in running.values()]} hang"
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    encoded = [path.read_text().split() for path in here.glob("*.encoded")]
    again = sorted(path.read_text() for path in here.glob("*.again"))
    found = contents(cache, everything=not several)
    unlike = sorted(
        name for name in found.keys() | undisturbed.keys() if found.get(name) != undisturbed.get(name)
    )
    if problem:
        problem += "\n" + "\n".join(path.read_text() for path in sorted(here.glob("*.txt")))[-1500:]
    elif unlike:
        problem = f"{', '.join(unlike[:5])} differ"
    elif again:
        problem = f"finished, and encoded again: {', '.join(again)}"
    return Outcome(
        locks=locks,
        machines="several machines" if several else "one machine",
        n_kills=n_kills,
        n_shards=sum("/slow-" in name and "/c." in name for name in undisturbed),
        n_encoded=sum(map(len, encoded)),
        problem=problem,
    )


def _start(task: _Task, words: list[str], here: Path, n_tasks: int, *, locks: bool, several: bool) -> None:
    name = f"{task.number}-{task.restart}"
    environment = {
        "SLURM_JOB_ID": str(1000 + task.number), "SLURM_ARRAY_JOB_ID": "1000",
        "SLURM_ARRAY_TASK_ID": str(task.number), "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_MAX": str(n_tasks - 1), "SLURM_ARRAY_TASK_COUNT": str(n_tasks),
        "SLURM_ARRAY_TASK_STEP": "1", "SLURM_RESTART_COUNT": str(task.restart),
    }  # fmt: skip
    task.signal, task.at_work = 0, False
    if task.restart == 0 or (task.restart < MOST_KILLS and task.rng.random() < 0.6):
        task.signal = task.rng.choice(SIGNALS)
        task.kill_at = time.monotonic() + task.rng.uniform(0, LONGEST)
        task.at_work = task.rng.random() < 0.7
    output = here / f"{name}.txt"
    task.output.append(str(output))
    machine = f"node{name.replace('-', '_')}" if several else ""
    task.pid = _begun(words, output, environment, locks=locks, machine=machine, notes=here / name)


def _begun(
    words: list[str],
    output: Path,
    environment: dict[str, str],
    *,
    locks: bool,
    machine: str,
    notes: Path | None = None,
) -> int:
    """The number of a process that is the command line."""
    pid = os.fork()
    if pid:
        return pid
    try:
        fd = os.open(output, os.O_CREAT | os.O_WRONLY)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.environ.update(environment)
        if not locks:
            fcntl.flock = _no_locks
        if machine:
            _move_to(machine)
        if notes is not None:
            _note_encodings(notes)
        from cli import app

        app(words)
    except SystemExit as left:
        os._exit(int(left.code or 0))
    finally:
        os._exit(70)
    raise AssertionError


def _no_locks(*_: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def _move_to(machine: str) -> None:
    """Have the process believe that it is on a machine of that name, where others' numbers say nothing."""
    from featcache.extract.workers import claims
    from featcache.system import files

    claims.this_machine = files.this_machine = lambda: machine  # type: ignore[assignment]


def _note_encodings(notes: Path) -> None:
    """Write down which shards the process begins to encode, and any that is on disk at that moment."""
    from featcache.extract.pipeline import Pipeline
    from featcache.store.zarr_format import shard_key

    start, begun = Pipeline._start, set[int]()

    def noted(self: Pipeline, encoder: Any, batch: Any) -> Any:
        shard = batch.rows.start // self.spec.clips_per_shard
        if shard not in begun:
            begun.add(shard)
            _append(notes.with_suffix(".encoded"), f"{shard}\n")
            if all((self.writer.path / shard_key(a, shard)).exists() for a in self.spec.all_arrays):
                _append(notes.with_suffix(".again"), f"shard {shard} by {notes.name}\n")
        return start(self, encoder, batch)

    Pipeline._start = noted  # type: ignore[method-assign]


def _append(path: Path, line: str) -> None:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(fd, line.encode())
    os.close(fd)


def _ended(pid: int) -> int | None:
    """How a process left: its code, or minus the number of the signal; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return None if found == 0 else os.waitstatus_to_exitcode(status)


def _wait(pid: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
