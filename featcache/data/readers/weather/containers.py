"""A lab's own fields as they lie on disk: NetCDF, GRIB and Zarr, opened by xarray and nothing read of them.

What a variable is called, at which level, and which coordinates are its time, latitude and longitude stands
in the manifest, under `features`: `z500: z pressure_level=500`, `time: valid_time`. Several files are one
series, in order of time.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.weather.fields import FAULTS, Field, FieldStore, field_of, open_zarr
from featcache.data.readers.weather.grid import Axis, grid_of
from featcache.data.readers.weather.magnitudes import Magnitude, magnitudes_of
from featcache.manifest import Dataset

AXES = ("time", "latitude", "longitude")
ENDINGS = {
    ".nc": "NetCDF", ".nc4": "NetCDF", ".cdf": "NetCDF", ".netcdf": "NetCDF", ".grib": "GRIB", ".grb": "GRIB",
    ".grib2": "GRIB", ".grb2": "GRIB", ".gb2": "GRIB", ".zarr": "Zarr",
}  # fmt: skip
_NEED = "pip install 'scivid[fields]'"
_CLASSIC = (b"CDF\x01", b"CDF\x02")


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A variable of a container, at some places of its other axes."""

    name: str
    at: Mapping[str, float]
    """Name of an axis, such as that of levels -> the coordinate."""

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """Read back what `str` wrote: `z pressure_level=500`."""
        name, *rest = text.split()
        pairs = [part.partition("=") for part in rest]
        try:
            return cls(name=name, at={key: float(value) for key, _, value in pairs})
        except ValueError:
            raise UnreadableError(
                f"{text!r} is no variable and its levels, as `z pressure_level=500`"
            ) from None

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value:g}" for key, value in self.at.items())])


def container_of(path: Path) -> str | None:
    """NetCDF, GRIB or Zarr, by a name; None of another file."""
    if path.is_dir():
        return (
            "Zarr"
            if any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))
            else None
        )
    kind = ENDINGS.get(path.suffix.lower())
    return kind if kind != "Zarr" else None


