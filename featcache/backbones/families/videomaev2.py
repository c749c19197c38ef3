"""VideoMAEv2 as released, in three ways: safetensors on the hub, `.pth` of pretraining or of fine-tuning.

The blocks are the same everywhere; only the file of the pretraining has a norm for tokens (`encoder.norm`).
The others have one for the mean over tokens (`fc_norm`), which tokens must not go through. Positions are
VideoMAE's sinusoid, in no file; keys have no bias.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from featcache.backbones.parts import sinusoid
from featcache.backbones.vit import TIMM_NAMES, VideoViTBackbone
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import Entry, KeyMap, renamed

PRETRAINED, HUB, FINE_TUNED = "encoder.", "model.", ""
"""What keys begin with in each kind of file."""

SKIPPED = {
    PRETRAINED: ("mask_token", "encoder_to_decoder.", "decoder."),
    HUB: ("model.fc_norm.",),
    FINE_TUNED: ("fc_norm.", "head."),
}
"""Beginnings of released keys that tokens do not need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoMAEv2(VideoViTBackbone):
    """A VideoMAEv2 of any size; see `featcache.backbones.base.Backbone` for what the methods promise."""

    family: ClassVar[str] = "videomaev2"
    computed: ClassVar[tuple[str, ...]] = ("positions",)
    sections: ClassVar[tuple[str, ...]] = ("model", "module")

    def key_map(self, found: Shapes) -> KeyMap:
        """Every tensor of the encoder, by the kind of file that `found` is."""
        kinds = (kind for kind in (PRETRAINED, HUB) if f"{kind}patch_embed.proj.weight" in found)
        prefix, width = next(kinds, FINE_TUNED), self.size.block.width
        entries = renamed(self.whole(), TIMM_NAMES, prefix)
        if prefix != PRETRAINED:
            del entries["norm.weight"], entries["norm.bias"]
        entries["positions"] = Entry((), (), then=partial(sinusoid, self.size.n_tokens, width))
        for number in range(self.size.depth):
            query, value = (f"{prefix}blocks.{number}.attn.{part}_bias" for part in "qv")
            entries[f"blocks.{number}.qkv.bias"] = Entry((query, None, value), (width,))
        return KeyMap(entries, SKIPPED[prefix])


open_model = VideoMAEv2.named
