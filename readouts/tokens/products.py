"""Products of float32 numbers, whose factors are rounded to bfloat16 where a readout is trained so.

Sums stay in float32, and so does all that is no product of tokens or weights: softmax, norms, the optimiser.
A CPU rounds inside its kernels (`readouts.training.arithmetic`), elsewhere the factors are rounded here, and
the result once more on its way to float32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

# Not of a thread, as torch's own autocast: backward passes have threads of their own.
_rounds = False


@contextmanager
def rounded_products() -> Iterator[None]:
    """Within it `product` rounds, in all threads."""
    global _rounds
    before, _rounds = _rounds, True
    try:
        yield
    finally:
        _rounds = before


def product(
    of: Callable[[Tensor, Tensor], Tensor], left: Float[Tensor, "*left"], right: Float[Tensor, "*right"]
) -> Float[Tensor, "*both"]:
    """What `of` makes of two factors, in their dtype."""
    if not _rounds or _rounds_inside(left.device):
        return of(left, right)
    return of(left.bfloat16(), right.bfloat16()).to(left.dtype)


def _rounds_inside(device: torch.device) -> bool:
    return device.type == "cpu"
