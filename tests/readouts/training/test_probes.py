"""Probes: neighbours and ridge by hand; what a probe does not predict is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from readouts.training.probes import PROBES, fit_probe


def fitted(kind: str, x: Any, y: Any, predicts: str, queries: Any, **settings: Any) -> np.ndarray:
    given = [np.asarray(values, np.float32) for values in (x, y, queries)]
    return fit_probe(
        kind, given[0], given[1], predicts, given[2], settings=settings, device=torch.device("cpu")
    )


def test_neighbours_by_hand() -> None:
    # Mean 0 and deviation 1 in both channels: standardised as they are. At 45 degrees from the query are two.
    known = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    labels = [[1, 1], [1, 0], [0, 1], [0, 0]]
    found = fitted("knn", known, labels, "labels", [[3, 0]], k=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[-np.log(1e-6), 0.0]], atol=1e-3)
    # All four, at cosines +-0.5**0.5, temperature 0.5: the nearer two weigh exp(2 * 2**0.5) times the others.
    wider = fitted("knn", known, labels, "labels", [[3, 0]], k=9, temperature=0.5)
    np.testing.assert_allclose(wider, [[2 * 2**0.5, 0.0]], atol=1e-5)
    values = [[10, 0], [20, 4], [0, 0], [0, 0]]
    np.testing.assert_allclose(
        fitted("knn", known, values, "values", [[3, 0]], k=2), [[15.0, 2.0]], rtol=1e-6
    )


def test_ridge_by_hand() -> None:
    # x = +-1 (twice each), y - mean = +-2: weight = sum xy / (sum xx + alpha) = 8 / (4 + 4).
    found = fitted("ridge", [[1], [-1], [1], [-1]], [[7], [3], [7], [3]], "values", [[3]], alpha=4.0)
    np.testing.assert_allclose(found, [[8.0]])


@pytest.mark.parametrize(("kind", "settings"), [("logistic", {}), ("knn", {"k": 1})])
def test_a_constant_class_and_a_constant_channel_are_no_obstacle(kind: str, settings: dict[str, int]) -> None:
    x = [[1.0, 5.0], [-1.0, 5.0], [1.0, 5.0], [-1.0, 5.0]]
    labels = [[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]]
    found = fitted(kind, x, labels, "labels", [[2, 5], [-2, 5]], **settings)
    assert found[0, 0] > 0 > found[1, 0]
    np.testing.assert_allclose(found[:, 1:], [[13.8155, -13.8155]] * 2, rtol=1e-4)


def test_what_a_probe_cannot_do_is_refused() -> None:
    with pytest.raises(CallError, match=r"logistic probe predicts labels, .* are values: .* are knn, ridge"):
        fitted("logistic", [[0.0], [1.0]], [[1.0], [2.0]], "values", [[0.0]])
    with pytest.raises(CallError, match=r"ridge probe predicts values, .* are labels: .* are knn, logistic"):
        fitted("ridge", [[0.0], [1.0]], [[1.0], [2.0]], "labels", [[0.0]])


def test_probes_say_what_they_predict() -> None:
    predicted = {name: tuple(probe.fit) for name, probe in PROBES.items()}
    assert predicted == {"knn": ("labels", "values"), "logistic": ("labels",), "ridge": ("values",)}
