"""Maps: north is up whatever the stored order, errors are centred on 0 and blank where there are none."""

from typing import Any

import numpy as np
import pytest

from readouts.report.figures import forecast_maps
from readouts.report.figures.fields import (
    _degrees,
    _edges,
    _lead_time,
    _ticks,
    error_scale,
    upright,
    value_scale,
)

LATITUDE, LONGITUDE = np.linspace(-90, 90, 19), np.arange(0.0, 360, 10)
TRUTH = np.broadcast_to(LATITUDE[:, None], (2, 19, 36)) / 9 + 270
ABOUT: dict[str, Any] = {
    "variable": "T850",
    "unit": "K",
    "longitude": LONGITUDE,
    "leads": [0, 1],
    "hours": [12, 192],
}


def maps(last: np.ndarray, predicted: np.ndarray, truth: np.ndarray, **about: Any) -> str:
    return forecast_maps(last, predicted, truth, **{"latitude": LATITUDE, **ABOUT, **about})


def test_north_and_west_come_first() -> None:
    field = np.array([[1, 2, 3], [4, 5, 6]])  # rows from the south, columns from 20, 30 and 10 degrees east
    latitude, longitude = np.array([-10.0, 10.0]), np.array([20.0, 30.0, 10.0])
    assert upright(field.astype(float), latitude, longitude).tolist() == [[6, 4, 5], [3, 1, 2]]
    assert (_edges(longitude), _edges(latitude)) == ((5, 35), (-20, 20))


def test_the_stored_order_does_not_show() -> None:
    noise = np.random.default_rng(0).normal(size=(5, 19, 36))
    south_first = maps(noise[0], noise[1:3], noise[3:5])
    north_first = maps(noise[0, ::-1], noise[1:3, ::-1], noise[3:5, ::-1], latitude=LATITUDE[::-1])
    assert south_first == north_first
    assert south_first != maps(noise[0, ::-1], noise[1:3, ::-1], noise[3:5, ::-1])


def test_a_warm_north_is_bright_on_top(pixels_of) -> None:
    image = pixels_of(maps(TRUTH[0], TRUTH, TRUTH))
    maps_area = image[: len(image) * 6 // 10]
    yellow = (maps_area[..., 0] > 200) & (maps_area[..., 2] < 90)
    purple = (maps_area[..., 0] < 90) & (maps_area[..., 1] < 40) & (maps_area[..., 2] > 60)
    first_purple = int(np.flatnonzero(purple.any(axis=1))[0])
    assert yellow[:first_purple].any()  # the first map begins with its warm north
    assert not purple[:first_purple].any()


def redness(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Red less blue in the columns of error maps of forecast and persistence, above the colour bars."""
    red = (image[..., 0] - image[..., 2])[: int(0.6 * len(image))]
    width = image.shape[1]
    return red[:, int(0.56 * width) : int(0.78 * width)], red[:, int(0.78 * width) :]


def test_a_perfect_forecast_has_a_blank_error_map(pixels_of) -> None:
    for last_off, forecast_off in ((0, 0), (5, 0), (0, 5)):
        image = pixels_of(maps(TRUTH[0] + last_off, TRUTH + forecast_off, TRUTH))
        forecast, persistence = redness(image)
        for red, off in ((forecast, forecast_off), (persistence, last_off)):
            assert (abs(red) > 60).mean() > 0.3 if off else not (abs(red) > 60).any()


@pytest.mark.parametrize("sign", [1, -1])
def test_too_warm_is_red_and_too_cold_is_blue(pixels_of, sign: int) -> None:
    red, _ = redness(pixels_of(maps(TRUTH[0], TRUTH + 5 * sign, TRUTH)))
    strong = red[abs(red) > 60]
    assert strong.size
    assert (np.sign(strong) == sign).all()


def test_scales() -> None:
    errors = error_scale([np.array([[-8.0, 1.0]]), np.array([[2.0, np.nan]])])
    assert errors["vmin"] == -errors["vmax"]
    assert 7 < errors["vmax"] <= 8
    nothing = error_scale([np.zeros((2, 2))])
    assert nothing["vmin"] < 0 < nothing["vmax"]
    flat = value_scale([np.full((2, 2), 7.0)])
    assert flat["vmin"] < flat["vmax"]


def test_noise_at_full_size_stays_small(pixels_of) -> None:
    noise = np.random.default_rng(0).normal(size=(7, 181, 360)).astype(np.float32)
    noise[0, :5] = np.nan  # missing values are drawn as missing
    about = {"latitude": np.linspace(90, -90, 181), "longitude": np.arange(360.0), "hours": [12, 72, 192]}
    pixels_of(maps(noise[0], noise[1:4], noise[4:7], **about, leads=[0, 1, 2]))


@pytest.mark.parametrize(
    ("degrees", "letters", "text"),
    [
        (60.0, "NS", "60°N"),
        (-60.0, "NS", "60°S"),
        (0.0, "NS", "0°"),
        (240.0, "EW", "120°W"),
        (180.0, "EW", "180°"),
    ],
)
def test_degrees_are_written_as_in_an_atlas(degrees: float, letters: str, text: str) -> None:
    assert _degrees(degrees, letters) == text


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(-0.5, 359.5, [0, 120, 240]), (-90.5, 90.5, [-60, 0, 60]), (3.0, 9.4, [4, 6, 8])],
)
def test_ticks_are_few_and_round(low: float, high: float, ticks: list[float]) -> None:
    assert _ticks(low, high, "EW")[0] == ticks


def test_lead_times() -> None:
    assert [_lead_time(hours) for hours in (12.0, 36.0, 48.0, 60.0, 192.0)] == [
        "12 h",
        "36 h",
        "2 d",
        "60 h",
        "8 d",
    ]
