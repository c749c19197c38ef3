"""The weather reader: the reference's windows and values, from stores of every kind, a step decoded once."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr  # noqa: TID253  (writes the stores that are read here)
from einops import rearrange, reduce

from featcache.clips import Clip
from featcache.data.readers import UnreadableFileError, data_status, open_reader
from featcache.data.readers.weather.fields import FieldStore
from featcache.data.readers.weather.reader import WeatherZarrReader
from featcache.errors import CallError, DataError
from featcache.manifest import Dataset, Pixels, Split, Windows, load_manifest
from featcache.resampling import resize_area

VARIABLES = ("height", "warmth", "moisture")
ROWS, COLUMNS = 19, 36
WINDOWS = Windows(
    first="2000-01-02", last="2000-01", n_frames=5, step_hours=12, every_hours=6, offset_hours=6
)


def dataset(*, files: str = "weather/era.zarr", **changes: Any) -> Dataset:
    windows = changes.pop("windows", WINDOWS)
    split = Split(
        name="all", files=files, also="weather/other.zarr", windows=windows, n_clips=changes.pop("n", 7)
    )
    entry: dict[str, Any] = {
        "name": "sky",
        "title": "",
        "source": "https://sky.org",
        "licence": "",
        "citation": "",
        "version": "1",
        "reader": "weather_zarr",
        "bucket": "gs://sky/weather",
        "splits": {"all": split},
        "variables": VARIABLES,
        "frame_size": (ROWS, COLUMNS),
    }
    return Dataset(**{**entry, **changes})


def value(step: int, channel: int) -> np.ndarray:
    """The field at an hour: no two alike, nor two rows, nor two columns."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    field: np.ndarray = (1000 * channel + step + rows / 32 + columns / 2048).astype(np.float32)
    return field


def write_store(
    path: Path,
    *,
    hours: range = range(24, 24 + 96),
    chunk: int = 1,
    zarr_format: int = 2,
    dims: str = "time latitude longitude",
    north_first: bool = False,
    consolidated: bool = False,
    change: Any = lambda fields: fields,
    **encoding: Any,
) -> Path:
    """A store of the hours since 2000-01-01 whose field at hour k is `value(k, channel)`."""
    axes = ("time", "latitude", "longitude")
    latitude = np.linspace(-90, 90, ROWS, dtype=np.float32)
    coordinates = {
        "time": np.datetime64("2000-01-01", "ns") + np.array(hours) * np.timedelta64(1, "h"),
        "latitude": latitude[::-1] if north_first else latitude,
        "longitude": np.arange(0, 360, 10, dtype=np.float32),
    }
    values = {
        name: (axes, np.stack([value(hour, channel) for hour in hours]))
        for channel, name in enumerate(VARIABLES)
    }
    fields = change(xr.Dataset(values, coordinates).transpose(*dims.split()))
    chunks = tuple(chunk if name == "time" else fields.sizes[name] for name in dims.split())
    fields.to_zarr(
        path,
        zarr_format=zarr_format,
        consolidated=consolidated,
        encoding={name: {"chunks": chunks, **encoding} for name in VARIABLES if name in fields},
    )
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "weather" / "era.zarr")


def opened(data_dir: Path, **changes: Any) -> WeatherZarrReader:
    reader = open_reader(dataset(**changes), "all", data_dir)
    assert isinstance(reader, WeatherZarrReader)
    return reader


