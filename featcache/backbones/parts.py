"""Parts that vision transformers of several families share: patches, attention, positions, kept states."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from featcache.backbones.sizes import Grid
from featcache.spec import Layer


class PatchEmbedding(nn.Module):
    """A patch convolution as one matrix product.

    Patches do not overlap, so it is the same function. The convolution itself is slow in bfloat16 on many
    GPUs and wrong on some (pytorch/pytorch issues 166643 and 163539), and rounds float32 to TF32 by default.
    """

    def __init__(self, patch: Grid, width: int, *, image: bool = False) -> None:
        """`patch` is (frames, rows, columns); the weights of an `image` model have no axis of frames."""
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.empty(width, 3, *(patch[1:] if image else patch)))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, frames: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B T N D"]:
        """One vector for each patch, those of a step numbered through (row, column)."""
        depth, rows, columns = self.patch
        cut = "b (t f) c (h y) (w x) -> b t (h w) (c f y x)"
        patches = rearrange(frames, cut, f=depth, y=rows, x=columns)
        return nn.functional.linear(patches, rearrange(self.weight, "d ... -> d (...)"), self.bias)


def attend(qkv: Float[Tensor, "B S QKV"], heads: int) -> Float[Tensor, "B S C"]:
    """Attention of every token to all of its sequence, from queries, keys and values side by side."""
    q, k, v = rearrange(qkv, "b s (qkv h d) -> qkv b h s d", qkv=3, h=heads)
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h s d -> b s (h d)")


def states_after(
    blocks: Iterable[Callable[[Tensor], Any]],
    norm: Callable[[Tensor], Tensor] | None,
    state: Float[Tensor, "B S D"],
    layers: tuple[Layer, ...],
) -> dict[Layer, Float[Tensor, "B S D"]]:
    """Run `state`, the token embedding, through all `blocks`, and keep what it is at `layers`.

    Args:
        blocks: each gives the next state, or (some releases of transformers) a tuple that begins with it.
        norm: the final norm; None where no layer asks for it.
        state: tokens of each sequence.
        layers: none deeper than the blocks reach.
    """
    kept, number = ({Layer(0): state} if Layer(0) in layers else {}), 0
    for number, block in enumerate(blocks, start=1):
        output = block(state)
        state = output[0] if isinstance(output, tuple) else output
        if Layer(number) in layers:
            kept[Layer(number)] = state
    if norm is not None:
        kept[Layer(number, normed=True)] = norm(state)
    return kept


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
    """A position table of `from_grid` (steps, rows, columns) at `to_grid`, trilinear with half-pixel centres.

    V-JEPA's authors give the ratios to torch, not the sizes, which is the same up to rounding.
    """
    if from_grid == to_grid:
        return table
    steps, rows, columns = from_grid
    volume = rearrange(table, "(t h w) c -> 1 c t h w", t=steps, h=rows, w=columns)
    return rearrange(F.interpolate(volume, size=to_grid, mode="trilinear"), "1 c t h w -> (t h w) c")
