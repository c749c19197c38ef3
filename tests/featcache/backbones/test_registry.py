"""Backbones by name, and models of the user's own."""

from pathlib import Path

import pytest
import torch

from featcache.backbones import BACKBONES, backbone_info, load_backbone
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer

OWN = '''
"""A frozen model in a file of the user's own: the mean brightness of each frame."""
from dataclasses import dataclass

from einops import reduce

from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.spec import Layer, TokenGrid


@dataclass(frozen=True)
class Brightness:
    info: BackboneInfo

    def weights_digest(self):
        return "no weights"

    def architecture(self):
        return {"family": "brightness"}

    def preprocessing(self):
        return preprocessing(self.info)

    def load(self, layers, device, dtype):
        return lambda pixels: {Layer(0): reduce(pixels, "b f c y x -> b f 1 1 1", "mean")}


BACKBONE = Brightness(
    BackboneInfo(
        name="brightness", title="Brightness", source="me", licence="mine", commercial=True, public=False,
        params_m=0.0, n_blocks=0, input_size=(8, 8), final_norm=False, default_layers=(Layer(0),),
        grid=TokenGrid(steps=16, rows=1, columns=1, channels=1),
    )
)
NOT_ONE = {"info": 3}
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", BACKBONES)
def test_every_name_gives_a_backbone_without_weights(name: str, tmp_path: Path) -> None:
    assert load_backbone(name, tmp_path).info == backbone_info(name) == BACKBONES[name].info


def test_unknown_names_suggest_near_ones() -> None:
    with pytest.raises(CallError, match=r"'videomae-b'\. Did you mean 'videomae_b'\? Known are resize, "):
        load_backbone("videomae-b")
    with pytest.raises(CallError, match=r"my_model\.py:BACKBONE"):
        load_backbone("zzz")


def test_own_model_runs(own: Path) -> None:
    backbone = load_backbone(f"{own}:BACKBONE")
    assert backbone.info.name == "brightness"
    encoder = backbone.load((Layer(0),), torch.device("cpu"), torch.float32)
    assert encoder(torch.ones(2, 16, 3, 8, 8))[Layer(0)].shape == (2, 16, 1, 1, 1)
    assert backbone_info(f"{own}:BACKBONE") == backbone.info


def test_own_model_that_is_none_says_what_it_lacks(own: Path) -> None:
    with pytest.raises(
        CallError,
        match=r"it lacks info .*, weights_digest\(\), architecture\(\), preprocessing\(\), load\(\)",
    ):
        load_backbone(f"{own}:NOT_ONE")
    with pytest.raises(CallError, match="is a class: make one object"):
        load_backbone(f"{own}:Brightness")
    with pytest.raises(CallError, match="defines no 'OTHER'"):
        load_backbone(f"{own}:OTHER")


def test_own_file_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"there is no file .*absent\.py"):
        load_backbone(f"{tmp_path / 'absent.py'}:BACKBONE")
    broken = tmp_path / "broken.py"
    broken.write_text("raise KeyError('weights.npz')", encoding="utf-8")
    with pytest.raises(CallError, match=r"broken\.py fails when it is run: KeyError: 'weights\.npz'"):
        load_backbone(f"{broken}:BACKBONE")


def test_a_folder_is_a_saved_videomae(tiny_folder: Path) -> None:
    info = load_backbone(str(tiny_folder)).info
    assert (info.name, info.grid.shape, info.n_frames) == ("tiny", (2, 2, 2, 12), 4)
    assert not info.commercial


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"lacks config\.json"):
        load_backbone(str(tmp_path))
