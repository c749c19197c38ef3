"""Dask workers killed at random while they extract, or sweep: `python -m tests.faults.workers --kills 20`.

Two local workers make a store of a small model, again and again, and now and then one of them is killed. Each
store has to be, byte for byte, that of a process which nobody disturbed (but runs.jsonl, the log of who did
what); and no shard that was on disk may be encoded again. The model notes every forward pass with what it saw
and which shards were on disk then. A sweep's table has to be that of one process, but for the clock.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from featcache import synthetic
from featcache.backbones import load_backbone
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.run import Machine, extract_all
from featcache.extract.workers.remote import Source, extract_on_workers
from featcache.manifest import load_manifest
from featcache.system.cluster.client import Cluster, Where, open_cluster
from featcache.system.console import silent
from readouts.results.table import load_results
from readouts.sweeps.grid import parse_grid
from readouts.sweeps.plan import Folders, plan_sweep
from readouts.sweeps.run import run_sweep

N_CLIPS, PACE = 40, 0.05
OF_THE_CLOCK = {"finished", "seconds", "together"}
"""Columns that tell when, how long, and in whose company a run ended."""
BATCH, SHARD_BYTES = 1, 2**20
"""A clip of two views is a shard, in two passes."""

MODEL = """
import json
import os
import time
from hashlib import blake2b
from pathlib import Path

import torch

from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.spec import Layer, TokenGrid


class Noted:
    info = BackboneInfo(
        name="noted", title="noted", source="here", licence="none", commercial=True, public=True,
        params_m=0.0, n_blocks=0, input_size=(56, 56),
        grid=TokenGrid(steps=16, rows=14, columns=14, channels=96), default_layers=(Layer(0),),
        final_norm=False,
    )
    def weights_digest(self): return "noted"
    def architecture(self): return {}
    def preprocessing(self): return preprocessing(self.info)
    def load(self, layers, device, dtype):
        mix = torch.linspace(-1, 1, 3 * 96).reshape(3, 96)
        log, cache = os.environ["SCIVID_PASSES"], Path(os.environ["SCIVID_PASSES_OF"])
        def encode(pixels):
            there = [int(path.name.split(".")[1]) for path in cache.glob("*/train/*.zarr/tokens_0/c.*.0")]
            seen = blake2b(pixels.contiguous().numpy().tobytes(), digest_size=8).hexdigest()
            line = json.dumps({"seen": seen, "there": there, "pid": os.getpid()}) + "\\n"
            fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            os.write(fd, line.encode())
            os.close(fd)
            time.sleep(PACE)
            pooled = torch.nn.functional.avg_pool2d(pixels.flatten(0, 1), 16).unflatten(0, pixels.shape[:2])
            return {layer: torch.einsum("bfcyx,cd->bfyxd", pooled, mix) for layer in layers}
        return encode


BACKBONE = Noted()
"""


@dataclass
class Found:
    """What became of the stores, or tables, of one experiment."""

    what: str
    kills: int = 0
    stores: int = 0
    unlike: list[str] = field(default_factory=list)
    """Files, or runs, that differ from those of the undisturbed process."""
    passes: int = 0
    needed: int = 0
    again: list[str] = field(default_factory=list)
    """Passes of shards that were on disk when they began."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every store is as it should be and nothing was encoded twice that was there."""
        return not self.unlike and not self.again and self.stores > 0

    def __str__(self) -> str:
        return (
            f"| {self.what} | {self.kills} | {self.stores} | {len(self.unlike)} "
            f"| {self.needed} | {self.passes} | {len(self.again)} | {self.seconds:.0f} s |"
        )


