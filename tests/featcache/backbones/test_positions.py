"""Position tables by hand."""

import numpy as np
import pytest
import torch

from featcache.backbones.positions import sinusoid, stretched


def test_sinusoid_by_hand() -> None:
    table = sinusoid(3, 4).numpy()
    np.testing.assert_array_equal(table[0], [0, 1, 0, 1])
    np.testing.assert_allclose(table[2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)], rtol=1e-7)


def test_stretching_is_linear_between_half_pixel_centres() -> None:
    # One step, one row, columns 0 and 4, each seen twice as fine: centres at -1/4, 1/4, 3/4, 5/4.
    table = torch.tensor([[0.0], [4.0]])
    found = stretched(table, (1, 1, 2), (1, 1, 4))
    assert found[:, 0].tolist() == [0, 1, 3, 4]


def test_axes_are_steps_rows_columns() -> None:
    table = torch.arange(2.0).repeat_interleave(6)[:, None]
    found = stretched(table, (2, 2, 3), (2, 4, 6))
    assert torch.equal(found[:, 0], torch.arange(2.0).repeat_interleave(24))


@pytest.mark.parametrize("grid", [(1, 2, 2), (3, 1, 2)])
def test_the_same_grid_is_the_same_table(grid: tuple[int, int, int]) -> None:
    table = torch.rand(int(np.prod(grid)), 3)
    assert stretched(table, grid, grid) is table
