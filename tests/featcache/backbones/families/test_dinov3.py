"""DINOv3 through the real loading path, against the whole model of transformers with random weights."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from math import cos, pi, prod, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

from featcache.backbones import load_backbone
from featcache.backbones.families import dinov3
from featcache.backbones.families.dinov3 import Dinov3
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, Dinov3Size
from featcache.errors import WeightsError
from featcache.spec import Layer, TokenGrid

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Of max |difference| / std."""
N_EXTRA = 5
"""Class token and registers."""

Distance = Callable[[Tensor, np.ndarray], float]
LastTokens = Callable[[Dinov3, Tensor], Tensor]


@pytest.fixture(params=[False, True], ids=["gelu", "swiglu"])
def library(request: pytest.FixtureRequest) -> Any:
    """The library's own model, every parameter drawn."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, patch_size=8,
        num_register_tokens=4, use_gated_mlp=request.param, hidden_act="silu" if request.param else "gelu",
    )  # fmt: skip
    model = DINOv3ViTModel(config).eval()
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=draw)
    return model


@pytest.fixture
def clip() -> Tensor:
    """Not square: rows and columns must not be mixed up."""
    return torch.rand(2, 3, 3, 24, 32, generator=torch.Generator().manual_seed(1))


def saved(model: Any, folder: Path, **changes: Tensor | None) -> Dinov3:
    """The library's model in the released layout, some tensors changed or taken away."""
    state = {key.removeprefix("model."): t.detach().clone() for key, t in model.state_dict().items()}
    state = {key: tensor for key, tensor in {**state, **changes}.items() if tensor is not None}
    path = folder / "model.safetensors"
    save_file(state, path)
    block = BlockSize(
        width=32, heads=2, mlp=48, gated=model.config.use_gated_mlp, scaled=True, biases="qv", eps=1e-5
    )
    size = Dinov3Size(block=block, depth=3, patch=(1, 8, 8), input_size=(24, 32), n_frames=3)
    return Dinov3(info=vit_info("dinov3_b", "dinov3", size), size=size, file=lambda: path)


