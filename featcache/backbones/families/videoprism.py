"""VideoPrism from its released Flax arrays: blocks over each frame's tokens, then over each place's steps.

The model is our own: transformers' class came late, and its layers of the two stages have no common shape.
What is easy to get wrong is here in the open: attention logits are capped softly, norms multiply by
1 + scale, pixels stay in [0, 1], and the position in time is added after the first stage's norm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones import base
from featcache.backbones.encoder import PatchEmbedding
from featcache.backbones.one_file import OneFileBackbone
from featcache.backbones.releases import check_keys
from featcache.backbones.sizes import VIDEOPRISM_SIZES, VideoPrismSize, size_entry
from featcache.backbones.vit_catalogue import FILES, VIT_INFOS
from featcache.backbones.weights.checkpoint import Shapes, TensorFile, open_tensors
from featcache.resampling import temporal_matrix
from featcache.spec import Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoPrism(OneFileBackbone):
    """One VideoPrism by name; see `featcache.backbones.base.Backbone` for what the methods promise.

    Blocks are counted through both stages; tokens after the last block of the first stage are as that block
    gives them, before the norm and the positions in time that the second stage begins with.
    """

    size: VideoPrismSize

    def architecture(self) -> base.JSON:
        """The size's numbers; `depth` counts the blocks of both stages."""
        return {"family": "videoprism", "positions": "linear in time and space", **size_entry(self.size)}

    def model(self, n_blocks: int, normed: bool) -> nn.Module:
        """See `OneFileBackbone`."""
        return token_model(self.size, n_blocks=n_blocks, normed=normed)

    def parameters(
        self, wanted: dict[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """See `OneFileBackbone`."""
        path = self.file()
        with open_tensors(path) as file:
            places = released_places(self.size, file.shapes)
            keys = {key: place.shape for place in places.values() for key in place.keys}
            check_keys(file.shapes, keys, left_out=(), origin=str(path))
            return {
                # Positions are stretched before they are rounded: every token carries their error.
                name: stretch_positions(name, places[name].read(file), self.size).to(device, dtype)
                for name in wanted
            }


class Block(nn.Module):
    """One pre-norm block with softly capped attention and an exact GELU."""

    def __init__(self, size: VideoPrismSize) -> None:
        super().__init__()
        block = size.block
        self.heads = block.heads
        self.soft_cap = size.soft_cap
        self.norm1 = nn.LayerNorm(block.width, eps=block.eps)
        self.qkv = nn.Linear(block.width, 3 * block.width)
        self.proj = nn.Linear(block.width, block.width)
        self.norm2 = nn.LayerNorm(block.width, eps=block.eps)
        self.fc1 = nn.Linear(block.width, block.mlp)
        self.fc2 = nn.Linear(block.mlp, block.width)

    def forward(self, state: Float[Tensor, "S N D"]) -> Float[Tensor, "S N D"]:
        """Attention within each of S sequences, then the MLP, each added to what came in."""
        state = state + self._attend(self.norm1(state))
        found: Tensor = state + self.fc2(F.gelu(self.fc1(self.norm2(state))))
        return found

    def _attend(self, state: Float[Tensor, "S N D"]) -> Float[Tensor, "S N D"]:
        query, key, value = rearrange(self.qkv(state), "s n (qkv h d) -> qkv s h n d", qkv=3, h=self.heads)
        # Sequences are short (256 tokens, 16 steps): logits fit, and stay float32 through cap and softmax.
        scale = query.shape[-1] ** -0.5 / self.soft_cap
        logits = (query * scale @ rearrange(key, "s h n d -> s h d n")).float().tanh() * self.soft_cap
        weights = logits.softmax(dim=-1).to(value.dtype)
        found: Tensor = self.proj(rearrange(weights @ value, "s h n d -> s n (h d)"))
        return found


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
        self.spatial = nn.ModuleList(Block(size) for _ in range(n_spatial))
        self.temporal = nn.ModuleList(Block(size) for _ in range(n_temporal))
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


def token_model(size: VideoPrismSize, *, n_blocks: int | None = None, normed: bool = True) -> VideoPrismModel:
    """The model without memory behind it (meta device): whole, or cut after `n_blocks`."""
    with torch.device("meta"):
        return VideoPrismModel(size, n_blocks=size.depth if n_blocks is None else n_blocks, normed=normed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one of our parameters is in a file."""

    keys: tuple[str, ...]
    """One, or several that we keep in one piece along the first axis."""
    shape: tuple[int, ...]
    """Of each key's array."""
    axes: str | None = None
    """An einops pattern from the file's axes to ours."""
    lengths: tuple[tuple[str, int], ...] = ()
    """Axes of `axes` whose length the shapes do not tell."""
    layer: int | None = None
    """Index on the first axis, where the file stacks the blocks of a stage."""
    plus: float = 0.0
    """Added to the file's numbers: norms are stored as what they differ from 1 by."""

    def read(self, file: TensorFile) -> Float[Tensor, "..."]:
        """The parameter in float32; of a stack, only the block's own part is read."""
        return torch.cat([self._piece(file.read(key)) for key in self.keys]) + self.plus

    def _piece(self, array: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        own = (array if self.layer is None else array[self.layer]).float()
        return own if self.axes is None else rearrange(own, self.axes, **dict(self.lengths))


def released_places(size: VideoPrismSize, found: Shapes) -> dict[str, Place]:
    """Our parameters' places in a file whose keys are `found`: Flax's layout, else transformers'."""
    return flax_places(size) if any(key.startswith("params/") for key in found) else torch_places(size)


def flax_places(size: VideoPrismSize) -> dict[str, Place]:
    """`flax_*_repeated.npz`: the blocks of a stage are stacked on the first axis of each array."""
    width, (steps, rows, columns) = size.block.width, size.table
    _, y, x = size.patch
    patch = "params/patch_projection/linear"
    places = {
        "patches.weight": Place(
            keys=(f"{patch}/kernel",),
            shape=(y * x * 3, width),
            axes="(y x c) d -> d c 1 y x",
            lengths=(("y", y), ("x", x)),
        ),
        "patches.bias": Place(keys=(f"{patch}/bias",), shape=(width,)),
        "spatial_positions": Place(keys=("params/spatial_pos_emb/emb_var",), shape=(rows * columns, width)),
        "temporal_positions": Place(keys=("params/temporal_pos_emb/emb_var",), shape=(steps, width)),
    }
    for stage, depth in (("spatial", size.spatial_depth), ("temporal", size.temporal_depth)):
        places |= _flax_norm(f"{stage}_norm", f"params/{stage}_ln", (width,), None)
        for layer in range(depth):
            stack = f"params/{stage}_encoder/transformers_stack/x_layers"
            places |= _flax_block(f"{stage}.{layer}", stack, size, depth, layer)
    return places


def _flax_block(ours: str, stack: str, size: VideoPrismSize, depth: int, layer: int) -> dict[str, Place]:
    width, heads, mlp = size.block.width, size.block.heads, size.block.mlp
    projection, bias = (depth, width, heads, width // heads), (depth, heads, width // heads)
    qkv = [f"{stack}/self_attention/{name}" for name in ("query", "key", "value")]

    def place(key: str, *shape: int, axes: str | None = None) -> Place:
        return Place(keys=(f"{stack}/{key}",), shape=(depth, *shape), axes=axes, layer=layer)

    return {
        **_flax_norm(f"{ours}.norm1", f"{stack}/layer_norm", (depth, width), layer),
        **_flax_norm(f"{ours}.norm2", f"{stack}/ff_layer/layer_norm", (depth, width), layer),
        f"{ours}.qkv.weight": Place(
            keys=tuple(f"{key}/w" for key in qkv), shape=projection, axes="i h d -> (h d) i", layer=layer
        ),
        f"{ours}.qkv.bias": Place(
            keys=tuple(f"{key}/b" for key in qkv), shape=bias, axes="h d -> (h d)", layer=layer
        ),
        # The output projection alone is stored with its outputs first.
        f"{ours}.proj.weight": place(
            "self_attention/post/w", width, heads, width // heads, axes="o h d -> o (h d)"
        ),
        f"{ours}.proj.bias": place("self_attention/post/b", width),
        f"{ours}.fc1.weight": place("ff_layer/ffn_layer1/linear/kernel", width, mlp, axes="i o -> o i"),
        f"{ours}.fc1.bias": place("ff_layer/ffn_layer1/linear/bias", mlp),
        f"{ours}.fc2.weight": place("ff_layer/ffn_layer2/linear/kernel", mlp, width, axes="i o -> o i"),
        f"{ours}.fc2.bias": place("ff_layer/ffn_layer2/linear/bias", width),
    }


def _flax_norm(ours: str, theirs: str, shape: tuple[int, ...], layer: int | None) -> dict[str, Place]:
    return {
        f"{ours}.weight": Place(keys=(f"{theirs}/scale",), shape=shape, layer=layer, plus=1.0),
        f"{ours}.bias": Place(keys=(f"{theirs}/bias",), shape=shape, layer=layer),
    }


_TORCH_NAMES = {
    "patches": ("spatial_embeddings.patch_embeddings.projection",),
    "spatial_norm": ("layernorm1",),
    "temporal_norm": ("layernorm2",),
    "norm1": ("layernorm_before",),
    "norm2": ("layernorm_after",),
    "qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    "proj": ("attention.o_proj",),
    "fc1": ("mlp.fc1",),
    "fc2": ("mlp.fc2",),
}


def torch_places(size: VideoPrismSize) -> dict[str, Place]:
    """`model.safetensors` of transformers' VideoPrismVisionModel."""
    (steps, rows, columns), width = size.table, size.block.width
    tables = {"spatial": (1, rows * columns, width), "temporal": (1, steps, width)}
    places = {
        f"{stage}_positions": Place(
            keys=(f"{stage}_embeddings.position_embeddings",), shape=shape, axes="1 n d -> n d"
        )
        for stage, shape in tables.items()
    }
    for name, tensor in token_model(size).state_dict().items():
        if name in places:
            continue
        *beginning, part, kind = name.split(".")
        prefix = f"{beginning[0]}_layers.{beginning[1]}." if beginning else ""
        theirs = _TORCH_NAMES[part]
        first, *others = tensor.shape
        places[name] = Place(
            keys=tuple(f"{prefix}{piece}.{kind}" for piece in theirs),
            shape=(first // len(theirs), *others),
            plus=1.0 if "norm" in part and kind == "weight" else 0.0,
        )
    return places


def stretch_positions(
    name: str, parameter: Float[Tensor, "..."], size: VideoPrismSize
) -> Float[Tensor, "..."]:
    """Our parameter `name`, at the grid of the run if it is one of the two position tables.

    Linear along each axis at half-pixel centres, averaging where the grid is smaller, as `jax.image.resize`
    does it. Tables of the grid's size stay as they are.
    """
    (steps, rows, columns), grid = size.table, size.grid
    if name == "temporal_positions":
        return einsum(_linear(steps, grid.steps), parameter, "u t, t d -> u d")
    if name == "spatial_positions":
        table = rearrange(parameter, "(h w) d -> h w d", h=rows)
        vertical, horizontal = _linear(rows, grid.rows), _linear(columns, grid.columns)
        table = einsum(vertical, horizontal, table, "y h, x w, h w d -> y x d")
        return rearrange(table, "y x d -> (y x) d")
    return parameter


def _linear(n_in: int, n_out: int) -> Float[Tensor, "U T"]:
    # torch's own anti-aliased resize (2.13) is wrong on an axis beside one of length 1.
    return temporal_matrix(n_in, n_out, "linear")


def open_videoprism(name: str, weights_dir: Path | None) -> VideoPrism:
    """A VideoPrism from its file in `<weights_dir>/<name>/`."""

    def file() -> Path:
        return FILES[name].obtain(name, weights_dir)

    return VideoPrism(info=VIT_INFOS[name], size=VIDEOPRISM_SIZES[name], file=file)
