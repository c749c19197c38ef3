from pathlib import Path

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
        ("z", "'z' is 2 variables: name one of z pressure_level=850"),
        ("u=500", "there is no variable 'u=500'"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            propose([path], [wanted])


def test_members_of_an_ensemble_are_chosen_too(shared: Path) -> None:
    pytest.importorskip("cfgrib", reason="needs scivid[fields]")
    path = shared / "real" / "weather" / "era5-levels-members.grib"
    found = propose([path], ["z number=3 isobaricInhPa=500"])
    assert list(found.variables) == ["z3_500"]


def test_a_folder_with_a_video_is_one_of_videos(tmp_path: Path) -> None:
    (tmp_path / "a.nc").touch()
    assert find_containers(tmp_path) == [tmp_path / "a.nc"]
    (tmp_path / "a.mp4").touch()
    assert find_containers(tmp_path) == []
