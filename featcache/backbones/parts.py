"""Parts that vision transformers of several families share: patches, blocks, positions, kept tokens."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from featcache.backbones.sizes import BlockSize, Grid
from featcache.spec import Layer, TokenGrid

Angles = tuple[Float[Tensor, "S D"], Float[Tensor, "S D"]]
"""Cosine and sine of what each channel of a token's queries and keys is turned by."""

CACHED_LOGIT_BYTES, LOGIT_BYTES = 2**22, 2**26
"""Float32 logits of capped attention at once: what a core's caches hold (three times as fast as all of them
on two cores), and on a GPU what keeps memory small beside the tokens for few launches more.
"""


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


class Block(nn.Module):
    """Attention and MLP, each on the normed sum so far and added to it (Dosovitskiy et al., ICLR 2021).

    The MLP is GELU's or SwiGLU's, what is added may have a scale a channel (LayerScale), as `size` says.
    """

    def __init__(
        self, size: BlockSize, *, gelu: Literal["erf", "tanh"] = "erf", soft_cap: float | None = None
    ) -> None:
        super().__init__()
        self.size, self.soft_cap, self.approximate = size, soft_cap, "tanh" if gelu == "tanh" else "none"
        self.norm1 = nn.LayerNorm(size.width, eps=size.eps)
        # A family without a bias of keys has zeros there: the softmax does not see a constant.
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.out = nn.Linear(size.width, size.width)
        self.norm2 = nn.LayerNorm(size.width, eps=size.eps)
        self.up = nn.Linear(size.width, (2 if size.gated else 1) * size.mlp)
        self.down = nn.Linear(size.mlp, size.width)
        if size.scaled:
            self.scale1, self.scale2 = (nn.Parameter(torch.ones(size.width)) for _ in range(2))

    def forward(self, state: Float[Tensor, "B S C"], angles: Angles | None = None) -> Float[Tensor, "B S C"]:
        """Attention within each sequence, then the MLP; products in the dtype of the weights.

        With `angles` queries and keys are turned by where their token is.
        """
        dtype = self.qkv.weight.dtype
        qkv = self.qkv(self.norm1(state).to(dtype))
        attended = self.out(attend(qkv, self.size.heads, self.soft_cap, angles))
        state = state + (self.scale1 * attended if self.size.scaled else attended)
        hidden = self.up(self.norm2(state).to(dtype))
        if self.size.gated:
            gate, up = rearrange(hidden, "b s (two c) -> two b s c", two=2)
            hidden = F.silu(gate) * up
        else:
            hidden = F.gelu(hidden, approximate=self.approximate)
        added = self.down(hidden)
        result: Tensor = state + (self.scale2 * added if self.size.scaled else added)
        return result


def attend(
    qkv: Float[Tensor, "B S QKV"], heads: int, soft_cap: float | None = None, angles: Angles | None = None
) -> Float[Tensor, "B S C"]:
    """Attention of every token to all of its sequence, from queries, keys and values side by side.

    With a `soft_cap` each logit x becomes soft_cap * tanh(x / soft_cap); with `angles` queries and keys are
    turned before they meet.
    """
    if soft_cap is None:
        q, k, v = rearrange(qkv, "b s (qkv h d) -> qkv b h s d", qkv=3, h=heads)
        if angles is not None:
            q, k = turned(q, angles), turned(k, angles)
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b h s d -> b s (h d)")
    most = CACHED_LOGIT_BYTES if qkv.device.type == "cpu" else LOGIT_BYTES
    at_once = max(1, most // (4 * heads * qkv.shape[1] ** 2))
    pieces = (qkv[at : at + at_once] for at in range(0, len(qkv), at_once))
    return torch.cat([_capped_attention(piece, heads, soft_cap) for piece in pieces])


def turned(channels: Float[Tensor, "B h S D"], angles: Angles) -> Float[Tensor, "B h S D"]:
    """Queries or keys, each pair of neighbouring channels turned; in the precision of the angles."""
    cosine, sine = angles
    first, second = rearrange(channels, "b h s (d two) -> two b h s d", two=2)
    across = rearrange([-second, first], "two b h s d -> b h s (d two)")
    found: Tensor = channels * cosine + across * sine
    return found.to(channels.dtype)


def _capped_attention(qkv: Float[Tensor, "B S QKV"], heads: int, soft_cap: float) -> Float[Tensor, "B S C"]:
    """As none of torch's kernels does it: logits stay float32 through cap and softmax."""
    q, k, v = rearrange(qkv, "b s (qkv h d) -> qkv b h s d", qkv=3, h=heads)
    scale = q.shape[-1] ** -0.5 / soft_cap
    logits = (q * scale @ rearrange(k, "b h s d -> b h d s")).float().tanh_().mul_(soft_cap)
    found: Tensor = logits.softmax(dim=-1).to(v.dtype) @ v
    return rearrange(found, "b h s d -> b s (h d)")


def tokens_after(
    blocks: Iterable[Callable[[Tensor], Any]],
    norm: Callable[[Tensor], Tensor] | None,
    state: Float[Tensor, "B S D"],
    layers: tuple[Layer, ...],
    grid: TokenGrid,
    *,
    n_extra: int = 0,
    begin: int = 0,
    level_norms: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
) -> dict[Layer, Float[Tensor, "C T H W D"]]:
    """Run `state`, tokens after block `begin`, through `blocks`, and return the clips' tokens at `layers`.

    Args:
        blocks: each gives the next state, or (some releases of transformers) a tuple that begins with it.
        norm: the final norm; None where no layer asks for it.
        state: tokens of each sequence, which is a whole clip, or one of its frames.
        layers: none deeper than the blocks reach, none before the first of them.
        grid: of a clip's tokens.
        n_extra: tokens that each sequence begins with and that are no patches: they are left out.
        begin: blocks that were run before; 0 where `state` is the token embedding.
        level_norms: block before the last -> the model's own norm there, for its normed layer.
    """
    kept, number = ({Layer(begin): state} if Layer(begin) in layers else {}), begin
    for number, block in enumerate(blocks, start=begin + 1):
        output = block(state)
        state = output[0] if isinstance(output, tuple) else output
        if Layer(number) in layers:
            kept[Layer(number)] = state
        if level_norms and number in level_norms:
            kept[Layer(number, normed=True)] = level_norms[number](state)
    if norm is not None:
        kept[Layer(number, normed=True)] = norm(state)
    steps = (state.shape[1] - n_extra) // grid.tokens_per_step
    cut = {"f": grid.steps // steps, "t": steps, "h": grid.rows, "w": grid.columns}
    pattern = "(b f) (t h w) d -> b (f t) h w d"
    return {layer: rearrange(kept[layer][:, n_extra:], pattern, **cut) for layer in layers}


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
