"""One lean video ViT for the models that no library has: tubelets in, tokens after any block out.

Pre-norm blocks (Dosovitskiy et al., ICLR 2021) with learned or fixed positions, erf or tanh GELU, with or
without a final norm. Matrix products run in the dtype that is asked for; the sum that runs through the
blocks, the norms and the positions stay float32, which keeps a bfloat16 pass of 56 blocks accurate and costs
little.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.parts import Block, PatchEmbedding, tokens_after
from featcache.backbones.sizes import VideoViTSize
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


class VideoViT(nn.Module):
    """The model as far down as it is needed."""

    def __init__(self, size: VideoViTSize, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        self.grid, width = size.grid, size.block.width
        self.embedding = PatchEmbedding(size.patch, width)
        self.positions = nn.Parameter(torch.empty(size.n_tokens, width))
        self.blocks = nn.ModuleList(Block(size.block, gelu=size.gelu) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width, eps=size.block.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Float32 tokens at `layers`, of which none is deeper than the model was made."""
        return tokens_after(self.blocks, self.norm, self.embed(frames), layers, self.grid)

    def embed(self, frames: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B S C"]:
        """What the first block is given."""
        embedded: Tensor = rearrange(self.embedding(frames), "b t n c -> b (t n) c")
        return embedded + self.positions

    def parts(self) -> tuple[nn.ModuleList, nn.Module | None]:
        """The blocks, and the norm after the last of them."""
        return self.blocks, self.norm

    def blocks_for(self, state: Float[Tensor, "B S C"]) -> Iterable[Callable[[Tensor], Any]]:
        """The blocks as they are called on `state`."""
        return self.blocks


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoViTBackbone(PretrainedBackbone):
    """One such model by name; a family adds the name and `key_map`."""

    size: VideoViTSize

    network: ClassVar[type[nn.Module]] = VideoViT

    def stays_float32(self, name: str) -> bool:
        """Norms and positions: few numbers, met by the float32 sum."""
        return name == "positions" or "norm" in name
