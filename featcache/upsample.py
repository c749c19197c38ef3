"""The reference's up-sampling of tokens in time, as a matrix.

Tubelet models give 8 steps, the benchmark's readouts see 16. The resize is a fixed linear map, so a store
keeps the 8 and stage two folds the map into its products with them (`readouts.tokens`).
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import CallError

Method = Literal["linear", "cubic"]


def _triangle(distance: Tensor) -> Tensor:
    return (1.0 - distance).clamp(min=0.0)


def _keys(distance: Tensor) -> Tensor:
    """The cubic of Keys (1981) with a = -0.5; torch's own `bicubic` has -0.75."""
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, 0.0))


_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"linear": _triangle, "cubic": _keys}


def temporal_matrix(n_in: int, n_out: int, method: Method) -> Float[Tensor, "U T"]:
    """Weights of every native step T in every resized step U, as `jax.image.resize` has them.

    Half-pixel centres; taps outside are dropped and the rest renormalised; where it shrinks, the kernel
    is stretched by the ratio (antialias).

    Raises:
        CallError: `method` is unknown, or a number of steps is not positive.
    """
    if method not in _KERNELS or min(n_in, n_out) < 1:
        raise CallError(
            f"cannot resize {n_in} steps to {n_out} by {method!r}: known are {', '.join(_KERNELS)}."
        )
    ratio = n_in / n_out
    centres = (torch.arange(n_out, dtype=torch.float64) + 0.5) * ratio - 0.5
    distance = (centres[:, None] - torch.arange(n_in, dtype=torch.float64)).abs() / max(ratio, 1.0)
    weights = _KERNELS[method](distance)
    return (weights / weights.sum(dim=1, keepdim=True)).float()
