"""V-JEPA 2's encoder: transformers' layers, its files' keys one by one, its positions at the size of the run.

The library takes positions from its config's `crop_size`, not from the frames, runs other sizes silently
wrong, and makes the angles in every layer, in the model's own precision (in bfloat16 one of step 15 is off by
0.03 rad). Here they are made once a pass, of the run's grid, in float32. The predictor that the files hold
beside the encoder is skipped.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.parts import PatchEmbedding, tokens_after, turned
from featcache.backbones.release import CONFIG_FILE
from featcache.backbones.sizes import ViTSize
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import Entries, Entry, KeyMap, renamed
from featcache.errors import WeightsError
from featcache.spec import Layer, TokenGrid
from featcache.system.json_files import read_json

SKIPPED = ("predictor.",)
"""Beginnings of keys that tokens do not need."""

AUTHORS_NAMES = {
    "patches": "patch_embed.proj",
    "layer": "blocks",
    "attention": "attn",
    **dict.fromkeys(("query", "key", "value"), "qkv"),
    "layernorm": "norm",
}
"""Our parts as the authors' own code calls them; most models trained further are saved by it."""

_DEFAULTS = {"crop_size": 256, "num_attention_heads": 16}
"""What the library takes where a config is silent; when it saves one, it leaves such values out."""


