"""Real recordings through the real commands: typhoon images, endoscopy and rendered video, reanalysis.

Samples of real data are rewritten into the official layout, extracted with the demo's networks, and read out
for a few steps. What is checked is not skill, which so few clips cannot show, but that what comes out is what
was put in: frames, targets, baselines whose score follows from the data, and pictures on the page.

What the samples lack is made up, and said so where it is made: MOVi's tracks, STIR's end points, humidity.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from PIL import Image, ImageSequence

from cli import extract, report, train_readout, validate
from featcache.backbones import load_backbone
from featcache.clips import ClipIndex
from featcache.data.readers import open_reader
from featcache.data.readers.base import FieldReader, Reader
from featcache.data.views import View, clip_pixels
from featcache.manifest import Dataset, Manifest, load_manifest
from featcache.spec import ClipSpec
from featcache.store.feature_store import FeatureStore, find_stores, open_features
from featcache.synthetic.records import encode_sequence_example, encode_tensor, write_records
from readouts.heads.tracking import as_tracks
from readouts.metrics.area import latitude_weights
from readouts.results.baselines import score_baselines
from readouts.results.per_clip import read_predictions
from readouts.results.run_folder import RunFolder
from readouts.results.table import load_results
from readouts.tasks import load_task


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    folder = shared / "real"
    if not folder.is_dir():
        pytest.skip(f"no real samples at {folder}")
    return folder


@dataclass(frozen=True, kw_only=True)
class Passed:
    """What the commands left of one task: extract, validate, train-readout, report."""

    task: str
    folder: Path
    manifest: Manifest

    @cached_property
    def stores(self) -> dict[str, FeatureStore]:
        found = find_stores(self.folder / "features", self.task)
        return {store.attrs["role"]: open_features(store.path) for store in found}

    @cached_property
    def page(self) -> str:
        return (self.folder / "report.html").read_text()

    def reader(self, role: str) -> tuple[Reader, ClipIndex]:
        name, split = self.manifest.task(self.task).source_of(role)
        reader = open_reader(self.manifest.dataset(name), split, self.folder / "data")
        return reader, reader.scan().index

    def targets(self, role: str, name: str) -> np.ndarray:
        return self.stores[role].targets.read(name)

    def tokens(self, role: str, clip: int = 0, view: int = 0) -> np.ndarray:
        stored: np.ndarray = self.stores[role].read([clip], views=view)[0]
        return stored.astype(np.float32)

    def baselines(self) -> dict[str, dict[str, float]]:
        train, val = self.stores["train"].targets, self.stores["val"].targets
        assert train is not None
        assert val is not None
        clips = np.arange(self.stores["val"].spec.n_clips)
        return score_baselines(load_task(self.task, self.manifest), train, val, clips)

    def rows(self) -> list[dict[str, Any]]:
        return load_results(self.folder / "results")

    def predictions(self) -> Mapping[str, np.ndarray]:
        return read_predictions(RunFolder.of(self.folder / "results", self.rows()[0]), "val")[1]


def pass_through(
    folder: Path, task: str, backbone: str, settings: list[str], manifest: Path | None = None
) -> Passed:
    cache, results = folder / "features", folder / "results"
    extract(
        backbone=backbone, task=task, split="train,val", device="cpu", batch=4,
        data_dir=folder / "data", cache_dir=cache, manifest=manifest,
    )  # fmt: skip
    validate(store=[store.path for store in find_stores(cache)])
    train_readout(
        backbone=backbone, task=task, set_=["steps=3", "batch=2", *settings], device="cpu",
        cache_dir=cache, results_dir=results, manifest=manifest,
    )  # fmt: skip
    report(out=folder / "report.html", results_dir=results, cache_dir=cache, manifest=manifest)
    return Passed(task=task, folder=folder, manifest=load_manifest(manifest))


def write_shard(data_dir: Path, dataset: Dataset, split: str, records: Iterable[bytes]) -> None:
    path = data_dir / dataset.split(split).files.format(shard=0, n_shards=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, records)


def frames_of(gif: Path) -> np.ndarray:
    with Image.open(gif) as image:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


def png(frame: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


# Typhoon: three sequences of the real archive, with the best track's pressure at each image.

STORMS = {"train": ("200717", "200718"), "val": ("198702",)}
"""The images of 1987 have lost lines."""


def storm(real: Path, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kelvin [32, 256, 256], best track [32, (grade, lat, lng, pressure, wind)], and hours as yyyymmddhh."""
    with np.load(real / "typhoon" / "typhoon_3seq_256.npz", allow_pickle=False) as arrays:
        tenths = np.cumsum(arrays[f"{key}/kelvin_x10_hdelta"], axis=-1, dtype=np.uint16)
        kelvin = (tenths / 10).astype(np.float32)
        return kelvin, arrays[f"{key}/grade_lat_lng_pressure_wind"], arrays[f"{key}/time"]


