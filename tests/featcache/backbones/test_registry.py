"""Backbones by name, models of the user's own, and weights of their own for a registered architecture."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.backbones import BACKBONES, anywhere, backbone_info, load_backbone, store_name
from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, Vjepa21Size
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


VJEPA21 = Vjepa21Size(
    block=BlockSize(width=12, heads=2, mlp=20), depth=4, patch=(2, 8, 8), input_size=(16, 16), n_frames=4,
    levels=(1, 2, 3, 4), distilled=True,
)  # fmt: skip
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Weights of a tiny `vjepa21_b`, whose size is registered for the test."""
    model = replace(BACKBONES["vjepa21_b"], size=VJEPA21, info=vit_info("vjepa21_b", "vjepa21", VJEPA21))
    monkeypatch.setitem(BACKBONES, "vjepa21_b", model)
    backbone: Any = load_backbone("vjepa21_b")
    file = {"patch_embed.proj.weight": ()}  # its keys as a file without wrappers has them
    draw = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=draw) for key, shape in backbone.key_map(file).shapes.items()}


def tokens_of(backbone: Any) -> torch.Tensor:
    layer = backbone.info.last_layer
    pixels = torch.rand(1, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found: torch.Tensor = backbone.load((layer,), torch.device("cpu"), torch.float32)(pixels)[layer]
    return found


LAYOUTS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, Any]]] = {
    "plain": lambda state: state,
    "prefixed": lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
    "nested": lambda state: {
        "epoch": 3,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}},
        "student": {f"backbone.{key}": tensor * 0 for key, tensor in state.items()},
        "teacher": {f"backbone.{key}": tensor for key, tensor in state.items()},
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_the_user_s_own_for_a_registered_architecture(
    state: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture, layout: str
) -> None:
    file = tmp_path / "mice v2.pth"
    torch.save(LAYOUTS[layout](state), file)
    backbone: Any = load_backbone(f"vjepa21_b@{file}")
    expected: Any = load_backbone("vjepa21_b")
    torch.save({"ema_encoder": state}, tmp_path / "released.pt")
    released = replace(expected, file=lambda: tmp_path / "released.pt")
    assert torch.equal(tokens_of(backbone), tokens_of(released))
    assert backbone.info.name == store_name(f"vjepa21_b@{file}") == "vjepa21_b.mice_v2"
    assert backbone.info.weights_from == f"{tmp_path.name}/mice v2.pth" and not backbone.info.public
    told = {"plain": "", "prefixed": "under 'module.'", "nested": "under 'teacher.backbone.'"}[layout]
    assert any(told in line for line in [*caplog.messages, ""])
    if layout == "nested":
        assert "and not from 'student.backbone.'" in "".join(caplog.messages)
    # The architecture is the same; the digest and the name tell the stores apart.
    assert backbone.architecture() == released.architecture()
    assert backbone.weights_digest() != released.weights_digest()


def test_a_folder_says_how_its_pixels_are_normalised(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    folder = tmp_path / "adapted"
    folder.mkdir()
    torch.save(state, folder / "checkpoint.pth")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    info = load_backbone(f"vjepa21_b@{folder}").info
    assert (info.name, info.mean, info.std) == ("vjepa21_b.adapted", tuple(MEAN), tuple(STD))
    torch.save(state, folder / "other.pth")
    with pytest.raises(WeightsError, match=r"holds checkpoint\.pth, other\.pth: name the file"):
        load_backbone(f"vjepa21_b@{folder}")


def test_another_architecture_s_weights_are_refused_by_name_and_shape(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    wider = {key: torch.cat([tensor, tensor]) for key, tensor in state.items()}
    torch.save({"model": wider | {"register_tokens": torch.zeros(1, 4, 24)}}, tmp_path / "wide.pth")
    with pytest.raises(WeightsError) as error:
        tokens_of(load_backbone(f"vjepa21_b@{tmp_path / 'wide.pth'}"))
    assert "is not vjepa21_b" in str(error.value) and "register_tokens unknown" in str(error.value)
    assert "blocks.0.attn.proj.bias (24,) instead of (12,)" in str(error.value)


def test_weights_that_are_nowhere_say_where_they_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=r"lab/mice is no file or folder here.*hf download lab/mice"):
        load_backbone("vjepa2_l@lab/mice")
    with pytest.raises(CallError, match="resize needs no weights"):
        load_backbone("resize@lab/mice")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    assert anywhere("vjepa2_l@w.pth") == f"vjepa2_l@{tmp_path / 'w.pth'}"
    assert anywhere("vjepa2_l@lab/mice") == "vjepa2_l@lab/mice" and anywhere("resize") == "resize"
    assert anywhere("own.py:X") == f"{tmp_path / 'own.py'}:X"


def test_a_repository_of_the_hub_s_cache_is_found(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub/models--lab--mice/snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "hub/models--lab--mice/refs").mkdir()
    (tmp_path / "hub/models--lab--mice/refs/main").write_text("0" * 40)
    torch.save(state, snapshot / "mice.pth")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    backbone = load_backbone("vjepa21_b@lab/mice")
    assert isinstance(backbone, PretrainedBackbone) and backbone.file().name == "mice.pth"
    assert (backbone.info.name, backbone.info.weights_from) == ("vjepa21_b.mice", "lab/mice")
