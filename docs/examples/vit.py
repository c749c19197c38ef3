"""A Vision Transformer of `transformers` as a backbone: a file of one's own, given as `vit.py:BACKBONE`.

`VIT_FOLDER` names a folder of `save_pretrained`; without it the model is small and has random weights.
"""

import os
from hashlib import file_digest
from pathlib import Path

import torch
from einops import rearrange
from transformers import ViTConfig, ViTModel

from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.backbones.inputs import model_input
from featcache.spec import Layer, TokenGrid

FOLDER = os.environ.get("VIT_FOLDER")
SMALL = ViTConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96)
CONFIG = ViTConfig.from_pretrained(FOLDER) if FOLDER else SMALL
SIDE = CONFIG.image_size // CONFIG.patch_size


class ViT:
    """Each frame's tokens after a block, without the class token."""

    info = BackboneInfo(
        name="vit",
        title="Vision Transformer",
        source=FOLDER or "random",
        licence="that of the weights",
        commercial=False,
        public=False,
        params_m=86.0 if FOLDER else 0.1,
        n_blocks=CONFIG.num_hidden_layers,
        input_size=(CONFIG.image_size, CONFIG.image_size),
        default_layers=(Layer(CONFIG.num_hidden_layers),),
        final_norm=False,
        grid=TokenGrid(steps=16, rows=SIDE, columns=SIDE, channels=CONFIG.hidden_size),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        frame_level=True,  # frames that clips share are seen once
        control=None if FOLDER else "random weights",
    )

    def weights_digest(self):
        if not FOLDER:
            return "random 0"
        with Path(FOLDER, "model.safetensors").open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    def architecture(self):
        return CONFIG.to_diff_dict()

    def preprocessing(self):
        return preprocessing(self.info)

    def load(self, layers, device, dtype):
        torch.manual_seed(0)
        model = ViTModel.from_pretrained(FOLDER) if FOLDER else ViTModel(CONFIG, add_pooling_layer=False)
        model = model.to(device, dtype).eval()

        @torch.inference_mode()
        def encode(pixels):
            frames = model_input(pixels, self.info, device).to(dtype)
            flat = rearrange(frames, "b f c y x -> (b f) c y x")
            states = model(flat, output_hidden_states=True).hidden_states
            return {
                layer: rearrange(
                    states[layer.block][:, 1:].float(), "(b t) (h w) c -> b t h w c", b=len(pixels), h=SIDE
                )
                for layer in layers
            }

        return encode


BACKBONE = ViT()
