"""Rows and columns of a grid: where each lies in a store, and which grids are another one."""

from typing import Any

import numpy as np
import pytest

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.weather.grid import grid_of
from featcache.manifest import Dataset

ROWS, COLUMNS = np.linspace(-90, 90, 181, dtype=np.float32), np.arange(360, dtype=np.float32)


def meant(**region: tuple[float, float]) -> Dataset:
    entry: dict[str, Any] = dict.fromkeys(("title", "source", "licence", "citation", "version"), "")
    return Dataset(name="sky", reader="weather_zarr", splits={}, **entry, **region)


def test_the_official_grid_is_read_as_it_is_stored() -> None:
    rows, columns = grid_of(ROWS, COLUMNS, meant())
    assert rows.order is columns.order is None
    assert rows.degrees.tobytes() == ROWS.tobytes()
    assert columns.degrees.tobytes() == COLUMNS.tobytes()


def test_places_of_the_official_grid_in_another_order() -> None:
    turned = (COLUMNS + 180) % 360 - 180
    for stored, order in (
        (np.sort(turned), np.roll(np.arange(360), 180)),
        (COLUMNS[::-1], np.arange(360)[::-1]),
        (np.roll(COLUMNS, 7), np.roll(np.arange(360), -7)),
        (COLUMNS + 360, None),
        (turned, None),
    ):
        rows, columns = grid_of(ROWS[::-1], stored, meant())
        assert rows.order is not None
        assert rows.order.tolist() == list(range(180, -1, -1))
        assert rows.degrees.tobytes() == ROWS.tobytes()
        assert columns.degrees.tobytes() == COLUMNS.tobytes()
        assert (columns.order is None) == (order is None)
        if order is not None:
            assert columns.order is not None
            assert columns.order.tolist() == order.tolist()


def test_rounded_coordinates_are_the_same_places() -> None:
    noise = np.random.default_rng(0).uniform(-0.004, 0.004, 360).astype(np.float32)
    rows, columns = grid_of(ROWS + noise[:181], COLUMNS + noise, meant())
    assert rows.order is columns.order is None
    assert columns.degrees.tobytes() == (COLUMNS + noise).tobytes()


@pytest.mark.parametrize("west", [-30.0, 330.0])
def test_a_region_across_the_first_meridian_stays_in_one_piece(west: float) -> None:
    stored = np.sort(np.arange(-30.0, 41.0) % 360)
    _, columns = grid_of(ROWS, stored, meant(longitude=(west, west + 70)))
    assert columns.order is not None
    assert columns.degrees.tolist() == [west + k for k in range(71)]
    assert stored[columns.order[:2]].tolist() == [330, 331]


def test_a_message_says_how_to_mean_a_region_and_that_is_right() -> None:
    latitude, longitude = np.arange(60.0, 29.5, -0.5), np.arange(-25, 45.5, 0.5) % 360
    with pytest.raises(UnreadableError, match=r"`latitude: \[30, 60\]` and `longitude: \[-25, 45\]`"):
        grid_of(latitude, longitude, meant())
    rows, columns = grid_of(latitude, longitude, meant(latitude=(30.0, 60.0), longitude=(-25.0, 45.0)))
    assert (rows.degrees[0], columns.degrees[-1]) == (30, 45)


@pytest.mark.parametrize("stated", [False, True])
def test_a_hole_or_a_row_twice_is_refused(stated: bool) -> None:
    dataset = meant(latitude=(-90.0, 90.0)) if stated else meant()
    for rows, message in (
        (np.delete(ROWS, 40), "not even: -51 is followed by -49"),
        (np.insert(ROWS, 40, ROWS[40]), "not even: -50 is followed by -50"),
    ):
        with pytest.raises(UnreadableError, match=message):
            grid_of(rows, COLUMNS, dataset)


def test_too_few_rows_or_columns_are_no_grid() -> None:
    for rows, columns in (
        (ROWS[:0], COLUMNS),
        (ROWS[:1], COLUMNS),
        (ROWS, COLUMNS[:1]),
        (ROWS, COLUMNS * np.nan),
    ):
        with pytest.raises(UnreadableError, match="at least two are needed, all finite"):
            grid_of(rows, columns, meant())
