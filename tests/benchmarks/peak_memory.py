"""Peak memory of `scivid extract` and `scivid train-readout` as the data grow: it must not.

    python tests/benchmarks/peak_memory.py [--tasks stir,typhoon] [--factors 1,2,10] [--data demo/data]

Every task's training split is extracted at the demo's size and at multiples of it, then a readout is trained
for a few steps, each in a process of its own. Larger sets cost no drawing: shard files stand in them several
times under numbers of their own, which makes their clips distinct; the weather is one series, and is drawn
longer. The backbone is `resize`, which has no weights: what is measured is the way of the data, since a
model's own memory does not depend on the number of clips. Shards are small, so that the smallest set already
fills several: a worker holds the tokens of one shard, and those of another while it is written.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

from featcache import synthetic
from featcache.data.readers.sequence_example.records import find_shards
from featcache.manifest import Dataset, Manifest, Split, load_manifest
from featcache.store.feature_store import find_stores
from readouts.sweeps.demo import FULL

BACKBONE = "resize"
STEPS = 30
SECONDS_BETWEEN_SAMPLES = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What one process took, in MB of 10^6 bytes."""

    peak: float
    """What it allocated (RssAnon), the largest sample: buffers, tables, tensors."""
    steady: float
    """The median of the same over the second half of its life. Memory goes up and down with every batch, so
    the largest of ten times as many samples is larger without anything that grows; this is not.
    """
    resident: float
    """Its pages at their most (VmHWM, the kernel's own mark): mapped files and libraries too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One stage of one task at one size."""

    task: str
    stage: str
    factor: int
    clips: int
    memory: Memory


def memory_of(command: Sequence[str | Path], log: Path) -> Memory:
    """Run a command to its end and watch its memory; its output goes to `log`.

    Not by `ru_maxrss`: that of a child begins at its parent's.

    Raises:
        SystemExit: the command failed.
    """
    samples = [{"RssAnon": 0, "VmHWM": 0}]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        while process.poll() is None:
            samples.append(samples[-1] | status_of(process.pid))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    if process.returncode:
        words = " ".join(map(str, command))
        raise SystemExit(f"{words}\nended with {process.returncode}:\n{log.read_text()}")
    allocated = [sample["RssAnon"] / 1e6 for sample in samples]
    steady = median(allocated[len(allocated) // 2 :])
    return Memory(peak=max(allocated), steady=steady, resident=samples[-1]["VmHWM"] / 1e6)


def status_of(process: int) -> dict[str, int]:
    """Bytes by the kernel's names for them; nothing of a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    entries = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: 1024 * int(value.removesuffix("kB")) for name, _, value in entries}


def enlarged(dataset: Dataset, split: Split, data_dir: Path, folder: Path, factor: int) -> Path:
    """A data folder whose `split` holds `factor` times the clips of the demo's in `data_dir`."""
    if factor == 1:
        return data_dir
    if split.windows is not None:
        demo = synthetic.load_generator(dataset.name).profiles["demo"]
        synthetic.generate(dataset.name, folder, profile={split.name: factor * demo[split.name]})
        return folder
    shards = find_shards(dataset, split, data_dir).found
    for number, source in enumerate(factor * shards):
        link = folder / split.files.format(shard=number, n_shards=factor * len(shards))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((data_dir / source).resolve())
    return folder


def measured(
    task: str, factors: Sequence[int], manifest: Manifest, data_dir: Path, folder: Path, shard_mb: int
) -> list[Measurement]:
    """Both stages of `task` at every size, in `folder`, which is emptied before and removed after."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cache, log, found = folder / "features", folder / "log.txt", []
    extract, train = commands(task, folder, cache, shard_mb)
    memory_of([*extract, "--split", "val", "--data-dir", data_dir], log)
    name, split = manifest.task(task).source_of("train")
    dataset = manifest.dataset(name)
    for factor in factors:
        source = enlarged(dataset, dataset.split(split), data_dir, folder / f"data-{factor}", factor)
        stages = {"extract": [*extract, "--split", "train", "--data-dir", source], "train-readout": train}
        for stage, command in stages.items():
            memory = memory_of(command, log)
            (store,) = find_stores(cache, task, "train", BACKBONE)
            one = Measurement(task=task, stage=stage, factor=factor, clips=store.spec.n_clips, memory=memory)
            found.append(one)
            sys.stderr.write(f"{one}\n")
        shutil.rmtree(cache / task / "train")
    shutil.rmtree(folder)
    return found


def commands(
    task: str, folder: Path, cache: Path, shard_mb: int
) -> tuple[list[str | Path], list[str | Path]]:
    """The two stages: extraction but for split and data, training with the demo's settings."""
    scivid, on_cpu = [sys.executable, "-m", "cli"], ["--device", "cpu"]
    common: list[str | Path] = ["--backbone", BACKBONE, "--task", task, *on_cpu, "--cache-dir", cache]
    settings = [*FULL.trained[task][1], f"steps={STEPS}", f"minival_every={STEPS}"]
    chosen = [word for setting in settings for word in ("--set", setting)]
    return (
        [*scivid, "extract", *common, "--shard-mb", str(shard_mb)],
        [*scivid, "train-readout", *common, "--results-dir", folder / "results", *chosen],
    )


def table(measurements: Sequence[Measurement]) -> str:
    """Markdown: a row a task and stage; MB that the process allocated, at its peak and when steady."""
    factors = sorted({one.factor for one in measurements})
    ratio = f"{factors[-1]}x / {factors[0]}x"
    lines = [
        f"| task | stage | clips at {factors[0]}x | {' | '.join(f'{n}x' for n in factors)} | {ratio} |",
        "|---|---|" + "---|" * (len(factors) + 2),
    ]
    for (task, stage), group in groupby(measurements, key=lambda one: (one.task, one.stage)):
        at = {one.factor: one for one in group}
        first, last = at[factors[0]].memory, at[factors[-1]].memory
        cells = [f"{at[n].memory.peak:.0f} / {at[n].memory.steady:.0f}" for n in factors]
        cells.append(f"{last.peak / first.peak:.2f} / {last.steady / first.steady:.2f}")
        lines.append(f"| {task} | {stage} | {at[factors[0]].clips} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print the table, write every number to `peak_memory.json`."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--tasks", default=",".join(FULL.trained), help="with commas; default: %(default)s")
    parser.add_argument("--factors", default="1,2,10", help="sizes, in the demo's; default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("demo/data"), help="the demo's; made if not there")
    parser.add_argument("--dir", type=Path, default=Path("demo/memory"), help="for what is made meanwhile")
    parser.add_argument("--shard-mb", type=int, default=1, help="MiB a shard; default: %(default)s")
    given = parser.parse_args(words)
    manifest, factors = load_manifest(), sorted(map(int, given.factors.split(",")))
    found: list[Measurement] = []
    for task in given.tasks.split(","):
        for name in {name for name, _ in manifest.task(task).splits.values()}:
            synthetic.generate(name, given.data)
        found += measured(
            task, factors, manifest, given.data, given.dir / f"peak-memory-{task}", given.shard_mb
        )
        lines = json.dumps([asdict(one) for one in found], indent=1)
        (given.dir / "peak_memory.json").write_text(lines + "\n")
    sys.stdout.write(f"MB allocated (RssAnon): peak / steady\n\n{table(found)}\n")


if __name__ == "__main__":
    main()
