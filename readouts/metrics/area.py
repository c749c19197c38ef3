"""How much of the globe each row of a latitude grid stands for.

Rows near the poles are short circles: a mean over a grid that counts every row alike would be a mean of
polar weather. Losses and scores of global fields share these weights.
"""

from math import pi

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError


def latitude_weights(n_rows: int) -> Float[Tensor, "Y"]:
    """Area of each row of an even grid from pole to pole, of mean 1, in float64 (WeatherBench 2).

    Rows lie d = 180 / (n_rows - 1) degrees apart. The band about latitude l, from l - d/2 to l + d/2, is as
    large as sin(l + d/2) - sin(l - d/2) = 2 cos(l) sin(d/2); a pole has half a band,
    1 - cos(d/2) = 2 sin(d/4)^2. Symmetric, so north or south may come first.

    Raises:
        CallError: fewer than the two rows of the poles.
    """
    if n_rows < 2:
        raise CallError(f"a grid of n_rows={n_rows} has no latitudes: it needs one row at each pole.")
    step = pi / (n_rows - 1)
    latitudes = torch.linspace(-pi / 2, pi / 2, n_rows, dtype=torch.float64)
    weights = latitudes.cos() * torch.tensor(step / 2, dtype=torch.float64).sin()
    weights[[0, -1]] = torch.tensor(step / 4, dtype=torch.float64).sin().square()
    return weights / weights.mean()


def row_weights(latitudes: Float[np.ndarray, "Y"]) -> Float[Tensor, "Y"]:
    """Area of each row of any grid, in any order, of mean 1, in float64.

    A row reaches half-way to its neighbours; the outermost reach as far outward, though not beyond a pole.
    Even rows from pole to pole have `latitude_weights`, to the bit.

    Args:
        latitudes: of the rows, in degrees north.

    Raises:
        CallError: fewer than two rows, or latitudes that are not distinct ones of the globe.
    """
    degrees = np.asarray(latitudes, np.float64)
    order = np.argsort(degrees)
    ascending, n_rows = degrees[order], len(degrees)
    if n_rows < 2 or not (np.abs(degrees) <= 90.001).all() or (np.diff(ascending) <= 0).any():
        raise CallError(
            f"latitudes {ascending[:3].tolist()} ...: two or more that differ, -90 to 90, are needed."
        )
    even = np.linspace(-90.0, 90.0, n_rows)
    if np.abs(ascending - even).max() <= 0.01 * 180.0 / (n_rows - 1):
        weights = latitude_weights(n_rows)
    else:
        between = (ascending[1:] + ascending[:-1]) / 2
        outer = 2 * ascending[[0, -1]] - between[[0, -1]]
        bounds = np.radians(np.clip([outer[0], *between, outer[1]], -90.0, 90.0))
        bands = torch.from_numpy(np.diff(np.sin(bounds)))
        weights = bands / bands.mean()
    placed = torch.empty_like(weights)
    placed[torch.from_numpy(order)] = weights
    return placed
