"""Fourier features by hand; against the reference they are tested in test_reference."""

from math import pi

import torch

from readouts.heads.fourier import fourier_features, grid_coordinates


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


def test_grids_run_from_minus_one_to_one_with_the_first_axis_first() -> None:
    grid = grid_coordinates(2, 3)
    assert grid[..., 0].tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert grid[..., 1].tolist() == [[-1, 0, 1], [-1, 0, 1]]
