"""One lean video ViT for the models that no library has: tubelets in, tokens after any block out.

Pre-norm blocks (Dosovitskiy et al., ICLR 2021) with learned or fixed positions, erf or tanh GELU, with or
without a final norm. Matrix products run in the dtype that is asked for; the sum that runs through the
blocks, the norms and the positions stay float32, which keeps a bfloat16 pass of 56 blocks accurate and costs
little.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from featcache.backbones import base
from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.parts import PatchEmbedding, attend, states_after
from featcache.backbones.sizes import VideoViTSize, size_entry
from featcache.spec import Layer

TIMM_NAMES = {
    "embedding": "patch_embed.proj",
    "positions": "pos_embed",
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
"""Our parts under the names of the timm library, which V-JEPA, VideoMAEv2 and Meta's DINOv2 use."""


class Block(nn.Module):
    """Attention and MLP, each on the normed sum so far and added to it."""

    def __init__(self, size: VideoViTSize) -> None:
        super().__init__()
        block = size.block
        self.heads, self.approximate = block.heads, "tanh" if size.gelu == "tanh" else "none"
        self.norm1 = nn.LayerNorm(block.width, eps=block.eps)
        # A family without a bias of keys has zeros there: the softmax does not see a constant.
        self.qkv = nn.Linear(block.width, 3 * block.width)
        self.out = nn.Linear(block.width, block.width)
        self.norm2 = nn.LayerNorm(block.width, eps=block.eps)
        self.up = nn.Linear(block.width, block.mlp)
        self.down = nn.Linear(block.mlp, block.width)

    def forward(self, state: Float[Tensor, "B S C"]) -> Float[Tensor, "B S C"]:
        """Float32 in and out, products in the dtype of the weights."""
        dtype = self.qkv.weight.dtype
        state = state + self.out(attend(self.qkv(self.norm1(state).to(dtype)), self.heads))
        hidden = F.gelu(self.up(self.norm2(state).to(dtype)), approximate=self.approximate)
        result: Tensor = state + self.down(hidden)
        return result


class VideoViT(nn.Module):
    """The model as far down as it is needed."""

    def __init__(self, size: VideoViTSize, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        self.grid, width = size.grid, size.block.width
        self.embedding = PatchEmbedding(size.patch, width)
        self.positions = nn.Parameter(torch.empty(size.n_tokens, width))
        self.blocks = nn.ModuleList(Block(size) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width, eps=size.block.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Float32 tokens at `layers`, of which none is deeper than the model was made."""
        state = rearrange(self.embedding(frames), "b t n c -> b (t n) c") + self.positions
        kept = states_after(self.blocks, self.norm, state, layers)
        cut = {"t": self.grid.steps, "h": self.grid.rows, "w": self.grid.columns}
        return {layer: rearrange(kept[layer], "b (t h w) c -> b t h w c", **cut) for layer in layers}


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoViTBackbone(PretrainedBackbone):
    """One such model by name; a family adds the name and `key_map`."""

    size: VideoViTSize

    family: ClassVar[str]

    def architecture(self) -> base.JSON:
        """Family and the size's numbers, for the fingerprint."""
        return {"family": self.family, **size_entry(self.size)}

    def model(self, n_blocks: int, normed: bool) -> VideoViT:
        """The ViT cut after `n_blocks`, with the final norm where `normed`."""
        return VideoViT(self.size, n_blocks=n_blocks, normed=normed)

    def stays_float32(self, name: str) -> bool:
        """Norms and positions: few numbers, met by the float32 sum."""
        return name == "positions" or "norm" in name
