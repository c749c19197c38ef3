"""A split brought into the page cache in the order of its files, before training draws from all over them.

A disk gives what lies in a row faster than single clips here and there, and whoever draws every clip of a
split has read all of it by the end of the first epoch anyway. It changes when bytes are read and verified,
and no number.
"""

import os
from collections.abc import Iterator

import numpy as np
import torch

from featcache.system.console import Progress
from featcache.system.device import free_memory
from readouts.features.batches import mapped_tokens, read_into
from readouts.features.splits import FeatureSplit
from readouts.features.staging import host_parts, new_parts

HOST = torch.device("cpu")

SHARE_OF_MEMORY = 0.6
"""Of what is available: a page cache that is filled to the brim drops what came first."""

PROBES = 64
"""Places in the files that are looked at, spread over all shards; each may begin a little reading ahead."""

CACHED = 0.75
"""Share of them in memory above which the rest is left to random reads."""

CLIPS_AT_ONCE = 32


def fill_page_cache(split: FeatureSplit, n_draws: int, progress: Progress) -> bool:
    """Read a split front to back if training will draw all of it, it fits, and it is not in memory yet.

    Args:
        split: of training.
        n_draws: clips that are still to be drawn.
        progress: told how many clips were read.

    Returns:
        Whether it was read.

    Raises:
        StoreError: a chunk is damaged.
    """
    clips, n_views = split.usable, split.n_views
    n_rows = len(clips) * n_views
    n_bytes = sum(part.nbytes for part in new_parts(split, n_rows, torch.device("meta")))
    # An epoch draws one view of a clip: of several, a part of the bytes.
    if n_draws < n_rows or n_bytes > SHARE_OF_MEMORY * free_memory(HOST) or cached_share(split) > CACHED:
        return False
    for at in range(0, len(clips), CLIPS_AT_ONCE):
        block = clips[at : at + CLIPS_AT_ONCE]
        of_rows, views = np.repeat(block, n_views), np.tile(np.arange(n_views), len(block))
        if mapped_tokens(split, of_rows, views) is None:
            read_into(host_parts(split, len(of_rows), HOST), split, of_rows, views)
        progress("reading in order", at + len(block), len(clips))
    return True


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
