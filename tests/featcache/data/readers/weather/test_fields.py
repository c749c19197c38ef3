"""Fields of a store by time step: which files hold them, and which steps are kept."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr  # noqa: TID253  (writes the stores that are read here)

from featcache.data.readers.base import WholeFileError
from featcache.data.readers.weather.fields import FieldStore, open_fields
from featcache.manifest import Dataset

SKY = Dataset(
    name="sky", title="", source="", licence="", citation="", version="1", reader="weather_zarr", splits={},
    channels=1, variables=("warmth",), latitude=(0.0, 3.0), longitude=(0.0, 7.0),
)  # fmt: skip


def write(path: Path, zarr_format: int, chunks: tuple[int, int, int]) -> FieldStore:
    """Six steps of 4 x 8 values, of which no two are alike."""
    axes = ("time", "latitude", "longitude")
    hours = np.datetime64("2000-01-01", "ns") + np.arange(6) * np.timedelta64(1, "h")
    coordinates = {"time": hours, "latitude": np.arange(4.0), "longitude": np.arange(8.0)}
    values = np.arange(1, 193, dtype=np.float32).reshape(6, 4, 8)
    fields = xr.Dataset({"warmth": (axes, values)}, coordinates)
    fields.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding={"warmth": {"chunks": chunks}})
    return open_fields(path, SKY)


@pytest.mark.parametrize(
    ("zarr_format", "chunks", "names"),
    [
        (2, (1, 4, 8), ["5.0.0"]),
        (3, (1, 4, 8), ["c/5/0/0"]),
        (3, (4, 4, 8), ["c/1/0/0"]),
        (2, (2, 3, 8), ["2.0.0", "2.1.0"]),
        (3, (6, 2, 5), ["c/0/0/0", "c/0/0/1", "c/0/1/0", "c/0/1/1"]),
    ],
)
def test_the_files_of_a_step(
    tmp_path: Path, zarr_format: int, chunks: tuple[int, int, int], names: list[str]
) -> None:
    store = write(tmp_path / "sky.zarr", zarr_format, chunks)
    paths = [tmp_path / "sky.zarr" / "warmth" / name for name in names]
    assert store.fields[0].files(5) == paths
    assert store.fields[0].file_bytes(5) == sum(path.stat().st_size for path in paths)
    assert store.decode(5)[..., 0].tolist() == np.arange(161, 193).reshape(4, 8).tolist()
    paths[-1].unlink()
    for call in (store.decode, store.fields[0].file_bytes):
        with pytest.raises(WholeFileError, match=f"warmth/{names[-1]} cannot be opened"):
            call(5)


def test_sizes_are_of_files_not_of_steps(tmp_path: Path) -> None:
    store = write(tmp_path / "sky.zarr", 3, (4, 4, 8))
    (a, b) = [(tmp_path / f"sky.zarr/warmth/c/{row}/0/0").stat().st_size for row in (0, 1)]
    assert store.file_bytes(np.array([5, 0, 3, 4]))[:, 0].tolist() == [b, a, a, b]
    assert store.n_bytes(np.array([5, 0, 3, 4])) == a + b


@pytest.mark.parametrize("name", ["time/0", "warmth/.zarray", "warmth/5.0.0"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sky.zarr"
    write(path, 2, (1, 4, 8))
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(WholeFileError, match=rf"{name} is not a regular file"):
        open_fields(path, SKY).n_bytes(np.arange(6))
