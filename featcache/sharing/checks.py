"""What came is the store, or the targets, that its name says; what is there already is the same; or not."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from featcache.errors import DamagedFileError, ScividError, StoreError, few
from featcache.sharing.bundle import CERTIFICATE, SharedFolder
from featcache.sharing.golden import compare
from featcache.store.clip_table import CLIPS, PREVIEWS
from featcache.store.feature_store import open_features
from featcache.store.frame_table import AXES as FRAME_TABLE_AXES
from featcache.store.header import StoreHeader, read_header
from featcache.store.matching import store_name
from featcache.store.shards import DamagedShard, examine
from featcache.store.targets import Targets, open_targets
from featcache.store.zarr_format import chunk_key, shard_key

OPTIONAL = {PREVIEWS, CERTIFICATE}
"""Files that a store may have and may lack."""


def check_targets(came: Path, folder: SharedFolder) -> Targets:
    """The group of targets that came, once it was found to be the one of its name.

    Raises:
        StoreError: it is another one, or holds other files than its own.
    """
    targets = open_targets(came)
    _refuse_name(folder, store_name("targets", targets.fingerprint))
    _refuse_files(folder, set(targets.files), optional=set())
    return targets


def check_store(came: Path, folder: SharedFolder, targets: Mapping[str, Targets]) -> None:
    """Refuse a store that is not what its header, its place and its golden values say.

    Args:
        came: where it is for now.
        folder: as the index has it.
        targets: path in the bundle -> the group.

    Raises:
        StoreError: says in what.
    """
    header = read_header(came)
    if not header.is_sealed:
        raise DamagedFileError(f"{folder.path} has no digests, which no bundle does without. {_WAY_OUT}")
    task, role, backbone = (header.attrs.get(name) for name in ("task", "role", "backbone"))
    _refuse_name(folder, f"{task}/{role}/{store_name(backbone, header.fingerprint)}")
    _refuse_files(folder, _names(header), optional=OPTIONAL)
    store = open_features(came)
    _refuse_other_targets(folder, header, targets)
    for array in store.spec.all_arrays:
        for shard in range(store.spec.n_shards):
            try:
                tail = examine(came / shard_key(array, shard), array, shard, sums=True)[1]
                tail.refuse_other(header.digest_of(array, shard))
            except DamagedShard as problem:
                raise DamagedFileError(
                    f"{folder.path}/{shard_key(array, shard)} {problem}. {_WAY_OUT}"
                ) from None
    _ = store.clips, store.rows, store.previews()
    agreement = compare(store, folder.golden)
    if agreement.n_equal != agreement.n_compared:
        raise DamagedFileError(
            f"{folder.path} does not give the tokens that were exported: {agreement}. {_WAY_OUT}"
        )


def is_there(path: Path, came: Path, folder: SharedFolder) -> bool:
    """Whether a cache holds the folder already.

    Args:
        path: where it belongs.
        came: where its `zarr.json`, at least, is for now.
        folder: as the index has it.

    Raises:
        StoreError: something else is there.
    """
    if not os.path.lexists(path):
        return False
    try:
        same = _same_targets(path, came) if folder.holds_targets else _same_store(path, came)
    except ScividError as problem:
        raise StoreError(f"{path} is in the way of the bundle's: {problem} {_IN_THE_WAY}") from problem
    if not same:
        raise StoreError(f"{path} is another one than the bundle's, of the same name. {_IN_THE_WAY}")
    return True


def _same_targets(path: Path, came: Path) -> bool:
    here, there = open_targets(path), open_targets(came)
    return here.digest is not None and (here.fingerprint, here.digest) == (there.fingerprint, there.digest)


def _same_store(path: Path, came: Path) -> bool:
    """By what decides the tokens; of the rest, such as versions of software, each may say its own."""
    here, there = open_features(path).header, read_header(came)
    return _content(here) == _content(there)


def _content(header: StoreHeader) -> tuple[object, ...]:
    return (
        header.fingerprint, header.spec, header.clips_digest, header.frame_table, header.targets,
        header.shard_digests, header.skipped_rows.keys(),
    )  # fmt: skip


def _names(header: StoreHeader) -> set[str]:
    """The files that a store must have."""
    names = {"zarr.json", CLIPS, *(f"{name}/zarr.json" for name in header.arrays)}
    arrays = {array.name: array for array in header.spec.all_arrays}
    for name in header.arrays:
        if (array := arrays.get(name)) is None:  # the frame table
            names.add(f"{name}/{chunk_key(0, len(FRAME_TABLE_AXES))}")
        else:
            names |= {shard_key(array, shard) for shard in range(header.spec.n_shards)}
    return names


def _refuse_other_targets(folder: SharedFolder, header: StoreHeader, targets: Mapping[str, Targets]) -> None:
    if (reference := header.targets) is None:
        return
    name = PurePosixPath(reference.path).name
    beside = reference.path == f"../{name}"
    found = targets.get(str(PurePosixPath(folder.path).with_name(name))) if beside else None
    if found is None or (found.fingerprint, found.digest) != (reference.fingerprint, reference.digest):
        raise DamagedFileError(
            f"{folder.path} came without its targets, {reference.path[:200]!r}. {_WAY_OUT}"
        )


def _refuse_name(folder: SharedFolder, own: str) -> None:
    if not f"/{folder.path}".endswith(f"/{own}"):
        raise DamagedFileError(f"{folder.path} says of itself that it is {own[:200]!r}. {_WAY_OUT}")


def _refuse_files(folder: SharedFolder, names: set[str], *, optional: set[str]) -> None:
    listed = {file.path for file in folder.files}
    if strange := sorted(listed - names - optional) + sorted(names - listed):
        raise DamagedFileError(
            f"{folder.path} has files that it should not have, or lacks them: {few(strange)}. {_WAY_OUT}"
        )


_WAY_OUT = "Get the bundle once more from whoever made it; nothing of it is in the cache."
_IN_THE_WAY = "Move it away, or give another folder with --cache-dir."