def reference(model: Any, backbone: Dinov3, clip: Tensor) -> dict[Layer, np.ndarray]:
    """What the library gives, patch tokens only."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.info.mean, backbone.info.std))
    frames = rearrange((clip - mean) / std, "b f c y x -> (b f) c y x")
    with torch.inference_mode():
        output = model(frames, output_hidden_states=True)
    states = {Layer(block): state for block, state in enumerate(output.hidden_states)}
    states[Layer(3, normed=True)] = output.last_hidden_state
    return {layer: state[:, N_EXTRA:].numpy() for layer, state in states.items()}


def test_every_layer_in_one_pass(library: Any, clip: Tensor, distance: Distance, tmp_path: Path) -> None:
    backbone = saved(library, tmp_path)
    expected = reference(library, backbone, clip)
    found = backbone.load(tuple(expected), CPU, torch.float32)(clip)
    assert list(found) == list(expected)
    for layer, tokens in found.items():
        assert tokens.shape == (2, 3, 3, 4, 32) and tokens.dtype == torch.float32
        assert distance(tokens, expected[layer]) < TOLERANCE, layer
    assert backbone.info.upsampling is None


@pytest.mark.parametrize("lost", ["q_proj.bias", "v_proj.bias", "register_tokens", "lambda1"])
def test_a_lost_tensor_is_noticed(
    library: Any, clip: Tensor, last_tokens: LastTokens, distance: Distance, tmp_path: Path, lost: str
) -> None:
    expected = reference(library, saved(library, tmp_path), clip)[Layer(3, normed=True)]
    zeros = {
        key.removeprefix("model."): torch.zeros_like(tensor)
        for key, tensor in library.state_dict().items()
        if key.endswith(lost)
    }
    backbone = saved(library, tmp_path, **zeros)
    found = last_tokens(backbone, clip)
    assert zeros and distance(found, expected) > 100 * TOLERANCE


def test_wrong_pixels_are_noticed(
    library: Any,
    clip: Tensor,
    last_tokens: LastTokens,
    distance: Distance,
    tmp_path: Path,
    wrong_pixels: Callable[[Dinov3], Dinov3],
) -> None:
    backbone = saved(library, tmp_path)
    expected = reference(library, backbone, clip)[Layer(3, normed=True)]
    assert distance(last_tokens(wrong_pixels(backbone), clip), expected) > 0.1


def test_rotation_by_hand() -> None:
    # Two rows and one column: centres at -0.5 and 0.5, and at 0. Head width 8: speeds 1 and 100^-0.5.
    grid = TokenGrid(steps=1, rows=2, columns=1, channels=8)
    cosines, sines = dinov3.rotation(grid, 8, like=torch.zeros(1))
    for row, place in enumerate((-0.5, 0.5)):
        angles = [2 * pi * place, 2 * pi * place / 10, 0, 0] * 2
        assert cosines[row].tolist() == pytest.approx([cos(angle) for angle in angles], abs=1e-6)
        assert sines[row].tolist() == pytest.approx([sin(angle) for angle in angles], abs=1e-6)


def test_early_exit_is_the_same_function_and_holds_no_later_block(
    library: Any, clip: Tensor, tmp_path: Path
) -> None:
    backbone = saved(library, tmp_path)
    whole = backbone.load(tuple(Layer(block) for block in range(4)), CPU, torch.float32)(clip)
    for block in (0, 2):
        encoder: Any = backbone.load((Layer(block),), CPU, torch.float32)
        assert len(encoder.model.layer) == block and encoder.model.norm is None
        assert torch.equal(encoder(clip)[Layer(block)], whole[Layer(block)])


def test_weights_in_several_files_are_the_same_weights(library: Any, clip: Tensor, tmp_path: Path) -> None:
    whole = saved(library, tmp_path)
    state = load_file(whole.file())
    files = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for number, (name, tensor) in enumerate(state.items()):
        files[list(files)[number % 2]][name] = tensor
    for name, tensors in files.items():
        save_file(tensors, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    home = {tensor: name for name, tensors in files.items() for tensor in tensors}
    index.write_text(json.dumps({"weight_map": home}))
    parts = replace(whole, file=lambda: index)
    layers = (Layer(1), Layer(3, normed=True))
    ours, theirs = (model.load(layers, CPU, torch.float32)(clip) for model in (parts, whole))
    assert all(torch.equal(ours[layer], theirs[layer]) for layer in layers)


def test_bfloat16_comes_out_float32(library: Any, clip: Tensor, tmp_path: Path) -> None:
    backbone = saved(library, tmp_path)
    exact, rounded = (
        backbone.load((Layer(1),), CPU, t)(clip)[Layer(1)] for t in (torch.float32, torch.bfloat16)
    )
    assert rounded.dtype == torch.float32
    assert 1e-4 < ((rounded - exact).abs().max() / exact.std()).item() < 0.2


@pytest.mark.parametrize("name", [f"dinov3_{size}" for size in ("s", "b", "l", "hplus", "7b")])
def test_released_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str
) -> None:
    released = released_listing(f"{name}.hf_hub_released")
    found = released.shapes
    backbone = load_backbone(name)
    assert isinstance(backbone, Dinov3)
    key_map = backbone.key_map(found)
    key_map.check(found, name)
    assert found.keys() - key_map.shapes.keys() == set(dinov3.SKIPPED)
    assert sum(map(prod, found.values())) == released.n_params == backbone.size.n_params


def test_missing_and_unknown_keys_are_named(library: Any, tmp_path: Path) -> None:
    key_bias = {"layer.0.attention.k_proj.bias": torch.zeros(32), "norm.bias": None}
    with pytest.raises(WeightsError) as error:
        saved(library, tmp_path, **key_bias).load((Layer(0),), CPU, torch.float32)
    assert "norm.bias missing" in str(error.value)
    assert "layer.0.attention.k_proj.bias unknown" in str(error.value)


def test_a_transformers_without_the_model_says_which_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.dinov3_vit.modeling_dinov3_vit", None)
    with pytest.raises(WeightsError, match=r"no DINOv3: pip install 'transformers>=4\.56'"):
        Dinov3.named("dinov3_s", None).whole()


def test_registered_name(tmp_path: Path, made_up: Callable[[str], None]) -> None:
    made_up("dinov3_hplus")
    folder = tmp_path / "dinov3_hplus"
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_text("{}", encoding="utf-8")
    backbone = load_backbone("dinov3_hplus", tmp_path)
    assert isinstance(backbone, Dinov3)
    assert backbone.file() == folder / "model.safetensors"
    assert not backbone.info.public and backbone.info.licence == "DINOv3 License"
    part = backbone.architecture()
    assert json.loads(json.dumps(part)) == part
