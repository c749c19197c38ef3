"""DINOv3 from the hub's gated files: transformers' layers, every frame of a clip encoded by itself.

Patch tokens only: the class token and four registers take part in attention and are not kept. Positions are
rotations by where a patch's centre lies in a frame that spans -1 to 1, so any grid will do.
"""

from dataclasses import dataclass
from functools import partial
from math import pi
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.parts import PatchEmbedding, tokens_after
from featcache.backbones.sizes import Dinov3Size
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import KeyMap, renamed
from featcache.errors import WeightsError
from featcache.spec import Layer, TokenGrid

SKIPPED = ("embeddings.mask_token",)
"""Keys that tokens do not need: the stand-in for patches hidden in training."""

NAMES = {part: f"embeddings.{part}" for part in ("cls_token", "register_tokens", "patch_embeddings")}

ROTATION_BASE = 100.0


class Dinov3Model(nn.Module):
    """The parts of a DINOv3 that give patch tokens, as far down as they are needed."""

    def __init__(self, size: Dinov3Size, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        width = size.block.width
        self.grid, self.head_width = size.grid, width // size.block.heads
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_tokens = nn.Parameter(torch.empty(1, size.registers, width))
        self.patch_embeddings = PatchEmbedding(size.patch, width, image=True)
        self.layer = nn.ModuleList(_library_layers(size, n_blocks))
        self.norm = nn.LayerNorm(width, eps=size.block.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Patch tokens at `layers`, of which none is deeper than the model was made."""
        patches = rearrange(self.patch_embeddings(frames), "b t n d -> (b t) n d")
        extra = torch.cat([self.cls_token, self.register_tokens], dim=1)
        state = torch.cat([repeat(extra, "1 s d -> f s d", f=len(patches)), patches], dim=1)
        angles = rotation(self.grid, self.head_width, like=state)
        blocks = (partial(block, position_embeddings=angles) for block in self.layer)
        n_extra = extra.shape[1]
        return tokens_after(blocks, self.norm, state, layers, self.grid, n_extra=n_extra)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dinov3(PretrainedBackbone):
    """One DINOv3 by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    size: Dinov3Size

    family: ClassVar[str] = "dinov3"
    positions: ClassVar[str] = "rotation by row and column"
    network: ClassVar[type[nn.Module]] = Dinov3Model

    def key_map(self, found: Shapes) -> KeyMap:
        """The keys are the library's names, those of what comes before the layers under `embeddings.`."""
        return KeyMap(renamed(self.whole(), NAMES), SKIPPED)


open_model = Dinov3.named


def rotation(
    grid: TokenGrid, head_width: int, like: Float[Tensor, "*axes"]
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]:
    """Cosine and sine that turn each patch's queries and keys, in float32 until they are as `like`.

    Half of the angles are of the row, half of the column: 2 pi * x * 100^(-4 i / D), where the patch's centre
    is at x in -1 to 1; all of them twice, for the two halves of a head (Siméoni et al., 2025).
    """
    period = torch.arange(0, 1, 4 / head_width, device=like.device)
    turns = 2 * pi * ROTATION_BASE**-period
    rows, columns = (
        2 * (torch.arange(n, device=like.device) + 0.5) / n - 1 for n in (grid.rows, grid.columns)
    )
    row_angles = repeat(rearrange(rows, "h -> h 1") * turns, "h d -> (h w) d", w=grid.columns)
    column_angles = repeat(rearrange(columns, "w -> w 1") * turns, "w d -> (h w) d", h=grid.rows)
    angles = repeat(torch.cat([row_angles, column_angles], dim=1), "n d -> n (two d)", two=2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def _library_layers(size: Dinov3Size, n_blocks: int) -> list[nn.Module]:
    config_class, layer_class = _library_classes()
    block = size.block
    config = config_class(
        hidden_size=block.width,
        intermediate_size=block.mlp,
        num_hidden_layers=size.depth,
        num_attention_heads=block.heads,
        hidden_act="silu" if block.gated else "gelu",
        use_gated_mlp=block.gated,
        query_bias="q" in block.biases,
        key_bias="k" in block.biases,
        value_bias="v" in block.biases,
        layer_norm_eps=block.eps,
        attn_implementation="sdpa",
    )
    return [layer_class(config) for _ in range(n_blocks)]


def _library_classes() -> tuple[Any, Any]:
    """The library's config and layer; imported here, since it takes seconds and this is rarely needed."""
    try:
        from transformers import DINOv3ViTConfig
        from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTLayer
    except ImportError as problem:
        raise WeightsError(
            "the installed transformers has no DINOv3: pip install 'transformers>=4.56'"
        ) from problem
    return DINOv3ViTConfig, DINOv3ViTLayer
