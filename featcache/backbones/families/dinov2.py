"""DINOv2 from the hub's files or Meta's own: every frame of a clip encoded by itself, patch tokens only.

The model is our own, because the two layouts differ by more than names: the position table of 37 x 37 is
brought to the grid of the run in two ways, which move features by a fifth to a third of their spread at 224
pixels. Each file gets the rule of the code it was released with, and the fingerprint says which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones import base
from featcache.backbones.encoder import PatchEmbedding, states_after
from featcache.backbones.one_file import OneFileBackbone
from featcache.backbones.releases import check_keys
from featcache.backbones.sizes import DINOV2_SIZES, BlockSize, Dinov2Size, size_entry
from featcache.backbones.vit_catalogue import FILES, VIT_HUB, VIT_INFOS
from featcache.backbones.weights.checkpoint import Shapes, TensorFile, open_tensors, tensor_shapes
from featcache.backbones.weights.locate import obtain_weights
from featcache.spec import Layer, TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How one released layout calls our parameters, and how its code resizes the position table."""

    top: Mapping[str, str]
    """Our part -> its name."""
    block: Mapping[str, tuple[str, ...]]
    """Our part of a block -> its name, or names of what we keep in one piece."""
    blocks: str
    offset: float
    """Added to the grid before the table's scale is computed; 0 resizes to the grid itself."""
    rule: str
    """The same in words, for the fingerprint."""

    def keys(self, name: str) -> tuple[str, ...]:
        """The file's keys that make up our parameter `name`, in order along its first axis."""
        part, _, rest = name.partition(".")
        if part != "blocks":
            return (".".join(filter(None, (self.top[part], rest))),)
        number, part, *suffix = rest.split(".")
        return tuple(".".join((self.blocks, number, piece, *suffix)) for piece in self.block[part])


HUB_LAYOUT = Layout(
    top={
        "cls_token": "embeddings.cls_token",
        "positions": "embeddings.position_embeddings",
        "patches": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    },
    block={
        "norm1": ("norm1",),
        "qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
        "proj": ("attention.output.dense",),
        "scale1": ("layer_scale1.lambda1",),
        "norm2": ("norm2",),
        "fc1": ("mlp.fc1",),
        "fc2": ("mlp.fc2",),
        "gate_up": ("mlp.weights_in",),
        "down": ("mlp.weights_out",),
        "scale2": ("layer_scale2.lambda1",),
    },
    blocks="encoder.layer",
    offset=0.0,
    rule="bicubic to the grid",
)
"""`facebook/dinov2-*` on the hub, and transformers' way of resizing."""

META_LAYOUT = Layout(
    top={"cls_token": "cls_token", "positions": "pos_embed", "patches": "patch_embed.proj", "norm": "norm"},
    block={
        "norm1": ("norm1",),
        "qkv": ("attn.qkv",),
        "proj": ("attn.proj",),
        "scale1": ("ls1.gamma",),
        "norm2": ("norm2",),
        "fc1": ("mlp.fc1",),
        "fc2": ("mlp.fc2",),
        "gate_up": ("mlp.w12",),
        "down": ("mlp.w3",),
        "scale2": ("ls2.gamma",),
    },
    blocks="blocks",
    offset=0.1,
    rule="bicubic by (grid + 0.1) / table",
)
"""`dinov2_vit*14_pretrain.pth`, and facebookresearch/dinov2's way of resizing."""