KINDS: dict[str, dict[str, Any]] = {
    "v2": {},
    "v2 consolidated": {"consolidated": True},
    "v3": {"zarr_format": 3},
    "v3 consolidated": {"zarr_format": 3, "consolidated": True, "chunk": 12},
    "v3 sharded": {"zarr_format": 3, "chunk": 3, "shards": (12, ROWS, COLUMNS)},
    "12 hours a chunk": {"chunk": 12},
    "chunks that do not divide": {"chunk": 7, "zarr_format": 3},
    "time last": {"dims": "latitude longitude time", "chunk": 12},
    "longitude first": {"dims": "time longitude latitude"},
    "every 6 hours": {"hours": range(24, 24 + 96, 6)},
    "float64": {"dtype": "float64"},
    "big-endian": {"dtype": ">f4"},
    "big-endian in v3": {"dtype": ">f8", "zarr_format": 3},
}


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_every_window(tmp_path: Path, kind: str) -> None:
    write_store(tmp_path / "weather" / "era.zarr", **KINDS[kind])
    reader = opened(tmp_path)
    scan = reader.scan()
    assert len(scan.index) == 7
    first = 24 + 6
    for i in range(7):
        clip = scan.index.clip(i)
        assert clip.id == f"2000-01-{2 + (6 + 6 * i) // 24:02d}T{(6 + 6 * i) % 24:02d}"
        assert (clip.source, clip.n_source, clip.labels) == ("weather/era.zarr", 5, ())
        found = reader.read(clip, [4, 0, 0])
        hours = [first + 6 * i + 12 * frame for frame in (4, 0, 0)]
        np.testing.assert_array_equal(
            found, [np.stack([value(hour, c) for c in range(3)], -1) for hour in hours]
        )
        assert reader.times(reader.time_steps(clip, [0])).astype(str).tolist() == [clip.id]


