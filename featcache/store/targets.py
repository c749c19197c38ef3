"""Targets: what a task's loss and metric need of each clip, one small Zarr group per split beside the stores.

All backbones' stores of a split share it and name it by path and fingerprint. Every chunk is a file with its
crc32c; the group is written in a folder of another name that is renamed when all of it is on disk.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64

from featcache.clips import ClipIndex
from featcache.errors import CallError, StoreError
from featcache.fingerprint import SHORT, fingerprint
from featcache.store.shards import CRC_BYTES, DamagedShard, checksum, read_chunk_into
from featcache.store.zarr_format import chunk_key, group_metadata, json_bytes, plain_metadata
from featcache.system.files import (
    failures_explained,
    remove,
    remove_leftovers,
    sync_directory,
    temporary_beside,
    write_file,
)
from featcache.system.locks import Lock

AGAIN = "Delete {} and run the same `scivid extract` again: it makes the targets anew."
CHUNK_BYTES = 4 * 2**20
AXES = {"labels": ("clip", "class")}
"""Names of the axes of targets given as plain arrays."""

CLIP_UNITS = ("sequence", "video")
"""Targets [clip] that say which clips belong together, where a data set has them, the surer one first: what
is independent of what, and a name for people.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetArray:
    """One target, as blocks of consecutive rows: what is large need never be in memory.

    A row is a clip, or whatever else the first axis is called (time steps, which many clips share).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    blocks: Iterable[np.ndarray] | None = None
    """None for rows that come together with those of other arrays."""

    def __post_init__(self) -> None:
        if self.dtype.kind not in "biuf":
            raise CallError(f"targets of type {self.dtype} cannot be stored: give numbers or booleans.")
        if len(self.axes) != len(self.shape) or len(set(self.axes)) != len(self.axes) or not self.axes:
            raise CallError(f"targets of shape {self.shape} with axes {self.axes}: name each axis, once.")

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * prod(self.shape[1:])

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk, a file of about `CHUNK_BYTES`."""
        return max(1, min(self.shape[0], CHUNK_BYTES // max(1, self.row_bytes)))

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk, where the last chunk is as long as the others and each has a checksum."""
        return ceil(self.shape[0] / self.chunk_rows) * (self.chunk_rows * self.row_bytes + CRC_BYTES)

    def metadata(self) -> dict[str, Any]:
        """The array's `zarr.json`."""
        return plain_metadata(self.shape, self.chunk_rows, self.dtype, self.axes)


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
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"the targets of {folder} are being written by another process."
    lock = Lock(folder / ".targets.lock", wait=True, busy=busy)
    try:
        if not path.exists():
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
    return 0 if path.exists() else stored_bytes(targets)


def stored_bytes(targets: Mapping[str, TargetArray]) -> int:
    """Bytes that target arrays take on disk, but for a few KB of names and shapes."""
    return sum(target.stored_bytes for target in targets.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """An open group of targets; safe to read from several threads."""

    path: Path
    fingerprint: str
    parts: Mapping[str, Any]
    metadata: Mapping[str, Mapping[str, Any]]
    """Name of each array -> its `zarr.json`."""
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)
    """Files whose checksum was right."""

    def __contains__(self, name: object) -> bool:
        return name in self.metadata

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one array, rows first."""
        return tuple(self.metadata[name]["shape"])

    def rows(self, name: str, numbers: Int64[np.ndarray, " n"]) -> np.ndarray:
        """Some rows of one array, in the order given, repeats allowed; no other row stays in memory.

        A file's checksum is verified when the first of its rows is read.

        Raises:
            StoreError: as `read`.
        """
        shape, chunk = self.shape(name), self._chunk_buffer(name)
        out = np.empty((len(numbers), *shape[1:]), chunk.dtype)
        assert not len(numbers) or 0 <= numbers.min() <= numbers.max() < shape[0], (
            f"{name} has {shape[0]} rows"
        )
        chunks, positions = np.divmod(numbers, len(chunk))
        for number in np.unique(chunks):
            key = f"{name}/{chunk_key(int(number), len(shape))}"
            with self._opened(key) as file:
                if key not in self._verified:
                    read_chunk_into(file.fileno(), 0, chunk)
                    self._verified.add(key)
                for row in np.flatnonzero(chunks == number):
                    offset = int(positions[row]) * chunk[0].nbytes
                    read_chunk_into(file.fileno(), offset, out[row : row + 1], verify=False)
        return out

    def read(self, name: str) -> np.ndarray:
        """All rows of one array, in their order.

        Raises:
            StoreError: a file is missing or fails its checksum; names it.
        """
        out = np.empty(self.shape(name), self.metadata[name]["data_type"])
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
        n_rows, chunk = self.shape(name)[0], self._chunk_buffer(name)
        for number in range(ceil(n_rows / len(chunk))):
            with self._opened(f"{name}/{chunk_key(number, chunk.ndim)}") as file:
                read_chunk_into(file.fileno(), 0, chunk)
            yield chunk[: n_rows - number * len(chunk)]

    def _chunk_buffer(self, name: str) -> np.ndarray:
        shape = self.metadata[name]["chunk_grid"]["configuration"]["chunk_shape"]
        return np.empty(shape, self.metadata[name]["data_type"])

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        try:
            with (self.path / key).open("rb") as file:
                yield file
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
    temporary = temporary_beside(path)
    try:
        _write_folder(temporary, targets, parts, blocks)
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
    attributes = {"scivid": {"kind": "targets", "fingerprint": fingerprint(parts), "parts": dict(parts)}}
    write_file(temporary / "zarr.json", [json_bytes(group_metadata(attributes, metadata))])
    writers = {name: _RowWriter(temporary / name, name, target) for name, target in targets.items()}
    for name, target in targets.items():
        write_file(temporary / name / "zarr.json", [json_bytes(metadata[name])])
        for block in target.blocks or ():
            writers[name].add(block)
    for together in blocks:
        for name, block in together.items():
            writers[name].add(block)
    for writer in writers.values():
        writer.finish()
    for folder, _, _ in os.walk(temporary):
        sync_directory(Path(folder))


class _RowWriter:
    """Blocks of any length to chunks of equal length, the last one filled up as Zarr wants it."""

    def __init__(self, folder: Path, name: str, target: TargetArray) -> None:
        self.folder, self.name, self.target = folder, name, target
        self.fill = np.nan if target.dtype.kind == "f" else 0
        self.chunk = np.full((target.chunk_rows, *target.shape[1:]), self.fill, target.dtype)
        self.n_rows = self.filled = 0

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
                _write_chunk(self.folder, self.n_rows // len(chunk) - 1, chunk)
                chunk[...], self.filled = self.fill, 0

    def finish(self) -> None:
        """Write what is left; raises CallError where rows are missing or too many."""
        if self.filled:
            _write_chunk(self.folder, self.n_rows // len(self.chunk), self.chunk)
        if self.n_rows != self.target.shape[0]:
            axis = self.target.axes[0]
            raise CallError(
                f"targets {self.name!r}: {self.n_rows} rows came for {self.target.shape[0]} of axis {axis}: "
                "give one each."
            )


def _write_chunk(folder: Path, number: int, chunk: np.ndarray) -> None:
    write_file(folder / chunk_key(number, chunk.ndim), [chunk.data.cast("B"), checksum(chunk)])
