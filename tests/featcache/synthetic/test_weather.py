"""The store as xarray sees it, its dates, the physics of the fields, and that a forecast can be learned."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from einops import einsum, rearrange, reduce

from featcache.manifest import load_manifest
from featcache.resampling import area_operator
from featcache.synthetic import generate
from featcache.synthetic.weather import LATITUDES, VARIABLES, WAVES, WEATHER, Climate, Spell, shorten

STORE = "full/weatherbench/weatherbench2_3variable_dataset.zarr"
SIZE = {"train": 2, "offline_dev": 1, "test": 1}

MEAN = np.array([54088.7, 274.390, 2.41466e-3])
STD = np.array([3358.65, 15.6915, 2.53973e-3])
CHANGE = np.array([404.188, 2.45751, 1.20861e-3])
"""The benchmark's constants: mean, spread, and spread of the changes in 12 hours."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weather")
    generate("weatherbench2", folder, profile=SIZE)
    return folder


@pytest.fixture(scope="module")
def spell() -> np.ndarray:
    """The first 12 days: [step, variable, latitude, longitude]."""
    weather = Spell(Climate(), "train", seed=0)
    return np.stack([weather.fields(step) for step in range(48)])


def digests(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file()
    }


def seen_by_xarray(path: Path) -> dict[str, Any]:
    """What a reader relies on, of each variable and coordinate."""
    xarray = pytest.importorskip("xarray")
    found = {}
    for name, variable in xarray.open_zarr(path).variables.items():
        encoding = {key: variable.encoding.get(key) for key in ("_FillValue", "filters", "calendar", "dtype")}
        chunk = variable.encoding["chunks"][1:]
        unit = str(variable.encoding.get("units")).partition(" since ")[0]
        found[name] = (variable.dims, variable.dtype, variable.attrs, str(encoding), chunk, unit)
    return found


def test_xarray_sees_the_layout_of_the_reference(data_dir: Path, shared: Path) -> None:
    xarray = pytest.importorskip("xarray")
    golden, ours = shared / "golden/records" / STORE, data_dir / STORE
    assert seen_by_xarray(ours) == seen_by_xarray(golden)
    for axis in ("latitude", "longitude"):
        np.testing.assert_array_equal(xarray.open_zarr(ours)[axis], xarray.open_zarr(golden)[axis])
    ours_names = {path for path in digests(ours) if not path.rpartition("/")[2][0].isdecimal()}
    assert ours_names == {path for path in digests(golden) if not path.rpartition("/")[2][0].isdecimal()}


def test_every_step_is_written(data_dir: Path) -> None:
    xarray = pytest.importorskip("xarray")
    store = xarray.open_zarr(data_dir / STORE)
    weather = Spell(Climate(), "offline_dev", seed=0)
    np.testing.assert_array_equal(
        np.stack([store[name].sel(time="2018-01-01T06").values for name in VARIABLES]), weather.fields(1)
    )
    assert np.isfinite(store["geopotential_500"].values).all()


def test_the_dates_hold_just_the_windows_asked_for(data_dir: Path) -> None:
    xarray = pytest.importorskip("xarray")
    time = xarray.open_zarr(data_dir / STORE)["time"]
    dataset = load_manifest().dataset("weatherbench2")
    for name, n_windows in {"online_dev": 1, **SIZE}.items():
        split = dataset.split(name).windows
        assert split is not None
        block = time.sel(time=slice(split.first, split.last))
        assert set(np.diff(block).astype("timedelta64[h]").astype(int)) == {6}
        span = (split.n_frames - 1) * split.step_hours
        last = 6 * (len(block) - 1) - split.offset_hours - span
        assert last // split.every_hours + 1 == n_windows


def test_sizes_by_hand() -> None:
    # 62 six-hour steps from the first to the last frame of a window; offsets 0, 18 and 12 hours
    (part,) = WEATHER.parts({"train": 88, "offline_dev": 8, "test": 8})
    assert len(part.items) == (62 + 87 + 1) + (62 + 3 + 14 + 1) + (62 + 2 + 14 + 1)
    assert len(WEATHER.parts({"train": 1, "offline_dev": 0, "test": 0})[0].items) == 63


def test_a_larger_store_holds_the_steps_of_a_smaller_one(data_dir: Path, tmp_path: Path) -> None:
    made = generate("weatherbench2", tmp_path, profile={"train": 1})
    assert made.n_bytes == sum(p.stat().st_size for p in (tmp_path / STORE).rglob("*") if p.is_file())
    steps = {
        name: digest
        for name, digest in digests(tmp_path / STORE).items()
        if name.startswith(VARIABLES) and "/." not in name
    }
    assert len(steps) == 3 * 63
    assert steps.items() <= digests(data_dir / STORE).items()


def test_another_seed_is_another_weather() -> None:
    other = Spell(Climate(), "train", seed=1).fields(0)
    assert not np.array_equal(other, Spell(Climate(), "train", seed=0).fields(0))


