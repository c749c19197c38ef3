"""VideoMAE through transformers: the only file that imports it at its top.

The layers are the library's; everything around them is ours, because that is where silent errors live. Keys
are mapped one by one (some releases of transformers load the query and value biases as zeros), the position
table is computed, mean and std are constants, and blocks after the deepest layer asked for are neither read
nor run. Works with transformers 4.48 to 5.x.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import VideoMAEConfig
from transformers.activations import ACT2FN
from transformers.models.videomae.modeling_videomae import VideoMAELayer

from featcache.backbones import base
from featcache.backbones.catalogue import BACKBONES
from featcache.backbones.encoder import PretrainedBackbone, meta
from featcache.backbones.model import vit_info
from featcache.backbones.parts import PatchEmbedding, sinusoid, tokens_after
from featcache.backbones.release import CONFIG_FILE
from featcache.backbones.sizes import BlockSize, VideoMAESize
from featcache.backbones.weights.checkpoint import Shapes, TensorFile
from featcache.backbones.weights.key_map import Entries, Entry, KeyMap
from featcache.backbones.weights.locate import folder_weights
from featcache.backbones.weights.pixels import saved_pixels
from featcache.backbones.weights.random import random_tensors, tensors_digest
from featcache.errors import WeightsError
from featcache.spec import Layer
from featcache.system.json_files import read_json

SKIPPED = ("mask_token", "encoder_to_decoder.", "decoder.", "fc_norm.", "classifier.")
"""Beginnings of released keys that tokens do not need: the decoder, and the head of fine-tuned models."""

RANDOM_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoMAE(PretrainedBackbone):
    """One VideoMAE as transformers saves it; see `featcache.backbones.base.Backbone` for the methods."""

    size: VideoMAESize

    computed: ClassVar[tuple[str, ...]] = ("positions",)

    def saved_size(self) -> VideoMAESize:
        """The size that the `config.json` beside the weights describes; eps is left to the config.

        Raises:
            WeightsError: the files are missing, or are of another model than the name says.
        """
        config = self.file().with_name(CONFIG_FILE)
        if self.own and not config.is_file():
            return self.size
        found = read_size(config)
        expected = replace(self.size, block=replace(self.size.block, eps=found.block.eps))
        _refuse_other_size(config, self.info.name, found, expected)
        return found

    def architecture(self) -> base.JSON:
        """The size's numbers, as the weights' own config gives them."""
        size = numbers(self.saved_size())
        return {"family": "videomae", "positions": "sinusoid of the token number", **size}

    def model(self, n_blocks: int, norms: tuple[int, ...]) -> nn.Module:
        """The VideoMAE cut after `n_blocks`, with the final norm where it is wanted."""
        return VideoMAEModel(self.saved_size(), n_blocks, norms)

    def key_map(self, found: Shapes) -> KeyMap:
        """Every tensor of the encoder, under whichever of the names of several releases `found` has."""
        return KeyMap(entries_of(self.size, found), SKIPPED)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomVideoMAE(VideoMAE):
    """Untrained weights: a control that shows what architecture and readout give by themselves."""

    seed: int = RANDOM_SEED

    def saved_size(self) -> VideoMAESize:
        """The size as given: there is no file that says another."""
        return self.size

    def weights_digest(self) -> str:
        """Sha256 over all tensors, which are drawn for it once a process."""
        return _random_digest(self.size, self.seed)

    def key_map(self, found: Shapes) -> KeyMap:
        """Our own names, by which the tensors are drawn: those of a shorter model are the longer one's."""
        return KeyMap(entries_of(self.size, None))

    @contextmanager
    def weights(self) -> Iterator[TensorFile]:
        """Tensors that are drawn when they are read."""
        shapes = self.key_map({}).shapes

        def draw(key: str) -> Tensor:
            return random_tensors({key: shapes[key]}, self.seed)[key]

        yield TensorFile(shapes, draw, "random weights")


@lru_cache(maxsize=8)
def _random_digest(size: VideoMAESize, seed: int) -> str:
    return tensors_digest(random_tensors(KeyMap(entries_of(size, None)).shapes, seed))


