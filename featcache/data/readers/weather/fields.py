"""A Zarr store of fields on a regular grid: its axes in memory, its fields read one time step at a time.

The one module that imports xarray, which knows versions 2 and 3 of Zarr, dates and packed values. Zarr itself
takes a file that is missing for a field of fill values, often zeros, so files are looked for before they are
read: a copy that stopped half way shows as one, not as weather.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from math import ceil
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Float32, Int64

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.weather.grid import Axis, grid_of
from featcache.data.readers.weather.magnitudes import FARTHEST, Magnitude, magnitudes_of
from featcache.data.readers.weather.windows import hour
from featcache.manifest import Dataset

_AXES = ("time", "latitude", "longitude")
FAULTS = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    zlib.error,
)
"""What xarray, zarr and the codecs raise for a store or chunk that is not what it should be."""
_METADATA = (".zarray", ".zattrs", "zarr.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One variable of a store, and the files that hold it."""

    name: str
    folder: Path
    values: xr.Variable
    """Not loaded; its axes in the stored order, because a lazy transpose is read slowly."""
    grid: tuple[range, ...]
    """Which files there are along each stored axis."""
    time_axis: int
    """Which of the stored axes is time."""
    steps_per_file: int
    file_name: Callable[[tuple[int, ...]], str]
    """Gives the name, below the folder, of the file at a position in `grid`."""
    axes: tuple[Axis, Axis]
    """Rows and columns."""
    magnitude: Magnitude | None
    """Of its values; None where the manifest does not say."""
    missing: str
    """Which stored value stands for none, for messages."""

    def files(self, step: int) -> list[Path]:
        """The files that hold this step's field."""
        grid = list(self.grid)
        grid[self.time_axis] = range(step // self.steps_per_file, step // self.steps_per_file + 1)
        return [self.folder / self.file_name(position) for position in product(*grid)]

    def file_bytes(self, step: int) -> int:
        """The size of these files. Zarr itself takes a missing one for a field of fill values, often 0."""
        n_bytes = 0
        for path in self.files(step):
            try:
                found = path.stat()
            except OSError as problem:
                raise WholeFileError(f"{path} cannot be opened ({problem.strerror})") from None
            if not S_ISREG(found.st_mode):
                raise WholeFileError(f"{path} is not a regular file")
            n_bytes += found.st_size
        return n_bytes

    def bytes_of_rows(self, steps: Int64[np.ndarray, " n"]) -> tuple[list[int], Int64[np.ndarray, " n"]]:
        """Sizes of the files behind some steps, each file looked at once, and each step's entry in them."""
        _, first, entry = np.unique(steps // self.steps_per_file, return_index=True, return_inverse=True)
        return [self.file_bytes(step) for step in steps[first].tolist()], entry

    def decode(self, step: int) -> Float32[np.ndarray, "Y X"]:
        """The field at one step, in the unit it is stored in."""
        values: np.ndarray = self.decode_many(step, step + 1)[0]
        return values

    def decode_many(self, first: int, stop: int) -> Float32[np.ndarray, "n Y X"]:
        """Those of consecutive steps, of which a file that holds several is read once."""
        for step in {*range(first, stop, self.steps_per_file), stop - 1}:
            self.file_bytes(step)
        try:
            values: np.ndarray = self.values.isel(time=slice(first, stop)).transpose(*_AXES).values
        except FAULTS as problem:
            raise WholeFileError(f"{self.files(first)[0]} cannot be decoded ({problem})") from None
        for axis, lines in enumerate(self.axes, 1):
            if lines.order is not None:
                values = values.take(lines.order, axis=axis)
        return values.astype(np.float32, copy=False)

    def require_finite(self, values: Float32[np.ndarray, "Y X"], time: np.datetime64) -> None:
        """Refuse a field with values that cannot be: NaN, infinite, or far beyond all weather."""
        most = float(np.finfo(np.float32).max)
        low, high = self.magnitude.range if self.magnitude else (-most, most)
        if low <= values.min() and values.max() <= high:
            return
        which, n_bad = f"{self.name} at {hour(time)}", np.count_nonzero(~np.isfinite(values))
        if n_bad:
            raise UnreadableError(f"{which} has {n_bad} values that are NaN or infinite{self.missing}")
        beyond = values[(values < low) | (values > high)]
        raise UnreadableError(
            f"{which} has {beyond.size} values, such as {beyond[0]:.6g}, that are not between {low:.6g} and "
            f"{high:.6g}, {FARTHEST:g} standard deviations from the mean in the manifest: a value that "
            "stands for none, or another unit"
        )

    def require_magnitude(self, step: int, time: np.datetime64) -> bytes:
        """Refuse a field of another unit; gives its bytes."""
        values = self.decode(step)
        self.require_finite(values, time)
        if self.magnitude:
            unit = self.values.attrs.get("units")
            said = f" (it says {unit!r})" if isinstance(unit, str) else ""
            self.magnitude.require(f"{self.name} at {hour(time)}", values, said)
        return values.tobytes()


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldStore:
    """An opened store: its axes in memory, its fields on disk."""

    fields: tuple[Field, ...]
    layout: str
    """Format and chunks, for the user."""
    times: np.ndarray
    """Times of the whole series, datetime64[ns]."""
    rows: Axis
    columns: Axis

    @property
    def latitude(self) -> Float32[np.ndarray, " Y"]:
        """Degrees north of each row."""
        return self.rows.degrees

    @property
    def longitude(self) -> Float32[np.ndarray, " X"]:
        """Degrees east of each column."""
        return self.columns.degrees

    @property
    def reordered(self) -> str:
        """What is read in another order than it is stored in, for the user; nothing where all is in order."""
        axes = (("rows", "south to north", self.rows), ("columns", "west to east", self.columns))
        return " and ".join(
            f"{name} from {order} ({axis.degrees[0]:g} to {axis.degrees[-1]:g} degrees)"
            for name, order, axis in axes
            if axis.order is not None
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the fields at one step."""
        return len(self.latitude), len(self.longitude), len(self.fields)

    def decode(self, step: int) -> Float32[np.ndarray, "Y X C"]:
        """All fields at one step, finite everywhere."""
        channels = [variable.decode(step) for variable in self.fields]
        for variable, values in zip(self.fields, channels, strict=True):
            variable.require_finite(values, self.times[step])
        return np.stack(channels, axis=-1)

    def decode_many(self, first: int, stop: int) -> Float32[np.ndarray, "n Y X C"]:
        """All fields of consecutive steps, finite everywhere, read at once."""
        channels = [variable.decode_many(first, stop) for variable in self.fields]
        for variable, values in zip(self.fields, channels, strict=True):
            for step, field in enumerate(values, first):
                variable.require_finite(field, self.times[step])
        return np.stack(channels, axis=-1)

    def file_bytes(self, steps: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n C"]:
        """Size of the files behind each step's field."""
        sizes = [variable.bytes_of_rows(steps) for variable in self.fields]
        return np.stack([np.array(rows)[entry] for rows, entry in sizes], axis=-1)

    def n_bytes(self, steps: Int64[np.ndarray, " n"]) -> int:
        """Size of all files behind these steps."""
        return sum(sum(variable.bytes_of_rows(steps)[0]) for variable in self.fields)

    def digest_of(self, probes: Sequence[int]) -> bytes:
        """A digest of how the fields are encoded, of the grid, and of all values at these steps.

        Raises:
            UnreadableError: one of these fields is not in the unit of the manifest.
        """
        digest = blake2b(self.latitude.tobytes() + self.longitude.tobytes())
        for variable in self.fields:
            for name in _METADATA:
                path = variable.folder / name
                digest.update(path.read_bytes() if path.is_file() else b"")
            for step in probes:
                digest.update(variable.require_magnitude(step, self.times[step]))
        return digest.digest()


def open_fields(path: Path, dataset: Dataset) -> FieldStore:
    """Open the store at `path`, version 2 or 3, consolidated or not, and check it against the data set.

    Raises:
        WholeFileError: there is none, or it cannot be opened.
        UnreadableError: a variable or axis is missing, or is not of the kind or size that it should be.
    """
    if not path.is_dir():
        what = "it is a file, not a Zarr folder: convert it with xarray.open_dataset(...).to_zarr(...)"
        if not path.exists():
            what = "there is no such folder; if it is in another data folder, name it: SCIVID_DATA_DIR"
        raise WholeFileError(what)
    _refuse_irregular(path)
    try:
        return _checked(path, dataset)
    except UnreadableError:
        raise
    except FAULTS as problem:
        raise WholeFileError(f"it cannot be opened as Zarr ({problem})") from None


def _refuse_irregular(path: Path) -> None:
    """Refuse pipes and devices among the small files that Zarr opens at once, which would be waited for."""
    folders = [path, *(below for below in path.iterdir() if below.is_dir())]
    small = [folder / name for folder in folders for name in (*_METADATA, ".zmetadata", ".zgroup")]
    for file in (*small, *(file for axis in _AXES for file in (path / axis).rglob("*"))):
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise WholeFileError(f"{file} is not a regular file")


def _checked(path: Path, dataset: Dataset) -> FieldStore:
    # A consolidated copy of the metadata saves nothing on a disk, and may be older than the arrays.
    arrays = dict(zarr.open_group(path, mode="r", use_consolidated=False).arrays())
    opened = open_zarr(path, arrays)
    _require_axes(opened, dataset)
    latitude, longitude = opened["latitude"].values, opened["longitude"].values
    axes = grid_of(latitude, longitude, dataset)
    fields = [
        field_of(name, path / name, opened.variables[name], arrays[name], axes, magnitude)
        for name, magnitude in zip(dataset.variables, magnitudes_of(dataset), strict=True)
    ]
    first = arrays[dataset.variables[0]]
    order = "south to north" if latitude[0] < latitude[-1] else "north to south"
    chunks = " x ".join(map(str, first.chunks))
    return FieldStore(
        fields=tuple(fields),
        layout=f"Zarr v{first.metadata.zarr_format} in chunks of {chunks}, rows from {order}",
        times=opened["time"].values.astype("datetime64[ns]"),
        rows=axes[0],
        columns=axes[1],
    )


def open_zarr(path: Path, arrays: "Mapping[str, zarr.Array[Any]]") -> xr.Dataset:
    """A Zarr store as xarray decodes it, but for zeros in version 2.

    There xarray takes the value of chunks that were never written for the one that stands for none. It is 0
    unless the writer chose another, so 0 degrees, an hour 0 and dry air would all be NaN. Packed integers
    stay as xarray has them: a 0 may be their missing value.
    """
    meant = {"_FillValue", "missing_value", "scale_factor", "add_offset"}
    zeros_kept = {
        name: False
        for name, array in arrays.items()
        if array.metadata.zarr_format == 2 and array.fill_value == 0 and not meant & set(array.attrs)
    }
    opened: xr.Dataset = xr.open_zarr(
        path, chunks=None, consolidated=False, mask_and_scale=zeros_kept or True
    )
    return opened


def field_of(
    name: str,
    folder: Path,
    values: xr.Variable,
    array: "zarr.Array[Any]",
    axes: tuple[Axis, Axis],
    magnitude: Magnitude | None,
    at: Mapping[str, int] = MappingProxyType({}),
) -> Field:
    """A variable of a Zarr store.

    Args:
        name: what the manifest calls it.
        folder: of its array.
        values: not loaded.
        array: itself.
        axes: rows and columns.
        magnitude: of its values.
        at: where on further axes, such as levels, `values` was selected.
    """
    per_file = array.shards or array.chunks
    grid = [range(ceil(n / n_of_file)) for n, n_of_file in zip(array.shape, per_file, strict=True)]
    stored = _stored_axes(array, values, at)
    for axis, place in at.items():
        which = place // per_file[stored.index(axis)]
        grid[stored.index(axis)] = range(which, which + 1)
    time_axis = stored.index("time")
    fill = values.encoding.get("_FillValue")
    return Field(
        name=name,
        folder=folder,
        values=values,
        grid=tuple(grid),
        time_axis=time_axis,
        steps_per_file=per_file[time_axis],
        file_name=array.metadata.encode_chunk_key,
        axes=axes,
        magnitude=magnitude,
        missing=f" ({fill} stands for none there)" if fill is not None and fill == fill else "",
    )


def _stored_axes(array: "zarr.Array[Any]", values: xr.Variable, at: Mapping[str, int]) -> tuple[str, ...]:
    """Names of an array's axes as they are stored, those of `values` by the names that these have."""
    if not at:
        return tuple(map(str, values.dims))
    named = array.metadata.to_dict().get("dimension_names") or array.attrs["_ARRAY_DIMENSIONS"]
    left = iter(map(str, values.dims))
    return tuple(name if name in at else next(left) for name in map(str, cast(Sequence[object], named)))


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
