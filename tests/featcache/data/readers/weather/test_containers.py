"""Files of `own_data` against their truth, and what cannot be read in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr  # noqa: TID253  (fields for the tests)

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.weather.containers import (
    Selection,
    container_of,
    open_container,
    open_field_files,
)
from featcache.manifest import Dataset


def sky(**features: str) -> Dataset:
    return Dataset(
        name="sky", title="", source="", licence="", citation="", version="1", reader="fields", splits={},
        variables=tuple(name for name in features if name not in ("time", "latitude", "longitude")),
        features=features,
    )  # fmt: skip


OWN = {
    "cds_new.nc": {"z500": "z pressure_level=500", "t850": "t pressure_level=850", "time": "valid_time"},
    "cds_old_packed.nc": {"z500": "z level=500", "t850": "t level=850"},
    "weatherbench.zarr": {"z500": "geopotential level=500", "t850": "temperature level=850"},
}


@pytest.mark.parametrize("name", OWN)
def test_the_truth_of_each_container(own_data: Path, truth: Any, name: str) -> None:
    pytest.importorskip("h5netcdf", reason="needs scivid[fields]")
    store = open_field_files([own_data / "fields" / name], sky(**OWN[name]))
    expected = truth("fields")
    values = expected["values_time_level_lat_lon"]
    packing = {"z": 0.0, "t": 0.0} | expected["files"].get(name, {}).get("tolerance", {})
    assert [str(time)[:19].replace("T", " ") for time in store.times] == expected["times"]
    assert store.reordered == "rows from south to north (-90 to 90 degrees)"
    field = store.decode(0)
    # The files' first row is the north pole, ours the last.
    np.testing.assert_allclose(field[-1, :4, 0], values["z500_first_row"], atol=packing["z"] + 1e-2)
    np.testing.assert_allclose(field[15, :4, 1], values["t850_equator_row"], atol=packing["t"] + 1e-3)
    np.testing.assert_array_equal(store.decode_many(1, 4)[0], store.decode(1))


def test_grib_holds_what_netcdf_does(own_data: Path) -> None:
    pytest.importorskip("cfgrib", reason="needs scivid[fields]")
    features = {"z500": "z isobaricInhPa=500", "t850": "t isobaricInhPa=850"}
    grib = open_field_files([own_data / "fields" / "era5_member.grib"], sky(**features))
    zarr = open_field_files([own_data / "fields" / "weatherbench.zarr"], sky(**OWN["weatherbench.zarr"]))
    # Every second point of three degrees.
    np.testing.assert_allclose(grib.decode(2)[::2, ::2], zarr.decode(2), rtol=1e-6)


def test_several_files_are_one_series_whatever_their_names(tmp_path: Path) -> None:
    whole = xr.Dataset(
        {"t": (("time", "lat", "lon"), np.arange(4 * 3 * 4, dtype=np.float32).reshape(4, 3, 4))},
        {"time": np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(1, "h"),
         "lat": [-90.0, 0.0, 90.0], "lon": [0.0, 90.0, 180.0, 270.0]},
    )  # fmt: skip
    whole.isel(time=slice(2, 4)).to_netcdf(tmp_path / "a.nc", engine="scipy")
    whole.isel(time=slice(0, 2)).to_netcdf(tmp_path / "b.nc", engine="scipy")
    dataset = sky(t="t", latitude="lat", longitude="lon")
    store = open_field_files([tmp_path / "a.nc", tmp_path / "b.nc"], dataset)
    np.testing.assert_array_equal(store.times, whole["time"].values)
    np.testing.assert_array_equal(store.decode_many(0, 4)[..., 0], whole["t"].values)
    assert [store.fields[0].files(step)[0].name for step in (0, 3)] == ["b.nc", "a.nc"]


def test_what_is_missing_is_named(own_data: Path, tmp_path: Path) -> None:
    path = own_data / "fields" / "weatherbench.zarr"
    for features, message in (
        ({"q700": "specific_humidity level=700"}, "specific_humidity has no level 700, it has 850, 500"),
        ({"w": "omega level=500"}, "no file has 'omega'; they hold geopotential, specific_humidity"),
        ({"z": "geopotential"}, "has the axis level as well: choose a place on it in the manifest"),
        ({"z": "geopotential height=5"}, "has no axis 'height', it has time, level"),
        ({"z": "geopotential level=500", "time": "valid_time"}, "has no coordinate 'valid_time', its time"),
        ({"z": "geopotential level=high"}, "'geopotential level=high' is no variable and its levels"),
    ):
        with pytest.raises(UnreadableError, match=message):
            open_field_files([path], sky(**features))
    (tmp_path / "cut.nc").write_bytes(b"CDF\x01 cut")
    with pytest.raises(WholeFileError, match="it cannot be opened as NetCDF"):
        open_container(tmp_path / "cut.nc")


def test_a_selection_is_read_back_as_it_was_written() -> None:
    selection = Selection(name="z", at={"level": 500.0, "number": 3.0})
    assert str(selection) == "z level=500 number=3"
    assert Selection.parse(str(selection)) == selection


def test_containers_by_name(tmp_path: Path) -> None:
    names = {"a.nc": "NetCDF", "a.GRB2": "GRIB", "a.csv": None, "a.zarr": None}
    assert {name: container_of(tmp_path / name) for name in names} == names
    (tmp_path / "b").mkdir()
    assert container_of(tmp_path / "b") is None
    (tmp_path / "b" / "zarr.json").touch()
    assert container_of(tmp_path / "b") == "Zarr"
