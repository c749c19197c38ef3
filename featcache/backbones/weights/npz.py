"""Arrays of an npz file, memory-mapped one by one: a file of 14 GB opens at once and is never all in memory.

An npz is a zip of npy files. numpy's own loader copies every member it is asked for and ignores `mmap_mode`;
here a member that is stored as it is (as `np.savez` writes them) becomes a view of the file. Nothing is
unpickled: arrays of Python objects are refused.
"""

import struct
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from featcache.errors import WeightsError

_LOCAL_HEADER = struct.Struct("<26xHH")
"""Zip's local header up to the lengths of name and extra field, which the member's bytes follow."""

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NpzArray:
    """One array of the file: what it is, and how to get it."""

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    column_major: bool
    offset: int | None
    """Where its numbers start in the file, in bytes; None where they are compressed."""

    def read(self) -> npt.NDArray[Any]:
        """The numbers; writes to them never reach the file.

        Raises:
            Exception: whatever zipfile or numpy raise for a damaged file.
        """
        if self.offset is None:
            with zipfile.ZipFile(self.path) as file, file.open(self.member) as member:
                return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
        order: Any = "F" if self.column_major else "C"
        return np.memmap(self.path, self.dtype, "c", self.offset, self.shape, order)


def npz_arrays(path: Path) -> dict[str, NpzArray]:
    """Name -> array, from the headers alone.

    Raises:
        WeightsError: an entry is not an array of floating-point numbers.
        Exception: whatever zipfile or numpy raise for what is no npz file, or not all of it.
    """
    with path.open("rb") as raw, zipfile.ZipFile(raw) as file:
        return {info.filename.removesuffix(".npy"): _array(path, raw, file, info) for info in file.infolist()}


def _array(path: Path, raw: IO[bytes], file: zipfile.ZipFile, info: zipfile.ZipInfo) -> NpzArray:
    with file.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADER_READERS:
            raise ValueError(f"{info.filename} has npy version {version}")
        shape, column_major, dtype = _HEADER_READERS[version](member)
        header = member.tell()
    if dtype.hasobject or not np.issubdtype(dtype, np.floating):
        raise WeightsError(
            f"{path} holds {info.filename} of type {dtype}, which is no floating-point array: nothing of it "
            "was loaded. Use the file as it was released."
        )
    if header + prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"{info.filename} is not as long as its header says")
    stored = info.compress_type == zipfile.ZIP_STORED and dtype.isnative and 0 not in shape
    return NpzArray(
        path=path,
        member=info.filename,
        shape=shape,
        dtype=dtype,
        column_major=column_major,
        offset=_first_byte(raw, info) + header if stored else None,
    )


def _first_byte(raw: IO[bytes], info: zipfile.ZipInfo) -> int:
    # The local header's extra field may differ in length from that of the directory at the end.
    position = raw.tell()
    raw.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    raw.seek(position)
    return info.header_offset + _LOCAL_HEADER.size + int(name + extra)
