"""Latitude weights against the reference's, and against the sphere."""

from typing import Any

import numpy as np
import pytest

from featcache.errors import CallError
from readouts.metrics.area import latitude_weights


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
