"""States of the page cache that readers are measured in: as written, gone, or filled by random reads.

What was just written lies in large pieces, the best case; after an epoch of random reads from a cold disk it
lies in the pieces in which it was drawn.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from featcache.store.feature_store import FeatureStore
from tests.benchmarks.stores import Setting


def evict(files: Iterable[Path]) -> None:
    """Have the system forget files; pages that somebody has mapped stay."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def shards_of(store: FeatureStore) -> list[Path]:
    """All shard files."""
    return sorted(store.path.glob("*/c.*"))


def can_evict(store: FeatureStore) -> bool:
    """Whether a store that nobody has mapped is gone from memory when it is evicted."""
    evict(shards_of(store))
    return not any(_begins_in_memory(path) for path in shards_of(store))


def _begins_in_memory(path: Path) -> bool:
    """Whether the first byte of a file is answered from memory; yes where the system cannot say."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    else:
        return True
    finally:
        os.close(fd)


def reopened(store: FeatureStore, *, mapped: bool = True) -> FeatureStore:
    """The same store as one opens it: nothing verified, no file open; without `mapped` by `preadv` only."""
    again = FeatureStore(store.path, store.header)
    if not mapped:
        for reader in again._readers.values():
            reader._shards._mapped = False
    return again


def random_epoch(store: FeatureStore, setting: Setting, out: np.ndarray | None = None) -> None:
    """Every clip once, in random batches: copied to `out`, or as the mapped pages that training has."""
    order = np.random.default_rng(1).permutation(setting.n_clips)
    for at in range(0, setting.n_clips, setting.batch):
        clips = order[at : at + setting.batch]
        if out is None:
            store.read_mapped(clips, threads=setting.threads)
        else:
            store.read(clips, out=out[: len(clips)], threads=setting.threads)
