"""Typhoons in infrared, in the layout of the Digital Typhoon records: hourly 256 x 256 kelvin, and pressure.

A typhoon has an intensity that swells and fades. Its cloud shield gets colder and larger with it, an eye
opens, and the whole turns faster; the pressure is a straight line of it. One image tells the pressure of its
own hour. What comes in the next 12 hours depends on whether it is getting stronger or weaker, and that only
the order of the images tells.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, Int

from featcache.manifest import Dataset
from featcache.synthetic.base import stream
from featcache.synthetic.drawing import mottle
from featcache.synthetic.records import encode_sequence_example
from featcache.synthetic.videos import VideoSet

NAME = "digital_typhoon"
SIDE = 256
N_HOURS = 32
"""12 hours to see and 12 to foresee, at any of the 8 starts of a training clip."""
SHORT = {("train", 1): 20}
"""Items that end early, as some of the release do: readers repeat their last hour."""

CALM_PRESSURE = 1008.0
PRESSURE_FALL = 85.0
"""hPa from no typhoon to one of intensity 1; none goes beyond 1.15."""
PERIOD = 66.0
"""Hours of a swelling and fading: the change over the 12 hours seen has to decide the next 12."""

COLDEST = 182.0
"""Kelvin of the highest cloud tops."""
N_ANGLES = 1024
N_WAVENUMBERS = 20
"""Arms and blots around the centre."""
RINGS = 182
"""Pixels from the centre to a corner, and one."""

SPLITS = ("train", "val", "test")
FAULTS = (-19.1, 337.0)
"""Kelvin of the invalid pixels in images from before 1990."""

Series = Float[np.ndarray, "F"]
"""A number for each hour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Storm:
    """What one typhoon does, hour by hour."""

    intensity: Series
    pressure: Series
    """Pressure at the centre in hPa."""
    turn: Series
    """Radians by which its clouds have turned, anticlockwise as in the north."""


def storm_of(split: str, index: int, *, seed: int) -> Storm:
    """The course of item `index` of `split`."""
    return draw_storm(stream(seed, NAME, split, index, "storm"), SHORT.get((split, index), N_HOURS))


def record(split: str, index: int, *, seed: int, dataset: Dataset) -> bytes:
    """One serialised SequenceExample: a typhoon, a step an hour."""
    random = partial(stream, seed, NAME, split, index)
    storm, key = storm_of(split, index, seed=seed), sequence_key(split, index)
    frames = draw_frames(storm, random("clouds"))
    if int(key[:4]) < 1990:
        _spoil(frames, random("faults"))
    dates = _dates(key, len(frames), random("dates"))
    features = dataset.features
    steps = {features["series"]: storm.pressure, **_track(storm, random("track")), **dates}
    return encode_sequence_example(
        context={features["sequence"]: (key.encode(),)},
        sequences={
            features["values"]: [rearrange(frame, "y x -> (y x)") for frame in frames],
            **{name: list(rearrange(values, "f -> f 1")) for name, values in steps.items()},
        },
    )


def draw_storm(rng: np.random.Generator, n_hours: int) -> Storm:
    """A course of intensity: a piece of a swing, and from hour 12 on a change of pace nobody can foresee."""
    hour = np.arange(n_hours)
    swing = rng.uniform(0.3, 0.41) * np.sin(2 * np.pi * (hour / PERIOD + rng.random()))
    surprise = rng.normal(0.0, 0.003) * np.clip(hour - 12, 0, None)
    intensity = np.clip(0.6 + rng.normal(0.0, 0.03) + swing + surprise, 0.02, 1.15)
    pressure = CALM_PRESSURE - PRESSURE_FALL * intensity + rng.normal(0.0, 0.4, n_hours)
    turn = rng.uniform(-np.pi, np.pi) + np.cumsum(0.03 + 0.16 * intensity)
    return Storm(intensity=intensity, pressure=np.round(pressure, 1), turn=turn)


def draw_frames(storm: Storm, rng: np.random.Generator) -> Float32[np.ndarray, "F Y X"]:
    """The brightness temperatures, in whole kelvin, as the satellites' are."""
    ring, angle = _polar_grid()
    clouds, haze = _pattern(rng, twist=2.6), 3.0 * mottle(rng, SIDE, SIDE, cell=28.0)
    haze -= haze.mean()
    sea = rng.uniform(289.0, 291.0) + haze
    radius = np.arange(RINGS, dtype=np.float32)
    frames = np.empty((len(storm.intensity), SIDE, SIDE), dtype=np.float32)
    for frame, intensity, turn in zip(frames, storm.intensity, storm.turn, strict=True):
        cooling = rearrange(_shield(radius, float(intensity)), "r -> r 1") * (1.0 + 0.35 * clouds)
        position = (angle - round(turn * N_ANGLES / (2 * np.pi))) % N_ANGLES
        frame[:] = np.round(np.maximum(sea - cooling[ring, position], COLDEST))
    return frames


