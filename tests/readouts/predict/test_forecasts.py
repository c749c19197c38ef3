"""Forecasts in files have the coordinates of the fields they are of, their unit, and the scores' errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr  # noqa: TID253  (fields for the tests)

from readouts.metrics import fields
from readouts.metrics.area import latitude_weights
from readouts.results.table import load_results
from tests.own_measurements import weather
from tests.readouts.own_dots import scivid

UNITS = {"z500": "m**2 s**-2", "t850": "K"}


def test_they_have_coordinates_units_and_the_scores_errors(tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf", reason="needs scivid[fields]")
    sky, whole = tmp_path / "sky", weather()
    sky.mkdir()
    whole["z"].attrs["units"], whole["t"].attrs["units"] = UNITS.values()
    whole.to_netcdf(sky / "all.nc", engine="h5netcdf")
    chosen = ["--variable", "z=500", "--variable", "t=500", "--variable", "t=850"]
    scivid("data", "init", sky, *chosen, "--frames", "2", "--stride", "2", "--every", "1")
    common = ["--manifest", sky / "scivid.yaml", "--backbone", "resize", "--task", "sky"]
    places = ["--cache-dir", tmp_path / "features"]
    scivid("extract", *common, "--data-dir", sky, *places)
    small = ("features=8", "head_channels=8", "steps=6", "warmup=1", "minival_every=6", "lr=1e-2")
    words = [word for one in small for word in ("--set", one)]
    scivid(
        "train-readout", *common, *places, "--results-dir", tmp_path / "results", *words, "--device", "cpu"
    )
    (row,) = load_results(tmp_path / "results")
    (run,) = (tmp_path / "results" / "sky").glob("resize-*")
    (store,) = (tmp_path / "features" / "sky" / "val").glob("resize-*.zarr")
    call = ["predict", "--store", store, "--run", run, "--device", "cpu", "--out"]
    said = scivid(*call, tmp_path / "f.nc", "--out", tmp_path / "f.zarr")
    assert f"f.nc: {row['n_val']} clips" in " ".join(said.split())
    with xr.open_dataset(tmp_path / "f.nc", engine="h5netcdf", decode_timedelta=True) as opened:
        found = opened.load()
    assert found["z500"].dims == ("time", "prediction_timedelta", "latitude", "longitude")
    assert {name: found[name].attrs["units"] for name in UNITS} == UNITS
    assert found["latitude"].attrs["units"] == "degrees_north"
    hours = (found["prediction_timedelta"].values / np.timedelta64(1, "h")).tolist()
    assert (hours, found.sizes["time"]) == ([12, 24], row["n_val"])
    # The truth of the very files, by coordinates alone.
    truth = whole.sel(time=found["time"] + found["prediction_timedelta"])
    z = truth["z"].sel(isobaricInhPa=500, latitude=found["latitude"], longitude=found["longitude"])
    z = z.transpose(*found["z500"].dims)
    predicted, true = (torch.from_numpy(one.values[..., None]) for one in (found["z500"], z))
    weights = latitude_weights(found.sizes["latitude"]).float()
    per_clip = fields.per_clip(predicted, true, latitude_weights=weights)
    scores = fields.scores(per_clip, None, variables=("z500",))
    assert scores["z500/rmwse"] == pytest.approx(row["val"], rel=1e-4)
    with xr.open_zarr(tmp_path / "f.zarr", consolidated=False, decode_timedelta=True) as same:
        for name in found.variables:
            np.testing.assert_array_equal(found[name].values, same[name].values)
        assert same["t850"].attrs["units"] == "K"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "f.nc",
        "f.zarr",
        "features",
        "results",
        "sky",
    ]
    assert "is there: delete it, or name another" in scivid(*call, tmp_path / "f.zarr", code=2)
    refused = " ".join(scivid(*call, tmp_path / "f.csv", code=2).split())
    assert "there are fields a clip: name a file that ends in one of .nc, .zarr" in refused
    videos = " ".join(scivid("predict", sky / "all.nc", "--run", run, "--out", "f.nc", code=2).split())
    assert "extract a split of them" in videos
