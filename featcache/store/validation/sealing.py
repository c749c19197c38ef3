"""Seals for what an earlier version wrote: digests are added once every byte was found to be right.

Nothing that is stored changes: shards and the chunks of targets stay as they are.
"""

from dataclasses import replace
from pathlib import Path

from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.store.clip_table import PREVIEWS, preview_bytes, write_clip_table
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.header import STORE_VERSION, StoreHeader
from featcache.store.matching import hold
from featcache.store.shards import examine
from featcache.store.target_writer import root_bytes
from featcache.store.targets import open_targets
from featcache.store.zarr_format import shard_key
from featcache.system.files import failures_explained, publish


def seal_targets(path: Path) -> bool:
    """Add checksums and a seal to a group of targets that was found to be right; whether it had none.

    Raises:
        StoreError: it cannot be read, or not be written.
    """
    targets = open_targets(path)
    if targets.sums is not None:
        return False
    sums = {name: targets.chunk_sums(name) for name in targets.metadata}
    with failures_explained(path):
        publish(path / "zarr.json", root_bytes(targets.parts, targets.metadata, sums))
    return True


def seal_store(path: Path) -> bool:
    """Add digests and a seal to a finished store that was found to be right; whether it had none.

    Its targets get theirs as well. The header is written last: a kill in between leaves a store of before.

    Raises:
        StoreError: it is not finished, cannot be read or not be written, or another process is writing it.
    """
    store = open_features(path)
    header = store.header
    if header.is_sealed:
        return False
    lock = hold(path)
    try:
        if (reference := header.targets) is not None:
            seal_targets(path / reference.path)
            reference = replace(reference, digest=open_targets(path / reference.path).digest)
        sealed = replace(
            header, store_version=STORE_VERSION, targets=reference, shard_digests=_shard_digests(store)
        )
        with failures_explained(path):
            _seal_tables(store, sealed)
            publish(path / "zarr.json", sealed.to_bytes())
    finally:
        lock.release()
    return True


def _shard_digests(store: FeatureStore) -> dict[str, str]:
    spec = store.spec
    return {
        array.name: "".join(
            examine(store.path / shard_key(array, shard), array, shard, sums=True)[1].digest
            for shard in range(spec.n_shards)
        )
        for array in spec.all_arrays
    }


def _seal_tables(store: FeatureStore, header: StoreHeader) -> None:
    clips = ClipIndex(store.clips.select(CLIP_SCHEMA.names).cast(CLIP_SCHEMA))
    write_clip_table(store.path, header, clips)
    if previews := store.previews():
        publish(store.path / PREVIEWS, preview_bytes(header, previews.items()))