def storm_record(real: Path, key: str, names: Mapping[str, str]) -> bytes:
    kelvin, track, hours = storm(real, key)
    grade, latitude, longitude, pressure, wind = track.T
    dates = {"year": (0, 4), "month": (4, 6), "day": (6, 8), "hour": (8, 10)}
    steps = {
        names["series"]: pressure, "grade": grade.astype(np.int64),
        "lat": latitude, "lon": longitude, "wind": wind,
        **{name: np.array([int(hour[a:b]) for hour in hours]) for name, (a, b) in dates.items()},
    }  # fmt: skip
    return encode_sequence_example(
        {names["sequence"]: (key.encode(),)},
        {
            names["values"]: [rearrange(frame, "y x -> (y x)") for frame in kelvin],
            **{name: list(rearrange(values, "f -> f 1")) for name, values in steps.items()},
        },
    )


@pytest.fixture(scope="module")
def typhoon(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Passed:
    folder = tmp_path_factory.mktemp("typhoon")
    dataset = load_manifest().dataset("digital_typhoon")
    for split, keys in STORMS.items():
        records = [storm_record(real, key, dataset.features) for key in keys]
        write_shard(folder / "data", dataset, split, records)
    settings = ["lr=1e-3", "minival_every=3", "width=32"]
    return pass_through(folder, "typhoon", "videomae_random", settings)


@pytest.mark.parametrize("role", STORMS)
def test_images_and_pressures_are_those_of_the_archive(typhoon: Passed, real: Path, role: str) -> None:
    reader, index = typhoon.reader(role)
    series, n_views = typhoon.targets(role, "series"), 8 if role == "train" else 1
    assert series.shape == (len(STORMS[role]), n_views, 24)
    for number, key in enumerate(STORMS[role]):
        kelvin, track, _ = storm(real, key)
        np.testing.assert_array_equal(reader.read(index.clip(number), range(32))[..., 0], kelvin)
        for view in range(n_views):
            np.testing.assert_array_equal(series[number, view], track[view : view + 24, 3])


def test_lost_lines_of_1987_stay_in_range(typhoon: Passed) -> None:
    reader, index = typhoon.reader("val")
    kelvin = reader.read(index.clip(0), range(12))
    assert kelvin.min() < 100 < 330 < kelvin.max()  # no cloud is so cold, no sea so warm
    entry, dataset = typhoon.manifest.task("typhoon"), typhoon.manifest.dataset("digital_typhoon")
    pixels = clip_pixels(torch.from_numpy(kelvin), entry.clip, View(), dataset.pixels)
    assert pixels.shape == (16, 3, 256, 256)
    assert pixels.min() == 0.0
    assert pixels.max() == 1.0
    assert np.isfinite(typhoon.tokens("val")).all()


def test_pressure_baselines_follow_from_the_track_and_are_drawn(typhoon: Passed) -> None:
    baselines = typhoon.baselines()
    # 1004 hPa in hours 12 to 21, 1003 in hour 24, and the score averages 1, 2, 3, 6 and 12 hours ahead.
    assert baselines["last input value"]["pressure/rmse"] == pytest.approx(1 / 5, abs=1e-4)
    assert 0 < baselines["training mean"]["pressure/rmse"] < 15
    assert {row["readout"] for row in typhoon.rows()} == {"linear", "attention"}
    # Heads begin at the train split's mean, some 20 hPa below these storms, and three steps move them little.
    assert all(10 < row["val"] < 40 for row in typhoon.rows())
    assert "Pressure against time" in typhoon.page
    assert "Error against lead time" in typhoon.page


# Tracking: a real endoscopy video for STIR, three rendered ones for MOVi-E.

ENDOSCOPE = slice(56, 328)
"""Columns of the published animation that are no black bar."""
EVENLY_SPACED = [0, 4, 8, 12, 16, 20, 24, 28, 31, 35, 39, 43, 47, 51, 55, 59]
"""16 of 60 frames, 59 / 15 apart and rounded."""
GRID = np.stack(np.meshgrid(np.linspace(0.1, 0.9, 5), np.linspace(0.125, 0.875, 4)), -1).reshape(20, 2)
N_TRACKS = 128


def endoscopy(real: Path) -> np.ndarray:
    """[60, 512, 512, 3]; the frames are as wide for their height as STIR's own."""
    seen = frames_of(real / "scivid_assets" / "stir_tracking_example.gif")[:, :, ENDOSCOPE]
    images = (Image.fromarray(frame).resize((512, 512), Image.Resampling.BILINEAR) for frame in seen)
    return np.stack([np.asarray(image) for image in images])


def tissue_record(frames: np.ndarray, names: Mapping[str, str]) -> bytes:
    """The end points are made up: the video comes without, so they are the query points."""
    x, y = GRID.T
    context = {
        names["start_x"]: x, names["start_y"]: y, names["end_x"]: x, names["end_y"]: y,
        names["video"]: np.array([0]), names["duration"]: np.array([3.0]),
    }  # fmt: skip
    return encode_sequence_example(context, {names["image"]: [(png(frame),) for frame in frames]})


def scene_record(frames: np.ndarray, names: Mapping[str, str], rng: np.random.Generator) -> bytes:
    """The tracks are made up, points that stay where they are: the animations come without, and a task
    without a train split cannot be trained.
    """
    tracks = encode_tensor(rng.random((N_TRACKS, 2), np.float32))
    seen = encode_tensor(np.ones(N_TRACKS, np.float32))
    steps = {
        names["image"]: [(png(frame),) for frame in frames],
        names["tracks"]: [(tracks,)] * len(frames),
        names["visibility"]: [(seen,)] * len(frames),
    }
    return encode_sequence_example({}, steps)


@pytest.fixture(scope="module")
def tissue(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Passed:
    folder, rng = tmp_path_factory.mktemp("stir"), np.random.default_rng(0)
    stir, movi = (load_manifest().dataset(name) for name in ("stir", "movi"))
    write_shard(folder / "data", stir, "full_val", [tissue_record(endoscopy(real), stir.features)])
    scenes = [frames_of(real / "movi_e" / f"movi_e_{number}.gif") for number in (1, 2, 3)]
    records = [scene_record(frames, movi.features, rng) for frames in scenes]
    write_shard(folder / "data", movi, "train", records)
    settings = ["lr=1e-3", "minival_every=3", "width=32", "temporal_tiles=1", "n_bases=5"]
    return pass_through(folder, "stir", "videomae_random_s", settings)


def test_endoscopy_tokens_are_those_of_16_evenly_spaced_frames(tissue: Passed, real: Path) -> None:
    frames = endoscopy(real)
    reader, index = tissue.reader("val")
    np.testing.assert_array_equal(reader.read(index.clip(0), range(60)), frames)
    stored = tissue.tokens("val")
    expected, others = (tokens_of(frames[chosen]) for chosen in (EVENLY_SPACED, range(16)))
    np.testing.assert_allclose(stored, expected, atol=0.01)
    assert np.abs(stored - others).max() > 0.5


def tokens_of(frames: np.ndarray) -> np.ndarray:
    """Without the views' code: bilinear to 224 x 224, 0 to 1, network."""
    backbone = load_backbone("videomae_random_s")
    pixels = rearrange(torch.from_numpy(frames), "f y x c -> f c y x").float()
    pixels = F.interpolate(pixels, size=(224, 224), mode="bilinear", align_corners=False) / 255
    encode = backbone.load(backbone.info.default_layers, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        (tokens,) = encode(pixels[None]).values()
    return np.asarray(tokens[0])


def test_rendered_scenes_give_a_view_a_window(tissue: Passed, real: Path) -> None:
    reader, index = tissue.reader("train")
    second = frames_of(real / "movi_e" / "movi_e_2.gif")
    np.testing.assert_array_equal(reader.read(index.clip(1), range(24)), second)
    assert (tissue.stores["train"].spec.n_clips, tissue.stores["train"].spec.n_views) == (3, 9)
    np.testing.assert_allclose(tissue.tokens("train", 1, view=8), tokens_of(second[8:24]), atol=0.01)
    tracks = tissue.targets("train", "tracks")
    assert tracks.shape == (3, 24, N_TRACKS, 2)
    assert 0 <= tracks.min() < tracks.max() <= 1


def test_tracks_of_endoscopy_stay_in_the_frame_and_are_drawn(tissue: Passed) -> None:
    outputs = torch.from_numpy(tissue.predictions()["tracking"])
    assert outputs.shape == (1, 16, 34, 4)
    assert outputs.isfinite().all()
    points = as_tracks(outputs).points
    assert 0 <= points.min() < points.max() <= 1
    # Its points do not move, by construction.
    assert tissue.baselines()["points do not move"]["average_over_thresholds"] == 1.0
    assert "How far predicted end points are" in tissue.page
    assert "First and last frame." in tissue.page


# Weather: ten members of a real reanalysis, 4 times 12 hours apart, on 3 degrees.

N_MEMBERS, N_TIMES = 10, 4
WINDOWS = "{first: '2017-01-01', last: '2017-01-20', n_frames: 32, step_hours: 12"
OVERLAY = f"""
format: 1
datasets:
  weatherbench2:
    splits:
      train: {{windows: {WINDOWS}, every_hours: 48}}}}
      offline_dev: {{windows: {WINDOWS}, every_hours: 12, offset_hours: 96}}}}
"""


def reanalysis(real: Path) -> dict[str, np.ndarray]:
    """Z500 (m2/s2) and T850 (K) [member, time, latitude from the south, longitude] as stored, 61 x 120."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optional libraries of its own
        pytest.importorskip("cfgrib", reason="cfgrib reads the reanalysis sample, which is GRIB")
        import xarray as xr

        file = real / "weather" / "era5-levels-members.grib"
        with xr.open_dataset(file, engine="cfgrib", backend_kwargs={"indexpath": ""}) as opened:
            fields = {
                "geopotential_500": opened["z"].sel(isobaricInhPa=500),
                "temperature_850": opened["t"].sel(isobaricInhPa=850),
            }
            return {name: np.asarray(field.values)[:, :, ::-1] for name, field in fields.items()}


def stand_in_humidity(kelvin: np.ndarray) -> np.ndarray:
    """Made up, as the sample holds none: half of what air 9 K colder than at 850 hPa can hold at 700 hPa,
    in kg/kg, by Magnus' formula.
    """
    celsius = kelvin - 9 - 273.15
    return 0.5 * 0.622 / 700 * 6.112 * np.exp(17.62 * celsius / (243.12 + celsius))


def to_one_degree(fields: np.ndarray) -> np.ndarray:
    """Bilinear from 3 degrees; the last meridian's neighbour to the east is the first."""
    east, north = (np.arange(n) / 3 for n in (360, 181))
    whole = np.concatenate([fields, fields[..., :1]], axis=-1)
    across, along = (
        np.maximum(0, 1 - np.abs(places[:, None] - np.arange(n))) for places, n in ((north, 61), (east, 121))
    )
    rows = einsum(whole, across, "... y x, row y -> ... row x")
    finer: np.ndarray = einsum(rows, along, "... row x, column x -> ... row column")
    return finer.astype(np.float32)


@pytest.fixture(scope="module")
def weather_fields(real: Path) -> np.ndarray:
    """[step, 181, 360, variable]: one member after the other, so only steps of a member follow each other."""
    fields = {name: to_one_degree(values) for name, values in reanalysis(real).items()}
    fields["specific_humidity_700"] = stand_in_humidity(fields["temperature_850"]).astype(np.float32)
    names = load_manifest().dataset("weatherbench2").variables
    members = np.stack([fields[name] for name in names], axis=-1)
    return rearrange(members, "member time y x c -> (member time) y x c")


@pytest.fixture(scope="module")
def weather(weather_fields: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Passed:
    import xarray as xr

    folder = tmp_path_factory.mktemp("weather")
    overlay = folder / "manifest.yaml"
    overlay.write_text(OVERLAY)
    dataset = load_manifest(overlay).dataset("weatherbench2")
    axes = ("time", "latitude", "longitude")
    hours = 12 * np.arange(N_MEMBERS * N_TIMES)
    store = xr.Dataset(
        {name: (axes, weather_fields[..., i]) for i, name in enumerate(dataset.variables)},
        coords={
            "time": np.datetime64("2017-01-01T00", "ns") + hours.astype("timedelta64[h]"),
            "latitude": np.arange(-90.0, 91.0), "longitude": np.arange(360.0),
        },
    )  # fmt: skip
    store.to_zarr(
        folder / "data" / dataset.split("train").files, zarr_format=2, consolidated=False,
        encoding={name: {"chunks": (1, 181, 360)} for name in dataset.variables},
    )  # fmt: skip
    settings = ["lr=1e-3", "warmup=1", "minival_every=3", "features=8", "head_channels=8"]
    return pass_through(folder, "weatherbench2", "videomae_random_s", settings, overlay)


def test_fields_are_those_of_the_reanalysis(weather: Passed, weather_fields: np.ndarray, real: Path) -> None:
    reader, index = weather.reader("val")
    assert isinstance(reader, FieldReader)
    np.testing.assert_array_equal(reader.fields(np.arange(40)), weather_fields)
    assert len(index) == 1
    np.testing.assert_array_equal(reader.read(index.clip(0), range(16)), weather_fields[8:24])
    np.testing.assert_array_equal(
        weather.targets("val", "fields")[weather.targets("val", "places")[0]], weather_fields[23:40]
    )
    for i, stored in enumerate(reanalysis(real).values()):
        on_three_degrees = rearrange(weather_fields[:, ::3, ::3, i], "(m t) y x -> m t y x", m=N_MEMBERS)
        np.testing.assert_allclose(on_three_degrees, stored, rtol=1e-6)


def test_the_benchmarks_statistics_fit_the_reanalysis(weather: Passed, weather_fields: np.ndarray) -> None:
    pixels = weather.manifest.dataset("weatherbench2").pixels
    shown = clip_pixels(
        torch.from_numpy(weather_fields[:16]), ClipSpec(height=181, width=360), View(), pixels
    )
    std, mean = torch.std_mean(shown, dim=(0, 2, 3))
    # Two days of January against 39 years, every cell alike; the humidity is a stand-in.
    assert mean[:2].abs().max() < 0.1
    assert (std[:2] - 1).abs().max() < 0.1
    assert mean[2].abs() < 1
    assert 0.3 < std[2] < 3
    members = rearrange(weather_fields, "(m t) y x c -> m t y x c", m=N_MEMBERS)
    areas = latitude_weights(181).numpy()[:, None, None]
    change = np.sqrt((np.diff(members, axis=1) ** 2 * areas).mean(axis=(0, 1, 2, 3)))
    # From 12 hours to the next within a member; the benchmark's deviations are 404 m2/s2 and 2.46 K.
    assert change[0] == pytest.approx(404, rel=0.3)
    assert change[1] == pytest.approx(2.46, rel=0.3)


def test_persistence_repeats_itself_with_the_members(weather: Passed) -> None:
    persistence = weather.baselines()["persistence"]
    z500 = [persistence[f"Z500/t={lead}/rmwse"] for lead in range(16)]
    # The last input is a member's last time, and every fourth field to forecast is of that very hour.
    same_hour = z500[3::4]
    assert max(same_hour) < 0.25 * min(set(z500) - set(same_hour))
    assert 100 < persistence["Z500/rmwse"] < 1500
    assert 0.5 < persistence["T850/rmwse"] < 10


def test_weather_forecasts_are_finite_and_drawn(weather: Passed) -> None:
    assert weather.stores["train"].spec.n_clips == 3
    assert np.isfinite(weather.tokens("train", 2)).all()
    outputs = weather.predictions()["dpt"]
    assert outputs.shape == (1, 16, 181, 360, 3)
    assert np.isfinite(outputs).all()
    assert outputs.any()  # three steps away from persistence, where a new head begins
    assert "Z500: truth, forecast, errors" in weather.page
    assert "T850: error against lead time" in weather.page
