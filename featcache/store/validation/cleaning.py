"""What a cache holds that nothing reads any more: what `scivid clean` lists, and removes when told to.

Targets that no store of their split names, which labels that were edited leave behind; files that killed
writers left; shards that were set aside as damaged. A store is never among them.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from featcache.store.feature_store import readable_stores
from featcache.store.shards import DAMAGED
from featcache.system.files import left_over

YOUNG = 3600.0
"""Seconds: an extraction writes its targets before the store that names them."""


def removable_of(cache_dir: Path) -> dict[Path, str]:
    """Files and folders of a cache that can go, and why; nothing of one that is not there."""
    found = dict.fromkeys(_orphaned(cache_dir), "labels that no store refers to any more")
    found |= dict.fromkeys(left_over(cache_dir), "left by a writer that was killed")
    found |= dict.fromkeys(cache_dir.rglob(f"c.*{DAMAGED}"), "a shard that was set aside as damaged")
    return dict(sorted(found.items()))


def _orphaned(cache_dir: Path) -> Iterator[Path]:
    """Targets that no store names, of splits all of whose stores can be read."""
    for path in cache_dir.glob("*/*/targets-*.zarr"):
        split = path.parent
        stores, unreadable = readable_stores(cache_dir, split.parent.name, split.name, "*")
        named = {(store.path / at.path).resolve() for store in stores if (at := store.header.targets)}
        if not unreadable and path.resolve() not in named and time.time() - path.stat().st_mtime > YOUNG:
            yield path
