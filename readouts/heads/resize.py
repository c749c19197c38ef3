"""Bilinear resize of maps, `jax.image.resize`: half-pixel centres, with antialias along axes that shrink.

On a CPU it is torch's own. Elsewhere torch adds up gradients by atomics, in an order that no two runs share:
there it is two products with small matrices, which have the same bits each time.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from featcache.resampling import temporal_matrix

_FEW_CHANNELS = 8
"""So few are multiplied as one row of columns and channels: a product of 3 columns fills no processor."""


def resize_maps(
    maps: Float[Tensor, "M C Y X"], rows: int, columns: int
) -> Float[Tensor, "M C {rows} {columns}"]:
    """The maps at another size; channels that lie last in memory do so in the result."""
    if maps.device.type != "cpu":
        return resize_by_products(maps, rows, columns)
    # torch's antialias leaves axes that grow alone but is slower, and rounds its weights elsewhere.
    shrinks = rows < maps.shape[2] or columns < maps.shape[3]
    return F.interpolate(maps, size=(rows, columns), mode="bilinear", align_corners=False, antialias=shrinks)


def resize_by_products(
    maps: Float[Tensor, "M C Y X"], rows: int, columns: int
) -> Float[Tensor, "M C {rows} {columns}"]:
    """`resize_maps` as it is computed where it is not torch's."""
    _, n_channels, old_rows, old_columns = maps.shape
    like = maps.dtype, maps.device
    if n_channels <= _FEW_CHANNELS:
        lines = rearrange(maps, "m c y x -> (m y) (x c)")
        wider = lines @ _operator(old_columns, columns, n_channels, *like).mT
        wide = rearrange(wider, "(m y) (x c) -> m y (x c)", m=len(maps), c=n_channels)
    else:
        lines = rearrange(maps, "m c y x -> (m y) x c")
        wider = torch.bmm(_operator(old_columns, columns, 1, *like).expand(len(lines), -1, -1), lines)
        wide = rearrange(wider, "(m y) x c -> m y (x c)", m=len(maps))
    resized = torch.bmm(_operator(old_rows, rows, 1, *like).expand(len(maps), -1, -1), wide)
    return rearrange(resized, "m y (x c) -> m c y x", c=n_channels)


@lru_cache(maxsize=32)
def _operator(
    n_in: int, n_out: int, n_channels: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "{n_out}*{n_channels} {n_in}*{n_channels}"]:
    """The weights of one axis, each of its places a number per channel; made once for all steps."""
    # The first batch may be an evaluation's, and training can do nothing with inference tensors.
    with torch.inference_mode(False):
        of_place = temporal_matrix(n_in, n_out, "linear")
        return torch.kron(of_place, torch.eye(n_channels)).to(device, dtype)
