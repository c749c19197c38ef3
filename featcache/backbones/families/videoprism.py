"""VideoPrism from its released Flax arrays: blocks over each frame's tokens, then over each patch's steps.

The model is our own: transformers' class came late, and its layers of the two stages have no common shape.
What is easy to get wrong is here in the open: attention logits are capped softly, norms multiply by
1 + scale, pixels stay in [0, 1], and the position in time is added after the first stage's norm.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.parts import Block, PatchEmbedding
from featcache.backbones.sizes import VideoPrismSize
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import (
    Entries,
    Entry,
    KeyMap,
    flax_dense,
    flax_norm,
    nested,
    renamed,
    stacked,
)
from featcache.resampling import temporal_matrix
from featcache.spec import Layer


class VideoPrismModel(nn.Module):
    """The parts of a VideoPrism that give tokens, as far down as they are needed."""

    def __init__(self, size: VideoPrismSize, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        width, grid = size.block.width, size.grid
        n_spatial = min(n_blocks, size.spatial_depth)
        n_temporal = n_blocks - n_spatial
        self.rows = grid.rows
        self.patches = PatchEmbedding(size.patch, width)
        self.spatial_positions = nn.Parameter(torch.empty(grid.tokens_per_step, width))
        block = partial(Block, size.block, soft_cap=size.soft_cap)
        self.spatial = nn.ModuleList(block() for _ in range(n_spatial))
        self.temporal = nn.ModuleList(block() for _ in range(n_temporal))
        if n_temporal:
            self.spatial_norm = nn.LayerNorm(width, eps=size.block.eps)
            self.temporal_positions = nn.Parameter(torch.empty(grid.steps, width))
        self.temporal_norm = nn.LayerNorm(width, eps=size.block.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Tokens at `layers`, of which none is deeper than the model was made."""
        kept = {layer: state for layer, state in self._states(frames) if layer in layers}
        return {layer: rearrange(kept[layer], "b t (h w) c -> b t h w c", h=self.rows) for layer in layers}

    def _states(
        self, frames: Float[Tensor, "B F rgb Y X"]
    ) -> Iterator[tuple[Layer, Float[Tensor, "B T N D"]]]:
        state = self.patches(frames) + self.spatial_positions
        n_clips, _, n_tokens, _ = state.shape
        yield Layer(0), state
        state = rearrange(state, "b t n d -> (b t) n d")
        for number, block in enumerate(self.spatial, start=1):
            state = block(state)
            yield Layer(number), rearrange(state, "(b t) n d -> b t n d", b=n_clips)
        if not len(self.temporal):
            return
        state = rearrange(self.spatial_norm(state), "(b t) n d -> (b n) t d", b=n_clips)
        state = state + self.temporal_positions
        for number, block in enumerate(self.temporal, start=1 + len(self.spatial)):
            state = block(state)
            yield Layer(number), rearrange(state, "(b n) t d -> b t n d", n=n_tokens)
        if self.temporal_norm is not None:
            last = Layer(len(self.spatial) + len(self.temporal), normed=True)
            yield last, rearrange(self.temporal_norm(state), "(b n) t d -> b t n d", n=n_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoPrism(PretrainedBackbone):
    """One VideoPrism by name; see `featcache.backbones.base.Backbone` for what the methods promise.

    Blocks are counted through both stages; tokens after the last block of the first stage are as that block
    gives them, before the norm and the positions in time that the second stage begins with.
    """

    size: VideoPrismSize

    family: ClassVar[str] = "videoprism"
    positions: ClassVar[str] = "linear in time and space"
    network: ClassVar[type[nn.Module]] = VideoPrismModel

    def key_map(self, found: Shapes) -> KeyMap:
        """The names of transformers' VideoPrismVisionModel where `found` has them, else those of Flax."""
        in_torch = any(key.startswith("spatial_layers.") for key in found)
        entries = self._torch_entries() if in_torch else flax_entries(self.size)
        # Positions are stretched before they are rounded: every token carries their error.
        for name, stretch in (("spatial", stretch_spatial), ("temporal", stretch_temporal)):
            table = f"{name}_positions"
            entries[table] = replace(entries[table], then=partial(stretch, size=self.size))
        return KeyMap(entries)

    def _torch_entries(self) -> Entries:
        """Norms are stored as what they differ from 1 by; the two tables have a leading axis of one."""
        entries = renamed(self.whole(), TORCH_NAMES)
        for name, entry in entries.items():
            if "norm" in name and name.endswith(".weight"):
                entries[name] = replace(entry, plus=1.0)
        (steps, rows, columns), width = self.size.table, self.size.block.width
        for name, length in (("spatial", rows * columns), ("temporal", steps)):
            keys = (f"{name}_embeddings.position_embeddings",)
            entries[f"{name}_positions"] = Entry(keys, (1, length, width), "1 n d -> n d")
        return entries


open_model = VideoPrism.named


TORCH_NAMES: dict[str, str | tuple[str, ...]] = {
    "spatial": "spatial_layers",
    "temporal": "temporal_layers",
    "patches": "spatial_embeddings.patch_embeddings.projection",
    "spatial_norm": "layernorm1",
    "temporal_norm": "layernorm2",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    "out": "attention.o_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
"""Our parts in `model.safetensors` of transformers' VideoPrismVisionModel."""


def flax_entries(size: VideoPrismSize) -> Entries:
    """Our parameters in `flax_*_repeated.npz`, where the blocks of a stage are stacked in each array."""
    width, (steps, rows, columns) = size.block.width, size.table
    _, y, x = size.patch
    patch = "params/patch_projection/linear"
    entries: Entries = {
        "patches.weight": Entry(
            (f"{patch}/kernel",), (y * x * 3, width), "(y x c) d -> d c 1 y x", {"y": y, "x": x}
        ),
        "patches.bias": Entry((f"{patch}/bias",), (width,)),
        "spatial_positions": Entry(("params/spatial_pos_emb/emb_var",), (rows * columns, width)),
        "temporal_positions": Entry(("params/temporal_pos_emb/emb_var",), (steps, width)),
    }
    for stage, depth in (("spatial", size.spatial_depth), ("temporal", size.temporal_depth)):
        entries |= flax_norm(f"{stage}_norm", f"params/{stage}_ln", width, plus=1.0)
        stack = f"params/{stage}_encoder/transformers_stack/x_layers/"
        for layer in range(depth):
            entries |= nested(f"{stage}.{layer}.", stack, stacked(depth, layer, _flax_block(size)))
    return entries


def _flax_block(size: VideoPrismSize) -> Entries:
    width, heads, mlp = size.block.width, size.block.heads, size.block.mlp
    qkv, per_head = [f"self_attention/{name}" for name in ("query", "key", "value")], width // heads
    return {
        **flax_norm("norm1", "layer_norm", width, plus=1.0),
        **flax_norm("norm2", "ff_layer/layer_norm", width, plus=1.0),
        "qkv.weight": Entry(tuple(f"{part}/w" for part in qkv), (width, heads, per_head), "i h d -> (h d) i"),
        "qkv.bias": Entry(tuple(f"{part}/b" for part in qkv), (heads, per_head), "h d -> (h d)"),
        # The output projection alone is stored with its outputs first.
        "out.weight": Entry(("self_attention/post/w",), (width, heads, per_head), "o h d -> o (h d)"),
        "out.bias": Entry(("self_attention/post/b",), (width,)),
        **flax_dense("up", "ff_layer/ffn_layer1/linear", width, mlp),
        **flax_dense("down", "ff_layer/ffn_layer2/linear", mlp, width),
    }


def stretch_temporal(table: Float[Tensor, "T D"], size: VideoPrismSize) -> Float[Tensor, "U D"]:
    """The positions of steps at the grid of the run; a table of the grid's size stays.

    Linear at half-pixel centres, averaging where the grid is smaller, as `jax.image.resize` does it.
    """
    return einsum(_linear(size.table[0], size.grid.steps), table, "u t, t d -> u d")


def stretch_spatial(table: Float[Tensor, "N D"], size: VideoPrismSize) -> Float[Tensor, "P D"]:
    """The positions of patches at the grid of the run, along each axis as `stretch_temporal`."""
    (_, rows, columns), grid = size.table, size.grid
    square = rearrange(table, "(h w) d -> h w d", h=rows)
    vertical, horizontal = _linear(rows, grid.rows), _linear(columns, grid.columns)
    square = einsum(vertical, horizontal, square, "y h, x w, h w d -> y x d")
    return rearrange(square, "y x d -> (y x) d")


def _linear(n_in: int, n_out: int) -> Float[Tensor, "U T"]:
    # torch's own anti-aliased resize (2.13) is wrong on an axis beside one of length 1.
    return temporal_matrix(n_in, n_out, "linear")
