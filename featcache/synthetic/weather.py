"""Three unbroken spells of weather on the globe, in the layout of the benchmark's WeatherBench 2 store.

Planetary waves of fixed shapes and periods travel eastward over a zonal mean; temperature and humidity are
carried by the wind of these waves across their own mean gradients. The coming days follow from where the
waves are and how fast each one moves, which is the same in every block: what is learned on the first days
holds for the years after. A time step is a closed formula of its date, so steps can be made in any order.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from einops import rearrange
from jaxtyping import Complex128, Float, Float32, Int64

from featcache.errors import DataError
from featcache.manifest import Windows, load_manifest
from featcache.synthetic.base import Part, Sizes, in_order, stream

if TYPE_CHECKING:
    import zarr
    from zarr.core.common import JSON
    from zarr.core.metadata import ArrayV2Metadata

VARIABLES = ("geopotential_500", "temperature_850", "specific_humidity_700")
"""Names in the official store; their units are m2/s2, K and kg/kg."""

HOURS_PER_STEP = 6
"""All offsets and strides of the official windows are multiples of it."""

LATITUDES = np.linspace(-90.0, 90.0, 181, dtype=np.float32)
LONGITUDES = np.arange(360, dtype=np.float32)
PHI = np.deg2rad(LATITUDES.astype(np.float64))

EARTH_RADIUS = 6.371e6
EARTH_ROTATION = 7.292e-5
"""Radius in metres, rotation in radians a second."""
STEERING = 0.5
"""Wind that carries heat and moisture, as a share of the wind at 500 hPa."""
PACKING: "dict[str, JSON]" = {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 2, "blocksize": 0}
"""Zarr's Blosc: the bits of equal weight side by side (shuffle 2), then zstd."""
KEPT_BITS = 11
"""Bits kept of the 23 of a float32 fraction; the rest is zero, so that the files stay small."""


BLOCKS = {
    "train": "1979-01-02",
    # The official range begins in the December before, but days of 2017 would belong to `train` as well.
    "offline_dev": "2018-01-01",
    "test": "2020-01-01",
}
"""Split -> start of its block of unbroken steps, for as many days as its windows need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeatherPart(Part):
    """The whole store; its items are the time steps of all blocks, one after another."""

    n_steps: Mapping[str, int]
    """Split -> length of its block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wave:
    """A wave of the 500 hPa surface: its shape and speed are those of every spell of weather."""

    number: int
    """Number of crests around the globe."""
    latitude: float
    """Degrees north where it is strongest; it fades within 15 degrees."""
    period: float
    """Days in which a crest moves on, eastward, to where the next one was."""
    height: float
    """Geopotential of a crest in m2/s2, on average."""

    @property
    def frequency(self) -> float:
        """How fast a crest turns, in radians a second."""
        return 2 * np.pi / (self.period * 86400.0)


WAVES = (
    Wave(number=3, latitude=55.0, period=5.3, height=850.0),
    Wave(number=3, latitude=55.0, period=13.0, height=650.0),
    Wave(number=5, latitude=44.0, period=4.1, height=850.0),
    Wave(number=6, latitude=38.0, period=3.4, height=700.0),
    Wave(number=4, latitude=-52.0, period=4.6, height=900.0),
    Wave(number=6, latitude=-42.0, period=3.7, height=700.0),
    Wave(number=4, latitude=16.0, period=3.3, height=800.0),
    Wave(number=5, latitude=-16.0, period=2.9, height=800.0),
)
"""Heights are set so that spread and 12-hour changes come near those of the real atmosphere."""

Zonal = Float[np.ndarray, "Y"]
Arrays: TypeAlias = "Sequence[zarr.Array[ArrayV2Metadata]]"
Fields = Float32[np.ndarray, "K Y X"]
"""One map for each of `VARIABLES`."""


