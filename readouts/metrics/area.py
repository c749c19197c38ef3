"""How much of the globe each row of a latitude grid stands for.

Rows near the poles are short circles: a mean over a grid that counts every row alike would be a mean of
polar weather. Losses and scores of global fields share these weights.
"""

from math import pi

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
