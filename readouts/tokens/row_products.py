"""Matrix products of many parties' rows with one matrix, each party with the bits that it has alone.

Together many heads' keys meet a clip in half the time of one after another. But a library may take another
kernel for more rows and sum in another order: beside others a head would learn other numbers than alone. So
on a CPU rows are multiplied together where this machine gives each party the bits of its own product, which
is tried, and apart where it does not. On a GPU, where kernels follow the shape, they always go together.
"""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

ROWS_AT_ONCE = 4
"""A party's rows are filled up to a multiple of it, for single rows mostly have kernels of their own."""


def filled_up(rows: Float[Tensor, "K *X"]) -> Float[Tensor, "R *X"]:
    """The same rows, and rows of zeros."""
    missing = -len(rows) % ROWS_AT_ONCE
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows


def row_products(
    rows: Float[Tensor, "B R X"], matrix: Float[Tensor, "B X Y"], sizes: Sequence[int]
) -> Float[Tensor, "B R Y"]:
    """`rows @ matrix`, where the first `sizes[0]` rows are of one party, the next `sizes[1]` of another."""
    if len(sizes) < 2 or rows.device.type != "cpu":
        return torch.bmm(rows, matrix)
    turned = not matrix.is_contiguous()
    if _agree(tuple(sizes), tuple(rows.shape), matrix.shape[2], turned, torch.get_num_threads()):
        return torch.bmm(rows, matrix)
    return _apart(rows, matrix, sizes)


def _apart(rows: Tensor, matrix: Tensor, sizes: Sequence[int]) -> Tensor:
    parts = torch.split(rows, list(sizes), dim=1)
    return torch.cat([torch.bmm(part, matrix) for part in parts], dim=1)


@cache
def _agree(
    sizes: tuple[int, ...], shape: tuple[int, int, int], n_columns: int, turned: bool, n_threads: int
) -> bool:
    """Whether together and apart are the same bits: tried on random numbers, once for each shape.

    The order of a library's sums follows from shapes, machine and threads, not from the numbers.
    """
    n_batch, n_rows, n_inner = shape
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n_batch, n_rows, n_inner, generator=generator)
    matrix = torch.randn(n_batch, n_inner, n_columns, generator=generator)
    if turned:
        matrix = matrix.mT.contiguous().mT
    return torch.equal(torch.bmm(rows, matrix), _apart(rows, matrix, sizes))
