"""VideoMAE through transformers: the only file that imports it at its top.

The layers are the library's; everything around them is ours, because that is where silent errors live. Keys
are mapped one by one (some releases of transformers load the query and value biases as zeros), the position
table is computed, mean and std are constants, and blocks after the deepest layer asked for are neither read
nor run. Works with transformers 4.48 to 5.x.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import VideoMAEConfig
from transformers.activations import ACT2FN
from transformers.models.videomae.modeling_videomae import VideoMAELayer

from featcache.backbones import base
from featcache.backbones.base import BackboneInfo
from featcache.backbones.catalogue import HUB, INFOS, VIDEOMAE_SIZES, VideoMAESize, videomae_info
from featcache.backbones.encoder import ClipEncoder, PatchEmbedding, deepest, states_after
from featcache.backbones.positions import sinusoid
from featcache.backbones.releases import check_keys
from featcache.backbones.sizes import size_entry
from featcache.backbones.weights.checkpoint import Shapes, read_tensors, tensor_shapes
from featcache.backbones.weights.locate import WeightFiles, file_digest, folder_weights, obtain_weights
from featcache.backbones.weights.random import random_tensors, tensors_digest
from featcache.errors import WeightsError
from featcache.spec import Layer

LEFT_OUT = ("mask_token", "encoder_to_decoder.", "decoder.", "fc_norm.", "classifier.")
"""Beginnings of released keys that tokens do not need: the decoder, and the head of fine-tuned models."""

RANDOM_SEED = 0


@runtime_checkable
class WeightsOrigin(Protocol):
    """Where one VideoMAE's numbers come from."""

    def size(self) -> VideoMAESize:
        """The model's size, as its config says."""
        ...

    def digest(self) -> str:
        """Sha256 of all weights."""
        ...

    def tensors(self, shapes: Shapes) -> dict[str, Tensor]:
        """The tensors of our names `shapes`, all checked."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoMAE:
    """One VideoMAE by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    info: BackboneInfo
    origin: WeightsOrigin

    def weights_digest(self) -> str:
        """Sha256 of the weight file, or of the random tensors."""
        return self.origin.digest()

    def architecture(self) -> base.JSON:
        """The size's numbers, as the weights' own config gives them."""
        size = size_entry(self.origin.size())
        return {"family": "videomae", "positions": "sinusoid of the token number", **size}

    def preprocessing(self) -> base.JSON:
        """Exact-overlap resize, ImageNet mean and std."""
        return base.preprocessing(self.info)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> base.Encoder:
        """Weights up to the deepest of `layers`, in `dtype` on `device`."""
        for layer in layers:
            base.check_layer(layer, self.info)
        size = self.origin.size()
        n_blocks, normed = deepest(layers)
        model = token_model(size, n_blocks=n_blocks, normed=normed)
        in_module = {_our_name(key): key for key in model.state_dict()}
        tensors = self.origin.tensors(_shapes(model))
        state = {in_module[name]: tensor.to(device, dtype) for name, tensor in tensors.items()}
        model.load_state_dict(state, assign=True)
        model.positions = sinusoid(size.grid.steps * size.grid.tokens_per_step, size.width).to(device, dtype)
        return ClipEncoder(info=self.info, layers=layers, model=model.eval(), device=device, dtype=dtype)


