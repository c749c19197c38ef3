"""A backbone of one file: its digest is the file's, its model is cut where it may be, layers are checked."""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from featcache.backbones.one_file import OneFileBackbone
from featcache.backbones.vit_catalogue import VIT_INFOS
from featcache.errors import CallError
from featcache.spec import Layer, TokenGrid

INFO = replace(
    VIT_INFOS["dinov2_s"], n_blocks=3, input_size=(2, 2), n_frames=1, mean=None, std=None,
    default_layers=(Layer(3),),
    grid=TokenGrid(steps=1, rows=2, columns=2, channels=3),
)  # fmt: skip


class Shift(nn.Module):
    """Pixels plus one number, as often as there are blocks."""

    def __init__(self, n_blocks: int) -> None:
        super().__init__()
        self.n_blocks = n_blocks
        self.shift = nn.Parameter(torch.empty((), device="meta"))

    def forward(self, frames: Tensor, layers: tuple[Layer, ...]) -> dict[Layer, Tensor]:
        tokens = rearrange(frames, "b f c y x -> b f y x c")
        assert max(layer.block for layer in layers) == self.n_blocks
        return {layer: tokens + layer.block * self.shift for layer in layers}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shifting(OneFileBackbone):
    made: list[tuple[int, bool]]

    def model(self, n_blocks: int, normed: bool) -> nn.Module:
        self.made.append((n_blocks, normed))
        return Shift(n_blocks)

    def parameters(
        self, wanted: dict[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        number = np.load(self.file())
        return {name: torch.tensor(number, device=device, dtype=dtype) for name in wanted}


@pytest.fixture
def backbone(tmp_path: Path) -> Shifting:
    np.save(tmp_path / "weights.npy", np.float32(0.5))
    return Shifting(info=INFO, file=lambda: tmp_path / "weights.npy", made=[])


def test_only_what_the_deepest_layer_needs_is_made_and_loaded(backbone: Shifting) -> None:
    layers = (Layer(2), Layer(1))
    encoder = backbone.load(layers, torch.device("cpu"), torch.float32)
    assert backbone.made == [(2, False)]
    tokens = encoder(torch.zeros(1, 1, 3, 2, 2))
    assert {layer: float(values.max()) for layer, values in tokens.items()} == {Layer(2): 1.0, Layer(1): 0.5}


def test_the_digest_is_the_files(backbone: Shifting) -> None:
    assert backbone.weights_digest() == sha256(backbone.file().read_bytes()).hexdigest()


def test_a_layer_that_is_not_there_is_refused_before_anything_is_made(backbone: Shifting) -> None:
    with pytest.raises(CallError, match="layer 4"):
        backbone.load((Layer(4),), torch.device("cpu"), torch.float32)
    assert backbone.made == []


def test_a_member_says_how_its_model_is_made(backbone: Shifting) -> None:
    bare = OneFileBackbone(info=INFO, file=backbone.file)
    with pytest.raises(NotImplementedError):
        bare.model(1, False)
    with pytest.raises(NotImplementedError):
        bare.parameters({}, torch.device("cpu"), torch.float32)
