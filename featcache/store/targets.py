"""Targets: what a task's loss and metric need of each clip, one small Zarr group per split beside the stores.

All backbones' stores of a split share it and name it by path, fingerprint and the digest of its values. Every
chunk is a file with its crc32c; the group's `zarr.json` has them all once more and a seal, so that no chunk
of another place or group passes for the one that was written. The group is written in a folder of another
name that is renamed when all of it is on disk.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from featcache.store.shards import DamagedShard, checksum, read_chunk_into
from featcache.store.spec import CRC_BYTES
from featcache.store.zarr_format import chunk_key, group_metadata, json_bytes, plain_metadata
from featcache.system.files import (
    IrregularFileError,
    failures_explained,
    open_regular,
    read_regular,
    remove,
    remove_leftovers,
    sync_directory,
    temporary_beside,
    write_file,
)
from featcache.system.locks import Lock
from featcache.system.sealed import KEY, UNSEALED, BrokenSealError, check_seal, seal

AGAIN = "Delete {} and run the same `scivid extract` again: it makes the targets anew."
CHUNK_BYTES = 4 * 2**20
MOST_ROOT_BYTES = 2**28
"""A group's `zarr.json` is read whole: 8 digits a chunk, and the names of its classes."""
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
    # Looked for before the lock: what is there is found on a disk that may only be read, too.
    if path.exists():
        return open_targets(path, expected=fingerprint(parts)).path
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
    sums: Mapping[str, Sequence[int]] | None = None
    """Name of each array -> the crc32c of its chunks in order; None of a group of before, which has none."""
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)
    """Files whose checksum was right."""

    def __contains__(self, name: object) -> bool:
        return name in self.metadata

    @property
    def digest(self) -> str | None:
        """Digest of all values, by their checksums; None of a group that has none of these."""
        return None if self.sums is None else fingerprint({"targets": self.fingerprint, "sums": self.sums})

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
        for number in np.unique(chunks).tolist():
            key = f"{name}/{chunk_key(number, len(shape))}"
            with self._opened(key) as file:
                if key not in self._verified:
                    self._read_chunk(file, name, number, chunk)
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
                self._read_chunk(file, name, number, chunk)
            yield chunk[: n_rows - number * len(chunk)]

    def n_chunks(self, name: str) -> int:
        """The number of an array's chunks, a file each."""
        return ceil(self.shape(name)[0] / len(self._chunk_buffer(name)))

    def _read_chunk(self, file: BinaryIO, name: str, number: int, out: np.ndarray) -> None:
        if os.fstat(file.fileno()).st_size != out.nbytes + CRC_BYTES:
            raise DamagedShard(f"does not have the {out.nbytes + CRC_BYTES} bytes of a chunk")
        read_chunk_into(file.fileno(), 0, out)
        if self.sums is not None and _as_number(checksum(out)) != self.sums[name][number]:
            raise DamagedShard("is not the chunk that was written here")

    def _chunk_buffer(self, name: str) -> np.ndarray:
        shape = self.metadata[name]["chunk_grid"]["configuration"]["chunk_shape"]
        return np.empty(shape, self.metadata[name]["data_type"])

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        try:
            with open(self.path / key, "rb", opener=open_regular) as file:
                yield file
        except (FileNotFoundError, IrregularFileError, DamagedShard) as problem:
            what = str(problem)
            if isinstance(problem, OSError):
                what = "is missing" if isinstance(problem, FileNotFoundError) else "is no regular file"
            raise StoreError(f"{self.path / key} {what}. {AGAIN.format(self.path)}") from None
        except OSError as problem:
            raise StoreError(
                f"{self.path / key} cannot be read ({problem.strerror}): what is in it may be right. "
                "See to the disk or the file's permissions, and try again."
            ) from problem


def open_targets(path: Path, *, expected: str | None = None, digest: str | None = None) -> Targets:
    """Open a group that `write_targets` wrote.

    Args:
        path: of the group.
        expected: its fingerprint, when it is known.
        digest: that of its values, when it is known; not compared with a group of before, which has none.

    Raises:
        StoreError: there is none, it is not one of ours, or it is not the one that was expected.
    """
    again = AGAIN.format(path)
    try:
        content = read_regular(path / "zarr.json", limit=MOST_ROOT_BYTES)
        sealed = check_seal(content)
        found = _group_from(path, json.loads(content), sealed=sealed)
    except FileNotFoundError:
        raise StoreError(f"the targets {path} are missing. Run the same `scivid extract` again.") from None
    except (OSError, AttributeError, ValueError, KeyError, TypeError, RecursionError) as problem:
        why = str(problem) if isinstance(problem, BrokenSealError) else f"({problem!r})"
        raise StoreError(f"{path} cannot be read as a group of targets: it {why}. {again}") from problem
    if expected is not None and found.fingerprint != expected:
        raise StoreError(f"{path} holds the targets {found.fingerprint}, {expected} are wanted. {again}")
    if digest is not None and found.digest not in (None, digest):
        raise StoreError(
            f"{path} holds other values than when the features were extracted. "
            "Run the same `scivid extract` again: it looks at both and brings them together."
        )
    return found


def _group_from(path: Path, root: Mapping[str, Any], *, sealed: bool) -> Targets:
    """The group that a `zarr.json` describes, which its digested parts must describe in the same way.

    Raises:
        KeyError, TypeError, ValueError: it does not.
    """
    attrs, metadata = root["attributes"]["scivid"], root["consolidated_metadata"]["metadata"]
    parts = attrs["parts"]
    if attrs["kind"] != "targets" or fingerprint(parts) != attrs["fingerprint"]:
        raise ValueError("it is not a group of targets, or its zarr.json was edited")
    for name, stated in parts["arrays"].items():
        target = TargetArray(
            shape=tuple(stated["shape"]), dtype=np.dtype(stated["dtype"]), axes=tuple(stated["axes"])
        )
        rows = metadata[name]["chunk_grid"]["configuration"]["chunk_shape"][0]
        whole = type(rows) is int and 1 <= rows <= target.shape[0]
        if not whole or metadata[name] != plain_metadata(target.shape, rows, target.dtype, target.axes):
            raise ValueError(f"the array {name} is another one than its parts say")
    if metadata.keys() != parts["arrays"].keys():
        raise ValueError(f"it has the arrays {sorted(metadata)}, its parts {sorted(parts['arrays'])}")
    sums = {name: _sums_from(text) for name, text in attrs["sums"].items()} if sealed else None
    found = Targets(path=path, fingerprint=attrs["fingerprint"], parts=parts, metadata=metadata, sums=sums)
    if sums is not None and {name: len(of) for name, of in sums.items()} != {
        name: found.n_chunks(name) for name in metadata
    }:
        raise ValueError("it has other checksums than one a chunk")
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
    for folder, _, _ in os.walk(temporary):
        sync_directory(Path(folder))


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


def _sums_from(text: str) -> tuple[int, ...]:
    return tuple(int(text[start : start + 8], 16) for start in range(0, len(text), 8))


def _as_number(crc: bytes) -> int:
    return int.from_bytes(crc, "little")


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
        self.sums.append(_as_number(crc))
