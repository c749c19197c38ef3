from pathlib import Path

import numpy as np
import pytest

from featcache.data.own_fields.proposing import find_containers, propose
from featcache.errors import DataError

Q700 = "Of the benchmark's z=500, t=850, q=700 there are z=500, t=850."


def test_what_there_is_of_the_wanted_levels_is_said(own_data: Path) -> None:
    pytest.importorskip("h5netcdf", reason="needs scivid[fields]")
    fields = own_data / "fields"
    for name in ("cds_new.nc", "cds_old_packed.nc", "era5_member.grib", "weatherbench.zarr"):
        with pytest.raises(DataError) as problem:
            propose([fields / name], [])
        assert Q700 in str(problem.value)
    assert find_containers(fields) == sorted(fields / name for name in (
        "cds_new.nc", "cds_old_packed.nc", "era5_member.grib", "weatherbench.zarr"))  # fmt: skip


def test_levels_are_chosen_by_their_value(own_data: Path) -> None:
    pytest.importorskip("h5netcdf", reason="needs scivid[fields]")
    path = own_data / "fields" / "cds_new.nc"
    found = propose([path], ["q=850", "z pressure_level=500", "t850"])
    assert {name: str(one) for name, one in found.variables.items()} == {
        "q850": "q pressure_level=850", "z500": "z pressure_level=500", "t850": "t pressure_level=850"
    }  # fmt: skip
    assert found.axes == {"time": "valid_time", "latitude": "latitude", "longitude": "longitude"}
    for wanted, message in (
        ("z", "'z' is 2 variables: name one of z=850"),
        ("u=500", "there is no variable 'u=500'"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            propose([path], [wanted])


def test_members_of_an_ensemble_are_chosen_too(shared: Path) -> None:
    pytest.importorskip("cfgrib", reason="needs scivid[fields]")
    path = shared / "real" / "weather" / "era5-levels-members.grib"
    found = propose([path], ["z number=3 isobaricInhPa=500"])
    assert list(found.variables) == ["z3_500"]

    with pytest.raises(DataError, match="'z=500' is 10 variables") as problem:
        propose([path], ["z=500"])
    # Those that it may be, and no other.
    assert "'z number=9 isobaricInhPa=500'" in str(problem.value)
    assert "850" not in str(problem.value)
    assert "'t number" not in str(problem.value)


def _written(path: Path, *names: str) -> Path:
    xr = pytest.importorskip("xarray", reason="needs scivid[fields]")
    values = np.random.default_rng(0).normal(size=(4, 3, 4))
    coords = {
        "time": np.arange("2020-01-01", "2020-01-05", dtype="datetime64[D]").astype("datetime64[ns]"),
        "lat": ("lat", [90.0, 0.0, -90.0]),
        "lon": ("lon", [-180.0, -90.0, 0.0, 90.0]),
    }
    xr.Dataset(dict.fromkeys(names, (("time", "lat", "lon"), values)), coords=coords).to_netcdf(path)
    return path


def test_how_many_were_asked_for_is_said_beside_what_is_there(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.nc", "ta", "u", "v", "q")
    with pytest.raises(DataError, match=r"and 2 are asked for of those that are there \(ta, u, v, q\)"):
        propose([path], ["ta", "u"])
    with pytest.raises(DataError, match=r"and there are 4 \(ta, u, v, q\)"):
        propose([path], [])


def test_a_variable_with_a_space_is_to_be_renamed(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.nc", "MSL PRESSURE", "u", "v", "q")
    with pytest.raises(DataError, match=r"\.rename\(\{'MSL PRESSURE': 'MSL_PRESSURE'\}\)"):
        propose([path], ["MSL PRESSURE"])
    assert list(propose([path], ["u"]).variables) == ["u"]


def test_a_folder_with_a_video_is_one_of_videos(tmp_path: Path) -> None:
    (tmp_path / "a.nc").touch()
    assert find_containers(tmp_path) == [tmp_path / "a.nc"]
    (tmp_path / "a.mp4").touch()
    assert find_containers(tmp_path) == []