def in_other_order(rows: str, columns: str) -> Any:
    """Changes a store's order of rows and columns, not what lies at a place."""

    def change(fields: xr.Dataset) -> xr.Dataset:
        shuffled = np.random.default_rng(1)
        order = {
            "kept": lambda n: np.arange(n),
            "reversed": lambda n: np.arange(n)[::-1],
            "rolled": lambda n: np.roll(np.arange(n), n // 2),
            "shuffled": shuffled.permutation,
        }
        changed = fields.isel(latitude=order[rows](ROWS), longitude=order[columns.split()[0]](COLUMNS))
        if columns.endswith("about 0"):
            changed["longitude"] = (changed.longitude + 180) % 360 - 180
        return changed

    return change


@pytest.mark.parametrize("rows", ["kept", "reversed", "rolled", "shuffled"])
@pytest.mark.parametrize(
    "columns",
    ["kept", "reversed", "rolled", "shuffled", "kept about 0", "rolled about 0", "reversed about 0"],
)
def test_rows_and_columns_in_any_order_are_read_in_one(tmp_path: Path, rows: str, columns: str) -> None:
    write_store(tmp_path / "weather" / "era.zarr", change=in_other_order(rows, columns))
    reader = opened(tmp_path)
    scan = reader.scan()
    assert reader.latitude.tolist() == list(range(-90, 91, 10))
    assert reader.longitude.tolist() == list(range(0, 360, 10))
    assert reader.latitude.dtype == reader.longitude.dtype == np.float32
    for channel in range(3):
        np.testing.assert_array_equal(reader.fields(np.array([3]))[0, :, :, channel], value(27, channel))
    in_order = rows == "kept" and columns in ("kept", "kept about 0")
    assert ("which are stored in another order" in " ".join(scan.notes)) != in_order


@pytest.mark.parametrize(
    "dims", ["time latitude longitude", "longitude latitude time", "latitude time longitude"]
)
def test_axes_in_any_order_and_rows_reversed(tmp_path: Path, dims: str) -> None:
    write_store(tmp_path / "weather" / "era.zarr", dims=dims, change=in_other_order("reversed", "rolled"))
    np.testing.assert_array_equal(opened(tmp_path).fields(np.array([3]))[0, :, :, 1], value(27, 1))


def test_packed_values_are_unpacked(tmp_path: Path) -> None:
    write_store(
        tmp_path / "weather" / "era.zarr", dtype="int16", scale_factor=0.5, add_offset=1000.0, _FillValue=-999
    )
    found = opened(tmp_path).fields(np.array([50]))
    np.testing.assert_allclose(found[0, :, :, 2], value(74, 2), atol=0.26)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that any store decodes, as they are decoded."""
    steps, plain = list[int](), FieldStore.decode

    def counting(self: FieldStore, step: int) -> np.ndarray:
        steps.append(step)
        return plain(self, step)

    monkeypatch.setattr(FieldStore, "decode", counting)
    return steps


def test_each_step_is_decoded_once_in_order(store: Path, decoded: list[int]) -> None:
    reader = opened(store.parents[1])
    scan = reader.scan()
    assert not decoded
    for i in range(len(scan.index)):
        reader.read(scan.index.clip(i), range(5))
    assert sorted(decoded) == list(range(6, 6 + 6 * 6 + 48 + 1, 6))
    decoded.clear()
    opened(store.parents[1]).read(scan.index.clip(1), [3, 1])
    assert decoded == [12 + 36, 12 + 12]


def test_threads_share_the_work(store: Path, decoded: list[int]) -> None:
    reader = opened(store.parents[1])
    clips = [reader.scan().index.clip(i % 7) for i in range(28)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda clip: reader.read(clip, range(5)), clips))
    for clip, values in zip(clips, found, strict=True):
        np.testing.assert_array_equal(values[2, :, :, 0], value(24 + clip.record + 24, 0))
    assert len(decoded) == len(set(decoded))


def test_other_processes_read_too(store: Path) -> None:
    reader = opened(store.parents[1])
    clip = reader.scan().index.clip(0)
    expected = reader.read(clip, [0])
    child = os.fork()
    if child == 0:
        same = (reader.read(clip, [0]) == expected).all() and reader.read(clip, [1]).mean() > 0
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(copy.read(clip, [0]), expected)


def test_digests_notice_what_they_say(tmp_path: Path) -> None:
    store = tmp_path / "weather" / "era.zarr"

    def rewritten(**changes: Any) -> None:
        shutil.rmtree(store, ignore_errors=True)
        write_store(store, **{"hours": range(24, 24 + 96, 6), **changes})

    def digests() -> list[Any]:
        digests: list[Any] = opened(tmp_path).scan().index.clips.column("digest").to_pylist()
        return digests

    rewritten()
    before = digests()
    assert len(set(before)) == 7
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in before)
    rewritten()
    assert digests() == before
    for changes in (
        {"zarr_format": 3},
        {"chunk": 2},
        {"north_first": True},
        {"hours": range(30, 24 + 96, 6)},
        {"change": lambda fields: fields + (fields.time == fields.time[15])},
    ):
        rewritten(**changes)
        assert not set(digests()) & set(before), changes
    rewritten()
    with (store / "warmth" / "7.0.0").open("ab") as file:
        file.write(b"more")
    # Windows begin at steps 1 to 7 and have a frame every other step: 7 is in those from 1, 3, 5 and 7.
    assert [now == then for now, then in zip(digests(), before, strict=True)] == [
        False, True, False, True, False, True, False,
    ]  # fmt: skip


def test_scan_reports_and_notes(store: Path) -> None:
    calls = list[tuple[int, int]]()
    scan = opened(store.parents[1]).scan(progress=lambda done, total: calls.append((done, total)))
    assert calls == [(7, 7)]
    assert scan.skipped == ()
    assert scan.notes == (
        "sky/all: weather/era.zarr, Zarr v2 in chunks of 1 x 19 x 36, rows from south to north, hourly.",
    )
    early = replace(WINDOWS, first="2000-01-01T12")
    _, late, count = opened(store.parents[1], windows=early, n=90).scan().notes
    assert late.startswith(
        "sky/all: the series begins at 2000-01-02T00, the split at 2000-01-01T12: its windows"
    )
    assert count == "sky/all: 7 windows found, the manifest expects 90."


def test_the_other_name(store: Path) -> None:
    store.rename(store.with_name("other.zarr"))
    scan = opened(store.parents[1]).scan()
    assert scan.index.clip(0).source == "weather/other.zarr"
    assert "weather/other.zarr" in scan.notes[0]
    assert data_status(dataset(), store.parents[1])["all"].complete


def test_targets_are_fields(store: Path) -> None:
    reader = opened(store.parents[1])
    clip = reader.scan().index.clip(2)
    assert reader.targets(clip) == {}
    assert reader.time_steps(clip, np.array([0, 4])).tolist() == [18, 66]
    assert reader.fields(np.array([], np.int64)).shape == (0, ROWS, COLUMNS, 3)
    np.testing.assert_array_equal(reader.fields(reader.time_steps(clip, [4])), reader.read(clip, [4]))


def test_status(store: Path) -> None:
    status = data_status(dataset(), store.parents[1])["all"]
    assert status.complete
    assert (status.n_found, status.n_expected, status.n_clips) == (1, 1, 7)
    steps = range(6, 6 + 6 * 6 + 48 + 1, 6)
    sizes = [(store / name / f"{step}.0.0").stat().st_size for name in VARIABLES for step in steps]
    assert status.n_bytes == sum(sizes)
    (store / "warmth" / "12.0.0").unlink()
    (problem,) = data_status(dataset(), store.parents[1])["all"].problems
    assert "warmth/12.0.0 cannot be opened (No such file" in problem


def test_nothing_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError) as problem:
        opened(tmp_path)
    folder = tmp_path / "weather" / "era.zarr"
    assert str(problem.value) == (
        f"{folder}, all: there is no such folder; if it is in another data folder, name it: SCIVID_DATA_DIR. "
        f"Get it: mkdir -p {folder} && gcloud storage rsync -r gs://sky/weather/era.zarr {folder}"
    )
    status = data_status(dataset(), tmp_path)["all"]
    assert (status.n_found, status.complete) == (0, False)
    with pytest.raises(DataError, match=r"Copy it again from where it came, or see https://sky.org"):
        opened(tmp_path, bucket=None)


@pytest.mark.parametrize(
    "damage", ["no metadata", "no json", "no time units", "chunks of nothing", "a number for names"]
)
def test_a_store_that_cannot_be_opened(store: Path, damage: str) -> None:
    if damage == "no metadata":
        (store / ".zgroup").unlink()
    elif damage == "no json":
        (store / "warmth" / ".zarray").write_text("{")
    elif damage == "chunks of nothing":
        path = store / "warmth" / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chunks": [1, 19, 0]}))
    elif damage == "a number for names":
        path = store / "warmth" / ".zattrs"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"coordinates": 37}))
    else:
        path = store / "time" / ".zattrs"
        path.write_text(path.read_text().replace("hours since", "hours since soon, not"))
    with pytest.raises(
        UnreadableFileError, match=r"era\.zarr, all: it cannot be opened as Zarr \(.+repair it: gcloud"
    ):
        opened(store.parents[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.drop_vars("warmth"), "it has no 'warmth', it holds (.*height.*moisture|.*)"),
        (lambda fields: fields.drop_vars("latitude"), "it has no 'latitude', it holds"),
        (lambda fields: fields.assign(warmth=fields.warmth[0]), "warmth has the axes .*expected"),
        (lambda fields: fields.isel(latitude=slice(18)), r"\(18, 36\) rows and columns, expected \(19, 36\)"),
        (lambda fields: fields.assign_coords(time=np.arange(96)), "time holds int64, expected times"),
        (lambda fields: fields.drop_isel(time=[40]), "its time axis is broken: 2000-01-03T15 is followed by"),
        (lambda fields: fields.isel(time=slice(54)), "too short for one window of 5 frames"),
    ],
)  # fmt: skip
def test_a_store_of_another_kind(tmp_path: Path, change: Any, message: str) -> None:
    def to_numbers(fields: xr.Dataset) -> xr.Dataset:
        changed: xr.Dataset = change(fields)
        return changed

    write_store(tmp_path / "weather" / "era.zarr", change=to_numbers)
    with pytest.raises(DataError, match=message) as problem:
        opened(tmp_path)
    assert not isinstance(problem.value, UnreadableFileError)
    assert "The official store is gs://sky/weather/era.zarr; one of your own" in str(problem.value)


REGIONS: dict[str, tuple[Any, str]] = {
    "another region": (
        lambda fields: fields.assign_coords(latitude=np.linspace(30, 48, ROWS)),
        (r"latitudes go from 30 to 48 degrees, expected -90 to 90, the whole globe\. If this.*"
        r"in datasets\.sky: `latitude: \[30, 48\]` and `longitude: \[0, 350\]`"),
    ),
    "another region across 0": (
        lambda fields: fields.assign_coords(
            latitude=np.linspace(-20, 70, ROWS), longitude=np.linspace(-10, 25, COLUMNS)
        ),
        r"`latitude: \[-20, 70\]` and `longitude: \[-10, 25\]`",
    ),
    "columns of half the globe": (
        lambda fields: fields.assign_coords(longitude=np.arange(0, 180, 5)),
        r"its 36 longitudes go from 0 to 175 degrees, expected 0 to 350",
    ),
    "between the rows": (
        lambda fields: fields.assign_coords(latitude=np.linspace(-85.5, 85.5, ROWS)),
        r"latitudes go from -85\.5 to 85\.5",
    ),
    "columns between": (
        lambda fields: fields.assign_coords(longitude=fields.longitude + 5), "longitudes go from -5 to 345",
    ),
    "in radians": (
        lambda fields: fields.assign_coords(latitude=np.radians(fields.latitude)), "go from -1.57",
    ),
    "a row twice": (
        lambda fields: fields.isel(latitude=[*range(9), *range(8, 18)]).assign_coords(
            latitude=[*range(-90, 0, 10), *range(-10, 90, 10)]
        ),
        "latitudes (are not even|go from)",
    ),
    "a row at another place": (
        lambda fields: fields.assign_coords(latitude=[*range(-90, 0, 10), 3, *range(10, 91, 10)]),
        r"its latitudes are not even: -10 is followed by 3, where 19 from -90 to 90 are 10 apart",
    ),
    "a meridian twice": (
        lambda fields: fields.assign_coords(longitude=[*range(0, 350, 10), 360]),
        "longitudes (are not even|go from)",
    ),
    "no number": (
        lambda fields: fields.assign_coords(latitude=[np.nan, *range(-80, 91, 10)]),
        "at least two are needed, all finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REGIONS)
def test_a_grid_of_other_places_is_refused(tmp_path: Path, kind: str) -> None:
    change, message = REGIONS[kind]
    write_store(tmp_path / "weather" / "era.zarr", change=change)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_the_manifest_can_mean_a_region(tmp_path: Path) -> None:
    """As the message says it, in any order of rows and columns, and Gaussian rows too."""
    region = {"latitude": np.linspace(-20, 70, ROWS), "longitude": np.linspace(-10, 25, COLUMNS)}

    def change(fields: xr.Dataset) -> xr.Dataset:
        regional = fields.assign_coords(region)
        regional["longitude"] = regional.longitude % 360
        changed: xr.Dataset = regional.isel(latitude=slice(None, None, -1)).sortby("longitude")
        return changed

    write_store(tmp_path / "weather" / "era.zarr", change=change)
    reader = opened(tmp_path, latitude=(-20.0, 70.0), longitude=(-10.0, 25.0))
    np.testing.assert_allclose(reader.latitude, region["latitude"])
    np.testing.assert_allclose(reader.longitude, region["longitude"], atol=1e-5)
    np.testing.assert_array_equal(reader.fields(np.array([3]))[0, :, :, 1], value(27, 1))
    with pytest.raises(DataError, match=r"go from -20 to 70 degrees, expected -20 to 69\. If this region"):
        opened(tmp_path, latitude=(-20.0, 69.0), longitude=(-10.0, 25.0))
    gaussian = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(ROWS)[0]))
    write_store(
        tmp_path / "b" / "weather/era.zarr", change=lambda fields: fields.assign_coords(latitude=gaussian)
    )
    found = opened(tmp_path / "b", latitude=(gaussian[0], gaussian[-1]))
    np.testing.assert_allclose(found.latitude, gaussian, rtol=1e-6)


PIXELS = Pixels(mean=(54000.0, 275.0, 0.0024), std=(3300.0, 15.0, 0.0025))


def like_weather(fields: xr.Dataset) -> xr.Dataset:
    """Fields of the magnitudes that `PIXELS` says."""
    waves = np.sin(np.linspace(0, 6, COLUMNS)) + np.cos(np.linspace(-3, 3, ROWS))[:, None]
    for name, mean, std in zip(VARIABLES, PIXELS.mean, PIXELS.std, strict=True):
        fields[name] = (fields[name].dims, np.full(fields[name].shape, mean + std * waves, np.float32))
    return fields


UNITS: dict[str, tuple[Any, str]] = {
    "Celsius": (lambda fields: fields.assign(warmth=fields.warmth - 273.15), "warmth at .* has .* of "),
    "Fahrenheit": (lambda fields: fields.assign(warmth=fields.warmth * 1.8 - 459.67), "warmth at "),
    "height in metres": (lambda fields: fields.assign(height=fields.height / 9.81), "height at "),
    "hundreds": (lambda fields: fields.assign(height=fields.height / 100), "height at "),
    "grams": (lambda fields: fields.assign(moisture=fields.moisture * 1000), "moisture at "),
    "nothing": (lambda fields: fields.assign(moisture=fields.moisture * 0), "mean of 0 .* about 0.0024"),
    "two exchanged": (lambda fields: fields.assign(height=fields.warmth, warmth=fields.height), "at "),
    "anomalies": (lambda fields: fields - fields.mean(), "at "),
    "reversed sign": (lambda fields: -fields, "at "),
    "another level": (lambda fields: fields.assign(warmth=fields.warmth - 21), "warmth at .* has a mean of"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNITS)
def test_another_unit_or_variable_is_refused(tmp_path: Path, kind: str) -> None:
    change, message = UNITS[kind]
    write_store(tmp_path / "weather" / "era.zarr", change=lambda fields: change(like_weather(fields)))
    with pytest.raises(DataError, match=message) as problem:
        opened(tmp_path, pixels=PIXELS).scan()
    assert "in the manifest" in str(problem.value)
    assert opened(tmp_path).scan().index  # nothing is known of the values


@pytest.mark.parametrize("bad", [-9999.0, 9.96921e36, 1e20, 0.0])
def test_a_value_that_stands_for_none_is_never_weather(tmp_path: Path, bad: float) -> None:
    def holed(fields: xr.Dataset) -> xr.Dataset:
        fields = like_weather(fields)
        fields["warmth"].values[30, 2, 3:5] = bad
        return fields

    write_store(tmp_path / "weather" / "era.zarr", change=holed)
    reader = opened(tmp_path, pixels=PIXELS)
    clip = reader.scan().index.clip(0)
    with pytest.raises(DataError, match=r"warmth at 2000-01-03T06 has 2 values, such as .*--skip-bad"):
        reader.read(clip, range(5))
    assert reader.read(clip, [0, 1]).shape[0] == 2


def test_zeros_of_a_store_whose_fill_value_is_0_are_zeros(tmp_path: Path) -> None:
    """As plain Zarr writes it: 0 stands for chunks that are not there, not for values that are not."""
    store = tmp_path / "weather" / "era.zarr"

    def dry(fields: xr.Dataset) -> xr.Dataset:
        fields["moisture"].values[:, 3] = 0
        return fields

    write_store(store, change=dry)
    for name in (*VARIABLES, "latitude", "longitude", "time"):
        path = store / name / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fill_value": 0}))
    reader = opened(tmp_path)
    found = reader.fields(np.array([3]))[0]
    assert (found[3, :, 2] == 0).all()
    np.testing.assert_array_equal(found[..., 1], value(27, 1))
    assert (reader.latitude[9], reader.longitude[0], len(reader.scan().index)) == (0, 0, 7)


def test_a_fill_value_that_is_meant_is_missing(tmp_path: Path) -> None:
    def holed(fields: xr.Dataset) -> xr.Dataset:
        fields["warmth"].values[30, 2, 3:5] = np.nan
        return fields

    packed = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 1000.0, "_FillValue": 0}
    write_store(tmp_path / "weather" / "era.zarr", change=holed, **packed)
    with pytest.raises(DataError, match=r"has 2 values that are NaN or infinite \(0 stands for none there\)"):
        opened(tmp_path).read(opened(tmp_path).scan().index.clip(0), [2])


def test_ones_own_store_is_not_told_to_fetch_the_official_one(tmp_path: Path) -> None:
    """Where the manifest names other files; and nothing is to be laid over a store that is whole."""
    manifest = tmp_path / "mine.yaml"
    manifest.write_text("datasets: {weatherbench2: {splits: {test: {files: my/own.zarr}}}}")
    own = load_manifest(manifest).dataset("weatherbench2")
    with pytest.raises(DataError) as problem:
        open_reader(own, "test", tmp_path)
    assert "Copy it again from where it came, or see https://weatherbench2" in str(problem.value)
    assert "gs://" not in str(problem.value)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "own.zarr").write_text("")
    with pytest.raises(DataError, match=r"it is a file, not a Zarr folder: convert it with xarray"):
        open_reader(own, "test", tmp_path)
    write_store(tmp_path / "weather" / "era.zarr", change=lambda fields: fields.drop_vars("warmth"))
    with pytest.raises(DataError, match=r"one of your own is a data set of its own in a manifest"):
        opened(tmp_path)
    with pytest.raises(DataError, match=r"Correct the store or the manifest\.$"):
        opened(tmp_path, bucket=None)


def test_wrong_manifests(store: Path) -> None:
    for changes, message in (
        ({"windows": None}, r"splits\.all: `windows` says which times"),
        ({"variables": VARIABLES[:2]}, r"sky\.variables: name 3 variables"),
    ):
        with pytest.raises(CallError, match=message):
            opened(store.parents[1], **changes)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_field_that_is_not_finite(tmp_path: Path, bad: float) -> None:
    def holed(fields: xr.Dataset) -> xr.Dataset:
        fields["warmth"].values[30, 2, 3:5] = bad
        return fields

    write_store(tmp_path / "weather" / "era.zarr", change=holed)
    reader = opened(tmp_path)
    index = reader.scan().index
    with pytest.raises(
        DataError, match=r"warmth at 2000-01-03T06 has 2 values that are NaN or infinite.*--skip-bad"
    ) as problem:
        reader.read(index.clip(0), range(5))
    assert not isinstance(problem.value, UnreadableFileError)
    assert reader.read(index.clip(0), [0, 1, 3, 4]).shape[0] == 4
    with pytest.raises(DataError, match="warmth at"):
        reader.read(index.clip(0), [2])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_file_that_is_missing_or_cut_is_never_a_field(tmp_path: Path, zarr_format: int) -> None:
    store = write_store(tmp_path / "weather" / "era.zarr", zarr_format=zarr_format)
    reader = opened(tmp_path)
    clip = reader.scan().index.clip(0)
    name = "18.0.0" if zarr_format == 2 else "c/18/0/0"
    path = store / "moisture" / name
    os.truncate(path, 40)
    with pytest.raises(UnreadableFileError, match=rf"{name} cannot be decoded \(.*repair it: gcloud"):
        reader.read(clip, [1])
    path.unlink()
    for call in (reader.scan, lambda: reader.read(clip, [1])):
        with pytest.raises(UnreadableFileError, match=f"{name} cannot be opened .No such file"):
            call()
    assert reader.read(clip, [0, 2]).shape == (2, ROWS, COLUMNS, 3)


def test_frames_and_steps_that_do_not_exist(store: Path) -> None:
    reader = opened(store.parents[1])
    clip = reader.scan().index.clip(0)
    for frame in (-1, 5):
        with pytest.raises(
            DataError, match=f"window 2000-01-02T06: it has 5 frames, {frame} is not one of them"
        ):
            reader.read(clip, [frame])
    with pytest.raises(UnreadableFileError, match="its time axis has 96 steps"):
        reader.fields(np.array([96]))
    moved = Clip(id="2000-01-02T05", source=clip.source, record=6, n_source=5, digest="")
    with pytest.raises(UnreadableFileError, match="step 6 of its time axis is 2000-01-02T06 now"):
        reader.read(moved, [0])


def _golden(shared: Path, **changes: Any) -> Iterator[tuple[Path, dict[str, Any], WeatherZarrReader]]:
    """Each folder of golden records: the windows that are expected, and the reader that cuts them."""
    official = load_manifest().dataset("weatherbench2")
    files = sorted(shared.glob("golden/records*/expected/weatherbench_windows.json"))
    assert files
    for file in files:
        expected = json.loads(file.read_text())
        _, first, last = expected["split"].rsplit("_", 2)
        hours = {"every_hours": expected["stride_h"], "offset_hours": expected["offset_h"], **changes}
        windows = Windows(first=first, last=last, n_frames=32, step_hours=12, **hours)
        split = replace(official.split("offline_dev"), windows=windows)
        reader = open_reader(replace(official, splits={"dev": split}), "dev", file.parents[1])
        assert isinstance(reader, WeatherZarrReader)
        yield file.parent, expected, reader


def test_windows_of_the_golden_store(shared: Path) -> None:
    for _, expected, reader in _golden(shared):
        scan = reader.scan()
        clips = [scan.index.clip(i) for i in range(len(scan.index))]
        assert [clip.id for clip in clips] == expected["starts"]
        ends = [reader.times(reader.time_steps(clip, [31]))[0] for clip in clips]
        assert [str(end) for end in ends] == expected["ends"]
        assert f"{expected['windows']} windows found, the manifest expects 730" in scan.notes[1]
    for _, expected, reader in _golden(shared, every_hours=6, offset_hours=0):
        assert len(reader.scan().index) == expected["stride6_offset0_windows"]


def _require_like(values: np.ndarray, golden: dict[str, np.ndarray], name: str, *, atol: float) -> None:
    """Against a fixture that keeps a part of an array and the moments of all of it (see its README)."""
    assert values.shape == tuple(golden[f"{name}.shape"])
    np.testing.assert_allclose(values[:, 1::7, 1::7], golden[f"{name}.sub"], rtol=0, atol=atol)
    np.testing.assert_allclose(values[0, ::32], golden[f"{name}.frame0_rows"], rtol=0, atol=atol)
    mean = reduce(values.astype(np.float64), "f y x c -> f c", "mean")
    np.testing.assert_allclose(mean, golden[f"{name}.mean"], rtol=1e-9, atol=atol)


def test_values_of_the_golden_store(shared: Path) -> None:
    pixels = load_manifest().dataset("weatherbench2").pixels
    mean, std = (np.array(numbers, np.float32) for numbers in (pixels.mean, pixels.std))
    for folder, windows, reader in _golden(shared):
        with np.load(folder / "weatherbench_eval.npz", allow_pickle=False) as file:
            golden = dict(file)
        index = reader.scan().index
        for record in range(windows["windows"]):
            fields = reader.read(index.clip(record), range(32))
            _require_like(fields[:16], golden, f"{record}/image", atol=0)
            _require_like(fields[16:], golden, f"{record}/future", atol=0)
            standard = rearrange(torch.from_numpy((fields[:16] - mean) / std), "f y x c -> f c y x")
            seen = rearrange(resize_area(standard, 224, 224), "f c y x -> f y x c").numpy()
            _require_like(seen, golden, f"{record}/model_input", atol=3e-4)