HEADER = (
    "| | kills | times | that differ | passes needed | made | of shards that were there | took |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


class Experiment:
    """The data, the model and the store of a process that nobody disturbed."""

    def __init__(self, root: Path, n_clips: int = N_CLIPS) -> None:
        self.root, self.data = root, root / "data"
        root.mkdir(exist_ok=True)
        synthetic.generate("flyvsfly", self.data, profile={"train": n_clips}, seed=0)
        self.model = root / "noted_model.py"
        self.model.write_text(MODEL.replace("PACE)", f"{PACE})"))
        torch.set_num_threads(1)
        with self._noting(root / "calm"):
            (_,) = extract_all([self._job()], self._machine(), data_dir=self.data, cache_dir=root / "calm")
        self.calm = contents(root / "calm")
        self.shard_of = {line["seen"]: number // 2 for number, line in enumerate(self._passes("calm"))}
        assert len(self.shard_of) == 2 * n_clips

    def run(self, kills: int, seed: int, *, every: tuple[float, float]) -> Found:
        """Stores made by two workers; one is killed `every` so many seconds, until there were `kills`."""
        found, began = Found("shards of a store"), time.monotonic()
        with self._noting(self.root / "cache"):
            cache = self.root / "cache"
            where = Where(local_workers=2)
            with open_cluster(where, on_gpu=False, folders=[self.root], say=lambda line: None) as cluster:
                killer = _Killer(random.Random(seed), kills, every, has_passed)
                with killer.at_work():
                    while killer.done < kills or not found.stores:
                        self._once(cluster, cache, found)
                found.kills = killer.done
        found.seconds = time.monotonic() - began
        return found

    def _once(self, cluster: Cluster, cache: Path, found: Found) -> None:
        shutil.rmtree(cache, ignore_errors=True)
        Path(os.environ["SCIVID_PASSES"]).unlink(missing_ok=True)
        source = Source.of(
            f"{self.model}:BACKBONE",
            data_dir=self.data,
            cache_dir=cache,
            weights_dir=None,
            manifest_file=None,
        )
        list(
            extract_on_workers(
                [self._job()], self._machine(), cluster, source, skip_bad=False, force=False, progress=silent,
                say=lambda line: None,
            )
        )  # fmt: skip
        made = contents(cache)
        names = made.keys() | self.calm.keys()
        found.unlike += sorted(name for name in names if made.get(name) != self.calm.get(name))
        lines = self._passes("cache")
        found.stores += 1
        found.needed += len(self.shard_of)
        found.passes += len(lines)
        found.again += [line["seen"] for line in lines if self.shard_of[line["seen"]] in line["there"]]

    def _job(self) -> Extraction:
        backbone = load_backbone(f"{self.model}:BACKBONE", None)
        return plan_extraction(
            load_manifest(), task="flyvsfly", role="train", backbone=backbone,
            layers=backbone.info.default_layers, n_views=2, seed=0, dtype=torch.float32,
        )  # fmt: skip

    def _machine(self) -> Machine:
        return Machine(device=torch.device("cpu"), batch=BATCH, shard_bytes=SHARD_BYTES)

    @contextmanager
    def _noting(self, cache: Path) -> Iterator[None]:
        """Where the model notes its passes; workers inherit it."""
        noted = {"SCIVID_PASSES": str(cache.with_suffix(".jsonl")), "SCIVID_PASSES_OF": str(cache)}
        os.environ |= noted
        try:
            yield
        finally:
            for name in noted:
                del os.environ[name]

    def _passes(self, name: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.root / f"{name}.jsonl").read_text().splitlines()]


class Sweeps:
    """Stores of a small model, a grid, and the table of a process that nobody disturbed."""

    def __init__(self, root: Path, steps: int = 300) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        synthetic.generate("flyvsfly", root / "data", profile="tiny", seed=0)
        torch.set_num_threads(1)
        backbone = load_backbone("resize")
        jobs = [
            plan_extraction(
                load_manifest(), task="flyvsfly", role=role, backbone=backbone,
                layers=backbone.info.default_layers, n_views=1, seed=0, dtype=torch.float32,
            )
            for role in ("train", "val")
        ]  # fmt: skip
        machine = Machine(device=torch.device("cpu"), batch=4)
        list(extract_all(jobs, machine, data_dir=root / "data", cache_dir=root / "features"))
        self.grid = parse_grid(
            "task=flyvsfly backbone=resize readout=linear,attention seed=0,1 batch=4,8 dropout=0.3 width=16 "
            f"heads=2 minival_every=20 steps={steps}"
        )
        self.calm = self._swept(root / "calm", None)

    def run(self, kills: int, seed: int, *, every: tuple[float, float]) -> Found:
        """Sweeps by two workers; one is killed `every` so many seconds, until there were `kills`."""
        found, began = Found("passes of a sweep"), time.monotonic()
        results = self.root / "results"
        where = Where(local_workers=2)
        with open_cluster(where, on_gpu=False, folders=[self.root], say=lambda line: None) as cluster:
            killer = _Killer(random.Random(seed), kills, every, lambda pid: any(results.glob("*/*/*.jsonl")))
            with killer.at_work():
                while killer.done < kills or not found.stores:
                    shutil.rmtree(results, ignore_errors=True)
                    made = self._swept(results, cluster)
                    found.stores += 1
                    runs = made.keys() | self.calm.keys()
                    found.unlike += sorted(run for run in runs if made.get(run) != self.calm.get(run))
            found.kills = killer.done
        found.seconds = time.monotonic() - began
        return found

    def _swept(self, results: Path, cluster: Cluster | None) -> dict[str, dict[str, str]]:
        folders = Folders(cache_dir=self.root / "features", results_dir=results, manifest=load_manifest())
        plan = plan_sweep([self.grid], folders, together=2)
        run_sweep(plan, folders, name="kills", device=torch.device("cpu"), cluster=cluster)
        return {
            row["run"]: {
                name: str(value).replace(str(results), "RESULTS")
                for name, value in row.items()
                if name not in OF_THE_CLOCK
            }
            for row in load_results(results)
        }


class _Killer:
    """Sends SIGKILL to a worker now and then."""

    def __init__(
        self, rng: random.Random, kills: int, every: tuple[float, float], is_at_work: Callable[[int], bool]
    ) -> None:
        self.rng, self.kills, self.every, self.is_at_work = rng, kills, every, is_at_work
        self.done = 0
        self._stop = Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _work(self) -> None:
        while self.done < self.kills and not self._stop.wait(self.rng.uniform(*self.every)):
            if pids := [pid for pid in workers_of(os.getpid()) if self.is_at_work(pid)]:
                with suppress(ProcessLookupError):
                    os.kill(self.rng.choice(pids), signal.SIGKILL)
                    self.done += 1


def workers_of(pid: int) -> list[int]:
    """The processes that a process has spawned."""
    found = []
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return [child for child in found if b"spawn_main" in _command(child)]


def has_passed(pid: int) -> bool:
    """Whether a worker has begun to encode: one that still starts has nothing to lose."""
    log = Path(os.environ["SCIVID_PASSES"])
    return log.exists() and f'"pid": {pid}' in log.read_text()


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder that is to be the same."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "runs.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def main() -> int:
    """Kill, compare, print a row; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", default="extract,sweep")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        every = (0.3, 2.5)
        rows = []
        if "extract" in asked.what:
            rows.append(Experiment(Path(folder) / "extract").run(asked.kills, asked.seed, every=every))
        if "sweep" in asked.what:
            rows.append(Sweeps(Path(folder) / "sweep").run(asked.kills, asked.seed, every=every))
    sys.stdout.write("\n".join([HEADER, *map(str, rows)]) + "\n")
    for name in [name for found in rows for name in (*found.unlike, *found.again)]:
        sys.stdout.write(f"  {name}\n")
    return int(not all(found.ok for found in rows))


if __name__ == "__main__":
    sys.exit(main())
