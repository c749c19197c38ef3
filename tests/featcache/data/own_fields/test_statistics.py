import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr  # noqa: TID253  (fields for the tests)

from featcache.data.own_fields import statistics
from featcache.data.own_fields.statistics import statistics_of
from featcache.data.readers.weather.containers import open_field_files
from featcache.data.readers.weather.fields import FieldStore
from featcache.manifest import Dataset

ROWS, COLUMNS = 7, 12


@pytest.fixture
def series(tmp_path: Path) -> Callable[[int], tuple[FieldStore, np.ndarray]]:
    """An opened store of so many random fields, and these."""

    def make(n_times: int) -> tuple[FieldStore, np.ndarray]:
        values = np.random.default_rng(0).normal(1e4, 3, (n_times, ROWS, COLUMNS)).cumsum(axis=0)
        times = np.datetime64("2001-01-01", "ns") + np.arange(n_times) * np.timedelta64(1, "h")
        coords = {
            "time": times,
            "latitude": np.linspace(-90, 90, ROWS),
            "longitude": np.arange(COLUMNS) * 30.0,
        }
        whole = xr.Dataset({"t": (tuple(coords), values.astype(np.float32))}, coords)
        path = tmp_path / f"{n_times}.zarr"
        whole.chunk(time=16).to_zarr(path, zarr_format=3, consolidated=False)
        dataset = Dataset(
            name="sky", title="", source="", licence="", citation="", version="1", reader="fields", splits={},
            variables=("t",), features={"t": "t"},
        )  # fmt: skip
        return open_field_files([path], dataset), whole["t"].values.astype(np.float64)

    return make


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_blocks_of_any_size_give_numpys_numbers(
    series: Callable[[int], tuple[FieldStore, np.ndarray]], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(statistics, "BLOCK_BYTES", at_once * 4 * ROWS * COLUMNS)
    store, values = series(20)
    found = statistics_of(store, range(2, 15), 4)
    chosen = values[2:15]
    assert found.mean == pytest.approx([chosen.mean()], rel=1e-9)
    assert found.std == pytest.approx([chosen.std()], rel=1e-9)
    assert found.residual_std == pytest.approx([(chosen[4:] - chosen[:-4]).std()], rel=1e-6)


def test_memory_does_not_grow_with_the_series(
    series: Callable[[int], tuple[FieldStore, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 16 * 4 * ROWS * COLUMNS)
    peaks = []
    for n_times in (64, 640):
        store, _ = series(n_times)
        statistics_of(store, range(32), 2)
        tracemalloc.start()
        statistics_of(store, range(n_times), 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # What grows is a few words a time, beside fields of 4 bytes a place.
    assert peaks[1] - peaks[0] < 0.5 * (640 - 64) * 4 * ROWS * COLUMNS
