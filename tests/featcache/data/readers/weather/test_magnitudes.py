"""Means and deviations of fields against the manifest's: units told apart, seasons and regions not."""

from dataclasses import replace

import numpy as np
import pytest

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.weather.magnitudes import Magnitude, magnitudes_of
from featcache.manifest import Pixels, load_manifest

OFFICIAL = load_manifest().dataset("weatherbench2")


def field(mean: float, std: float) -> np.ndarray:
    pattern = np.random.default_rng(0).normal(size=(19, 36))
    found: np.ndarray = (mean + std * (pattern - pattern.mean()) / pattern.std()).astype(np.float32)
    return found


def test_a_season_is_no_other_unit() -> None:
    for magnitude in magnitudes_of(OFFICIAL):
        assert magnitude is not None
        for shift, stretch in ((0, 1), (0.5, 1.3), (-0.5, 0.8)):
            values = field(magnitude.mean + shift * magnitude.std, stretch * magnitude.std)
            magnitude.require("z", values, "")


@pytest.mark.parametrize(("shift", "stretch"), [(1.1, 1), (-1.1, 1), (0, 0.1), (0, 6), (0, 0)])
def test_a_globe_that_is_off_is_refused(shift: float, stretch: float) -> None:
    (_, warmth, _) = magnitudes_of(OFFICIAL)
    assert warmth is not None
    with pytest.raises(
        UnreadableError, match=r"z has a mean of .*, expected about 274.39 and 15.7: another unit"
    ):
        warmth.require("z", field(warmth.mean + shift * warmth.std, stretch * warmth.std), "")


def test_a_region_may_be_warm_or_calm_but_not_in_celsius() -> None:
    (_, warmth, _) = magnitudes_of(replace(OFFICIAL, latitude=(-10.0, 10.0)))
    assert warmth is not None
    warmth.require("z", field(292, 1), "")
    warmth.require("z", field(230, 9), "")
    with pytest.raises(UnreadableError, match=r"another unit \(it says 'degC'\)"):
        warmth.require("z", field(19, 1), " (it says 'degC')")


def test_the_range_takes_all_weather_and_no_fill_value() -> None:
    ranges = {m.mean: m.range for m in magnitudes_of(OFFICIAL) if m}
    extremes = ((46_000, 60_000), (200, 325), (-1e-4, 0.022))
    for (low, high), (least, most) in zip(ranges.values(), extremes, strict=True):
        assert low < least < most < high
        assert not any(low <= value <= high for value in (-9999.0, 9.97e36, 1e20))
    assert not any(low <= 0.0 <= high for low, high in list(ranges.values())[:2])


def test_without_statistics_nothing_is_known() -> None:
    assert magnitudes_of(replace(OFFICIAL, pixels=Pixels())) == (None, None, None)
    assert magnitudes_of(OFFICIAL)[1] == Magnitude(
        mean=OFFICIAL.pixels.mean[1], std=OFFICIAL.pixels.std[1], whole_globe=True
    )