class Climate:
    """What all spells of weather share: the zonal means, and the shape of each wave in each variable.

    Temperature and humidity are the exact answer of the linear advection equation, with a relaxation
    towards the mean, to a wave: d/dt q + drift d/dlongitude q + v d/dy mean = -q / relaxation.
    """

    def __init__(self) -> None:
        sin, cos = np.sin(PHI), np.cos(PHI)
        fall = 9350.0  # of geopotential from equator to pole; its geostrophic wind turns like a solid body
        self.means = np.stack([58800.0 - fall * sin**2, 296.0 - 43.5 * sin**2, 6.4e-3 * cos**4])
        self._gradients = np.gradient(self.means, EARTH_RADIUS * PHI, axis=1)
        self._drift = STEERING * fall / (EARTH_ROTATION * EARTH_RADIUS**2)
        self.shapes = np.stack([self._shape(wave) for wave in WAVES])

    def _shape(self, wave: Wave) -> Complex128[np.ndarray, "K Y"]:
        """Complex height of a wave at each latitude; poles are calm, where all longitudes are one point."""
        cos = np.cos(PHI)
        packet = np.exp(-0.5 * ((LATITUDES - wave.latitude) / 15.0) ** 2) * (1.0 - np.sin(PHI) ** 2)
        height = wave.height * packet / np.cos(np.deg2rad(wave.latitude)) ** 2
        wind = 1j * wave.number * height * _inverse_coriolis() / (EARTH_RADIUS * np.maximum(cos, 1e-6))
        turning = 1j * (wave.number * self._drift - wave.frequency)
        heat = -wind * self._gradients[1] / (turning + _per_second(days=2.0))
        moisture = -wind * self._gradients[2] / (turning + _per_second(days=4.0))
        return np.stack([height.astype(np.complex128), heat, moisture])


