"""Matrices of temporal resizing against JAX's and by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.resampling import temporal_matrix
from readouts.tokens.implicit import ImplicitTokens
from readouts.tokens.prepared import TokenPreparation


def test_matrices_of_the_backbones(shared: Path) -> None:
    with np.load(shared / "golden" / "backbones" / "temporal_resize.npz") as matrices:
        for name in matrices.files:
            method, _, sizes = name.partition("_")
            n_in, n_out = map(int, sizes.split("to"))
            found = temporal_matrix(n_in, n_out, method)
            np.testing.assert_allclose(found, matrices[name], rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.golden("jax_resize_operators*")
def test_matrices_of_any_size_are_jaxs(golden: Any) -> None:
    for name, expected in golden.under("out/").items():
        method, _, sizes = name.partition("/")
        if not sizes or name.endswith("_noaa"):
            continue
        n_in, n_out = map(int, sizes.split("to"))
        found = temporal_matrix(n_in, n_out, "linear" if method == "bilinear" else "cubic").numpy()
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max(), name


@pytest.mark.golden("jax_resize_operators*")
def test_features_in_time_are_jaxs(golden: Any) -> None:
    features = torch.from_numpy(golden.arrays["in/features"])
    for ours, theirs in (("linear", "bilinear"), ("cubic", "cubic")):
        expected = golden.arrays[f"out/features_time_{theirs}"]
        prepare = TokenPreparation(steps_in=features.shape[1], steps_out=expected.shape[1], method=ours)
        resized = ImplicitTokens(
            native=features, matrix=prepare(features).matrix, gain=torch.ones(expected.shape[:-1])
        )
        np.testing.assert_allclose(resized.written(), expected, rtol=1e-5, atol=1e-5)


def test_linear_by_hand() -> None:
    # Centres of 4 halves over 2 steps: -0.25, 0.25, 0.75, 1.25; outside, the edge step alone is left.
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert temporal_matrix(2, 4, "linear").tolist() == expected


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("n_in", "n_out"), [(8, 16), (16, 8), (7, 7), (1, 5)])
def test_a_constant_stays_constant(n_in: int, n_out: int, method: str) -> None:
    matrix = temporal_matrix(n_in, n_out, method)
    assert matrix.shape == (n_out, n_in)
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(n_out))
    if n_in == n_out:
        torch.testing.assert_close(matrix, torch.eye(n_in))


def test_mistakes_are_told() -> None:
    with pytest.raises(CallError, match="known are linear, cubic"):
        temporal_matrix(0, 16, "linear")
