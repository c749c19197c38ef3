"""V-JEPA 2's encoder: transformers' layers, its files' keys one by one, its positions at the size of the run.

The library takes positions from its config's `crop_size`, not from the frames, and runs other sizes silently
wrong; so the config is made here, from the size that the frames are brought to. The predictor that the files
hold beside the encoder is skipped.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.parts import PatchEmbedding, tokens_after
from featcache.backbones.release import CONFIG_FILE
from featcache.backbones.sizes import ViTSize
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import KeyMap, renamed
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer
from featcache.system.json_files import read_json

SKIPPED = ("predictor.",)
"""Beginnings of keys that tokens do not need."""

_DEFAULTS = {"crop_size": 256, "num_attention_heads": 16}
"""What the library takes where a config is silent; when it saves one, it leaves such values out."""


class Vjepa2Model(nn.Module):
    """The parts of a V-JEPA 2 that give tokens, as far down as they are needed."""

    def __init__(self, size: ViTSize, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        self.grid = size.grid
        self.patches = PatchEmbedding(size.patch, size.block.width)
        self.layer = nn.ModuleList(_library_layers(size, n_blocks))
        self.layernorm = nn.LayerNorm(size.block.width, eps=size.block.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Tokens at `layers`, of which none is deeper than the model was made."""
        state = rearrange(self.patches(frames), "b t n d -> b (t n) d")
        return tokens_after(self.layer, self.layernorm, state, layers, self.grid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vjepa2(PretrainedBackbone):
    """One V-JEPA 2 by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    family: ClassVar[str] = "vjepa2"
    positions: ClassVar[str] = "rotation by step, row and column"
    network: ClassVar[type[nn.Module]] = Vjepa2Model

    def key_map(self, found: Shapes) -> KeyMap:
        """The keys are the library's names under `encoder.`."""
        names = {"patches": "embeddings.patch_embeddings.proj"}
        return KeyMap(renamed(self.whole(), names, prefix="encoder."), SKIPPED)


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


def _library_layers(size: ViTSize, n_blocks: int) -> list[nn.Module]:
    config_class, layer_class = _library_classes()
    block, (rows, columns), (tubelet, patch_rows, patch_columns) = size.block, size.input_size, size.patch
    if rows != columns or patch_rows != patch_columns:
        raise CallError(f"V-JEPA 2 takes square frames and patches, not {rows} x {columns} pixels.")
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
        patch_size=patch_rows,
        tubelet_size=tubelet,
        crop_size=rows,
        frames_per_clip=size.n_frames,
        attn_implementation="sdpa",
    )
    return [
        layer_class(config, hidden_size=block.width, num_attention_heads=block.heads, mlp_ratio=ratio)
        for _ in range(n_blocks)
    ]


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
