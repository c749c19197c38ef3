"""Forecasts of a store's clips as fields with coordinates, in NetCDF or Zarr: what xarray opens by itself.

Dimensions are called as in WeatherBench 2: `time` is that of the last field that a model saw, and
`prediction_timedelta` how far ahead. Values are in the unit of the files that the store is of.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from featcache.errors import CallError, StoreError
from featcache.store.targets import Targets
from featcache.system.console import Progress
from featcache.system.files import make_directory, remove, remove_leftovers, temporary_beside
from readouts.features.batches import evaluation_batches
from readouts.features.splits import FeatureSplit
from readouts.heads.dpt import add_residual
from readouts.tasks.base import Numbers, Rng
from readouts.training.loaded import TrainedRun

ENDINGS = (".nc", ".zarr")
DIMENSIONS = ("time", "prediction_timedelta", "latitude", "longitude")
BATCH = 8


def write_forecasts(
    run: TrainedRun, readout: str, split: FeatureSplit, out: Path, device: torch.device, progress: Progress
) -> None:
    """Write what a readout forecasts from the clips of a split, all of it or nothing.

    Raises:
        CallError: the run is of a task of a user's own file, or a folder is in the way.
        StoreError: the store has no such fields.
    """
    decided, targets = run.decisions["task"], split.targets
    if "residual_std" not in decided:
        raise CallError(
            f"{run.folder.path}: a task of your own file does not say what its outputs stand for."
        )
    n_frames, rows, columns = decided["shape"]
    wanted = (rows, columns, len(decided["variables"]))
    if targets is None or "fields" not in targets or targets.shape("fields")[1:] != wanted:
        raise StoreError(f"{split.store.path} does not hold fields {list(wanted)}: predict a store of them.")
    if out.exists() and out.suffix == ENDINGS[1]:
        raise CallError(f"--out {out} is there: delete it, or name another.")
    places = targets.rows("places", split.usable)[:, : n_frames + 1].astype(np.int64)
    hours = targets.read("time")[places]
    leads = np.unique(hours[:, 1:] - hours[:, :1], axis=0)
    if len(leads) > 1:
        raise StoreError(f"{split.store.path} has clips of several steps in time, which make no one file.")
    std = torch.tensor(decided["residual_std"], device=device)

    def last(targets: Targets, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, np.ndarray]:
        return {"last": targets.rows("fields", targets.rows("places", clips)[:, 0].astype(np.int64))}

    make_directory(out.parent)
    remove_leftovers(out.parent)
    units = dict(zip(run.output_names, run.gives.get("units") or repeat(""), strict=False))
    coordinates = _coordinates(targets, hours[:, 0], leads[0]).assign_attrs(
        source=f"scivid predict, run {run.folder.run}, readout {readout}"
    )
    staged, done = temporary_beside(out), 0
    try:
        with _begun(staged, out.suffix, coordinates, units) as arrays:
            for batch in evaluation_batches(split, last, BATCH, device):
                outputs = run(batch.tokens)[readout]
                fields = add_residual(batch.targets["last"], outputs, std=std).cpu().numpy()
                for at, array in enumerate(arrays.values()):
                    array[done : done + len(fields)] = fields[..., at]
                done += len(fields)
                progress("predicting", done, split.n_usable)
        staged.rename(out)
    finally:
        remove(staged)


def _coordinates(
    targets: Targets, begins: Int64[np.ndarray, " clip"], leads: Int64[np.ndarray, " lead"]
) -> Any:
    """An xarray data set of them."""
    import xarray as xr

    time, ahead, latitude, longitude = DIMENSIONS
    values = {
        time: begins.astype("datetime64[h]").astype("datetime64[ns]"),
        ahead: leads.astype("timedelta64[h]").astype("timedelta64[ns]"),
        latitude: targets.read("latitude"),
        longitude: targets.read("longitude"),
    }
    attributes = {
        time: {"standard_name": "forecast_reference_time"},
        ahead: {"standard_name": "forecast_period"},
        latitude: {"standard_name": latitude, "units": "degrees_north"},
        longitude: {"standard_name": longitude, "units": "degrees_east"},
    }
    return xr.Dataset(coords={name: (name, of, attributes[name]) for name, of in values.items()})


@contextmanager
def _begun(path: Path, ending: str, coordinates: Any, units: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The arrays of the variables in a file that has its coordinates, to be filled in.

    Raises:
        CallError: a library is missing.
    """
    shape = tuple(coordinates.sizes[name] for name in DIMENSIONS)
    chunks = (1, *shape[1:])
    if ending == ".zarr":
        import zarr

        coordinates.to_zarr(path, zarr_format=3, consolidated=False)
        group = zarr.open_group(path, mode="a")
        yield {
            name: group.create_array(
                name, shape=shape, dtype="float32", chunks=chunks, fill_value=np.nan,
                dimension_names=DIMENSIONS, attributes=_attributes(unit),
            )
            for name, unit in units.items()
        }  # fmt: skip
        return
    try:
        import h5netcdf
    except ImportError:
        raise CallError(
            "NetCDF needs h5netcdf: pip install 'scivid[fields]', or write a file that ends in .zarr."
        ) from None
    coordinates.to_netcdf(path, engine="h5netcdf")
    with h5netcdf.File(path, "a") as file:
        arrays = dict[str, Any]()
        for name, unit in units.items():
            fill = np.float32(np.nan)
            arrays[name] = file.create_variable(name, DIMENSIONS, np.float32, fillvalue=fill, chunks=chunks)
            arrays[name].attrs.update(_attributes(unit))
        yield arrays


def _attributes(unit: str) -> dict[str, Any]:
    return {"units": unit} if unit else {}
