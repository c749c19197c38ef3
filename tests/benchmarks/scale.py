"""A store of a hundred million clips by its metadata alone: seconds, memory and files of what is done.

    python -m tests.benchmarks.scale [--clips 100000000] [--workers 1000] [--all-shards] [--folder DIR]

Clips are listed by a reader that makes them up; everything else is the code of an extraction and of a
training run. Shards are one file, empty between its checksums, linked under the names that are looked at
(`--all-shards`: under every name). Each row of the table is a process of its own: its seconds, the most
memory that it had, with imports and model, which alone are the first rows, and the files of the folder that
it opened, each of which is a request at least where the cache is in a bucket.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from featcache.backbones import load_backbone
from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.data import readers
from featcache.data.readers.base import FrameNumbers, Frames, Progress, Scan, SplitStatus
from featcache.extract.at_scale import Site, remarks
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.plan import Speed, Training, make_plan
from featcache.extract.prepare import Prepared, prepare
from featcache.extract.run import Passes, open_writer
from featcache.manifest import Dataset, load_manifest
from featcache.spec import Layer
from featcache.store.feature_store import LOOKED_AT, FeatureStore, open_features
from featcache.store.header import read_header
from featcache.store.matching import n_shards_there
from featcache.store.reading import shard_file
from featcache.store.shards import SUM_DTYPE, Tail, checksum, file_bytes, index_of
from featcache.store.spec import TARGET_SHARD_BYTES, ArraySpec
from featcache.store.zarr_format import shard_key
from featcache.system import row_groups
from featcache.system.console import silent
from featcache.system.device import device_name
from readouts.features import draws as orders
from readouts.features.batches import training_batches
from readouts.features.splits import FeatureSplit, draws_of, split_of
from readouts.tasks import load_task

TASK, SPLIT, LATER = "calms21", "train", 1_000_000
"""A step far into the training, as of a run that is resumed."""

BACKBONE = "videomae_random_b"
CPU = torch.device("cpu")
LINKS = 50_000
"""Names of one file; the most that file systems allow is 65,000."""

N_CLIPS = "SCIVID_BENCH_CLIPS"


class Generated:
    """A split of made-up clips, 1,000 a file, of which nothing but the list can be read."""

    def __init__(self, dataset: Dataset, split: str, data_dir: Path) -> None:
        del dataset, split, data_dir
        self.n_clips = int(os.environ[N_CLIPS])

    @staticmethod
    def status(dataset: Dataset, split: str, data_dir: Path) -> SplitStatus:
        """As many clips as were asked for."""
        del dataset, split, data_dir
        return SplitStatus(files="none", n_clips=int(os.environ[N_CLIPS]))

    def files(self) -> tuple[str, ...]:
        """None that could change."""
        return ()

    def scan(self, *, skip_bad: bool = False, progress: Progress | None = None) -> Scan:
        """All clips."""
        del skip_bad, progress
        spool = row_groups.Spool(CLIP_SCHEMA)
        for start in range(0, self.n_clips, row_groups.GROUP_ROWS):
            spool.add(_made_up(start, min(start + row_groups.GROUP_ROWS, self.n_clips)))
        return Scan(index=ClipIndex(spool.finish()))

    def read(self, clip: object, frames: FrameNumbers) -> Frames:
        """Not of made-up clips."""
        raise NotImplementedError

    targets = frame_keys = read


def _made_up(start: int, stop: int) -> pa.Table:
    numbers = np.arange(start, stop)
    files, records = np.divmod(numbers, 1000)
    digests = np.random.default_rng(start).bytes(8 * len(numbers)).hex()
    file_names = pc.utf8_lpad(pa.array(files).cast(pa.string()), 6, "0")
    columns = {
        "id": pc.binary_join_element_wise(file_names, pa.array(records).cast(pa.string()), "/"),
        "source": pc.binary_join_element_wise("full/train.array_record", file_names, "-"),
        "record": records,
        "n_source": np.full(len(numbers), 16),
        "labels": pa.ListArray.from_arrays(
            pa.array(np.arange(len(numbers) + 1, dtype=np.int32)), pa.array(numbers % 4, pa.int32())
        ),
        "digest": [digests[at : at + 16] for at in range(0, len(digests), 16)],
    }
    return pa.table(columns, schema=CLIP_SCHEMA)


class Place:
    """The folder of one simulation, and what is done there."""

    def __init__(self, folder: Path, n_clips: int, workers: int) -> None:
        self.folder, self.n_clips, self.workers = folder, n_clips, workers
        os.environ[N_CLIPS] = str(n_clips)
        readers.READERS["generated"] = f"{Generated.__module__}:Generated"

    @cached_property
    def job(self) -> Extraction:
        """Two layers of ViT-B: 4.8 MB a clip."""
        found = plan_extraction(
            load_manifest(), task=TASK, role=SPLIT, backbone=load_backbone(BACKBONE),
            layers=(Layer(11), Layer(12)), n_views=1, seed=0, dtype=torch.bfloat16,
        )  # fmt: skip
        return replace(found, dataset=replace(found.dataset, reader="generated"))

    @property
    def store(self) -> Path:
        """The only one."""
        (path,) = self.folder.glob(f"{TASK}/{SPLIT}/{BACKBONE}-*.zarr")
        return path

    def prepared(self) -> Prepared:
        """What is known of the extraction; the first time, the clips are listed."""
        (one,) = prepare(
            [self.job], data_dir=self.folder, cache_dir=self.folder, shard_bytes=TARGET_SHARD_BYTES,
            skip_bad=False, progress=silent,
        )  # fmt: skip
        return one

    def work(self) -> None:
        """Begin as one of the workers, and find out what is left of its part."""
        passes = Passes(batch=32, attention_kernel="torch")
        with open_writer(self.prepared(), passes, CPU, silent, with_others=True) as writer:
            n = writer.spec.n_shards
            writer.take(range(n // 2, n // 2 + -(-n // self.workers)))
            print(f"{len(writer.todo()):,} shards to do", file=sys.stderr)  # noqa: T201

    def finish(self) -> None:
        """Look at the end of every shard, and mark the store complete."""
        passes = Passes(batch=32, attention_kernel="torch")
        with open_writer(self.prepared(), passes, CPU, silent, with_others=True) as writer:
            writer.finish()

    def open(self) -> FeatureStore:
        """As every command of stage two begins."""
        return open_features(self.store)

    def batch(self, step: int) -> None:
        """Open the store, and take the batch of one step of a training run."""
        split = split_of(self.open(), (Layer(12),))
        task = load_task(TASK, load_manifest())
        drawn = draws_of(split, batch=32, seed=0)
        (batch,) = training_batches(split, task.select, drawn, [step], CPU)
        assert len(batch.clips) == 32

    def name(self) -> None:
        """What a message says of a clip."""
        self.open().describe(self.n_clips // 3)

    def plan(self) -> None:
        """What `scivid plan` says."""
        recipe = load_task(TASK, load_manifest()).recipe
        training = Training(steps=recipe.steps, batch=recipe.batch)
        found = make_plan([self.job], {SPLIT: self.n_clips}, speed=Speed(), training=training)
        for line in remarks(found, Site(workers=self.workers, bucket=True, read_mb_s=500.0)):
            print(line, file=sys.stderr)  # noqa: T201

    def simulate(self, *, all_shards: bool) -> None:
        """Put shards where they are looked at, and mark the store complete."""
        header = read_header(self.store)
        spec, digests = header.spec, dict[str, str]()
        split = FeatureSplit(store=FeatureStore(self.store, header), layers=(Layer(12),))
        drawn = draws_of(split, batch=32, seed=0)
        n = spec.n_shards
        looked_at = [{i * (n - 1) // (most - 1) for i in range(most)} for most in (
            LOOKED_AT, min(n, shard_file.MOST_LOOKED_AT) if n > 1 else 2)]  # fmt: skip
        used = {int(clip) // spec.clips_per_shard for step in (0, LATER) for clip in drawn.at(step)[0]}
        wanted = range(n) if all_shards else sorted(set().union(used, *looked_at))
        for array in spec.all_arrays:
            path, number = self.store / array.name, 0
            path.mkdir(exist_ok=True)
            for number, shard in enumerate(shard for shard in wanted if shard < n - 1):
                if number % LINKS == 0:
                    full = self.store / shard_key(array, shard)
                    whole = _empty_shard(full, array, array.chunks_per_shard)
                else:
                    os.link(full, self.store / shard_key(array, shard))
            last = _empty_shard(
                self.store / shard_key(array, n - 1), array, len(spec.rows_of_shard(n - 1)) * spec.n_views
            )
            digests[array.name] = whole.digest * (n - 1) + last.digest if n > 1 else last.digest
        if not all_shards:
            done = replace(header, complete=True, shard_digests=digests)
            done = replace(done, provenance={**done.provenance, "skipped_clips": []})
            (self.store / "zarr.json").write_bytes(done.to_bytes())


def _empty_shard(path: Path, array: ArraySpec, n_chunks: int) -> Tail:
    """A shard of zeros, in a file that takes no more room than their checksums."""
    chunk = np.zeros(array.chunk_bytes, np.uint8)
    crc = checksum(chunk)
    present = np.arange(array.chunks_per_shard) < n_chunks
    sums = np.where(present, int.from_bytes(crc, "little"), 0).astype(SUM_DTYPE)
    index = index_of(present, array)
    tail = b"".join([sums.tobytes(), checksum(sums), index.tobytes(), checksum(index)])
    with path.open("wb") as file:
        file.truncate(file_bytes(array, n_chunks) - len(tail))
        for number in range(n_chunks):
            os.pwrite(file.fileno(), crc, number * array.stride + array.chunk_bytes)
        os.pwrite(file.fileno(), tail, n_chunks * array.stride)
    return Tail(index, sums)


STEPS: dict[str, Callable[[Place], object]] = {
    "nothing": lambda place: None,
    "nothing but the model": lambda place: None,
    "list the clips, once": Place.prepared,
    "the first worker begins": Place.work,
    "another worker begins, or goes on": Place.work,
    "plan": Place.plan,
    "list the shards": lambda place: n_shards_there(place.store, read_header(place.store)),
    "finish": Place.finish,
    "open": Place.open,
    "the name of a clip": Place.name,
    "the first batch of an epoch": lambda place: place.batch(0),
    f"the batch of step {LATER:,}": lambda place: place.batch(LATER),
}
"""In the order in which they can be done."""

WITH_ALL_SHARDS = ("list the shards", "finish")
OF_STAGE_ONE = (
    "nothing but the model", "list the clips, once", "the first worker begins",
    "another worker begins, or goes on", "plan", "finish",
)  # fmt: skip


def measured(place: Place, step: str) -> dict[str, float]:
    """Do one thing in this process: its seconds, peak memory in MB, and files that it opened."""
    opened = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal opened
        opened += event == "open" and str(arguments[0]).startswith(str(place.folder))

    sys.addaudithook(count)
    if step in OF_STAGE_ONE:
        place.job.backbone.weights_digest()  # its time and memory are the model's own
    begun = time.monotonic()
    STEPS[step](place)
    seconds = time.monotonic() - begun
    status = Path("/proc/self/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak MB": int(peak) / 1e3, "opened": opened}


def rows(
    folder: Path, n_clips: int, workers: int, *, all_shards: bool = False, held: int | None = None
) -> Iterator[dict[str, object]]:
    """A row for each step, as it is done; `held` are the clips that a process may hold."""
    for step in STEPS:
        if step in WITH_ALL_SHARDS and not all_shards:
            continue
        if step == "list the shards" or (step == "open" and not all_shards):
            Place(folder, n_clips, workers).simulate(all_shards=all_shards)
        command = [sys.executable, "-m", "tests.benchmarks.scale", "--folder", folder, "--step", step,
                   "--clips", n_clips, "--workers", workers]  # fmt: skip
        command += [] if held is None else ["--held", held]
        found = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE).stdout
        yield {"step": step, **json.loads(found)}


def table(found: Sequence[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = ["| | seconds | peak MB | files opened |", "|---|--:|--:|--:|"]
    lines += ["| {step} | {seconds:.2f} | {peak MB:,.0f} | {opened:,} |".format_map(row) for row in found]
    return "\n".join(lines)


def main() -> None:
    """One step, or all of them and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, default=10**8)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--all-shards", action="store_true", help="a name for every shard, and `finish`")
    parser.add_argument("--folder", type=Path, help="made, and kept; none: one that is removed")
    parser.add_argument("--held", type=int, help="clips that a process may hold, to see what more would do")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.held is not None:
        row_groups.MOST_HELD = orders.MOST_LISTED = asked.held
    if asked.step is not None:
        place = Place(asked.folder, asked.clips, asked.workers)
        print(json.dumps(measured(place, asked.step)))  # noqa: T201
        return
    with TemporaryDirectory() as temporary:
        found = []
        for row in rows(
            asked.folder or Path(temporary), asked.clips, asked.workers, all_shards=asked.all_shards
        ):
            found.append(row)
            print(table(found[-1:]).splitlines()[-1], flush=True)  # noqa: T201
    print(f"\n{asked.clips:,} clips, {device_name(CPU)}\n\n{table(found)}")  # noqa: T201


if __name__ == "__main__":
    main()
