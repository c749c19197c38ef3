"""DINOv2 from the hub's files or Meta's own: every frame of a clip encoded by itself, patch tokens only.

The model is our own, because the two files differ by more than names: the position table of 37 x 37 is
brought to the grid of the run in two ways, which move features by a fifth to a third of their spread at 224
pixels. Each file gets the rule of the code it was released with, and the fingerprint says which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones import base
from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.parts import Block, PatchEmbedding, tokens_after
from featcache.backbones.sizes import Dinov2Size, size_entry
from featcache.backbones.vit import TIMM_NAMES
from featcache.backbones.weights.checkpoint import Shapes, tensor_shapes
from featcache.backbones.weights.key_map import Entry, KeyMap, renamed
from featcache.spec import Layer, TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How one kind of file calls our parameters, and how its code resizes the position table."""

    names: Mapping[str, str | tuple[str, ...]]
    gated: Mapping[str, str]
    """Names of the two layers of a gated MLP."""
    offset: float
    """Added to the grid before the table's scale is computed; 0 resizes to the grid itself."""
    rule: str
    """The same in words, for the fingerprint."""


HUB_FORMAT = Format(
    names={
        "cls_token": "embeddings.cls_token",
        "positions": "embeddings.position_embeddings",
        "embedding": "embeddings.patch_embeddings.projection",
        "blocks": "encoder.layer",
        "qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
        "out": "attention.output.dense",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
        "scale1": "layer_scale1.lambda1",
        "scale2": "layer_scale2.lambda1",
        "norm": "layernorm",
    },
    gated={"up": "mlp.weights_in", "down": "mlp.weights_out"},
    offset=0.0,
    rule="bicubic to the grid",
)
"""`facebook/dinov2-*` on the hub, and transformers' way of resizing."""

META_FORMAT = Format(
    names=TIMM_NAMES | {"scale1": "ls1.gamma", "scale2": "ls2.gamma"},
    gated={"up": "mlp.w12", "down": "mlp.w3"},
    offset=0.1,
    rule="bicubic by (grid + 0.1) / table",
)
"""`dinov2_vit*14_pretrain.pth`, and facebookresearch/dinov2's way of resizing."""

SKIPPED = ("embeddings.mask_token", "mask_token")
"""Keys that tokens do not need: the stand-in for patches hidden in training."""


class Dinov2Model(nn.Module):
    """The parts of a DINOv2 that give patch tokens, as far down as they are needed."""

    def __init__(self, size: Dinov2Size, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        self.grid, width = size.grid, size.block.width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + size.grid.tokens_per_step, width))
        self.embedding = PatchEmbedding(size.patch, width, image=True)
        self.blocks = nn.ModuleList(Block(size.block) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width, eps=size.block.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Patch tokens at `layers`; the class token takes part in attention, and is not among them."""
        patches = rearrange(self.embedding(frames), "b t n d -> (b t) n d")
        first = repeat(self.cls_token, "1 1 d -> f 1 d", f=len(patches))
        state = torch.cat([first, patches], dim=1) + self.positions
        return tokens_after(self.blocks, self.norm, state, layers, self.grid, n_extra=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dinov2(PretrainedBackbone):
    """One DINOv2 by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    size: Dinov2Size

    network: ClassVar[type[nn.Module]] = Dinov2Model

    def architecture(self) -> base.JSON:
        """The size's numbers, and the rule for positions, which the kind of file decides."""
        rule = _format(tensor_shapes(self.file(), every=self.own)).rule
        return {"family": "dinov2", "positions": rule, **size_entry(self.size)}

    def key_map(self, found: Shapes) -> KeyMap:
        """Meta's names where its position table is among `found`, else those of the hub."""
        form, size = _format(found), self.size
        names = {**form.names, **(form.gated if size.block.gated else {})}
        entries = renamed(self.whole(), names)
        # Resized before it is rounded: bicubic weights in bfloat16 would shift the positions.
        entries["positions"] = Entry(
            entries["positions"].keys,
            (1, 1 + size.table**2, size.block.width),
            then=partial(resize_positions, grid=size.grid, offset=form.offset),
        )
        return KeyMap(entries, SKIPPED)


open_model = Dinov2.named


def resize_positions(table: Float[Tensor, "1 P D"], grid: TokenGrid, offset: float) -> Float[Tensor, "1 S D"]:
    """The class token's position as it is, the square table of the others at `grid`'s size, bicubic.

    With an `offset` the sampling step is table / (grid + offset), as facebookresearch/dinov2 does it to be
    safe from rounding; without, table / grid, as transformers does it. A table of the grid's size stays.
    """
    side = isqrt(table.shape[1] - 1)
    if (grid.rows, grid.columns) == (side, side):
        return table
    square = rearrange(table[:, 1:], "1 (h w) d -> 1 d h w", h=side)
    how = (
        {"scale_factor": ((grid.rows + offset) / side, (grid.columns + offset) / side)}
        if offset
        else {"size": (grid.rows, grid.columns)}
    )
    resized = F.interpolate(square, **how, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], rearrange(resized, "1 d h w -> 1 (h w) d")], dim=1)


def _format(found: Shapes) -> Format:
    """Also of keys that a wrapper of training has put its name before: the fingerprint is made of those."""
    is_meta = any(key.rpartition(".")[2] == TIMM_NAMES["positions"] for key in found)
    return META_FORMAT if is_meta else HUB_FORMAT
