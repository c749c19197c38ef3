"""A first epoch from a cold disk, and batches from a page cache that such an epoch has filled.

"As before" reads random clips into buffers by `preadv`, each with its checksum: what version 1 did. The
others hand out mapped pages, verified, which is how training on a CPU has its batches.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from featcache.store.feature_store import FeatureStore
from tests.benchmarks.page_cache import can_evict, evict, random_epoch, reopened, shards_of
from tests.benchmarks.reading import bare, copy_floor, ours
from tests.benchmarks.rivals import Read, take_in_threads, warm_buffer
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, SMALL, Setting, draws, write_store

GROUP = "cold"


def measure(small: bool) -> list[Claim]:
    """Claims about a disk that is read for the first time; none where files cannot be evicted."""
    setting = SMALL if small else FULL
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        store = reopened(write_store(Path(folder), setting))
        if not small and not can_evict(store):
            print("the page cache cannot be emptied of a file here: cold reads are left out")  # noqa: T201
            return []
        return [*_epochs(store, setting), *_after_random_reads(store, setting, Path(folder))]


def _epochs(store: FeatureStore, setting: Setting) -> list[Claim]:
    out = warm_buffer(setting)

    calls: dict[str, Callable[[], object]] = {
        "as before": lambda: random_epoch(reopened(store, mapped=False), setting, out),
        "mapped": lambda: random_epoch(reopened(store), setting),
    }
    rounds = 2 if setting is SMALL else 7
    times = in_turn(calls, rounds=rounds, before=lambda: evict(shards_of(store)))
    return [claim(times, group=GROUP, what="an epoch as before / mapped", over="as before", under="mapped")]


def _after_random_reads(store: FeatureStore, setting: Setting, folder: Path) -> list[Claim]:
    """Warm batches, where the store and the flat file were brought in by random reads."""
    take = take_in_threads(reopened(store), setting, folder)
    evict([*shards_of(store), folder / "tokens.dat"])
    random_epoch(reopened(store, mapped=False), setting, warm_buffer(setting))
    for clips in np.array_split(np.random.default_rng(2).permutation(setting.n_clips), 8):
        for clip in clips:
            _read_clip(folder / "tokens.dat", int(clip), setting)
    readers: dict[str, Read] = {
        "memory copy": copy_floor(setting),
        "bare preadv": bare(store, setting),
        "np.take, threads": take,
        "ours": ours(reopened(store), setting),
    }
    batches = {name: draws(setting) for name in readers}
    calls: dict[str, Callable[[], object]] = {
        name: (lambda read=read, name=name: read(next(batches[name]))) for name, read in readers.items()
    }
    calls["ours"]()
    times = in_turn(calls, rounds=setting.rounds, warm_up=setting.n_clips // setting.batch * 2)
    return [
        claim(times, group=GROUP, what=f"{name} / ours, filled by random reads", over=name, under="ours")
        for name in ("memory copy", "bare preadv", "np.take, threads")
    ]


def _read_clip(path: Path, clip: int, setting: Setting) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(clip * setting.grid.nbytes)
        file.read(setting.grid.nbytes)
