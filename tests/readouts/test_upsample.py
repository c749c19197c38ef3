"""Temporal resizing against JAX's matrices and by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from readouts.upsample import TemporalUpsample, temporal_matrix


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
        upsample = TemporalUpsample(steps_in=features.shape[1], steps_out=expected.shape[1], method=ours)
        np.testing.assert_allclose(upsample(features), expected, rtol=1e-5, atol=1e-5)


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


def test_tokens_with_the_right_steps_pass_untouched() -> None:
    features = torch.zeros(2, 8, 3, 4, dtype=torch.float16)
    for method in ("cubic", None):
        assert TemporalUpsample(steps_in=8, steps_out=8, method=method)(features) is features


def test_half_precision_tokens_are_resized_in_single_precision() -> None:
    upsample = TemporalUpsample(steps_in=2, steps_out=4, method="linear")
    resized = upsample(torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1).half())
    assert resized.dtype == torch.float32
    assert resized.flatten().tolist() == [1.0, 1.25, 1.75, 2.0]


def test_the_matrix_is_no_parameter() -> None:
    upsample = TemporalUpsample(steps_in=8, steps_out=16, method="cubic")
    assert not upsample.state_dict()
    assert not list(upsample.parameters())


def test_mistakes_are_told() -> None:
    with pytest.raises(CallError, match="8 steps and the readout wants 16"):
        TemporalUpsample(steps_in=8, steps_out=16, method=None)
    with pytest.raises(CallError, match="known are linear, cubic"):
        temporal_matrix(0, 16, "linear")
