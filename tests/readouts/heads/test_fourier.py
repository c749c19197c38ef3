"""Fourier features by hand, and as the reference embeds positions with them."""

from math import pi
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from readouts.heads.fourier import fourier_features


def test_sines_come_before_cosines_and_octaves_before_dimensions() -> None:
    # x = 1/2, y = 1/4: the angles of the octaves 1 and 2 are pi/2, pi/4 and pi, pi/2.
    found = fourier_features(torch.tensor([0.5, 0.25]), 2)
    half = 0.5**0.5
    expected = [1.0, half, 0.0, 1.0, 0.0, half, -1.0, 0.0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


def test_high_octaves_round_as_the_reference_does() -> None:
    # At 1e5 floats are 2^-7 apart: a quarter turn is added to within half of that.
    angle = torch.tensor([0.999]) * pi * 2.0**15
    cosine = fourier_features(torch.tensor([0.999]), 16)[-1]
    assert abs(cosine - (angle + pi / 2).double().sin()) < 1e-6
    assert abs(cosine - angle.double().cos()) > 1e-4


@pytest.mark.golden("posemb_*")
def test_features_are_the_references(golden: Any) -> None:
    """Instead of the inputs, beside them, or projected and added to them; of given points or of a grid."""
    config, params = golden.meta["module_kwargs"], golden.under("param/")
    dense = {path: torch.from_numpy(array).requires_grad_() for path, array in params.items()}
    inputs = {name: torch.from_numpy(array).requires_grad_() for name, array in golden.under("in/").items()}
    values = inputs["inputs"]
    points = grid_of(values, config["axes"]) if "axes" in config else inputs.get("coords", values)
    features = fourier_features(points, config["num_fourier_bases"]).expand(*values.shape[:-1], -1)
    outputs = {
        "replace": lambda: features,
        "concat": lambda: torch.cat([values, features], dim=-1),
        "project_add": lambda: values + features @ dense["dense_pe/kernel"] + dense["dense_pe/bias"],
    }[config["update_type"]]()
    assert error(outputs.detach(), golden.arrays["out/y"]) < 1e-5
    if "ct/y" not in golden.arrays:
        return
    outputs.backward(torch.from_numpy(golden.arrays["ct/y"]))
    for name, gradient in golden.under("grad/in/").items():
        assert error(inputs[name].grad, gradient) < 1e-4, name
    for path, gradient in golden.under("grad/param/").items():
        assert error(dense[path].grad, gradient) < 1e-4, path


def grid_of(values: Tensor, axes: list[int]) -> Tensor:
    """Where each of `values` lies on the grid of some of their axes, which run from -1 to 1."""
    kept = sorted(axis % values.ndim for axis in axes)
    lines = [torch.linspace(-1.0, 1.0, values.shape[axis]) for axis in kept]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)
    return grid[tuple(slice(None) if axis in kept else None for axis in range(values.ndim - 1))]


def error(found: Tensor | None, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value of the reference."""
    assert found is not None
    return float(np.abs(found.numpy() - expected).max() / (np.abs(expected).max() or 1.0))
