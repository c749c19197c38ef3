"""What a task's loss and metric need of each clip, once a split: a small Zarr group beside the stores.

All backbones' stores of a split share it and name it by path and fingerprint. Every chunk is a file with its
crc32c; the group is written in a folder of another name that is renamed when all of it is on disk.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from featcache.durable import PARTIAL, Lock, sync_directory, write_file
from featcache.errors import CallError, StoreError
from featcache.fingerprint import SHORT, fingerprint
from featcache.shards import (
    DamagedShard,
    checksum,
    chunk_key,
    group_metadata,
    json_bytes,
    plain_metadata,
    read_chunk_into,
)

AGAIN = "Delete {} and run the same `scivid extract` again: targets are made in moments."
CHUNK_BYTES = 4 * 2**20
AXES = {"labels": ("clip", "class")}
"""Names of the axes of targets given as plain arrays."""


@runtime_checkable
class Clips(Protocol):
    """What is asked of a `ClipIndex`; stage two reads targets and must not load what makes an index."""

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str:
        """Of all rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetArray:
    """One target of all clips, as blocks of consecutive rows: what is large need never be in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    blocks: Iterable[np.ndarray]

    def __post_init__(self) -> None:
        if self.dtype.kind not in "biuf":
            raise CallError(f"targets of type {self.dtype} cannot be stored: give numbers or booleans.")
        if len(self.axes) != len(self.shape) or self.axes[0] != "clip":
            raise CallError(
                f"targets of shape {self.shape} with axes {self.axes}: name each axis, clip first."
            )

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk, a file of about `CHUNK_BYTES`."""
        row_bytes = self.dtype.itemsize * prod(self.shape[1:])
        return max(1, min(self.shape[0], CHUNK_BYTES // max(1, row_bytes)))

    def metadata(self) -> dict[str, Any]:
        """The array's `zarr.json`."""
        return plain_metadata(self.shape, self.chunk_rows, self.dtype, self.axes)


def write_targets(
    folder: Path, index: Clips, arrays: Mapping[str, np.ndarray | TargetArray], parts: Mapping[str, Any]
) -> Path:
    """Write `<folder>/targets-<fingerprint8>.zarr`, a row a clip of `index` in every array, or find it there.

    Args:
        folder: that of the split, `<cache>/<task>/<split>`, where the feature stores are.
        index: the clips.
        arrays: name -> values; `labels` is [clip, class].
        parts: what else the targets depend on (class names, data version): with the clip index and the
            arrays' shapes it makes the fingerprint.

    Raises:
        CallError: an array does not have one row a clip.
        StoreError: a group of that name is there and is another one, or damaged.
    """
    targets = {name: _as_target(name, values) for name, values in sorted(arrays.items())}
    for name, target in targets.items():
        if target.shape[0] != len(index):
            raise CallError(
                f"targets {name!r} have {target.shape[0]} rows for {len(index)} clips: give one a clip."
            )
    shapes = {
        name: {"shape": list(target.shape), "dtype": target.dtype.name, "axes": list(target.axes)}
        for name, target in targets.items()
    }
    parts = {**parts, "clips": index.digest, "arrays": shapes}
    path = folder / f"targets-{fingerprint(parts)[:SHORT]}.zarr"
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / ".targets.lock", wait=True, busy="")
    try:
        if not path.exists():
            _write_group(path, targets, parts)
        return open_targets(path, expected=fingerprint(parts)).path
    finally:
        lock.release()


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """An open group of targets."""

    path: Path
    fingerprint: str
    parts: Mapping[str, Any]
    metadata: Mapping[str, Mapping[str, Any]]
    """Name of each array -> its `zarr.json`."""

    def read(self, name: str) -> np.ndarray:
        """All rows of one array, in clip order.

        Raises:
            StoreError: a file is missing or fails its checksum; names it.
        """
        out = np.empty(tuple(self.metadata[name]["shape"]), self.metadata[name]["data_type"])
        start = 0
        for block in self.blocks(name):
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """The rows of one array, a chunk at a time; a block is overwritten by the next.

        Raises:
            StoreError: as `read`.
        """
        n_rows = self.metadata[name]["shape"][0]
        shape = tuple(self.metadata[name]["chunk_grid"]["configuration"]["chunk_shape"])
        chunk = np.empty(shape, self.metadata[name]["data_type"])
        for number in range(ceil(n_rows / shape[0])):
            self._read_chunk(f"{name}/{chunk_key(number, len(shape))}", chunk)
            yield chunk[: n_rows - number * shape[0]]

    def _read_chunk(self, key: str, chunk: np.ndarray) -> None:
        try:
            with (self.path / key).open("rb") as file:
                read_chunk_into(file.fileno(), 0, chunk)
        except (FileNotFoundError, DamagedShard) as problem:
            what = "is missing" if isinstance(problem, FileNotFoundError) else str(problem)
            raise StoreError(f"{self.path / key} {what}. {AGAIN.format(self.path)}") from None


def open_targets(path: Path, *, expected: str | None = None) -> Targets:
    """Open a group that `write_targets` wrote.

    Args:
        path: of the group.
        expected: its fingerprint, when it is known.

    Raises:
        StoreError: there is none, it is not one of ours, or it is not the one that was expected.
    """
    again = AGAIN.format(path)
    try:
        root = json.loads((path / "zarr.json").read_bytes())
        attrs, metadata = root["attributes"]["scivid"], root["consolidated_metadata"]["metadata"]
        found = Targets(path=path, fingerprint=attrs["fingerprint"], parts=attrs["parts"], metadata=metadata)
        genuine = attrs["kind"] == "targets" and fingerprint(found.parts) == found.fingerprint
    except FileNotFoundError:
        raise StoreError(f"the targets {path} are missing. Run the same `scivid extract` again.") from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise StoreError(f"{path} cannot be read as a group of targets ({problem!r}). {again}") from problem
    if not genuine:
        raise StoreError(f"{path} is not a group of targets, or its zarr.json was edited. {again}")
    if expected is not None and found.fingerprint != expected:
        raise StoreError(f"{path} holds the targets {found.fingerprint}, {expected} are wanted. {again}")
    return found


def _as_target(name: str, values: np.ndarray | TargetArray) -> TargetArray:
    if isinstance(values, TargetArray):
        return values
    axes = AXES.get(name) or ("clip", *(f"{name}_{axis}" for axis in range(1, values.ndim)))
    return TargetArray(shape=values.shape, dtype=values.dtype, axes=axes, blocks=[values])


def _write_group(path: Path, targets: Mapping[str, TargetArray], parts: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(temporary, ignore_errors=True)
    metadata = {name: target.metadata() for name, target in targets.items()}
    attributes = {"scivid": {"kind": "targets", "fingerprint": fingerprint(parts), "parts": dict(parts)}}
    write_file(temporary / "zarr.json", [json_bytes(group_metadata(attributes, metadata))])
    for name, target in targets.items():
        write_file(temporary / name / "zarr.json", [json_bytes(metadata[name])])
        _write_rows(temporary / name, name, target)
    for folder, _, _ in os.walk(temporary):
        sync_directory(Path(folder))
    temporary.rename(path)
    sync_directory(path.parent)


def _write_rows(folder: Path, name: str, target: TargetArray) -> None:
    """Blocks of any length to chunks of equal length, the last one filled up as Zarr wants it."""
    fill = np.nan if target.dtype.kind == "f" else 0
    chunk = np.full((target.chunk_rows, *target.shape[1:]), fill, target.dtype)
    n_rows = filled = 0
    for block in target.blocks:
        if block.shape[1:] != target.shape[1:] or block.dtype != target.dtype:
            raise CallError(
                f"targets {name!r}: a block is {block.dtype}{block.shape}, not {target.dtype}{target.shape}."
            )
        while len(block):
            taken = block[: len(chunk) - filled]
            chunk[filled : filled + len(taken)] = taken
            block, filled, n_rows = block[len(taken) :], filled + len(taken), n_rows + len(taken)
            if filled == len(chunk):
                _write_chunk(folder, n_rows // len(chunk) - 1, chunk)
                chunk[...], filled = fill, 0
    if filled:
        _write_chunk(folder, n_rows // len(chunk), chunk)
    if n_rows != target.shape[0]:
        raise CallError(f"targets {name!r}: {n_rows} rows came for {target.shape[0]} clips: give one a clip.")


def _write_chunk(folder: Path, number: int, chunk: np.ndarray) -> None:
    write_file(folder / chunk_key(number, chunk.ndim), [chunk.data.cast("B"), checksum(chunk)])
