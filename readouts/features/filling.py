"""A split brought into the page cache in the order of its files, before training draws from all over them.

A disk gives what lies in a row faster than single clips here and there, and whoever draws every clip of a
split has read all of it by the end of the first epoch anyway. It changes when bytes are read, and no number:
chunks are verified as batches take them.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from featcache.store.reading.threads import READ_THREADS
from featcache.store.zarr_format import shard_key
from featcache.system.ahead import map_ahead
from featcache.system.console import Progress
from featcache.system.device import free_memory
from featcache.system.files import open_regular
from readouts.features.splits import FeatureSplit
from readouts.features.staging import new_parts

SHARE_OF_MEMORY = 0.6
"""Of what is available: a page cache that is filled to the brim drops what came first."""

SHARE_OF_FILES = 0.5
"""Of the bytes of the files that training must draw from, for them to be read whole."""

PROBES = 64
"""Places in the files that are looked at, spread over all shards; each may begin a little reading ahead."""

CACHED = 0.75
"""Share of them in memory above which the rest is left to random reads."""

PIECE_BYTES = 2**18
"""Of a read: what it copies stays in a core's own cache."""


def fill_page_cache(split: FeatureSplit, n_draws: int, progress: Progress) -> bool:
    """Read the files of a split front to back if training will draw all of it, and they fit in memory.

    Args:
        split: of training.
        n_draws: clips that are still to be drawn.
        progress: told how many files were read.

    Returns:
        Whether they were read: not if most of them is in memory already. What cannot be read is left to who
        reads a batch of it, and says why.
    """
    n_rows = len(split.usable) * split.n_views
    n_drawn = sum(part.nbytes for part in new_parts(split, n_rows, torch.device("meta")))
    files = _files(split)
    n_bytes = sum(path.stat().st_size for path in files if path.exists())
    # An epoch draws one view of a clip: of several, a part of the bytes.
    if n_draws < n_rows or n_drawn < SHARE_OF_FILES * n_bytes:
        return False
    if n_bytes > SHARE_OF_MEMORY * free_memory(torch.device("cpu")) or cached_share(split) > CACHED:
        return False
    with ThreadPoolExecutor(READ_THREADS, "read in order") as pool:
        try:
            ahead = map_ahead(pool, _read_through, files, window=READ_THREADS)
            for done, (_, read) in enumerate(ahead, start=1):
                read.result()
                progress("reading in order", done, len(files))
        finally:
            pool.shutdown(cancel_futures=True)
    return True


def _files(split: FeatureSplit) -> list[Path]:
    """The shard files of a split's layer, tokens before scales."""
    store = split.store
    return [
        store.path / shard_key(array, shard)
        for array in store.spec.arrays(split.layer)
        for shard in range(store.spec.n_shards)
    ]


def _read_through(path: Path) -> None:
    """Read a file from its first byte to its last, and keep nothing."""
    piece = bytearray(PIECE_BYTES)
    with suppress(OSError), open(path, "rb", buffering=0, opener=open_regular) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while file.readinto(piece):
            pass


def cached_share(split: FeatureSplit) -> float:
    """About how much of the files of a split is in the page cache; 1 where the system does not tell."""
    shards = np.unique(split.shards)
    looked_at = shards[:: -(-len(shards) // PROBES)].tolist()
    found = [there for shard in looked_at for there in _looked_at(split, shard, -(-PROBES // len(looked_at)))]
    return float(np.mean(found)) if found else 1.0


def _looked_at(split: FeatureSplit, shard: int, n_places: int) -> Iterator[bool]:
    """Of so many places of a shard's tokens, whether each is in memory."""
    try:
        fd = os.open(split.store.shard_path(split.layer, shard), os.O_RDONLY)
    except OSError:  # who reads it says why
        return
    try:
        size = os.fstat(fd).st_size
        for place in range(n_places):
            try:
                # Answered from memory, or not at all.
                os.preadv(fd, [bytearray(1)], place * size // n_places, os.RWF_NOWAIT)
            except BlockingIOError:
                yield False
            except OSError:  # a file system that cannot say
                return
            else:
                yield True
    finally:
        os.close(fd)