def _shield(radius: Float32[np.ndarray, "R"], intensity: float) -> Float32[np.ndarray, "R"]:
    """Kelvin by which the clouds are colder than the sea, at each distance from the centre in pixels.

    Depth and area are chosen so that the mean over the image is close to a straight line of the intensity.
    """
    depth = 104.0 * (1.0 - np.exp(-intensity / 0.7))
    reach = 96.0 * np.sqrt(0.55 + 0.45 * intensity)
    eye = np.clip((intensity - 0.35) / 0.4, 0.0, 1.0) * np.exp(-0.5 * (radius / 6.0) ** 4)
    return np.asarray(depth * np.exp(-((radius / reach) ** 2)) * (1.0 - 0.85 * eye), dtype=np.float32)


def _pattern(rng: np.random.Generator, *, twist: float) -> Float32[np.ndarray, "R A"]:
    """Random spiral clouds of mean 0 on every ring, without a seam: a Fourier series in the angle.

    `twist` is how many radians the arms wind back each time the radius grows by a factor e.
    """
    number = np.arange(1, N_WAVENUMBERS + 1)
    # Columns a cell apart have nothing to do with each other.
    real, imaginary = (mottle(rng, RINGS, 10 * N_WAVENUMBERS, cell=10.0)[:, ::10] for _ in range(2))
    wound = np.exp(1j * number * twist * np.log1p(np.arange(RINGS) / 20.0)[:, None])
    spectrum = np.zeros((RINGS, N_ANGLES // 2 + 1), dtype=np.complex128)
    spectrum[:, number] = (real + 1j * imaginary) * wound / number * N_ANGLES / 2
    clouds = np.clip(np.fft.irfft(spectrum, n=N_ANGLES, axis=1), -1.6, 1.6)
    return np.asarray(clouds - clouds.mean(axis=1, keepdims=True), dtype=np.float32)


def _polar_grid() -> tuple[Int[np.ndarray, "Y X"], Int[np.ndarray, "Y X"]]:
    """Number of the ring and of the angle that each pixel lies on; row 0 is north."""
    offset = np.arange(SIDE) - (SIDE - 1) / 2
    north, east = -offset[:, None], offset[None, :]
    ring = np.hypot(north, east).astype(np.int64)
    angle = np.round(np.arctan2(north, east) * N_ANGLES / (2 * np.pi)).astype(np.int64)
    return ring, angle


def sequence_key(split: str, index: int) -> str:
    """Season and number, as the release names its typhoons; no two items of a data set share it."""
    position = index * len(SPLITS) + SPLITS.index(split)
    return f"{1978 + position % 45}{1 + position // 45:02d}"


def _dates(key: str, n_hours: int, rng: np.random.Generator) -> dict[str, Int[np.ndarray, "F"]]:
    """Year, month, day and hour of each step, in the season that `key` begins with."""
    first = np.datetime64(key[:4], "h") + np.timedelta64(int(rng.integers(150 * 24, 320 * 24)), "h")
    hours = first + np.arange(n_hours)
    days, months, years = (hours.astype(f"datetime64[{unit}]") for unit in "DMY")
    return {
        "year": years.astype(np.int64) + 1970,
        "month": (months - years).astype(np.int64) + 1,
        "day": (days - months).astype(np.int64) + 1,
        "hour": (hours - days).astype(np.int64),
    }


def _track(storm: Storm, rng: np.random.Generator) -> dict[str, Int[np.ndarray, "F"] | Series]:
    """Wind (knots) and grade as the pressure has them; latitude and longitude (degrees) north-westward."""
    hour = np.arange(len(storm.pressure))
    # Atkinson and Holliday, 1977
    wind = np.round(6.7 * np.clip(1010.0 - storm.pressure, 0.0, None) ** 0.644)
    return {
        "wind": np.where(wind < 34.0, 0.0, wind),  # best tracks give none below 34 knots
        "grade": np.digitize(wind, [34.0, 48.0, 64.0]) + 2,
        "lat": rng.uniform(11.0, 24.0) + rng.uniform(0.03, 0.15) * hour,
        "lon": rng.uniform(124.0, 158.0) - rng.uniform(0.0, 0.2) * hour,
    }


def _spoil(frames: Float32[np.ndarray, "F Y X"], rng: np.random.Generator) -> None:
    """Values no cloud has, as old images of the release hold them: lost pixels, and lost pieces of lines."""
    for frame, row, column in zip(
        frames, rng.integers(0, SIDE, len(frames)), rng.integers(0, SIDE - 12, len(frames)), strict=True
    ):
        frame[row, column : column + 12] = FAULTS[int(row) % len(FAULTS)]


TYPHOON = VideoSet(
    name=NAME,
    version=1,
    make=record,
    profiles={
        "demo": {"train": 48, "val": 16, "test": 16},
        "tiny": {"train": 4, "val": 2, "test": 2},
    },
    n_shards={"train": 4, "val": 2, "test": 2},
    empty_shard={"val": 1},
)
