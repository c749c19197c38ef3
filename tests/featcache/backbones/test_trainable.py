"""Backbones that can be trained: the tokens are the frozen encoder's, gradients right, no more is read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor

from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.families.fourds import FourDS
from featcache.backbones.families.videomae import RandomVideoMAE, open_folder
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, VideoViTSize
from featcache.backbones.trainable import TuningMode, trainable
from featcache.errors import CallError
from featcache.spec import Layer

CPU = torch.device("cpu")

SIZE = VideoViTSize(
    block=BlockSize(width=12, heads=2, mlp=20), depth=4, patch=(2, 4, 4), input_size=(8, 8), n_frames=4,
    positions="stored", gelu="tanh", final_norm=False,
)  # fmt: skip


@pytest.fixture
def fourds(tmp_path: Path) -> FourDS:
    """A tiny 4DS of made-up weights under the released names."""
    path, draw = tmp_path / "scaling4d_x.npz", np.random.default_rng(0)
    backbone = FourDS(info=vit_info("tiny", "fourds", SIZE), size=SIZE, file=lambda: path)
    shapes = backbone.key_map({}).shapes
    arrays: dict[str, Any] = {key: draw.normal(0, 0.3, s).astype(np.float32) for key, s in shapes.items()}
    np.savez(path, **arrays)
    return backbone


@pytest.fixture(params=["4ds", "videomae"])
def backbone(request: pytest.FixtureRequest) -> PretrainedBackbone:
    """One of our own blocks, and one of the library's with a final norm."""
    if request.param == "4ds":
        found: PretrainedBackbone = request.getfixturevalue("fourds")
        return found
    return open_folder(request.getfixturevalue("tiny_folder"))


def pixels_of(backbone: PretrainedBackbone) -> Tensor:
    info = backbone.info
    return torch.rand(3, info.n_frames, 3, *info.input_size, generator=torch.Generator().manual_seed(0))


def frozen(backbone: PretrainedBackbone, pixels: Tensor, layer: Layer) -> Tensor:
    tokens = backbone.load((layer,), CPU, torch.float32)(pixels)[layer]
    return rearrange(tokens, "b t h w c -> b t (h w) c").clone()


def test_whole_and_upper_part_give_the_frozen_models_tokens(backbone: PretrainedBackbone) -> None:
    pixels = pixels_of(backbone)
    last = backbone.info.last_layer
    for layer in (Layer(2), last):
        expected = frozen(backbone, pixels, layer)
        whole = trainable(backbone, layer, CPU)(pixels)
        assert whole.requires_grad and torch.equal(whole, expected)
        for begin in range(layer.block):
            upper = trainable(backbone, layer, CPU, begin=begin)
            assert torch.equal(upper(frozen(backbone, pixels, Layer(begin))), expected)


def test_a_task_that_reads_the_last_step_is_given_that_mix_of_steps(fourds: FourDS) -> None:
    pixels, weights = pixels_of(fourds), torch.tensor([0.25, 0.75])
    tokens = frozen(fourds, pixels, Layer(3))
    mixed = trainable(fourds, Layer(3), CPU, step_weights=weights)(pixels)
    torch.testing.assert_close(mixed, 0.25 * tokens[:, :1] + 0.75 * tokens[:, 1:])


def test_only_what_is_trained_is_made_and_read(fourds: FourDS, record_keys: Callable[[], list[str]]) -> None:
    asked = record_keys()
    part = trainable(fourds, Layer(3), CPU, begin=1)
    named = {name.split(".")[2] for name, _ in part.named_parameters()}
    assert named == {"1", "2"} and all(p.requires_grad for p in part.parameters())
    assert {key.split("/")[2] for key in asked} == {"layers_1", "layers_2"}


def test_gradients_are_those_of_finite_differences(fourds: FourDS) -> None:
    pixels = pixels_of(fourds)
    model = trainable(fourds, Layer(3), CPU)
    weights = torch.randn(model(pixels).shape, generator=torch.Generator().manual_seed(1))
    (model(pixels) * weights).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        direction = parameter.grad / parameter.grad.norm().clamp(min=1e-12)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-2 * direction
                values.append(float((model(pixels) * weights).double().sum()))
                parameter -= sign * 1e-2 * direction
        slope = (values[0] - values[1]) / 2e-2
        assert slope == pytest.approx(float(parameter.grad.norm()), rel=2e-2, abs=2e-3), name


def test_checkpointing_changes_no_gradient_and_bfloat16_little(fourds: FourDS) -> None:
    pixels = pixels_of(fourds)
    gradients = []
    for mode in (TuningMode(), TuningMode(checkpointing=True), TuningMode(bfloat16=True)):
        model = trainable(fourds, Layer(3), CPU, mode=mode)
        tokens = model(pixels)
        tokens.square().sum().backward()
        assert tokens.dtype == torch.float32
        assert all(p.dtype == torch.float32 for p in model.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    plain, again, rounded = gradients
    assert torch.equal(plain, again)
    assert not torch.equal(plain, rounded)
    assert float((rounded - plain).norm() / plain.norm()) < 0.05


def test_a_computed_table_of_positions_is_not_trained(tiny_folder: Path) -> None:
    model = trainable(open_folder(tiny_folder), Layer(3, normed=True), CPU)
    fixed = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert fixed == ["model.positions"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("resize", "no weights"), ("dinov2_s", "image model"), ("videoprism_b", "no single stack")],
)
def test_models_that_cannot_be_tuned_are_refused_in_words(name: str, why: str) -> None:
    backbone = load_backbone(name)
    with pytest.raises(CallError, match=f"{name} cannot be tuned: .*{why}.*4DS"):
        trainable(backbone, backbone.info.last_layer, CPU)


def test_so_are_a_layer_or_a_block_that_is_not_there(fourds: FourDS) -> None:
    with pytest.raises(CallError, match="layer 5: tiny has blocks 0"):
        trainable(fourds, Layer(5), CPU)
    with pytest.raises(CallError, match="tune from 1 to 3 blocks"):
        trainable(fourds, Layer(3), CPU, begin=3)


def test_random_weights_can_be_tuned() -> None:
    size = replace(BACKBONES["videomae_b"].size, depth=2)
    size = replace(size, block=replace(size.block, width=12, heads=2, mlp=20), input_size=(16, 16))
    made = RandomVideoMAE(info=vit_info("tiny", "videomae", size), size=size, file=Path)
    tokens = trainable(made, Layer(2), CPU, begin=1)(torch.ones(1, 8, 1, 12))
    assert tokens.shape == (1, 8, 1, 12)
