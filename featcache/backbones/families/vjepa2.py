"""V-JEPA 2's encoder: transformers' layers, its files' keys one by one, its positions at the size of the run.

The library takes positions from its config's `crop_size`, not from the frames, and runs other sizes silently
wrong; so the config is made here, from the size that the frames are brought to. The predictor that the files
hold beside the encoder is left out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones import base
from featcache.backbones.encoder import PatchEmbedding, states_after
from featcache.backbones.one_file import OneFileBackbone
from featcache.backbones.sizes import VJEPA2_SIZES, Vjepa2Size, size_entry
from featcache.backbones.vit_catalogue import VIT_HUB, VIT_INFOS
from featcache.backbones.weights.checkpoint import Shapes, read_checked
from featcache.backbones.weights.locate import obtain_weights
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer

LEFT_OUT = ("predictor.",)
"""Beginnings of keys that tokens do not need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vjepa2(OneFileBackbone):
    """One V-JEPA 2 by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    size: Vjepa2Size

    def architecture(self) -> base.JSON:
        """The size's numbers."""
        return {"family": "vjepa2", "positions": "rotation by step, row and column", **size_entry(self.size)}

    def model(self, n_blocks: int, normed: bool) -> nn.Module:
        """See `OneFileBackbone`."""
        return token_model(self.size, n_blocks=n_blocks, normed=normed)

    def parameters(
        self, wanted: dict[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """See `OneFileBackbone`."""
        keys, shapes = {name: _released(name) for name in wanted}, released_shapes(self.size)
        return read_checked(self.file(), keys, of=shapes, left_out=LEFT_OUT, device=device, dtype=dtype)


class Vjepa2Model(nn.Module):
    """The parts of a V-JEPA 2 that give tokens, as far down as they are needed."""

    def __init__(self, size: Vjepa2Size, *, n_blocks: int, normed: bool) -> None:
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
        kept = states_after(self.layer, self.layernorm, state, layers)
        return {layer: self._tokens(kept[layer]) for layer in layers}

    def _tokens(self, state: Float[Tensor, "B S D"]) -> Float[Tensor, "B T H W C"]:
        return rearrange(state, "b (t h w) c -> b t h w c", t=self.grid.steps, h=self.grid.rows)


def token_model(size: Vjepa2Size, *, n_blocks: int | None = None, normed: bool = True) -> Vjepa2Model:
    """The model without memory behind it (meta device): whole, or cut after `n_blocks`.

    Raises:
        CallError: frames that are not square, which the library cannot place.
        WeightsError: the installed transformers has no V-JEPA 2.
    """
    with torch.device("meta"):
        return Vjepa2Model(size, n_blocks=size.depth if n_blocks is None else n_blocks, normed=normed)


def released_shapes(size: Vjepa2Size) -> Shapes:
    """Every key that the whole encoder takes from a file, with its shape."""
    state = token_model(size).state_dict()
    return {_released(name): tuple(tensor.shape) for name, tensor in state.items()}


def open_vjepa2(name: str, weights_dir: Path | None) -> Vjepa2:
    """A published V-JEPA 2, from `<weights_dir>/<name>/`, the Hugging Face cache or the hub."""

    def file() -> Path:
        files = obtain_weights(name, VIT_HUB[name], weights_dir)
        _refuse_other_config(files.config, name, VJEPA2_SIZES[name])
        return files.weights

    return Vjepa2(info=VIT_INFOS[name], size=VJEPA2_SIZES[name], file=file)


def _refuse_other_config(path: Path, name: str, size: Vjepa2Size) -> None:
    """The two g differ in no key and no shape, only in what their configs say."""
    expected = {"crop_size": size.input_size[0], "num_attention_heads": size.block.heads}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        differing = [
            f"{key} {entries[key]!r} instead of {value}"
            for key, value in expected.items()
            if entries.get(key, value) != value
        ]
    except (ValueError, AttributeError) as problem:
        raise WeightsError(f"{path} is not a model's config: {problem}. Fetch the file again.") from problem
    if differing:
        raise WeightsError(f"{path} is not {name}: {', '.join(differing)}. Give the model by its own name.")


def _library_layers(size: Vjepa2Size, n_blocks: int) -> list[nn.Module]:
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


def _released(name: str) -> str:
    """Our parameter's key in the hub's files."""
    return "encoder." + name.replace("patches.", "embeddings.patch_embeddings.proj.")
