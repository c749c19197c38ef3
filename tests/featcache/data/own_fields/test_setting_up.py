from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr  # noqa: TID253  (fields for the tests)

from featcache.data.own_fields import find_containers, set_up_fields
from featcache.data.own_videos import Wishes
from featcache.data.readers import open_reader
from featcache.errors import CallError, DataError
from featcache.manifest import load_manifest

SMALL = Wishes(name="sea", n_frames=2)


@pytest.fixture
def sea(tmp_path: Path) -> Callable[..., Path]:
    """A folder of a small series, whole or as `change` makes it."""

    def make(change: Callable[[xr.Dataset], xr.Dataset] = lambda whole: whole) -> Path:
        folder = tmp_path / "sea"
        folder.mkdir(exist_ok=True)
        values = np.random.default_rng(0).normal(size=(60, 5, 6)).astype(np.float32)
        coords = {
            "time": np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h"),
            "latitude": np.linspace(60, 40, 5), "longitude": 350.0 + np.arange(6) * 4.0,
        }  # fmt: skip
        change(xr.Dataset({"sst": (tuple(coords), values)}, coords)).to_netcdf(
            folder / "a.nc", engine="scipy"
        )
        return folder

    return make


def test_a_region_across_greenwich_is_read_as_it_lies(sea: Callable[..., Path]) -> None:
    folder = sea()
    made = set_up_fields(folder, find_containers(folder), [], SMALL)
    dataset = load_manifest(made.manifest).dataset("sea")
    assert (dataset.channels, dataset.latitude, dataset.longitude) == (1, (40.0, 60.0), (-10.0, 10.0))
    index = open_reader(dataset, "train", folder).scan().index
    assert (len(index), made.rows[0]) == (39, {"split": "train", "windows": 39})
    assert index.clip(0).id == "2001-01-01T00"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole.drop_isel(time=20), "broken: 2001-01-05T18 is followed by 2001-01-06T06"),
        (lambda whole: whole.assign_coords(time=whole.time + np.arange(60) * np.timedelta64(1, "m")), "not"),
        (lambda whole: whole.isel(time=slice(0, 9)), r"9 times, .* too few for windows of 2 frames"),
        (lambda whole: whole.where(whole.latitude > 45), "has 12 values that are NaN or infinite"),
        (lambda whole: whole.isel(time=[*range(30), *range(29, 59)]), "does not come after the time"),
        (lambda whole: whole * 0, "sst never changes: there is nothing to forecast"),
        (lambda whole: whole.drop_isel(latitude=2), "are not even"),
        (lambda whole: whole.rename(sst="a").assign(b=whole.sst), "one variable or three, and there are 2"),
        (lambda whole: whole.drop_vars("latitude"), "no variable over times, latitudes and longitudes"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_series_is_refused_in_words(
    sea: Callable[..., Path], change: Callable[[xr.Dataset], xr.Dataset], message: str
) -> None:
    folder = sea(change)
    with pytest.raises(DataError, match=message):
        set_up_fields(folder, find_containers(folder), [], SMALL)
    assert not (folder / "scivid.yaml").exists()


def test_a_manifest_that_is_there_stays(sea: Callable[..., Path]) -> None:
    folder = sea()
    (folder / "scivid.yaml").write_text("mine")
    with pytest.raises(CallError, match="edit it and say --check"):
        set_up_fields(folder, find_containers(folder), [], SMALL)
