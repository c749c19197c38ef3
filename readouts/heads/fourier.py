"""Fourier features of coordinates: how points and grids are told to a network (Tancik et al. 2020).

The highest of 16 octaves turns coordinates of [0, 1] into angles up to 1e5, whose float32 spacing is 8e-3.
What the reference makes of them depends on how it rounds, so the order of operations is part of the function:
kept, the features agree to 6e-8; changed, to 4e-3 (REFERENCE: SampleFourierEmbedding).
"""

from math import pi

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def fourier_features(
    coordinates: Float[Tensor, "*points D"], n_bases: int
) -> Float[Tensor, "*points 2*{n_bases}*D"]:
    """Sine and cosine of pi * 2^i * x for i < `n_bases`: sines before cosines, octaves before dimensions.

    Coordinates are in [0, 1] or [-1, 1]; others, such as the -1 of padding, are as good.
    """
    octaves = 2.0 ** torch.arange(n_bases, device=coordinates.device, dtype=coordinates.dtype)
    angles = (coordinates * pi)[..., None, :] * octaves[:, None]
    flat = rearrange(angles, "... i d -> ... (i d)")
    return torch.cat([flat, flat + pi / 2], dim=-1).sin()
