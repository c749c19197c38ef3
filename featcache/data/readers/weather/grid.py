"""The grid that a task means, and where each of its rows and columns lies in a store.

Fields come in many orders: latitudes from either pole, longitudes from -180 or from 0, from east to west, a
file turned by half the globe. Their values are the same, so they are read in one order, from south to north
and eastward from the first longitude; no value is computed. A grid that holds other places is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from featcache.data.readers.base import UnreadableError
from featcache.manifest import Dataset

_EXACT = 0.01
"""Of the step between two rows: how far a row may lie from where it should be (float32, rounded text)."""
_EVEN = 1.1
"""Ratio of the largest to the smallest step of a stated region, for Gaussian latitudes; a hole makes it 2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Rows or columns in the order in which tasks have them."""

    degrees: Float32[np.ndarray, " n"]
    """North of the equator, ascending; or east of Greenwich, ascending."""
    order: Int64[np.ndarray, " n"] | None
    """Where each lies in the store; None: as here."""


class NotGlobalError(UnreadableError):
    """A grid of a region, where the manifest means the whole globe."""


def grid_of(latitude: np.ndarray, longitude: np.ndarray, dataset: Dataset) -> tuple[Axis, Axis]:
    """Rows and columns of a store whose coordinates are these, in degrees.

    Without `latitude` and `longitude` in the manifest the whole globe is meant: even rows from pole to pole,
    and even columns all around from 0 degrees (WeatherBench 2).

    Raises:
        NotGlobalError: the whole globe is meant, and they are places of a region; says how to mean them.
        UnreadableError: they are other places than the manifest means, or not even.
    """
    rows, columns = latitude.astype(np.float64), longitude.astype(np.float64)
    for name, values in (("latitudes", rows), ("longitudes", columns)):
        if len(values) < 2 or not np.isfinite(values).all():
            raise UnreadableError(
                f"its {name} are {values[:3].tolist()} ...: at least two are needed, all finite"
            )
    region = _region(rows, columns, dataset.name)
    south, north = dataset.latitude or (-90.0, 90.0)
    found = _axis(latitude, rows, "latitudes", south, north, dataset.latitude is not None, region)
    around = 360.0 - 360.0 / len(columns)
    west, east = dataset.longitude or (0.0, around)
    # Half a step to the west belongs to the first column: -0.0001 is no 359.9999.
    half = (east - west) / (len(columns) - 1) / 2
    eastward = west + (columns - west + half) % 360.0 - half
    return found, _axis(longitude, eastward, "longitudes", west, east, dataset.longitude is not None, region)


def _axis(
    stored: np.ndarray, degrees: np.ndarray, name: str, first: float, last: float, stated: bool, region: str
) -> Axis:
    order = np.argsort(degrees, kind="stable")
    ascending = degrees[order]
    n = len(degrees)
    exact = _EXACT * (last - first) / (n - 1)
    steps = np.diff(ascending)
    ends = abs(ascending[0] - first) <= exact and abs(ascending[-1] - last) <= exact
    even = steps.min() > 0 and (
        steps.max() <= _EVEN * steps.min()
        if stated
        else (abs(ascending - np.linspace(first, last, n)) <= exact).all()
    )
    if ends and not even:
        at = int(steps.argmin() if steps.min() <= 0 else steps.argmax())
        raise UnreadableError(
            f"its {name} are not even: {ascending[at]:g} is followed by {ascending[at + 1]:g}, where {n} "
            f"from {first:g} to {last:g} are {(last - first) / (n - 1):g} apart; write the store again, each "
            "of them once"
        )
    if not ends:
        kind = UnreadableError if stated else NotGlobalError
        raise kind(
            f"its {n} {name} go from {ascending[0]:g} to {ascending[-1]:g} degrees, expected {first:g} to "
            f"{last:g}{'' if stated else ', the whole globe'}. {region}"
        )
    in_order = bool((order == np.arange(n)).all())
    same = in_order and np.abs(stored.astype(np.float64) - ascending).max() <= exact
    return Axis(degrees=(stored if same else ascending).astype(np.float32), order=None if in_order else order)


def _region(rows: np.ndarray, columns: np.ndarray, name: str) -> str:
    """How the manifest would say that these places are meant."""
    latitude, longitude = region_of(rows, columns)
    return (
        f"If this region is meant, the manifest says so, in datasets.{name}: "
        f"`latitude: {_span(latitude)}` and `longitude: {_span(longitude)}`"
    )


def region_of(rows: np.ndarray, columns: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """The southernmost and northernmost row, and the first column and, eastward, the last, in degrees."""
    turned = _turned(columns)
    return (float(rows.min()), float(rows.max())), (float(turned[0]), float(turned[-1]))


def _turned(columns: np.ndarray) -> np.ndarray:
    """Longitudes eastward from behind the widest gap between two of them."""
    around = np.sort(columns % 360.0)
    gaps = np.diff(np.append(around, around[0] + 360.0))
    # Even all around, there is none, and they begin where they are counted from.
    first = 0 if gaps.max() < 1.5 * gaps[-1] else (int(gaps.argmax()) + 1) % len(around)
    turned = np.roll(around, -first)
    turned = np.where(turned < turned[0], turned + 360.0, turned)
    return turned - 360.0 if turned[-1] > 360.0 else turned


def _span(values: Sequence[float] | np.ndarray) -> str:
    return f"[{values[0]:.7g}, {values[-1]:.7g}]"
