"""Position tables that are computed: VideoMAE's sinusoid, and a stored table stretched to another grid."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int, int]


def sinusoid(n_tokens: int, width: int) -> Float[Tensor, "S C"]:
    """VideoMAE's fixed position table, which no weight file holds.

    Channel j of token p is sin (j even) or cos (j odd) of p / 10000^(2 floor(j / 2) / width); tokens are
    numbered through (step, row, column). Computed in float64 and rounded once.
    """
    channel = np.arange(width)
    angle = np.arange(n_tokens)[:, None] / np.power(10000.0, 2 * (channel // 2) / width)
    table = np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))
    return torch.from_numpy(table.astype(np.float32))


def stretched(table: Float[Tensor, "S C"], from_grid: Grid, to_grid: Grid) -> Float[Tensor, "N C"]:
    """A table of `from_grid` (steps, rows, columns) at `to_grid`, trilinear with half-pixel centres.

    V-JEPA's authors give the ratios to torch, not the sizes, which is the same up to rounding.
    """
    if from_grid == to_grid:
        return table
    steps, rows, columns = from_grid
    volume = rearrange(table, "(t h w) c -> 1 c t h w", t=steps, h=rows, w=columns)
    return rearrange(F.interpolate(volume, size=to_grid, mode="trilinear"), "1 c t h w -> (t h w) c")
