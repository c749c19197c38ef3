"""Write a group of targets, or find it there: rows to chunks, a file each, published as one folder."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featcache.buckets.path import BucketPath
from featcache.clips import ClipIndex
from featcache.errors import CallError
from featcache.fingerprint import SHORT, fingerprint
from featcache.store.shards import checksum
from featcache.store.targets import TargetArray, open_targets
from featcache.store.zarr_format import chunk_key, group_metadata, json_bytes
from featcache.system.files import (
    failures_explained,
    remove,
    remove_leftovers,
    sync_directory,
    temporary_beside,
    write_file,
)
from featcache.system.locks import Lock
from featcache.system.sealed import KEY, UNSEALED, seal

AXES = {"labels": ("clip", "class")}
"""Names of the axes of targets given as plain arrays."""


def write_targets(
    folder: Path,
    index: ClipIndex,
    arrays: Mapping[str, np.ndarray | TargetArray],
    parts: Mapping[str, Any],
    blocks: Iterable[Mapping[str, np.ndarray]] = (),
) -> Path:
    """Write `<folder>/targets-<fingerprint8>.zarr`, or find it there.

    Args:
        folder: that of the split, `<cache>/<task>/<split>`, where the feature stores are.
        index: the clips.
        arrays: name -> values; `labels` is [clip, class].
        parts: what else the targets depend on (class names, data version): with the clip index and the
            arrays' shapes it makes the fingerprint.
        blocks: rows of the arrays that bring none of their own, name -> the next rows. It is begun only where
            the group has to be written.

    Raises:
        CallError: an array does not have one row per clip.
        StoreError: a group of that name is there and is another one, or damaged; or the disk is full.
    """
    path, targets, parts = _planned(folder, index, arrays, parts)
    for name, target in targets.items():
        if target.axes[0] == "clip" and target.shape[0] != len(index):
            raise CallError(
                f"targets {name!r} have {target.shape[0]} rows for {len(index)} clips: give one per clip."
            )
    # Looked for before the lock: what is there is found on a disk that may only be read, too.
    if (path / "zarr.json").exists():
        return open_targets(path, expected=fingerprint(parts)).path
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"the targets of {folder} are being written by another process."
    lock = Lock(folder / ".targets.lock", wait=True, busy=busy)
    try:
        if not (path / "zarr.json").exists():
            remove_leftovers(folder)
            needed = stored_bytes(targets)
            with failures_explained(path, needed=needed, left=lambda: needed):
                _write_group(path, targets, parts, blocks)
        return open_targets(path, expected=fingerprint(parts)).path
    finally:
        lock.release()


def bytes_to_write(
    folder: Path, index: ClipIndex, arrays: Mapping[str, np.ndarray | TargetArray], parts: Mapping[str, Any]
) -> int:
    """What `write_targets` would write, arguments as there: 0 where the group is there."""
    path, targets, _ = _planned(folder, index, arrays, parts)
    return 0 if (path / "zarr.json").exists() else stored_bytes(targets)


def stored_bytes(targets: Mapping[str, TargetArray]) -> int:
    """Bytes that target arrays take on disk, but for a few KB of names and shapes."""
    return sum(target.stored_bytes for target in targets.values())


def _planned(
    folder: Path, index: ClipIndex, arrays: Mapping[str, np.ndarray | TargetArray], parts: Mapping[str, Any]
) -> tuple[Path, dict[str, TargetArray], dict[str, Any]]:
    """Where the group is to be, its arrays, and what its fingerprint is made of."""
    targets = {name: _as_target(name, values) for name, values in sorted(arrays.items())}
    shapes = {
        name: {"shape": list(target.shape), "dtype": target.dtype.name, "axes": list(target.axes)}
        for name, target in targets.items()
    }
    all_parts = {**parts, "clips": index.digest, "arrays": shapes}
    return folder / f"targets-{fingerprint(all_parts)[:SHORT]}.zarr", targets, all_parts


def _as_target(name: str, values: np.ndarray | TargetArray) -> TargetArray:
    if isinstance(values, TargetArray):
        return values
    axes = AXES.get(name) or ("clip", *(f"{name}_{axis}" for axis in range(1, values.ndim)))
    return TargetArray(shape=values.shape, dtype=values.dtype, axes=axes, blocks=[values])


def _write_group(
    path: Path,
    targets: Mapping[str, TargetArray],
    parts: Mapping[str, Any],
    blocks: Iterable[Mapping[str, np.ndarray]],
) -> None:
    if isinstance(path, BucketPath):  # where the root comes last, and makes it a group
        _write_folder(path, targets, parts, blocks)
        return
    temporary = temporary_beside(path)
    try:
        _write_folder(temporary, targets, parts, blocks)
        for name, _, _ in os.walk(temporary):
            sync_directory(Path(name))
        temporary.rename(path)
    except OSError:
        # Where the file system has no locks another process may have been first: its group is as good.
        if not path.exists():
            raise
    finally:
        remove(temporary)
    sync_directory(path.parent)


def _write_folder(
    temporary: Path,
    targets: Mapping[str, TargetArray],
    parts: Mapping[str, Any],
    blocks: Iterable[Mapping[str, np.ndarray]],
) -> None:
    metadata = {name: target.metadata() for name, target in targets.items()}
    writers = {name: _RowWriter(temporary / name, name, target) for name, target in targets.items()}
    for name, target in targets.items():
        write_file(temporary / name / "zarr.json", [json_bytes(metadata[name])])
        for block in target.blocks or ():
            writers[name].add(block)
    for together in blocks:
        for name, block in together.items():
            writers[name].add(block)
    sums = {name: writer.finish() for name, writer in writers.items()}
    write_file(temporary / "zarr.json", [root_bytes(parts, metadata, sums)])


def root_bytes(
    parts: Mapping[str, Any], metadata: Mapping[str, Mapping[str, Any]], sums: Mapping[str, Sequence[int]]
) -> bytes:
    """The root `zarr.json` of a group, given what its fingerprint is made of and its chunks' checksums."""
    about = {
        "kind": "targets",
        "fingerprint": fingerprint(parts),
        "parts": dict(parts),
        "sums": {name: "".join(f"{crc:08x}" for crc in of) for name, of in sums.items()},
        KEY: UNSEALED,
    }
    return seal(json_bytes(group_metadata({"scivid": about}, metadata)))