def open_container(path: Path) -> list[xr.Dataset]:
    """The data sets of one file, not read; of GRIB there may be several.

    Raises:
        WholeFileError: it cannot be opened, or a library is missing.
    """
    kind = container_of(path)
    try:
        with warnings.catch_warnings():
            # What cfgrib does in an older way is its own affair.
            warnings.simplefilter("ignore")
            if kind == "Zarr":
                return [
                    open_zarr(path, dict(zarr.open_group(path, mode="r", use_consolidated=False).arrays()))
                ]
            if kind == "GRIB":
                import cfgrib

                return list(cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": ""}))
            with path.open("rb") as file:
                engine: Any = "scipy" if file.read(4) in _CLASSIC else "h5netcdf"
            return [xr.open_dataset(path, engine=engine, cache=False, decode_timedelta=False)]
    except ImportError as problem:
        raise WholeFileError(f"{kind} needs {problem.name}: {_NEED}") from None
    except FAULTS as problem:
        if "unrecognized engine" in str(problem):
            raise WholeFileError(f"{kind} needs h5netcdf: {_NEED}") from None
        raise WholeFileError(f"it cannot be opened as {kind} ({problem})") from None


def open_field_files(paths: Sequence[Path], dataset: Dataset) -> FieldStore:
    """The fields of a data set whose `features` say where in these files they are.

    Raises:
        WholeFileError: a file cannot be opened.
        UnreadableError: a variable, level or axis is missing, or differs from file to file.
    """
    opened = {path: open_container(path) for path in paths}
    names = {axis: dataset.features.get(axis, axis) for axis in AXES}
    series = [_Series.of(opened, Selection.parse(_key(dataset, name)), names) for name in dataset.variables]
    first = series[0]
    for one, name in zip(series, dataset.variables, strict=True):
        for axis in AXES:
            if not np.array_equal(one.axis(axis), first.axis(axis)):
                raise UnreadableError(f"{name} has other {axis}s than {dataset.variables[0]}")
    axes = grid_of(first.axis("latitude"), first.axis("longitude"), dataset)
    latitude, kinds = first.axis("latitude"), {container_of(path) for path in paths}
    order = "south to north" if latitude[0] < latitude[-1] else "north to south"
    return FieldStore(
        fields=tuple(
            one.field(name, axes, magnitude)
            for one, name, magnitude in zip(series, dataset.variables, magnitudes_of(dataset), strict=True)
        ),
        layout=f"{len(paths)} of {' and '.join(sorted(map(str, kinds)))}, rows from {order}",
        times=first.axis("time").astype("datetime64[ns]"),
        rows=axes[0],
        columns=axes[1],
    )


def _key(dataset: Dataset, name: str) -> str:
    if name not in dataset.features:
        raise UnreadableError(f"`features` of the manifest does not say where {name!r} is in the files")
    return dataset.features[name]


@dataclass(frozen=True, slots=True)
class _Part:
    """A variable of one file, its axes called time, latitude and longitude; not read."""

    path: Path
    values: xr.DataArray
    at: Mapping[str, int]
    """Where on further axes it was selected."""


@dataclass(frozen=True, slots=True)
class _Series:
    """One variable over all files that hold it, in order of time."""

    parts: tuple[_Part, ...]
    selection: Selection

    @classmethod
    def of(
        cls, opened: Mapping[Path, list[xr.Dataset]], selection: Selection, names: Mapping[str, str]
    ) -> "_Series":
        groups = [(path, group) for path, of_file in opened.items() for group in of_file]
        parts = [
            _part(path, group[selection.name], selection, names)
            for path, group in groups
            if selection.name in group.data_vars
        ]
        if not parts:
            there = sorted({str(name) for _, group in groups for name in group.data_vars})
            raise UnreadableError(f"no file has {selection.name!r}; they hold {', '.join(there)}")
        parts.sort(key=lambda part: part.values["time"].values[0])
        first = parts[0].values
        for axis in AXES[1:]:
            if any(not np.array_equal(part.values[axis].values, first[axis].values) for part in parts):
                raise UnreadableError(f"its files have different {axis}s")
        return cls(tuple(parts), selection)

    def axis(self, name: str) -> np.ndarray:
        """Coordinates of the whole series."""
        if name == "time":
            return np.concatenate([part.values["time"].values for part in self.parts])
        found: np.ndarray = self.parts[0].values[name].values
        return found

    def field(self, name: str, axes: tuple[Axis, Axis], magnitude: Magnitude | None) -> Field:
        """The series as the reader has it; of several files it is a chain that dask reads."""
        first = self.parts[0]
        whole = first.values
        if len(self.parts) > 1:
            whole = xr.concat([part.values.chunk(time=1) for part in self.parts], dim="time", join="exact")
        elif container_of(first.path) == "Zarr":
            array: Any = zarr.open_group(first.path, mode="r", use_consolidated=False)[self.selection.name]
            folder = first.path / self.selection.name
            return field_of(name, folder, whole.variable, array, axes, magnitude, first.at)
        of_step = [part.path.resolve() for part in self.parts for _ in range(part.values.sizes["time"])]
        return Field(
            name=name,
            folder=first.path.parent,
            values=whole.variable,
            grid=(range(len(of_step)),),
            time_axis=0,
            steps_per_file=1,
            file_name=lambda position: str(of_step[position[0]]),
            axes=axes,
            magnitude=magnitude,
            missing="",
        )


def _part(path: Path, values: xr.DataArray, selection: Selection, names: Mapping[str, str]) -> _Part:
    """A variable at its levels, its axes renamed from those of the file, `names`."""
    at = dict[str, int]()
    for axis, wanted in selection.at.items():
        if axis not in values.dims:
            there = ", ".join(map(str, values.dims))
            raise UnreadableError(f"{selection.name} has no axis {axis!r}, it has {there}")
        places = values[axis].values.astype(np.float64)
        at[axis] = int(np.abs(places - wanted).argmin())
        if not np.isclose(places[at[axis]], wanted, rtol=1e-5):
            there = ", ".join(f"{place:g}" for place in places)
            raise UnreadableError(f"{selection.name} has no {axis} {wanted:g}, it has {there}")
    found = values.isel(at, drop=True)
    for axis, name in names.items():
        if name not in found.coords:
            raise UnreadableError(f"{selection.name} has no coordinate {name!r}, its {axis}")
    if found[names["time"]].ndim == 0:
        found = found.expand_dims(names["time"])
    dims = {found[name].dims: axis for axis, name in names.items()}
    if any(len(of_axis) != 1 for of_axis in dims):
        raise UnreadableError(
            f"{selection.name} has a grid that is not of latitudes and longitudes: regrid it to rows and "
            "columns of these"
        )
    renamed = {str(name): axis for (name,), axis in dims.items()}
    extra = [str(name) for name in found.dims if name not in renamed]
    if extra:
        raise UnreadableError(
            f"{selection.name} has the axis {extra[0]} as well: choose a place on it in the manifest, "
            f"`{selection} {extra[0]}=...`"
        )
    whole = xr.DataArray(
        # A variable's own data, not loaded, which `rename` of a data array would keep beside the old axes.
        xr.Variable([renamed[str(name)] for name in found.dims], found.variable._data, found.attrs),
        coords={axis: (axis, found[name].values) for axis, name in names.items()},
    )
    whole.encoding |= found.encoding
    return _Part(path, whole, at)
