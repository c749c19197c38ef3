"""Targets: what a task's loss and metric need of each clip, one small Zarr group per split beside the stores.

All backbones' stores of a split share it and name it by path, fingerprint and the digest of its values. Every
chunk is a file with its crc32c; the group's `zarr.json` has them all once more and a seal, so that no chunk
of another place or group passes for the one that was written. The group is written in a folder of another
name that is renamed when all of it is on disk.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil, prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64

from featcache.buckets.path import BucketPath
from featcache.errors import CallError, StoreError
from featcache.fingerprint import fingerprint
from featcache.store.shards import DamagedShard, checksum, read_chunk_into
from featcache.store.spec import CRC_BYTES
from featcache.store.zarr_format import chunk_key, plain_metadata
from featcache.system.files import IrregularFileError, open_file, read_regular
from featcache.system.json_files import parse_json
from featcache.system.sealed import BrokenSealError, check_seal

AGAIN = "Delete {} and run the same `scivid extract` again: it makes the targets anew."
CHUNK_BYTES = 4 * 2**20
FILES_AT_ONCE = 16
"""Files of targets in a bucket that are asked for side by side."""

MOST_ROOT_BYTES = 2**28
"""A group's `zarr.json` is read whole: 8 digits a chunk, and the names of its classes."""

CLIP_UNITS = ("sequence", "video")
"""Targets [clip] that say which clips belong together, where a data set has them, the surer one first: what
is independent of what, and a name for people.
"""

SUBJECT = "subject"
"""A target [clip]: a number of the animal or person that a clip is of, where the manifest tells it."""


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
    _held: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    """Name -> all rows of the arrays that are in memory."""

    def __contains__(self, name: object) -> bool:
        return name in self.metadata

    @property
    def digest(self) -> str | None:
        """Digest of all values, by their checksums; None of a group that has none of these."""
        return None if self.sums is None else fingerprint({"targets": self.fingerprint, "sums": self.sums})

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one array, rows first."""
        return tuple(self.metadata[name]["shape"])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays in memory."""
        return sum(
            prod(self.shape(name)) * np.dtype(of["data_type"]).itemsize for name, of in self.metadata.items()
        )

    @property
    def files(self) -> list[str]:
        """Its files below `path`, of each array its chunks and what it says of itself."""
        names = ["zarr.json"]
        for array in sorted(self.metadata):
            n_axes = len(self.shape(array))
            keys = [chunk_key(number, n_axes) for number in range(self.n_chunks(array))]
            names += [f"{array}/{name}" for name in ("zarr.json", *keys)]
        return names

    def in_memory(self) -> "Targets":
        """The same with all rows in memory, read once.

        Raises:
            StoreError: as `read`.
        """
        return replace(self, _held={name: self.read(name) for name in self.metadata})

    def rows(self, name: str, numbers: Int64[np.ndarray, " n"]) -> np.ndarray:
        """Some rows of one array, in the order given, repeats allowed; of a disk no other row is kept.

        A file's checksum is verified when the first of its rows is read.

        Raises:
            StoreError: as `read`.
        """
        if name in self._held or isinstance(self.path, BucketPath):
            return np.asarray(self._whole(name)[numbers])
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

    def _whole(self, name: str) -> np.ndarray:
        """All rows of one array, read once and kept: from a bucket, files would come whole for each batch."""
        if name not in self._held:
            self._held[name] = self.read(name)
        return self._held[name]

    def _brought(self, name: str) -> np.ndarray:
        """As `read`, from a bucket: several files at a time."""
        out = np.empty(self.shape(name), self.metadata[name]["data_type"])
        rows = len(self._chunk_buffer(name))

        def bring(number: int) -> None:
            chunk, place = self._chunk_buffer(name), out[number * rows : (number + 1) * rows]
            with self._opened(f"{name}/{chunk_key(number, chunk.ndim)}") as file:
                self._read_chunk(file, name, number, chunk)
            place[...] = chunk[: len(place)]

        with ThreadPoolExecutor(FILES_AT_ONCE, "targets") as pool:
            list(pool.map(bring, range(self.n_chunks(name))))
        return out

    def read(self, name: str) -> np.ndarray:
        """All rows of one array, in their order.

        Raises:
            StoreError: a file is missing or fails its checksum; names it.
        """
        if isinstance(self.path, BucketPath):
            return self._brought(name)
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

    def chunk_sums(self, name: str) -> list[int]:
        """The crc32c of each chunk of one array, all of which are read.

        Raises:
            StoreError: as `read`.
        """
        chunk, sums = self._chunk_buffer(name), []
        for number in range(self.n_chunks(name)):
            with self._opened(f"{name}/{chunk_key(number, chunk.ndim)}") as file:
                self._read_chunk(file, name, number, chunk)
            sums.append(int.from_bytes(checksum(chunk), "little"))
        return sums

    def n_chunks(self, name: str) -> int:
        """The number of an array's chunks, a file each."""
        return ceil(self.shape(name)[0] / len(self._chunk_buffer(name)))

    def _read_chunk(self, file: BinaryIO, name: str, number: int, out: np.ndarray) -> None:
        if os.fstat(file.fileno()).st_size != out.nbytes + CRC_BYTES:
            raise DamagedShard(f"does not have the {out.nbytes + CRC_BYTES} bytes of a chunk")
        read_chunk_into(file.fileno(), 0, out)
        if self.sums is not None and int.from_bytes(checksum(out), "little") != self.sums[name][number]:
            raise DamagedShard("is not the chunk that was written here")

    def _chunk_buffer(self, name: str) -> np.ndarray:
        shape = self.metadata[name]["chunk_grid"]["configuration"]["chunk_shape"]
        return np.empty(shape, self.metadata[name]["data_type"])

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        try:
            with open_file(self.path / key) as file:
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
        found = _group_from(path, parse_json(content), sealed=sealed)
    except FileNotFoundError:
        raise StoreError(f"the targets {path} are missing. Run the same `scivid extract` again.") from None
    except (OSError, AttributeError, ValueError, KeyError, TypeError) as problem:
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


def _sums_from(text: str) -> tuple[int, ...]:
    return tuple(int(text[start : start + 8], 16) for start in range(0, len(text), 8))