LEFT_OUT = ("embeddings.mask_token", "mask_token")
"""Keys that tokens do not need: the stand-in for patches hidden in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dinov2(OneFileBackbone):
    """One DINOv2 by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    size: Dinov2Size

    def architecture(self) -> base.JSON:
        """The size's numbers, and the rule for positions, which the file's layout decides."""
        rule = _layout(tensor_shapes(self.file())).rule
        return {"family": "dinov2", "positions": rule, **size_entry(self.size)}

    def model(self, n_blocks: int, normed: bool) -> nn.Module:
        """See `OneFileBackbone`."""
        return token_model(self.size, n_blocks=n_blocks, normed=normed)

    def parameters(
        self, wanted: dict[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """See `OneFileBackbone`."""
        path = self.file()
        with open_tensors(path) as file:
            layout = _layout(file.shapes)
            check_keys(file.shapes, released_shapes(self.size, layout), left_out=LEFT_OUT, origin=str(path))
            return {name: self._parameter(name, layout, file).to(device, dtype) for name in wanted}

    def _parameter(self, name: str, layout: Layout, file: TensorFile) -> Float[Tensor, "..."]:
        whole = torch.cat([file.read(key) for key in layout.keys(name)])
        if name != "positions":
            return whole
        # Resized before it is rounded: bicubic weights in bfloat16 would shift the positions.
        return resize_positions(whole.float(), self.info.grid, layout.offset)


class Block(nn.Module):
    """One pre-norm block with LayerScale; the MLP is GELU's (exact) or SwiGLU's."""

    def __init__(self, size: BlockSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1 = nn.LayerNorm(size.width, eps=size.eps)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)
        self.scale1 = nn.Parameter(torch.ones(size.width))
        self.norm2 = nn.LayerNorm(size.width, eps=size.eps)
        self.scale2 = nn.Parameter(torch.ones(size.width))
        self.gated = size.gated
        if size.gated:
            self.gate_up = nn.Linear(size.width, 2 * size.mlp)
            self.down = nn.Linear(size.mlp, size.width)
        else:
            self.fc1 = nn.Linear(size.width, size.mlp)
            self.fc2 = nn.Linear(size.mlp, size.width)

    def forward(self, state: Float[Tensor, "F S D"]) -> Float[Tensor, "F S D"]:
        """Attention within each frame, then the MLP, each added to what came in."""
        state = state + self.scale1 * self._attend(self.norm1(state))
        return state + self.scale2 * self._mlp(self.norm2(state))

    def _attend(self, state: Float[Tensor, "F S D"]) -> Float[Tensor, "F S D"]:
        query, key, value = rearrange(self.qkv(state), "f s (qkv h d) -> qkv f h s d", qkv=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        found: Tensor = self.proj(rearrange(mixed, "f h s d -> f s (h d)"))
        return found

    def _mlp(self, state: Float[Tensor, "F S D"]) -> Float[Tensor, "F S D"]:
        found: Tensor
        if self.gated:
            gate, up = rearrange(self.gate_up(state), "f s (two d) -> two f s d", two=2)
            found = self.down(F.silu(gate) * up)
        else:
            found = self.fc2(F.gelu(self.fc1(state)))
        return found


class Dinov2Model(nn.Module):
    """The parts of a DINOv2 that give patch tokens, as far down as they are needed."""

    def __init__(self, size: Dinov2Size, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        width = size.block.width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + size.grid.tokens_per_step, width))
        self.patches = PatchEmbedding(size.patch, width, image=True)
        self.blocks = nn.ModuleList(Block(size.block) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width, eps=size.block.eps) if normed else None
        self.rows = size.grid.rows

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Patch tokens at `layers`; the class token takes part in attention and is left out here."""
        n_clips = len(frames)
        patches = rearrange(self.patches(frames), "b t n d -> (b t) n d")
        first = repeat(self.cls_token, "1 1 d -> f 1 d", f=len(patches))
        state = torch.cat([first, patches], dim=1) + self.positions
        kept = states_after(self.blocks, self.norm, state, layers)
        grid = partial(rearrange, pattern="(b t) (h w) c -> b t h w c", b=n_clips, h=self.rows)
        return {layer: grid(kept[layer][:, 1:]) for layer in layers}


def token_model(size: Dinov2Size, *, n_blocks: int | None = None, normed: bool = True) -> Dinov2Model:
    """The model without memory behind it (meta device): whole, or cut after `n_blocks`."""
    with torch.device("meta"):
        return Dinov2Model(size, n_blocks=size.depth if n_blocks is None else n_blocks, normed=normed)


def released_shapes(size: Dinov2Size, layout: Layout) -> Shapes:
    """Every key that the whole model takes from a file of `layout`, with its shape."""
    shapes: Shapes = {}
    for name, tensor in token_model(size).state_dict().items():
        keys = layout.keys(name)
        first, *others = tensor.shape
        shapes |= dict.fromkeys(keys, (first // len(keys), *others))
    return shapes | {layout.top["positions"]: (1, 1 + size.table**2, size.block.width)}


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


def open_dinov2(name: str, weights_dir: Path | None) -> Dinov2:
    """A published DINOv2: from Meta's file or the hub's in `<weights_dir>/<name>/`, or through the hub."""

    def file() -> Path:
        single = FILES[name].find(name, weights_dir)
        return single if single is not None else obtain_weights(name, VIT_HUB[name], weights_dir).weights

    return Dinov2(info=VIT_INFOS[name], size=DINOV2_SIZES[name], file=file)


def _layout(found: Shapes) -> Layout:
    return META_LAYOUT if META_LAYOUT.top["positions"] in found else HUB_LAYOUT
