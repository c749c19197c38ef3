"""A model of one file: its digest is the file's, it is cut where it may be, layers are checked."""

from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from featcache.backbones import BACKBONES
from featcache.backbones.encoder import ClipEncoder, PretrainedBackbone, deepest
from featcache.backbones.sizes import BlockSize, ViTSize
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import Entry, KeyMap
from featcache.errors import CallError
from featcache.spec import Layer, TokenGrid

INFO = replace(
    BACKBONES["dinov2_s"].info, n_blocks=3, input_size=(2, 2), n_frames=1, mean=None, std=None,
    default_layers=(Layer(3),),
    grid=TokenGrid(steps=1, rows=2, columns=2, channels=3),
)  # fmt: skip


SIZE = ViTSize(
    block=BlockSize(width=3, heads=1, mlp=1), depth=3, patch=(1, 1, 1), input_size=(2, 2), n_frames=1
)


class Shift(nn.Module):
    """Pixels plus one number, as often as there are blocks."""

    def __init__(self, n_blocks: int) -> None:
        super().__init__()
        self.n_blocks = n_blocks
        self.shift = nn.Parameter(torch.empty(1))

    def forward(self, frames: Tensor, layers: tuple[Layer, ...]) -> dict[Layer, Tensor]:
        tokens = rearrange(frames, "b f c y x -> b f y x c")
        assert max(layer.block for layer in layers) == self.n_blocks
        return {layer: tokens + layer.block * self.shift for layer in layers}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shifting(PretrainedBackbone):
    made: list[tuple[int, tuple[int, ...]]]
    tables: list[Shapes] = field(default_factory=list)

    def model(self, n_blocks: int, norms: tuple[int, ...]) -> nn.Module:
        self.made.append((n_blocks, norms))
        return Shift(n_blocks)

    def key_map(self, found: Shapes) -> KeyMap:
        self.tables.append(found)
        return KeyMap({"shift": Entry(("by",), (1,))})


@pytest.fixture
def backbone(tmp_path: Path) -> Shifting:
    np.savez(tmp_path / "weights.npz", by=np.full(1, 0.5, np.float32))
    return Shifting(info=INFO, size=SIZE, file=lambda: tmp_path / "weights.npz", made=[])


def test_only_what_the_deepest_layer_needs_is_made_and_loaded(backbone: Shifting) -> None:
    layers = (Layer(2), Layer(1))
    encoder = backbone.load(layers, torch.device("cpu"), torch.float32)
    assert backbone.made == [(2, ())] and len(backbone.tables) == 1
    tokens = encoder(torch.zeros(1, 1, 3, 2, 2))
    assert {layer: float(values.max()) for layer, values in tokens.items()} == {Layer(2): 1.0, Layer(1): 0.5}


def test_the_digest_is_the_files(backbone: Shifting) -> None:
    assert backbone.weights_digest() == sha256(backbone.file().read_bytes()).hexdigest()


def test_a_layer_that_is_not_there_is_refused_before_anything_is_made(backbone: Shifting) -> None:
    with pytest.raises(CallError, match="layer 4"):
        backbone.load((Layer(4),), torch.device("cpu"), torch.float32)
    assert backbone.made == []


def test_a_family_says_how_its_model_is_made(backbone: Shifting) -> None:
    bare = PretrainedBackbone(info=INFO, size=SIZE, file=backbone.file)
    with pytest.raises(AttributeError, match="network"):
        bare.model(1, ())
    with pytest.raises(NotImplementedError):
        bare.key_map({})


def test_tokens_are_float32_and_pixels_are_prepared() -> None:
    info = replace(
        BACKBONES["dinov2_s"].info, input_size=(2, 2), n_frames=1,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
        grid=TokenGrid(steps=1, rows=2, columns=2, channels=3),
    )  # fmt: skip

    def model(frames: torch.Tensor, layers: tuple[Layer, ...]) -> dict[Layer, torch.Tensor]:
        assert frames.dtype == torch.bfloat16 and torch.is_inference_mode_enabled()
        return dict.fromkeys(layers, rearrange(frames, "b f c y x -> b f y x c"))

    encoder = ClipEncoder(
        info=info, layers=(Layer(0),), model=model, device=torch.device("cpu"), dtype=torch.bfloat16
    )
    tokens = encoder(torch.ones(1, 1, 3, 4, 4))[Layer(0)]
    assert tokens.dtype == torch.float32
    assert torch.equal(tokens, torch.full((1, 1, 2, 2, 3), 2.0))


def test_the_deepest_of_layers() -> None:
    assert deepest((Layer(3), Layer(1))) == (3, ())
    assert deepest((Layer(3), Layer(12, normed=True))) == (12, (12,))
    assert deepest((Layer(6, normed=True), Layer(8), Layer(3, normed=True))) == (8, (3, 6))
