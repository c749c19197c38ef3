"""V-JEPA 2.1 from its authors' files, which transformers cannot run: it loads them without a word, and wrong.

The blocks are V-JEPA 2's. Other are: the two channels that are turned together have one frequency; rows and
columns are counted on the grid of 256 pixels, whatever the input's, steps as they are; a learned vector says
of every token that it is a clip's, or an image's; the norm after the last block is the last of four, each of
another depth. Images have a patch embedding of their own, which a clip of one frame takes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.parts import Angles, Block, PatchEmbedding, tokens_after
from featcache.backbones.sizes import Vjepa21Size
from featcache.backbones.vit import TIMM_NAMES
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import KeyMap, renamed
from featcache.spec import Layer, TokenGrid

PREFIX = "module.backbone."
"""Of every key as released: the wrappers of distributed training and of masking."""

TRAINED_SIDE = 256
"""Rows and columns, in pixels, of the clips it was trained on: their patches' numbers are the positions."""

_CLIPS, _IMAGES = ("patch_embed.proj", "video_mod_embed"), ("patch_embed_img.proj", "img_mod_embed")
"""What the file calls the patch embedding and the vector of each kind of input."""


class Vjepa21Model(nn.Module):
    """The parts of a V-JEPA 2.1 that give tokens, as far down as they are needed."""

    def __init__(self, size: Vjepa21Size, *, n_blocks: int, norms: tuple[int, ...]) -> None:
        super().__init__()
        self.grid, self.levels, block = size.grid, size.levels, size.block
        self.head_width, self.side = block.width // block.heads, TRAINED_SIDE // size.patch[1]
        self.embedding = PatchEmbedding(size.patch, block.width)
        self.modality = nn.Parameter(torch.empty(1, 1, block.width))
        self.blocks = nn.ModuleList(Block(block) for _ in range(n_blocks))
        # By the number of their level, as in the file.
        wanted = (str(size.levels.index(block)) for block in norms)
        self.norms = nn.ModuleDict({level: nn.LayerNorm(block.width, eps=block.eps) for level in wanted})

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Float32 tokens at `layers`, of which none is deeper than the model was made."""
        state, (_, last) = self.embed(frames), self.parts()
        norms = {self.levels[int(level)]: norm for level, norm in self.norms.items() if norm is not last}
        return tokens_after(self.blocks_for(state), last, state, layers, self.grid, level_norms=norms)

    def embed(self, frames: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B S C"]:
        """What the first block is given."""
        embedded: Tensor = rearrange(self.embedding(frames), "b t n c -> b (t n) c")
        return embedded + self.modality

    def parts(self) -> tuple[nn.ModuleList, nn.Module | None]:
        """The blocks, and the norm after the last of them."""
        at = {self.levels[int(level)]: norm for level, norm in self.norms.items()}
        return self.blocks, at.get(len(self.blocks))

    def blocks_for(self, state: Float[Tensor, "B S C"]) -> Iterable[Callable[[Tensor], Any]]:
        """The blocks as they are called on `state`: with the positions of all tokens."""
        angles = rotation(self.grid, self.head_width, self.side, state.device)
        return [partial(block, angles=angles) for block in self.blocks]


@dataclass(frozen=True, kw_only=True, slots=True)
class Vjepa21(PretrainedBackbone):
    """One V-JEPA 2.1 by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    size: Vjepa21Size

    family: ClassVar[str] = "vjepa21"
    positions: ClassVar[str] = "rotation by step, and by row and column on the grid of 256 pixels"
    skipped_sections: ClassVar[tuple[str, ...]] = ("encoder", "predictor")

    @property
    def sections(self) -> tuple[str, ...]:
        """The moving average of the training: `encoder` has the same keys, and is what chased it."""
        return ("ema_encoder",) if self.size.distilled else ("target_encoder",)

    def model(self, n_blocks: int, norms: tuple[int, ...]) -> nn.Module:
        """The network cut after `n_blocks`, with the norms after `norms`."""
        return Vjepa21Model(self.size, n_blocks=n_blocks, norms=norms)

    def key_map(self, found: Shapes) -> KeyMap:
        """The authors' names; what the other kind of input needs is skipped."""
        prefix = PREFIX if any(key.startswith(PREFIX) for key in found) else ""
        ours, others = (_IMAGES, _CLIPS) if self.size.patch[0] == 1 else (_CLIPS, _IMAGES)
        names = TIMM_NAMES | {"norms": "norms_block", "embedding": ours[0], "modality": ours[1]}
        return KeyMap(renamed(self.whole(), names, prefix), tuple(prefix + name for name in others))

    def stays_float32(self, name: str) -> bool:
        """Norms and the vector of every token: few numbers, met by the float32 sum."""
        return name == "modality" or "norm" in name


open_model = Vjepa21.named


def rotation(grid: TokenGrid, head_width: int, side: int, device: torch.device) -> Angles:
    """Cosine and sine, in float32, that turn each token's queries and keys.

    A third of the D channels, rounded down to an even number d, is for each of step, row and column; of their
    d / 2 pairs of neighbours pair i is turned by n * 10000^(-2 i / d) at place n. Channels left over stay.
    Rows count from 0 to `side` - 1 however many there are, columns too; steps count as they are.
    """
    each = 2 * (head_width // 3 // 2)
    frequency = 1 / 10000 ** (torch.arange(each // 2, device=device) / (each / 2))
    rows, columns = (torch.arange(n, device=device) * (side - 1) / (n - 1) for n in (grid.rows, grid.columns))
    steps = torch.arange(grid.steps, device=device, dtype=rows.dtype)
    places = torch.cartesian_prod(steps, rows, columns)
    angles = [repeat(place[:, None] * frequency, "s d -> s (d two)", two=2) for place in places.unbind(1)]
    left_over = torch.zeros(len(places), head_width - 3 * each, device=device)
    every = torch.cat([*angles, left_over], dim=1)
    return every.cos(), every.sin()
