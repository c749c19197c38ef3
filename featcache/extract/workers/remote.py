"""Shards on the workers of a cluster: what a worker is told, and what it does then.

A worker is told names and paths. It loads the model from its own disk when it makes its first shard, keeps it
for the next, and writes shards itself: what it has made stays, whatever becomes of the command.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from featcache.backbones import anywhere, load_backbone
from featcache.buckets.path import absolute
from featcache.errors import StoreError
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.pipeline import what_is_made
from featcache.extract.prepare import Prepared, prepare, refuse_full_disk
from featcache.extract.run import LoadedModel, Machine
from featcache.extract.workers.claims import Owner
from featcache.extract.workers.shards import ShardWorker
from featcache.fingerprint import fingerprint
from featcache.manifest import load_manifest
from featcache.spec import Corruption, Layer
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.header import read_header
from featcache.store.spec import TokenDtype
from featcache.system.cluster.client import Cluster
from featcache.system.cluster.task import kept
from featcache.system.console import Progress
from featcache.system.device import PRECISIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where workers find what a command was given: names as they were written, paths that hold anywhere."""

    backbone: str
    data_dir: Path
    cache_dir: Path
    weights_dir: Path | None
    manifest_file: Path | None

    @classmethod
    def of(
        cls,
        backbone: str,
        *,
        data_dir: Path,
        cache_dir: Path,
        weights_dir: Path | None,
        manifest_file: Path | None,
    ) -> "Source":
        """The same for a worker, which is in another folder."""
        return cls(
            backbone=anywhere(backbone),
            data_dir=absolute(data_dir),
            cache_dir=absolute(cache_dir),
            weights_dir=None if weights_dir is None else absolute(weights_dir),
            manifest_file=None if manifest_file is None else absolute(manifest_file),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreInWords:
    """The extraction of one split as a worker is told of it."""

    source: Source
    machine: Machine
    task: str
    role: str
    layers: tuple[Layer, ...]
    n_views: int
    seed: int
    precision: str
    shuffle_frames: bool
    store_dtype: TokenDtype
    corruption: Corruption | None
    skip_bad: bool
    model: str
    """What decides the model's numbers: a worker that has it loaded need not load it."""
    fingerprint: str
    """To which a worker has to come as well."""
    command: str
    """Tells apart those who made a claim: whoever has one of the same command and shard comes later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInWords:
    """One shard of it."""

    store: StoreInWords
    shard: int


def extract_on_workers(
    jobs: Sequence[Extraction],
    machine: Machine,
    cluster: Cluster,
    source: Source,
    *,
    skip_bad: bool,
    force: bool,
    progress: Progress,
    say: Callable[[str], None],
) -> Iterator[FeatureStore]:
    """Extract some splits on the workers of a cluster, shard by shard; stores are given when all are there.

    Arguments as `extract_all`; `source` says where workers find what the jobs were made of.

    Raises:
        ClusterError: the workers are gone, or differ from this machine.
        CallError, DataError, StoreError, WeightsError: as `extract_all`.
    """
    prepared = prepare(
        jobs, data_dir=source.data_dir, cache_dir=source.cache_dir, shard_bytes=machine.shard_bytes,
        skip_bad=skip_bad, progress=progress,
    )  # fmt: skip
    if not force:
        refuse_full_disk(source.cache_dir, prepared)
    command = token_hex(8)
    stores = {one.job.role: _in_words(one, machine, source, skip_bad, command) for one in prepared}
    paths = {one.job.role: one.path for one in prepared}
    todo = dict(cluster.run(begin_store, stores))
    shards: dict[str, ShardInWords] = {}
    for role, store in stores.items():
        if not todo[role]:
            say(f"{role} was there: no feature was computed")
        shards |= {f"{role} shard {n}": ShardInWords(store=store, shard=n) for n in todo[role]}
    tell = _Rows(paths, todo, progress)
    for name, _ in cluster.run(make_shard, shards):
        tell.done(shards[name].store.role, shards[name].shard)
    done = dict(cluster.run(finish_store, stores))
    cluster.let_go()
    for role in done:
        yield open_features(paths[role])


class _Rows:
    """Progress in rows of each split."""

    def __init__(self, paths: dict[str, Path], todo: dict[str, list[int]], progress: Progress) -> None:
        self._progress = progress
        self._specs = {role: read_header(path).spec for role, path in paths.items() if todo[role]}
        self._done = {
            role: spec.rows.n_rows - sum(len(spec.rows_of_shard(shard)) for shard in todo[role])
            for role, spec in self._specs.items()
        }
        for role in self._specs:
            self._tell(role)

    def done(self, role: str, shard: int) -> None:
        self._done[role] += len(self._specs[role].rows_of_shard(shard))
        self._tell(role)

    def _tell(self, role: str) -> None:
        spec = self._specs[role]
        self._progress(what_is_made(role, spec), self._done[role], spec.rows.n_rows)


def begin_store(words: StoreInWords, progress: Progress) -> list[int]:
    """Begin a store on a worker, or go on with it; the shards that are to be made."""
    writer = _bench(words).worker(words).writer
    writer.take(range(writer.spec.n_shards))
    return writer.todo()


def make_shard(words: ShardInWords, progress: Progress) -> bool:
    """Make a shard on a worker, unless it is there; whether it was made."""
    worker = _bench(words.store).worker(words.store)
    owner = Owner.this_process(os.environ)
    # The task is given to one worker at a time: whoever had it before is gone, on whichever machine.
    owner = replace(owner, task=f"{words.store.command}-{words.shard}", restart=int(1000 * time.time()))
    worker.claim_as(owner)
    return bool(worker.make([words.shard], progress).shards)


def finish_store(words: StoreInWords, progress: Progress) -> None:
    """Mark a store complete on a worker.

    Raises:
        StoreError: shards are missing or damaged.
    """
    bench = _bench(words)
    worker = bench.worker(words)
    if worker.finish() is None:
        raise StoreError(
            f"{worker.writer.path} lacks shards that were there: run the same `scivid extract` again, which "
            "makes them anew."
        )
    bench.close()


class _Bench:
    """A worker's model, and the store that it makes shards of at the moment."""

    def __init__(self, words: StoreInWords) -> None:
        self.backbone = load_backbone(words.source.backbone, words.source.weights_dir)
        self.model = LoadedModel(words.machine.device)
        self._open: tuple[StoreInWords, ShardWorker] | None = None

    def worker(self, words: StoreInWords) -> ShardWorker:
        if self._open is not None and self._open[0] == words:
            return self._open[1]
        self.close()
        (one,) = prepare(
            [self._job(words)], data_dir=words.source.data_dir, cache_dir=words.source.cache_dir,
            shard_bytes=words.machine.shard_bytes, skip_bad=words.skip_bad, progress=lambda *_: None,
        )  # fmt: skip
        if (found := fingerprint(one.parts)) != words.fingerprint:
            raise StoreError(
                f"{words.role} would become {found[:8]} here and {words.fingerprint[:8]} where the command "
                "was given: data, weights or the files of the backbone are not the same."
            )
        owner = Owner.this_process(os.environ)
        worker = ShardWorker(one, words.machine, self.model, owner, skip_bad=words.skip_bad)
        self._open = words, worker
        return worker

    def close(self) -> None:
        """Let go of the store; the model stays."""
        if self._open is not None:
            self._open[1].close()
        self._open = None

    def _job(self, words: StoreInWords) -> Extraction:
        return plan_extraction(
            load_manifest(words.source.manifest_file), task=words.task, role=words.role,
            backbone=self.backbone, layers=words.layers, n_views=words.n_views, seed=words.seed,
            dtype=PRECISIONS[words.precision], shuffle_frames=words.shuffle_frames,
            store_dtype=words.store_dtype, corruption=words.corruption,
        )  # fmt: skip


def _bench(words: StoreInWords) -> _Bench:
    return kept(words.model, lambda: _Bench(words))


def _in_words(one: Prepared, machine: Machine, source: Source, skip_bad: bool, command: str) -> StoreInWords:
    job = one.job
    return StoreInWords(
        source=source,
        machine=machine,
        task=job.task.name,
        role=job.role,
        layers=job.layers,
        n_views=job.views.n_views,
        seed=job.views.seed,
        precision=next(name for name, dtype in PRECISIONS.items() if dtype == job.dtype),
        shuffle_frames=job.shuffle_frames,
        store_dtype=job.store_dtype,
        corruption=job.corruption,
        skip_bad=skip_bad,
        model=fingerprint({"backbone": one.parts["backbone"], "layers": one.parts["layers"]}),
        fingerprint=fingerprint(one.parts),
        command=command,
    )