class Vjepa2Model(nn.Module):
    """The parts of a V-JEPA 2 that give tokens, as far down as they are needed."""

    def __init__(self, size: ViTSize, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        self.grid, self.head_width = size.grid, size.block.width // size.block.heads
        self.patches = PatchEmbedding(size.patch, size.block.width)
        self.layer = nn.ModuleList(_library_layers(size, n_blocks))
        self.layernorm = nn.LayerNorm(size.block.width, eps=size.block.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Tokens at `layers`, of which none is deeper than the model was made."""
        state = self.embed(frames)
        return tokens_after(self.blocks_for(state), self.layernorm, state, layers, self.grid)

    def embed(self, frames: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B S D"]:
        """What the first layer is given."""
        embedded: Tensor = rearrange(self.patches(frames), "b t n d -> b (t n) d")
        return embedded

    def parts(self) -> tuple[nn.ModuleList, nn.Module | None]:
        """The layers, and the norm after the last of them."""
        return self.layer, self.layernorm

    def blocks_for(self, state: Float[Tensor, "B S D"]) -> Iterable[Callable[[Tensor], Any]]:
        """The layers as they are called on `state`: with the positions of all tokens."""
        angles = rotation(self.grid, self.head_width, like=state)
        return [partial(layer, position_mask=angles) for layer in self.layer]


@dataclass(frozen=True, kw_only=True, slots=True)
class Vjepa2(PretrainedBackbone):
    """One V-JEPA 2 by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    family: ClassVar[str] = "vjepa2"
    positions: ClassVar[str] = "rotation by step, row and column, of float32 angles"
    network: ClassVar[type[nn.Module]] = Vjepa2Model

    def key_map(self, found: Shapes) -> KeyMap:
        """The keys are the library's names under `encoder.`; of a user's file also those of the authors'."""
        if self.own and any(key.endswith(".attn.qkv.weight") for key in found):
            return KeyMap(self._authors_entries(), ("pos_embed",))
        names = {"patches": "embeddings.patch_embeddings.proj"}
        return KeyMap(renamed(self.whole(), names, prefix="encoder."), SKIPPED)

    def check_config(self, path: Path) -> None:
        """Refuse the config of another crop size or number of heads."""
        if path.is_file():
            _refuse_other_config(path, self.info.name, self.size)

    def _authors_entries(self) -> Entries:
        """Queries, keys and values lie side by side in their files."""
        entries = renamed(self.whole(), AUTHORS_NAMES)
        for name, entry in entries.items():
            part = next((i for i, of in enumerate(("query", "key", "value")) if f".{of}." in name), None)
            if part is not None:
                (key,), (width, *others) = entry.keys, entry.shape
                entries[name] = Entry((key,), (3 * width, *others), then=partial(_third, part))
        return entries


def open_model(name: str, weights_dir: Path | None) -> Vjepa2:
    """A published V-JEPA 2, whose config is held against its name whenever its weights are looked for."""
    backbone = Vjepa2.named(name, weights_dir)

    def file() -> Path:
        path = backbone.file()
        _refuse_other_config(path.with_name(CONFIG_FILE), name, backbone.size)
        return path

    return replace(backbone, file=file)


def _refuse_other_config(path: Path, name: str, size: ViTSize) -> None:
    """The two g differ in no key and no shape, only in what their configs say."""
    expected = {"crop_size": size.input_size[0], "num_attention_heads": size.block.heads}
    try:
        entries = read_json(path)
        differing = [
            f"{key} {entries.get(key, _DEFAULTS[key])!r} instead of {value}"
            for key, value in expected.items()
            if entries.get(key, _DEFAULTS[key]) != value
        ]
    except (OSError, ValueError, AttributeError) as problem:
        raise WeightsError(f"{path} is not a model's config: {problem}. Fetch the file again.") from problem
    if differing:
        raise WeightsError(f"{path} is not {name}: {', '.join(differing)}. Give the model by its own name.")


def rotation(
    grid: TokenGrid, head_width: int, like: Float[Tensor, "*axes"]
) -> tuple[Float[Tensor, "S D"], Float[Tensor, "S D"]]:
    """Cosine and sine that turn each token's queries and keys, in float32 until they are as `like`.

    A third of the D channels, rounded down to an even number d, is for each of step, row and column: the
    d / 2 angles n * 10000^(-2 i / d) of place n, and then all of them once more. So two neighbours, which are
    turned together, have different angles: the models were trained that way. Channels left over stay.
    """
    each = 2 * (head_width // 3 // 2)
    frequency = 1 / 10000 ** (torch.arange(each // 2, device=like.device) / (each / 2))
    places = torch.cartesian_prod(
        *(torch.arange(n, device=like.device) for n in (grid.steps, grid.rows, grid.columns))
    )
    angles = [repeat(place[:, None] * frequency, "s d -> s (two d)", two=2) for place in places.unbind(1)]
    left_over = torch.zeros(len(places), head_width - 3 * each, device=like.device)
    every = torch.cat([*angles, left_over], dim=1)
    return every.cos().to(like.dtype), every.sin().to(like.dtype)


def _third(part: int, whole: Float[Tensor, "QKV *C"]) -> Float[Tensor, "D *C"]:
    """Queries, keys or values, of which there are as many."""
    return whole.chunk(3)[part]


def _library_layers(size: ViTSize, n_blocks: int) -> list[nn.Module]:
    config_class, layer_class = _library_classes()
    block = size.block
    # Half a channel more than a whole number survives the library's rounding down.
    ratio = (block.mlp + 0.5) / block.width
    config = config_class(
        hidden_size=block.width,
        num_attention_heads=block.heads,
        num_hidden_layers=size.depth,
        mlp_ratio=ratio,
        layer_norm_eps=block.eps,
        hidden_act="gelu",
        qkv_bias=True,
        attn_implementation="sdpa",
    )
    layers = [
        layer_class(config, hidden_size=block.width, num_attention_heads=block.heads, mlp_ratio=ratio)
        for _ in range(n_blocks)
    ]
    for layer in layers:
        # What the layer is given as masks becomes the positions, by which queries and keys are turned.
        layer.attention.get_position_ids = lambda _, masks: masks
        layer.attention.apply_rotary_embeddings = turned
    return layers


def _library_classes() -> tuple[Any, Any]:
    """The library's config and layer; imported here, since it takes seconds and this is rarely needed."""
    try:
        from transformers import VJEPA2Config
        from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Layer
    except ImportError as problem:
        raise WeightsError(
            "the installed transformers has no V-JEPA 2: pip install 'transformers>=4.53'"
        ) from problem
    return VJEPA2Config, VJEPA2Layer