def test_a_killed_run_leaves_no_half_store(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from featcache.synthetic import generate\n"
        "die = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == 9 else None\n"
        "generate('weatherbench2', Path(sys.argv[1]), profile={'test': 1}, progress=die)"
    )
    root = str(Path(__file__).parents[3])
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": root}
    )
    assert killed.returncode == -signal.SIGKILL
    folder = (tmp_path / STORE).parent
    assert not (tmp_path / STORE).exists()
    assert len(list(folder.glob(".*.partial"))) == 1
    assert generate("weatherbench2", tmp_path, profile={"test": 1}).n_written == 1
    assert {path.name for path in folder.iterdir()} == {"synthetic.json", (tmp_path / STORE).name}


def test_statistics_are_near_the_real_ones(spell: np.ndarray) -> None:
    axes = (0, 2, 3)
    np.testing.assert_allclose(spell.mean(axes, dtype=np.float64), MEAN, rtol=0.03)
    np.testing.assert_allclose(spell.std(axes, dtype=np.float64), STD, rtol=0.12)
    change = (spell[2:] - spell[:-2]).std(axes, dtype=np.float64) / CHANGE
    assert (change > 0.3).all()
    assert (change < 1.5).all()


def test_poles_are_one_place_and_humidity_is_never_negative(spell: np.ndarray) -> None:
    for pole in (0, -1):
        np.testing.assert_array_equal(spell[:, :, pole], np.broadcast_to(spell[:, :, pole, :1], (48, 3, 360)))
    assert spell[:, 2].min() > 0


def test_waves_move_eastward(spell: np.ndarray) -> None:
    number = 5
    row = int(np.flatnonzero(LATITUDES == 44.0)[0])
    crest = np.fft.rfft(spell[:, 0, row].astype(np.float64), axis=-1)[:, number]
    moved = -np.angle(crest[1:] / crest[:-1])  # a shift by x degrees turns the coefficient by -5 x
    (wave,) = (wave for wave in WAVES if wave.number == number and wave.latitude > 40)
    np.testing.assert_allclose(moved.mean(), 2 * np.pi / (4 * wave.period), rtol=0.1)
    assert (moved > 0).all()


def test_heat_and_moisture_are_carried_towards_the_poles(spell: np.ndarray) -> None:
    """Stirring across a gradient carries down the gradient, whatever the waves are."""
    slope = np.gradient(spell[:, 0].astype(np.float64), axis=-1)  # northward wind: its sign is that of f
    north = slope * np.sign(LATITUDES)[:, None]
    for carried in (spell[:, 1], spell[:, 2]):
        eddy = carried - carried.mean(axis=-1, keepdims=True, dtype=np.float64)
        flux = reduce(north * eddy, "f y x -> y", "mean")
        for hemisphere in (1, -1):
            middle = (LATITUDES * hemisphere > 30) & (LATITUDES * hemisphere < 65)
            assert (flux[middle] * hemisphere).sum() > 0


def test_shortened_numbers_are_near_and_end_in_zeros() -> None:
    values = np.array([54321.98, 274.39, 1e-6, 0.0, 2.0], dtype=np.float32)
    short = shorten(values)
    np.testing.assert_allclose(short, values, rtol=2**-12)
    assert not (short.view(np.uint32) & 0xFFF).any()
    assert short[-1] == 2.0


def test_a_linear_forecast_beats_persistence_in_days_never_seen() -> None:
    """From the two last frames to 16 leads, on 14 x 14 maps: learned in `train`, tried in `offline_dev`."""
    inputs, change = _windows("train", n=44, offset=0, every=2)
    unseen, truth = _windows("offline_dev", n=8, offset=3, every=2)
    centre = inputs.mean(axis=0)
    gram = (inputs - centre) @ (inputs - centre).T + np.eye(len(inputs))
    mix = (unseen - centre) @ (inputs - centre).T @ np.linalg.inv(gram)
    forecast = einsum(mix, change, "new old, old lead k y x -> new lead k y x")
    error, persistence = (
        np.sqrt(reduce(np.square(e), "w lead k y x -> lead k", "mean")).mean(axis=0)
        for e in (forecast - truth, truth)
    )
    assert (error < 0.65 * persistence).all()


def _windows(split: str, *, n: int, offset: int, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Pooled maps of two frames [w, (2 k y x)], and the changes after the last of them [w, lead, k, y, x]."""
    rows, columns = (
        reduce(area_operator(n, 224).numpy(), "(g p) n -> g n", "mean", p=16) for n in (181, 360)
    )
    weather = Spell(Climate(), split, seed=0)
    steps = range(offset + 62 + (n - 1) * every + 1)
    scaled = ((weather.fields(step) - MEAN[:, None, None]) / STD[:, None, None] for step in steps)
    maps = np.stack([rows @ field @ columns.T for field in scaled])
    frames = np.stack([maps[offset + every * w :][:63:2] for w in range(n)])
    return rearrange(frames[:, 14:16], "w f k y x -> w (f k y x)"), frames[:, 16:] - frames[:, 15:16]
