"""A Zarr store of fields on a regular grid: its axes in memory, its fields read one time step at a time.

The one module that imports xarray, which knows versions 2 and 3 of Zarr, dates and packed values. Zarr itself
takes a file that is missing for a field of fill values, often zeros, so files are looked for before they are
read: a copy that stopped half way shows as one, not as weather.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Float32, Int64

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.weather.windows import hour
from featcache.manifest import Dataset

_AXES = ("time", "latitude", "longitude")
_FAULTS = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zlib.error)
"""What xarray, zarr and the codecs raise for a store or chunk that is not what it should be."""
_METADATA = (".zarray", ".zattrs", "zarr.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    """One variable of a store, and the files that hold it."""

    name: str
    folder: Path
    values: xr.Variable
    """Not loaded; its axes in the stored order, because a lazy transpose is read slowly."""
    grid: tuple[int, ...]
    """Number of files along each stored axis."""
    time_axis: int
    """Which of the stored axes is time."""
    steps_per_file: int
    file_name: Callable[[tuple[int, ...]], str]
    """Gives the name, below the folder, of the file at a position in `grid`."""

    def files(self, step: int) -> list[Path]:
        """The files that hold this step's field."""
        grid = [range(n_files) for n_files in self.grid]
        grid[self.time_axis] = range(step // self.steps_per_file, step // self.steps_per_file + 1)
        return [self.folder / self.file_name(position) for position in product(*grid)]

    def file_bytes(self, step: int) -> int:
        """The size of these files. Zarr itself takes a missing one for a field of fill values, often 0."""
        n_bytes = 0
        for path in self.files(step):
            try:
                n_bytes += path.stat().st_size
            except OSError as problem:
                raise WholeFileError(f"{path} cannot be opened ({problem.strerror})") from None
        return n_bytes

    def bytes_of_rows(self, steps: Int64[np.ndarray, " n"]) -> tuple[list[int], Int64[np.ndarray, " n"]]:
        """Sizes of the files behind some steps, each file looked at once, and each step's entry in them."""
        _, first, entry = np.unique(steps // self.steps_per_file, return_index=True, return_inverse=True)
        return [self.file_bytes(step) for step in steps[first].tolist()], entry

    def decode(self, step: int) -> Float32[np.ndarray, "Y X"]:
        """The field at one step, in the unit it is stored in."""
        self.file_bytes(step)
        try:
            values: np.ndarray = self.values.isel(time=step).transpose(*_AXES[1:]).values
        except _FAULTS as problem:
            raise WholeFileError(f"{self.files(step)[0]} cannot be decoded ({problem})") from None
        return values.astype(np.float32, copy=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldStore:
    """An opened store: its axes in memory, its fields on disk."""

    fields: tuple[_Field, ...]
    layout: str
    """Format and chunks, for the user."""
    times: np.ndarray
    """Times of the whole series, datetime64[ns]."""
    latitude: Float32[np.ndarray, " Y"]
    longitude: Float32[np.ndarray, " X"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the fields at one step."""
        return len(self.latitude), len(self.longitude), len(self.fields)

    def decode(self, step: int) -> Float32[np.ndarray, "Y X C"]:
        """All fields at one step, finite everywhere."""
        channels = []
        for variable in self.fields:
            values = variable.decode(step)
            n_bad = values.size - np.count_nonzero(np.isfinite(values))
            if n_bad:
                which = f"{variable.name} at {hour(self.times[step])}"
                raise UnreadableError(f"{which} has {n_bad} values that are NaN or infinite")
            channels.append(values)
        return np.stack(channels, axis=-1)

    def file_bytes(self, steps: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n C"]:
        """Size of the files behind each step's field."""
        sizes = [variable.bytes_of_rows(steps) for variable in self.fields]
        return np.stack([np.array(rows)[entry] for rows, entry in sizes], axis=-1)

    def n_bytes(self, steps: Int64[np.ndarray, " n"]) -> int:
        """Size of all files behind these steps."""
        return sum(sum(variable.bytes_of_rows(steps)[0]) for variable in self.fields)

    def digest_of(self, probes: Sequence[int]) -> bytes:
        """A digest of how the fields are encoded, of the grid, and of all values at these steps."""
        digest = blake2b(self.latitude.tobytes() + self.longitude.tobytes())
        for variable in self.fields:
            for name in _METADATA:
                path = variable.folder / name
                digest.update(path.read_bytes() if path.is_file() else b"")
            for step in probes:
                digest.update(variable.decode(step).tobytes())
        return digest.digest()


def open_fields(path: Path, dataset: Dataset) -> FieldStore:
    """Open the store at `path`, version 2 or 3, consolidated or not, and check it against the data set.

    Raises:
        WholeFileError: there is none, or it cannot be opened.
        UnreadableError: a variable or axis is missing, or is not of the kind or size that it should be.
    """
    if not path.is_dir():
        raise WholeFileError(
            "there is no such folder; if it is in another data folder, name it: SCIVID_DATA_DIR"
        )
    try:
        # A consolidated copy of the metadata saves nothing on a disk, and may be older than the arrays.
        opened = xr.open_zarr(path, chunks=None, consolidated=False)
        arrays = dict(zarr.open_group(path, mode="r", use_consolidated=False).arrays())
    except _FAULTS as problem:
        raise WholeFileError(f"it cannot be opened as Zarr ({problem})") from None
    _require_axes(opened, dataset)
    first = arrays[dataset.variables[0]]
    latitude = opened["latitude"].values.astype(np.float32)
    order = "south to north" if latitude[0] < latitude[-1] else "north to south"
    chunks = " x ".join(map(str, first.chunks))
    return FieldStore(
        fields=tuple(_field(path / name, opened.variables[name], arrays[name]) for name in dataset.variables),
        layout=f"Zarr v{first.metadata.zarr_format} in chunks of {chunks}, rows from {order}",
        times=opened["time"].values.astype("datetime64[ns]"),
        latitude=latitude,
        longitude=opened["longitude"].values.astype(np.float32),
    )


def _field(folder: Path, values: xr.Variable, array: "zarr.Array[Any]") -> _Field:
    per_file = array.shards or array.chunks
    time_axis = values.dims.index("time")
    return _Field(
        name=folder.name,
        folder=folder,
        values=values,
        grid=tuple(ceil(n / n_of_file) for n, n_of_file in zip(array.shape, per_file, strict=True)),
        time_axis=time_axis,
        steps_per_file=per_file[time_axis],
        file_name=array.metadata.encode_chunk_key,
    )


def _require_axes(opened: xr.Dataset, dataset: Dataset) -> None:
    """Refuse a store that lacks a variable or axis, or whose axes are not those of the data set."""
    for name in (*_AXES, *dataset.variables):
        if name not in opened.variables:
            raise UnreadableError(f"it has no {name!r}, it holds {', '.join(map(str, opened.variables))}")
        dims, wanted = opened[name].dims, (name,) if name in _AXES else _AXES
        if sorted(map(str, dims)) != sorted(wanted):
            raise UnreadableError(f"{name} has the axes {dims}, expected {wanted}")
        kinds = "M" if name == "time" else "fiu"
        if opened[name].dtype.kind not in kinds:
            expected = "times of the common calendar" if name == "time" else "numbers"
            raise UnreadableError(f"{name} holds {opened[name].dtype}, expected {expected}")
    size = (opened.sizes["latitude"], opened.sizes["longitude"])
    if dataset.frame_size not in (None, size):
        raise UnreadableError(f"its fields have {size} rows and columns, expected {dataset.frame_size}")
