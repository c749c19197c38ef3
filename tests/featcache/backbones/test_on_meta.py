"""Every backbone at its full size on torch's meta device: it refuses mixed devices and any read-back.

Nothing is computed and no memory is taken, so what a GPU would refuse or wait for is found without one.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch

from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.encoder import ClipEncoder, PretrainedBackbone, deepest, meta
from featcache.backbones.families.videomae import VideoMAE, VideoMAEModel
from featcache.spec import Layer

META = torch.device("meta")


def on_meta(name: str, layers: tuple[Layer, ...], dtype: torch.dtype) -> ClipEncoder:
    """What `load` makes, of parameters that are only shapes."""
    backbone = load_backbone(name)
    if not isinstance(backbone, PretrainedBackbone):
        return backbone.load(layers, META, dtype)  # type: ignore[return-value]
    # The published config, which `model` asks for, is what the registered size says.
    make = partial(VideoMAEModel, backbone.size) if isinstance(backbone, VideoMAE) else backbone.model
    model = meta(make, *deepest((*layers, Layer(backbone.info.n_blocks))))
    state = {
        key: tensor.to(torch.float32 if backbone.stays_float32(key) else dtype)
        for key, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return ClipEncoder(info=backbone.info, layers=layers, model=model.eval(), device=META, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_pass_mixes_no_devices_and_reads_nothing_back(name: str, dtype: torch.dtype) -> None:
    info = BACKBONES[name].info
    layers = tuple(dict.fromkeys((Layer(0), info.last_layer)))
    encoder = on_meta(name, layers, dtype)
    tokens = encoder(torch.rand(2, info.n_frames, 3, 285, 512, device=META))
    assert tuple(tokens) == layers
    for found in tokens.values():
        assert (found.shape, found.dtype, found.device) == ((2, *info.grid.shape), torch.float32, META)


def test_a_constant_left_on_the_host_would_be_found() -> None:
    encoder = on_meta("videomae_b", (Layer(0),), torch.float32)

    def forgetful(frames: torch.Tensor, layers: tuple[Layer, ...]) -> dict[Layer, torch.Tensor]:
        return {layer: frames * torch.ones(3, 1, 1) for layer in layers}

    def curious(frames: torch.Tensor, layers: tuple[Layer, ...]) -> dict[Layer, torch.Tensor]:
        return {layer: frames / frames.max().item() for layer in layers}

    pixels = torch.rand(1, 16, 3, 224, 224, device=META)
    for model in (forgetful, curious):
        with pytest.raises(RuntimeError):
            replace(encoder, model=model)(pixels)