class Spell:
    """The weather of one block: the shared waves, with strengths and starting positions of its own."""

    def __init__(self, climate: Climate, split: str, *, seed: int) -> None:
        rng = stream(seed, "weatherbench2", split)
        strength = rng.uniform(0.7, 1.3, len(WAVES))
        start = rng.uniform(-np.pi, np.pi, len(WAVES))
        self._climate = climate
        self._crests = strength * np.exp(1j * start)
        self._frequency = np.array([wave.frequency for wave in WAVES])
        self._wander_start = rng.uniform(-np.pi, np.pi, len(WAVES))
        self._wander_frequency = 2 * np.pi * _per_second(days=12.0) * rng.uniform(0.8, 1.25, len(WAVES))

    def fields(self, step: int) -> Fields:
        """The maps at time step `step`, latitudes from south to north."""
        seconds = step * HOURS_PER_STEP * 3600.0
        # No wave keeps its pace for ever, so a forecast gets worse the farther it looks.
        wandering = 0.1 * np.sin(self._wander_frequency * seconds + self._wander_start)
        crests = self._crests * np.exp(-1j * (self._frequency * seconds + wandering))
        spectrum = np.zeros((len(VARIABLES), len(LATITUDES), len(LONGITUDES) // 2 + 1), dtype=np.complex128)
        for wave, crest, shape in zip(WAVES, crests, self._climate.shapes, strict=True):
            spectrum[:, :, wave.number] += crest * shape * len(LONGITUDES) / 2
        eddies = np.fft.irfft(spectrum, n=len(LONGITUDES), axis=-1)
        maps = rearrange(self._climate.means, "k y -> k y 1") + eddies
        maps[2] = np.maximum(maps[2], 1e-6)
        return shorten(maps.astype(np.float32))


def shorten(values: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """The values rounded to `KEPT_BITS` of their fraction: 16 m2/s2, 1/8 K, 1e-6 kg/kg."""
    dropped = 23 - KEPT_BITS
    bits = values.view(np.uint32) + np.uint32(1 << (dropped - 1))
    return (bits & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeatherStore:
    """The generated stretch of WeatherBench 2: one Zarr store (version 2), a chunk a variable and step."""

    name: str
    version: int
    profiles: Mapping[str, Sizes]
    """Sizes count windows. `online_dev` reads the steps of `offline_dev` and has none of its own."""

    def parts(self, sizes: Sizes) -> tuple[Part, ...]:
        """The one store that holds all splits."""
        splits = [load_manifest().dataset(self.name).split(split) for split in BLOCKS]
        (path,) = {split.files for split in splits}
        n_steps = {split.name: steps_for(split.windows, sizes[split.name]) for split in splits}
        items = range(sum(n_steps.values()))
        return (WeatherPart(path=path, split=" ".join(BLOCKS), items=items, n_steps=n_steps),)

    def write(self, part: Part, path: Path, *, seed: int, pool: Executor, tick: Callable[[], None]) -> None:
        """Write the store, its time steps made by `pool`.

        Raises:
            DataError: the disk is full, or the path cannot be written.
        """
        assert isinstance(part, WeatherPart), "made by `parts`"
        climate = Climate()
        steps = [
            (spell, step)
            for split, n_steps in part.n_steps.items()
            for spell in [Spell(climate, split, seed=seed)]
            for step in range(n_steps)
        ]
        try:
            arrays = _create_store(path, _hours(part.n_steps))
            for _ in in_order(pool, partial(_write_step, arrays, steps), part.items, tick):
                pass
        except OSError as problem:
            raise DataError(
                f"{path} cannot be written ({problem}): check the disk's free space and the rights."
            ) from None


def steps_for(windows: Windows | None, n_windows: int) -> int:
    """The fewest steps that hold `n_windows` windows of a split, by its rule in the manifest."""
    assert windows is not None, "the shipped manifest has a rule for every split"
    if n_windows == 0:
        return 0
    span = (windows.n_frames - 1) * windows.step_hours + (n_windows - 1) * windows.every_hours
    return 1 + (windows.offset_hours + span) // HOURS_PER_STEP


def _hours(n_steps: Mapping[str, int]) -> Int64[np.ndarray, "time"]:
    """Hours from the first block's start to every time step."""
    starts = {split: np.datetime64(day, "h").astype(np.int64) for split, day in BLOCKS.items()}
    blocks = [starts[split] - starts["train"] + HOURS_PER_STEP * np.arange(n) for split, n in n_steps.items()]
    return np.concatenate(blocks)


def _create_store(path: Path, hours: Int64[np.ndarray, "time"]) -> Arrays:
    """Make the store with its coordinates, and return the empty arrays of `VARIABLES`."""
    import zarr

    root = zarr.create_group(path, zarr_format=2)
    axes = {"time": hours, "latitude": LATITUDES, "longitude": LONGITUDES}
    clock = {"units": f"hours since {BLOCKS['train']} 00:00:00", "calendar": "proleptic_gregorian"}
    for axis, values in axes.items():
        attributes: dict[str, JSON] = {**(clock if axis == "time" else {}), "_ARRAY_DIMENSIONS": [axis]}
        # Readers take the fill value for a gap, and 0 is an hour and a longitude like any other.
        fill = None if axis == "time" else np.nan
        root.create_array(axis, data=values, chunks=values.shape, fill_value=fill, attributes=attributes)
    arrays = [
        root.create_array(
            variable,
            shape=tuple(map(len, axes.values())),
            chunks=(1, len(LATITUDES), len(LONGITUDES)),
            dtype=np.float32,
            compressors=PACKING,
            fill_value=np.nan,
            attributes={"_ARRAY_DIMENSIONS": list(axes)},
        )
        for variable in VARIABLES
    ]
    zarr.consolidate_metadata(path, zarr_format=2)
    return arrays


def _write_step(arrays: Arrays, steps: list[tuple[Spell, int]], item: int) -> None:
    spell, step = steps[item]
    for array, values in zip(arrays, spell.fields(step), strict=True):
        array[item] = values


def _per_second(*, days: float) -> float:
    return 1.0 / (days * 86400.0)


def _inverse_coriolis() -> Zonal:
    """1 / (Coriolis parameter) in seconds, held back within 12 degrees of the equator."""
    coriolis = 2 * EARTH_ROTATION * np.sin(PHI)
    floor = 2 * EARTH_ROTATION * np.sin(np.deg2rad(12.0))
    return np.asarray(coriolis / (coriolis**2 + floor**2))


WEATHER = WeatherStore(
    name="weatherbench2",
    version=1,
    profiles={
        "demo": {"train": 88, "offline_dev": 8, "test": 8},
        "tiny": {"train": 4, "offline_dev": 2, "test": 2},
    },
)