class _RowWriter:
    """Blocks of any length to chunks of equal length, the last one filled up as Zarr wants it."""

    def __init__(self, folder: Path, name: str, target: TargetArray) -> None:
        self.folder, self.name, self.target = folder, name, target
        self.fill = np.nan if target.dtype.kind == "f" else 0
        self.chunk = np.full((target.chunk_rows, *target.shape[1:]), self.fill, target.dtype)
        self.n_rows = self.filled = 0
        self.sums: list[int] = []
        """crc32c of the chunks that were written."""

    def add(self, block: np.ndarray) -> None:
        """The next rows."""
        name, target, chunk = self.name, self.target, self.chunk
        if block.shape[1:] != target.shape[1:] or block.dtype != target.dtype:
            raise CallError(
                f"targets {name!r}: a block is {block.dtype}{block.shape}, not {target.dtype}{target.shape}."
            )
        while len(block):
            taken = block[: len(chunk) - self.filled]
            chunk[self.filled : self.filled + len(taken)] = taken
            block, self.filled = block[len(taken) :], self.filled + len(taken)
            self.n_rows += len(taken)
            if self.filled == len(chunk):
                self._write_chunk()
                chunk[...], self.filled = self.fill, 0

    def finish(self) -> list[int]:
        """Write what is left, and give all chunks' checksums.

        Raises:
            CallError: rows are missing or too many.
        """
        if self.filled:
            self._write_chunk()
        if self.n_rows != self.target.shape[0]:
            axis = self.target.axes[0]
            raise CallError(
                f"targets {self.name!r}: {self.n_rows} rows came for {self.target.shape[0]} of axis {axis}: "
                "give one each."
            )
        return self.sums

    def _write_chunk(self) -> None:
        crc, key = checksum(self.chunk), chunk_key(len(self.sums), self.chunk.ndim)
        write_file(self.folder / key, [self.chunk.data.cast("B"), crc])
        self.sums.append(int.from_bytes(crc, "little"))