class VideoMAEModel(nn.Module):
    """The parts of a VideoMAE that give tokens, as far down as they are needed."""

    def __init__(self, size: VideoMAESize, n_blocks: int, norms: tuple[int, ...]) -> None:
        super().__init__()
        config, self.grid = _config(size), size.grid
        self.patch_embeddings = nn.ModuleDict({"projection": PatchEmbedding(size.patch, size.block.width)})
        # Computed: no weight file holds it.
        self.positions = nn.Parameter(torch.empty(size.n_tokens, size.block.width))
        blocks = [VideoMAELayer(config) for _ in range(n_blocks)]
        for block in blocks:
            # VideoMAE's keys have no bias; the layers of some releases of transformers do.
            block.attention.attention.key.register_parameter("bias", None)
        self.layer = nn.ModuleList(blocks)
        self.layernorm = nn.LayerNorm(size.block.width, eps=size.block.eps) if norms else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Tokens at `layers`, of which none is deeper than the model was made."""
        return tokens_after(self.layer, self.layernorm, self.embed(frames), layers, self.grid)

    def embed(self, frames: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B S D"]:
        """What the first layer is given."""
        embedded: Tensor = rearrange(self.patch_embeddings["projection"](frames), "b t n d -> b (t n) d")
        return embedded + self.positions

    def parts(self) -> tuple[nn.ModuleList, nn.Module | None]:
        """The layers, and the norm after the last of them."""
        return self.layer, self.layernorm

    def blocks_for(self, state: Float[Tensor, "B S D"]) -> Iterable[Callable[[Tensor], Any]]:
        """The layers as they are called on `state`."""
        return self.layer


def entries_of(size: VideoMAESize, found: Shapes | None) -> Entries:
    """Where a file of keys `found` has our parameters; without a file, under our own names."""
    state = meta(partial(VideoMAEModel, size), size.depth, (size.depth,) * size.final_norm).state_dict()
    del state["positions"]
    entries: Entries = {}
    for name, tensor in state.items():
        # The layers of some releases of transformers have the files' names of biases.
        ours = name.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias")
        key = ours if found is None else _released(ours, found)
        entries[name] = Entry((key,), tuple(tensor.shape))
    entries["positions"] = Entry((), (), then=partial(sinusoid, size.n_tokens, size.block.width))
    return entries


def _released(name: str, found: Shapes) -> str:
    """The key of one of our parameters: with `videomae.` and `q_bias` as released, or as saved since."""
    key = name.replace("patch_embeddings.", "embeddings.patch_embeddings.", 1)
    key = f"encoder.{key}" if key.startswith("layer.") else key
    released = key.replace(".query.bias", ".q_bias").replace(".value.bias", ".v_bias")
    choices = [f"{prefix}{one}" for prefix in ("videomae.", "") for one in (released, key)]
    return next((choice for choice in choices if choice in found), choices[0])


def open_model(name: str, weights_dir: Path | None) -> VideoMAE:
    """A published VideoMAE, or a registered size with random weights, which looks for no file."""
    kind = RandomVideoMAE if BACKBONES[name].release is None else VideoMAE
    return kind.named(name, weights_dir)


def open_folder(folder: Path) -> VideoMAE:
    """A VideoMAE of the user's own, of any size: `config.json` and the weights as transformers saved them.

    Mean and std are ImageNet's, as in all published ones, unless a `preprocessor_config.json` says others.

    Raises:
        WeightsError: the folder is not complete, or its config is not a VideoMAE's.
    """
    file = partial(folder_weights, folder)
    size = read_size(file().with_name(CONFIG_FILE))
    info = vit_info(folder.resolve().name, "videomae", size, title=f"VideoMAE of {folder}")
    if (saved := saved_pixels(file())) is not None:
        info = replace(info, mean=saved[0], std=saved[1])
    return VideoMAE(info=info, size=size, file=file)


def read_size(path: Path) -> VideoMAESize:
    """The size that a `config.json` describes, with the library's defaults where the file is silent.

    Raises:
        WeightsError: not a VideoMAE's config, or one that scivid does not know.
    """
    try:
        entries: dict[str, Any] = read_json(path)
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
    # The field's name changed between releases of transformers.
    has_biases = config.qv_bias if hasattr(config, "qv_bias") else config.qkv_bias
    return VideoMAESize(
        input_size=_pair(config.image_size),
        n_frames=config.num_frames,
        patch=(config.tubelet_size, rows, columns),
        block=BlockSize(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            mlp=config.intermediate_size,
            biases="qv" if has_biases else "",
            eps=config.layer_norm_eps,
        ),
        depth=config.num_hidden_layers,
        activation=config.hidden_act,
        final_norm=not config.use_mean_pooling,
    )


def _config(size: VideoMAESize) -> Any:
    """What one layer reads of a config."""
    return VideoMAEConfig(
        hidden_size=size.block.width,
        num_attention_heads=size.block.heads,
        intermediate_size=size.block.mlp,
        layer_norm_eps=size.block.eps,
        hidden_act=size.activation,
        qkv_bias=bool(size.block.biases),
        attn_implementation="sdpa",
    )


def _refuse_other_size(path: Path, name: str, found: VideoMAESize, expected: VideoMAESize) -> None:
    theirs, ours = numbers(found), numbers(expected)
    differing = [f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if theirs[key] != ours[key]]
    if differing:
        raise WeightsError(
            f"{path} is not {name}: {', '.join(differing)}. "
            f"Give a model of your own by its folder: --backbone {path.parent}"
        )


def _pair(value: Any) -> tuple[int, int]:
    rows, columns = value if isinstance(value, list | tuple) else (value, value)
    return int(rows), int(columns)


def numbers(size: VideoMAESize) -> dict[str, Any]:
    """The numbers of a size as fingerprints have them."""
    return {
        "input_size": list(size.input_size),
        "n_frames": size.n_frames,
        "patch": list(size.patch),
        "width": size.block.width,
        "depth": size.depth,
        "heads": size.block.heads,
        "mlp": size.block.mlp,
        "eps": size.block.eps,
        "activation": size.activation,
        "qv_bias": bool(size.block.biases),
        "final_norm": size.final_norm,
    }