class TokenModel(nn.Module):
    """The parts of a VideoMAE that give tokens, as far down as they are needed."""

    def __init__(self, size: VideoMAESize, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        config, self.grid = _config(size), size.grid
        self.patch_embeddings = nn.ModuleDict({"projection": PatchEmbedding(size.patch, size.width)})
        # Computed once the device is known: no weight file holds it.
        self.register_buffer("positions", None, persistent=False)
        blocks = [VideoMAELayer(config) for _ in range(n_blocks)]
        for block in blocks:
            # VideoMAE's keys have no bias; the layers of some releases of transformers do.
            block.attention.attention.key.register_parameter("bias", None)
        self.layer = nn.ModuleList(blocks)
        self.layernorm = nn.LayerNorm(size.width, eps=size.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Tokens at `layers`, of which none is deeper than the model was made."""
        embedded = rearrange(self.patch_embeddings["projection"](frames), "b t n d -> b (t n) d")
        kept = states_after(self.layer, self.layernorm, embedded + self.positions, layers)
        cut = {"t": self.grid.steps, "h": self.grid.rows, "w": self.grid.columns}
        return {layer: rearrange(kept[layer], "b (t h w) c -> b t h w c", **cut) for layer in layers}


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedWeights:
    """A VideoMAE's files as transformers saves them."""

    name: str
    files: Callable[[], WeightFiles]
    """Finds them, or raises a WeightsError."""
    expected: VideoMAESize | None = None
    """What the config must say; eps is left to the config."""

    def size(self) -> VideoMAESize:
        """What `config.json` says.

        Raises:
            WeightsError: the files are missing, or are of another model than the name says.
        """
        config = self.files().config
        found = read_size(config)
        if self.expected is not None:
            _refuse_other_size(config, self.name, replace(found, eps=self.expected.eps), self.expected)
        return found

    def digest(self) -> str:
        """Sha256 of the weight file's bytes."""
        return file_digest(self.files().weights)

    def tensors(self, shapes: Shapes) -> dict[str, Tensor]:
        """Those of `shapes`, after every key of the file was accounted for.

        Raises:
            WeightsError: keys are missing, of another shape, or unknown.
        """
        path = self.files().weights
        whole = _shapes(token_model(self.size()))
        in_file = match_keys(tensor_shapes(path), whole, str(path))
        read = read_tensors(path, (in_file[name] for name in shapes))
        return {name: read[in_file[name]] for name in shapes}


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomWeights:
    """Untrained weights: a control that shows what architecture and readout give by themselves."""

    of: VideoMAESize
    seed: int = RANDOM_SEED

    def size(self) -> VideoMAESize:
        """As given."""
        return self.of

    def digest(self) -> str:
        """Over all tensors, which are drawn for it once a process."""
        return _random_digest(self)

    def tensors(self, shapes: Shapes) -> dict[str, Tensor]:
        """Drawn by name, so those of a shorter model are the longer one's."""
        return random_tensors(shapes, self.seed)


@lru_cache(maxsize=8)
def _random_digest(weights: RandomWeights) -> str:
    return tensors_digest(weights.tensors(_shapes(token_model(weights.of))))


def open_videomae(name: str, weights_dir: Path | None) -> VideoMAE:
    """A published VideoMAE, from `<weights_dir>/<name>/`, the Hugging Face cache or the hub."""
    files = partial(obtain_weights, name, HUB[name], weights_dir)
    origin = SavedWeights(name=name, files=files, expected=VIDEOMAE_SIZES[name])
    return VideoMAE(info=INFOS[name], origin=origin)


def open_random(name: str, weights_dir: Path | None) -> VideoMAE:
    """A registered size with random weights; `weights_dir` is not looked at, it has nothing to offer."""
    return VideoMAE(info=INFOS[name], origin=RandomWeights(of=VIDEOMAE_SIZES[name]))


def open_folder(folder: Path) -> VideoMAE:
    """A VideoMAE of the user's own, of any size: `config.json` and the weights as transformers saved them.

    Raises:
        WeightsError: the folder is not complete, or its config is not a VideoMAE's.
    """
    files = partial(folder_weights, folder)
    info = videomae_info(folder.resolve().name, read_size(files().config), title=f"VideoMAE of {folder}")
    return VideoMAE(info=info, origin=SavedWeights(name=info.name, files=files))


def token_model(size: VideoMAESize, *, n_blocks: int | None = None, normed: bool | None = None) -> TokenModel:
    """The model without memory behind it (meta device): whole, or cut after `n_blocks`."""
    with torch.device("meta"):
        return TokenModel(
            size,
            n_blocks=size.depth if n_blocks is None else n_blocks,
            normed=size.final_norm if normed is None else normed,
        )


def match_keys(released: Shapes, wanted: Shapes, origin: str) -> dict[str, str]:
    """Our name -> the file's key, with nothing missing, nothing doubled and nothing unknown.

    `wanted` is the whole model, also where only some blocks will be read. Keys of `LEFT_OUT` may be there.

    Raises:
        WeightsError: lists the keys that do not fit.
    """
    matched = {_our_name(key): key for key in released if not key.startswith(LEFT_OUT)}
    in_file = {name: matched.get(name, name) for name in wanted}
    shapes = {in_file[name]: shape for name, shape in wanted.items()}
    check_keys(released, shapes, left_out=LEFT_OUT, origin=origin)
    return in_file


def read_size(path: Path) -> VideoMAESize:
    """The size that a `config.json` describes, with the library's defaults where the file is silent.

    Raises:
        WeightsError: not a VideoMAE's config, or one that scivid does not know.
    """
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if entries.get("model_type") != "videomae":
            raise ValueError(f"model_type is {entries.get('model_type')!r}, not 'videomae'")
        return _size(VideoMAEConfig.from_dict(entries))
    except Exception as problem:  # each release of transformers raises its own for a wrong value
        raise WeightsError(
            f"{path} is not the config of a VideoMAE that can be run here: {problem}"
        ) from problem


def _size(config: Any) -> VideoMAESize:
    rows, columns = _pair(config.patch_size)
    if config.num_channels != 3:
        raise ValueError(f"num_channels is {config.num_channels}, not 3")
    if config.hidden_act not in ACT2FN:
        raise ValueError(f"hidden_act is {config.hidden_act!r}, which transformers does not know")
    return VideoMAESize(
        input_size=_pair(config.image_size),
        n_frames=config.num_frames,
        patch=(config.tubelet_size, rows, columns),
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp=config.intermediate_size,
        eps=config.layer_norm_eps,
        activation=config.hidden_act,
        # The field's name changed between releases of transformers.
        qv_bias=config.qv_bias if hasattr(config, "qv_bias") else config.qkv_bias,
        final_norm=not config.use_mean_pooling,
    )


def _config(size: VideoMAESize) -> Any:
    """What one layer reads of a config."""
    return VideoMAEConfig(
        hidden_size=size.width,
        num_attention_heads=size.heads,
        intermediate_size=size.mlp,
        layer_norm_eps=size.eps,
        hidden_act=size.activation,
        qkv_bias=size.qv_bias,
        attn_implementation="sdpa",
    )


def _our_name(key: str) -> str:
    """A released key, or transformers' own name of any version, as this file calls it."""
    for beginning in ("videomae.", "embeddings.", "encoder."):
        key = key.removeprefix(beginning)
    return key.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias")


def _shapes(model: nn.Module) -> Shapes:
    return {_our_name(key): tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def _refuse_other_size(path: Path, name: str, found: VideoMAESize, expected: VideoMAESize) -> None:
    differing = [
        f"{field.name} {getattr(found, field.name)} instead of {getattr(expected, field.name)}"
        for field in fields(VideoMAESize)
        if getattr(found, field.name) != getattr(expected, field.name)
    ]
    if differing:
        raise WeightsError(
            f"{path} is not {name}: {', '.join(differing)}. "
            f"Give a model of your own by its folder: --backbone {path.parent}"
        )


def _pair(value: Any) -> tuple[int, int]:
    rows, columns = value if isinstance(value, list | tuple) else (value, value)
    return int(rows), int(columns)
