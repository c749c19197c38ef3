"""Random batches from a store in a bucket of this machine: beside the server's own ranged rate.

The rival asks for the same byte ranges by bare `obstore.get_range`, from as many threads as serve it best,
and looks at nothing that comes. Ours brings them into a batch's buffer, verified; then as batches of a
training, with their targets, read ahead.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from featcache.buckets.path import place
from featcache.buckets.read_cache import FOLDER
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.zarr_format import shard_key
from readouts.features.splits import draws_of, split_of
from tests.benchmarks.feed import CPU, Feed
from tests.benchmarks.rivals import warm_buffer
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, LAYER, SMALL, Setting, draws, write_store
from tests.loopback import ObjectStore

GROUP = "buckets"

N_BATCHES = 8
"""Of a round."""

BARE_THREADS = (8, 32)

TARGETS = {"ours": 0.8, "batches of a training": 0.8, "what was kept on the disk": None}


def measure(small: bool) -> list[Claim]:
    """Claims about reading from a bucket; raises AssertionError if a batch differs from the one on a disk."""
    setting = SMALL if small else FULL
    with TemporaryDirectory() as folder, served(Path(folder) / "served") as bucket:
        local, there = write_store(Path(folder), setting), write_store(place(bucket), setting)
        refuse_differences(local, there, setting)
        calls: dict[str, Callable[[], object]] = {
            f"bare get_range, {n} threads": bare(there, setting, n) for n in BARE_THREADS
        }
        calls |= {
            "ours": ours(open_features(there.path), setting),
            "batches of a training": batches_of(there, setting),
            "what was kept on the disk": kept(there, setting, Path(folder) / "reads"),
        }
        times = in_turn(calls, rounds=1 if small else 7)
    bare_names = [name for name in calls if name.startswith("bare")]
    best = min(bare_names, key=lambda name: float(np.median(times[name])))
    rate = N_BATCHES * setting.batch * setting.grid.nbytes / 1e6 / float(np.median(times[best]))
    return [
        claim(
            times, group=GROUP, what=f"speed of {name} over the server's own",
            over=best, under=name, target=target,
            detail=f"{best}: {rate:,.0f} MB/s",
        )
        for name, target in TARGETS.items()
    ]  # fmt: skip


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A bucket on this machine, with what clients find in the environment."""
    server = ObjectStore(folder)
    (folder / "bucket").mkdir()
    before = dict(os.environ)
    os.environ.update(server.environment() | {FOLDER: "off"})
    try:
        yield "s3://bucket/features"
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.close()


def bare(store: FeatureStore, setting: Setting, threads: int) -> Callable[[], object]:
    """The rival: byte ranges known beforehand, whatever comes dropped."""
    import obstore
    from obstore.store import from_url

    bucket, drawn, pool = (
        from_url("s3://bucket", client_options={"allow_http": True}),
        draws(setting),
        ThreadPoolExecutor(threads),
    )
    (array,) = store.spec.arrays(LAYER)

    def ask(clip: int) -> int:
        shard, position = divmod(clip, store.spec.clips_per_shard)
        key = f"features/{store.path.name}/{shard_key(array, shard)}"
        return len(obstore.get_range(bucket, key, start=position * array.stride, length=array.chunk_bytes))

    return lambda: list(pool.map(ask, np.concatenate([next(drawn) for _ in range(N_BATCHES)]).tolist()))


def ours(store: FeatureStore, setting: Setting) -> Callable[[], object]:
    """`FeatureStore.read` into a warm buffer, batch after batch."""
    drawn, out = draws(setting), warm_buffer(setting)
    return lambda: [store.read(next(drawn), out=out) for _ in range(N_BATCHES)]


def batches_of(store: FeatureStore, setting: Setting) -> Callable[[], object]:
    """Batches of a training, as its loop gets them."""
    split = split_of(open_features(store.path))
    feed = Feed(split=split, draws=draws_of(split, batch=setting.batch, seed=0), steps=range(N_BATCHES))
    return lambda: [batch.clips for batch in feed.read(CPU)]


def kept(store: FeatureStore, setting: Setting, folder: Path) -> Callable[[], object]:
    """As `ours`, once every clip was read: from the local disk."""
    os.environ[FOLDER] = str(folder)
    store = open_features(store.path)
    for start in range(0, setting.n_clips, setting.batch):
        store.read(range(start, start + setting.batch))
    os.environ[FOLDER] = "off"
    return ours(store, setting)


def refuse_differences(local: FeatureStore, there: FeatureStore, setting: Setting) -> None:
    """A batch from the bucket has the bits of one from the disk."""
    clips = next(draws(setting))
    ours, theirs = (store.read(clips).view(np.uint16) for store in (there, local))
    assert np.array_equal(ours, theirs)
