"""Latitude weights against the reference's, and against the sphere."""

from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from readouts.metrics.area import latitude_weights, row_weights


@pytest.mark.golden("metric_wb2_area_weights*")
def test_weights_are_the_references(golden: Any) -> None:
    for degrees, expected in golden.under("out/").items():
        found = latitude_weights(round(180 / float(degrees)) + 1)
        np.testing.assert_allclose(found, expected.ravel(), rtol=1e-5, atol=1e-7, err_msg=degrees)


@pytest.mark.parametrize("n_rows", [2, 3, 4, 121, 181, 721])
def test_weights_average_1_and_are_symmetric(n_rows: int) -> None:
    weights = latitude_weights(n_rows).numpy()
    assert weights.mean() == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-9)


def test_weights_are_the_areas_of_latitude_bands() -> None:
    # 181 rows a degree apart: each band ends half a degree to either side, at the pole itself for the last.
    bounds = np.deg2rad(np.clip(np.arange(-90.5, 91.0), -90, 90))
    areas = np.diff(np.sin(bounds))
    np.testing.assert_allclose(latitude_weights(181), areas / areas.mean(), rtol=1e-9)


def test_a_grid_without_poles_is_told() -> None:
    with pytest.raises(CallError, match="n_rows=1 has no latitudes"):
        latitude_weights(1)


@pytest.mark.parametrize("n_rows", [2, 5, 61, 181, 721])
def test_even_rows_from_pole_to_pole_have_the_same_weights_to_the_bit(n_rows: int) -> None:
    latitudes = np.linspace(-90, 90, n_rows, dtype=np.float32)
    expected = latitude_weights(n_rows)
    assert torch.equal(row_weights(latitudes), expected)
    assert torch.equal(row_weights(latitudes[::-1]), expected.flip(0))
    order = np.random.default_rng(0).permutation(n_rows)
    assert torch.equal(row_weights(latitudes[order]), expected[torch.from_numpy(order)])


def test_rows_of_other_grids_weigh_their_bands() -> None:
    # 40 to 60 degrees in three rows: bands 35-45, 45-55, 55-65.
    areas = np.diff(np.sin(np.radians([35, 45, 55, 65])))
    np.testing.assert_allclose(row_weights(np.array([60.0, 40, 50])), areas[[2, 0, 1]] / areas.mean())
    # Rows between the poles and not on them, as of WeatherBench 2's coarse grids: bands reach the poles.
    bands = np.diff(np.sin(np.radians([-90, -30, 30, 90])))
    np.testing.assert_allclose(row_weights(np.array([-60.0, 0, 60])), bands * 1.5)
    # A region that ends at a pole has half a band there.
    areas = np.diff(np.sin(np.radians([65, 75, 85, 90])))
    np.testing.assert_allclose(row_weights(np.array([70.0, 80, 90])), areas / areas.mean())
    nodes, weights = np.polynomial.legendre.leggauss(64)
    np.testing.assert_allclose(row_weights(np.degrees(np.arcsin(nodes))), weights * 32, rtol=2e-2)


@pytest.mark.parametrize("latitudes", [[10.0], [10.0, 10.0], [0.0, np.nan], [0.0, 91.0]])
def test_latitudes_that_are_none(latitudes: list[float]) -> None:
    with pytest.raises(CallError, match="two or more that differ, -90 to 90, are needed"):
        row_weights(np.array(latitudes))
