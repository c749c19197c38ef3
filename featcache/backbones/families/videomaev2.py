"""VideoMAEv2 as released, in three ways: safetensors on the hub, `.pth` of pretraining or of fine-tuning.

The blocks are the same everywhere; only the file of the pretraining has a norm for tokens (`encoder.norm`).
The others have one for the mean over tokens (`fc_norm`), which tokens must not go through. Positions are
VideoMAE's sinusoid, in no file; keys have no bias.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.backbones.positions import sinusoid
from featcache.backbones.video_catalogue import VIDEO_FILES, VIDEOMAEV2_SIZES, VideoViTSize, videomaev2_info
from featcache.backbones.vit import Family, Layout, Source, VideoViTBackbone, timm_block, timm_ends
from featcache.backbones.weights.checkpoint import Shapes

PRETRAINED, HUB, FINE_TUNED = "encoder.", "model.", ""
"""What keys begin with in each kind of file."""

LEFT_OUT = {
    PRETRAINED: ("mask_token", "encoder_to_decoder.", "decoder."),
    HUB: ("model.fc_norm.",),
    FINE_TUNED: ("fc_norm.", "head."),
}
"""Beginnings of released keys that tokens do not need."""


def open_videomaev2(name: str, weights_dir: Path | None) -> VideoViTBackbone:
    """A VideoMAEv2, from `<weights_dir>/<name>/`: the hub's file, or the one `.pth` or `.bin` there."""
    return videomaev2(name, VIDEOMAEV2_SIZES[name], partial(VIDEO_FILES[name].obtain, name, weights_dir))


def layout(size: VideoViTSize, found: Shapes) -> Layout:
    """Every tensor of the encoder and the parameter it becomes, by the kind of file that `found` is."""
    kinds = (kind for kind in (PRETRAINED, HUB) if f"{kind}patch_embed.proj.weight" in found)
    prefix = next(kinds, FINE_TUNED)
    width, n_tokens = size.block.width, size.grid.steps * size.grid.tokens_per_step
    sources = timm_ends(prefix, size, norm=prefix == PRETRAINED)
    sources["positions"] = Source({}, lambda: (sinusoid(n_tokens, width),))
    for number in range(size.depth):
        released = f"{prefix}blocks.{number}."
        block = timm_block(released, size)
        biases = {f"{released}attn.{part}": (width,) for part in ("q_bias", "v_bias")}
        block["qkv.bias"] = Source(biases, _no_key_bias)
        sources |= {f"blocks.{number}.{name}": source for name, source in block.items()}
    return Layout(sources=sources, left_out=LEFT_OUT[prefix])


FAMILY = Family(name="videomaev2", layout=layout, sections=("model", "module"))


def videomaev2(name: str, size: VideoViTSize, file: Callable[[], Path]) -> VideoViTBackbone:
    """A VideoMAEv2 of any size."""
    return VideoViTBackbone(info=videomaev2_info(name, size), size=size, family=FAMILY, file=file)


def _no_key_bias(query: Float[Tensor, " C"], value: Float[Tensor, " C"]) -> tuple[Float[Tensor, " C"], ...]:
    return query, torch.zeros_like(query), value
