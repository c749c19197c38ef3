"""What a folder's fields are: which variables at which levels, and what their axes are called."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from featcache.data.labels.videos import ENDINGS
from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.weather.containers import Selection, container_of, open_container
from featcache.errors import DataError, few

_MOST = 200
"""Variables and levels of a file that are listed."""
_CHANNELS = (1, 3)
"""What a model's frames may have."""
_BENCHMARK = (("z", "geopotential", 500), ("t", "temperature", 850), ("q", "specific_humidity", 700))


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Variables by the names that the manifest gives them, and the names of their axes."""

    variables: Mapping[str, Selection]
    axes: Mapping[str, str]
    """time, latitude and longitude -> the coordinate of the files."""
    units: Mapping[str, str]
    """Of each variable, as the files have them; may be empty."""
    latitude: np.ndarray
    longitude: np.ndarray


def find_containers(folder: Path) -> list[Path]:
    """Files and Zarr folders of fields below a folder, in order; none where there is a video."""
    found = list[Path]()
    for parent, folders, names in os.walk(folder):
        inside = [Path(parent, name) for name in folders if not name.startswith(".")]
        found += [path for path in inside if container_of(path)]
        folders[:] = [path.name for path in inside if not container_of(path)]
        files = [Path(parent, name) for name in names if not name.startswith(".")]
        if any(path.suffix.lower() in ENDINGS for path in files):
            return []
        found += [path for path in files if container_of(path)]
    return sorted(found)


def propose(containers: Sequence[Path], wanted: Sequence[str]) -> Proposal:
    """The variables that are `wanted`, or all there are where these are one or three.

    Args:
        containers: files and Zarr folders of one series.
        wanted: as `z=500`, `t2m`, or in full `z pressure_level=500`.

    Raises:
        DataError: a file cannot be opened, an axis is missing, or which variables are meant is to be asked.
    """
    there, axes, units = dict[str, Selection](), dict[str, str](), dict[str, str]()
    grid = list[np.ndarray]()
    for path in containers:
        try:
            for group in open_container(path):
                for variable in map(str, group.data_vars):
                    found = _axes_of(group[variable])
                    if found is None:
                        continue
                    axes = axes or found
                    grid = grid or [group[found[axis]].values for axis in ("latitude", "longitude")]
                    for one in _selections(group[variable], found):
                        name = _name(one)
                        there[name] = one
                        units[name] = str(group[variable].attrs.get("units", ""))
        except (WholeFileError, UnreadableError) as problem:
            raise DataError(f"{path}: {problem}.") from None
    if not there:
        raise DataError(
            f"{few([path.name for path in containers])} holds no variable over times, latitudes and "
            "longitudes with one coordinate each: regrid and name them (time, latitude, longitude)."
        )
    chosen = [_meant(text, there) for text in wanted] or list(there)
    if len(chosen) not in _CHANNELS:
        known = [
            f"{short}={level}" for short, long, level in _BENCHMARK if _holds(there, (short, long), level)
        ]
        names = [_short(one) for one in there.values()]
        raise DataError(
            f"models see one variable or three, and {_how_many(chosen, wanted)} ({few(names, 30)}): choose "
            f"with --variable, as --variable {names[0]}. Of the benchmark's z=500, t=850, q=700 there are "
            f"{', '.join(known) or 'none'}."
        )
    if spaced := [there[name].name for name in chosen if " " in there[name].name]:
        raise DataError(
            f"{spaced[0]!r} has a space, which parts a variable from its levels in a manifest: rename it "
            f"(xarray: .rename({{{spaced[0]!r}: {spaced[0].replace(' ', '_')!r}}})) and write the file again."
        )
    return Proposal(
        variables={name: there[name] for name in chosen},
        axes=axes,
        units={name: units[name] for name in chosen},
        latitude=grid[0],
        longitude=grid[1],
    )


def _how_many(chosen: Sequence[str], wanted: Sequence[str]) -> str:
    return f"{len(chosen)} are asked for of those that are there" if wanted else f"there are {len(chosen)}"


def _axes_of(values: Any) -> dict[str, str] | None:
    """What the coordinates of time, latitude and longitude are called; None where one is missing."""
    found = dict[str, str]()
    # A coordinate that is an axis itself comes before one that only goes along with it.
    for name in sorted(map(str, values.coords), key=lambda name: name not in values.dims):
        coordinate = values.coords[name]
        attributes = [str(coordinate.attrs.get(key, "")) for key in ("standard_name", "units")]
        said = " ".join((*attributes, name)).casefold()
        if coordinate.dtype.kind == "M":
            found.setdefault("time", name)
        for axis, words in (
            ("latitude", ("latitude", "degrees_north", " lat")),
            ("longitude", ("longitude", "degrees_east", " lon")),
        ):
            if coordinate.ndim == 1 and any(word in said for word in words):
                found.setdefault(axis, name)
    return found if len(found) == 3 else None


def _selections(values: Any, axes: Mapping[str, str]) -> list[Selection]:
    """The variable at each place of its further axes."""
    own = {str(dim) for name in axes.values() for dim in values.coords[name].dims}
    extra = [str(dim) for dim in values.dims if str(dim) not in own]
    places = []
    for axis in extra:
        coordinates = values[axis].values if axis in values.coords else np.arange(values.sizes[axis])
        if coordinates.dtype.kind not in "fiu":
            raise UnreadableError(
                f"{values.name} has the axis {axis} of {coordinates.dtype}: keep one place on it "
                f"(xarray: .isel({axis}=0)) and write the file again"
            )
        places.append([float(value) for value in coordinates])
    every = list(product(*places))[:_MOST]
    return [Selection(name=str(values.name), at=dict(zip(extra, at, strict=True))) for at in every]


def _name(selection: Selection) -> str:
    """What the manifest calls it: z500, t2m."""
    levels = "_".join(f"{value:g}" for value in selection.at.values())
    return re.sub(r"[^\w-]+", "_", f"{selection.name}{levels}")


def _short(selection: Selection) -> str:
    """As it is chosen on the command line."""
    values = list(selection.at.values())
    if len(values) > 1:
        return f"'{selection}'"
    return f"{selection.name}={values[0]:g}" if values else selection.name


def _meant(text: str, there: Mapping[str, Selection]) -> str:
    """The name of the one variable that `text` means."""
    name, _, level = text.strip().partition("=")
    found = [
        key
        for key, one in there.items()
        if text.strip() in (str(one), key)
        or (one.name == name and (not level or level in {f"{value:g}" for value in one.at.values()}))
    ]
    if len(found) != 1:
        what = f"{text!r} is {len(found)} variables" if found else f"there is no variable {text!r}"
        meant = [_short(there[key]) for key in found or there]
        raise DataError(f"{what}: name one of {few(meant, 30)}, as --variable {meant[0]}.")
    return found[0]


def _holds(there: Mapping[str, Selection], names: tuple[str, str], level: int) -> bool:
    return any(one.name in names and level in one.at.values() for one in there.values())
