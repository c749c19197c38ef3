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
from featcache.manifest import Dataset, Split, Windows, load_manifest
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


def test_rows_keep_the_stored_order(tmp_path: Path) -> None:
    for north_first, word in ((False, "south to north"), (True, "north to south")):
        write_store(tmp_path / str(north_first) / "weather" / "era.zarr", north_first=north_first)
        reader = opened(tmp_path / str(north_first))
        assert reader.latitude[0] == (90 if north_first else -90)
        assert reader.longitude.tolist() == list(range(0, 360, 10))
        assert reader.latitude.dtype == reader.longitude.dtype == np.float32
        np.testing.assert_array_equal(reader.fields(np.array([3]))[0, :, :, 1], value(27, 1))
        assert f"rows from {word}" in reader.scan().notes[0]


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


@pytest.mark.parametrize("damage", ["no metadata", "no json", "no time units"])
def test_a_store_that_cannot_be_opened(store: Path, damage: str) -> None:
    if damage == "no metadata":
        (store / ".zgroup").unlink()
    elif damage == "no json":
        (store / "warmth" / ".zarray").write_text("{")
    else:
        path = store / "time" / ".zattrs"
        path.write_text(path.read_text().replace("hours since", "hours since soon, not"))
    with pytest.raises(
        UnreadableFileError, match=r"era\.zarr, all: it cannot be opened as Zarr \(.+Get it: mkdir"
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
    assert "Get it: mkdir -p" in str(problem.value)


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
    with pytest.raises(UnreadableFileError, match=rf"{name} cannot be decoded \(.*Get it: mkdir"):
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
