"""V-JEPA from `.pth.tar` files in the released layout, against the authors' model at every layer."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.base import resolve_layers
from featcache.backbones.families.vjepa import VJepa
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, VideoViTSize
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer

CPU = torch.device("cpu")
TOLERANCE = 1e-4
Golden = Callable[[str], list[SimpleNamespace]]
Distance = Callable[[Tensor, np.ndarray], float]

BESIDE = {
    "predictor": {"module.backbone.mask_token": torch.zeros(1, 1, 6)},
    "opt": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
    "scaler": None,
    "epoch": 300,
    "lr": 1e-6,
    "args": argparse.Namespace(tubelet_size=2),
}
"""What a training script saves with its model."""


@pytest.fixture
def models(golden_models: Golden) -> list[SimpleNamespace]:
    return golden_models("vjepa[!2]*")


def vjepa(size: VideoViTSize, file: Callable[[], Path]) -> VJepa:
    return VJepa(info=vit_info("tiny", "vjepa", size), size=size, file=file)


def size_of(config: dict[str, int]) -> VideoViTSize:
    width, side, patch = config["embed_dim"], config["img_size"], config["patch_size"]
    block = BlockSize(width=width, heads=config["num_heads"], mlp=config["mlp_ratio"] * width)
    return VideoViTSize(
        block=block, depth=config["depth"], patch=(config["tubelet_size"], patch, patch),
        input_size=(side, side), n_frames=config["num_frames"], positions="stored",
    )  # fmt: skip


def save(path: Path, released: dict[str, dict[str, Tensor]], **change: object) -> Path:
    torch.save({**released, **BESIDE, **change}, path)
    return path


def model_of(golden: SimpleNamespace, folder: Path, **change: object) -> VJepa:
    path = save(folder / "vitx16.pth.tar", golden.released, **change)
    return vjepa(size_of(golden.config), lambda: path)


def test_golden_every_layer_in_one_pass(
    models: list[SimpleNamespace], distance: Distance, tmp_path: Path
) -> None:
    for golden in models:
        backbone = model_of(golden, tmp_path)
        depth = backbone.size.depth
        blocks = [Layer(block) for block in range(depth + 1)]
        found = backbone.load((*blocks, Layer(depth, True)), CPU, torch.float32)(golden.clip)
        for layer in blocks:
            assert distance(found[layer], golden.hidden[layer.block]) < TOLERANCE, layer
        assert backbone.info.default_layers == (Layer(depth, True),)
        assert distance(found[Layer(depth, True)], golden.arrays["features"]) < TOLERANCE


def test_golden_fractions_choose_the_reference_layers(models: list[SimpleNamespace], tmp_path: Path) -> None:
    for golden in models:
        for fraction, entry in golden.readout.items():
            info = model_of(golden, tmp_path).info
            assert resolve_layers(fraction, info) == (Layer(entry["after_blocks"]),)


def test_golden_at_another_size_stretches_the_positions(
    models: list[SimpleNamespace], distance: Distance, tmp_path: Path
) -> None:
    for golden in models:
        backbone = model_of(golden, tmp_path)
        frames = golden.arrays["clip2_uint8"]
        clip = torch.from_numpy(np.moveaxis(frames, -1, 2).astype(np.float32) / 255)
        other = replace(backbone.size, input_size=frames.shape[2:4], table=backbone.size.grid.shape[:3])
        layer = Layer(other.depth, True)
        found = vjepa(other, backbone.file).load((layer,), CPU, torch.float32)(clip)[layer]
        assert distance(found.flatten(1, 3)[:, ::7], golden.arrays["features2"]) < TOLERANCE
        # Without the word that the table is another grid's, it does not fit.
        with pytest.raises(WeightsError, match=r"pos_embed \(1, \d+, \d+\) instead of"):
            vjepa(replace(other, table=None), backbone.file).load((layer,), CPU, torch.float32)


def test_golden_takes_the_target_encoder(
    models: list[SimpleNamespace], distance: Distance, tmp_path: Path
) -> None:
    for golden in models:
        encoder = golden.released["encoder"]
        backbone = model_of(golden, tmp_path, target_encoder=encoder)
        layer = backbone.info.last_layer
        found = backbone.load((layer,), CPU, torch.float32)(golden.clip)[layer]
        assert distance(found, golden.arrays["features"]) > 0.5
        torch.save({"encoder": encoder, "epoch": 300}, backbone.file())
        with pytest.raises(WeightsError, match="under 'target_encoder'"):
            backbone.load((layer,), CPU, torch.float32)


def test_golden_in_bfloat16(models: list[SimpleNamespace], distance: Distance, tmp_path: Path) -> None:
    for golden in models:
        backbone = model_of(golden, tmp_path)
        layer = backbone.info.last_layer
        found = backbone.load((layer,), CPU, torch.bfloat16)(golden.clip)[layer]
        assert 1e-3 < distance(found, golden.arrays["features"]) < 0.1


@pytest.mark.parametrize(("name", "listing"), [("vjepa_l", "l"), ("vjepa_h", "h"), ("vjepa_h384", "h384")])
def test_released_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str, listing: str
) -> None:
    released = released_listing(f"vjepa_{listing}.target_encoder_released")
    backbone = load_backbone(name)
    assert isinstance(backbone, VJepa)
    key_map = backbone.key_map(released.shapes)
    key_map.check(released.shapes, name)
    assert key_map.skipped == ()
    state = backbone.whole().state_dict()
    assert key_map.entries.keys() == state.keys()
    assert backbone.size.n_params == released.n_params == sum(t.numel() for t in state.values())


def test_missing_unknown_and_misshapen_keys_are_all_named(
    models: list[SimpleNamespace], tmp_path: Path
) -> None:
    golden = models[0]
    state = dict(golden.released["target_encoder"])
    begin = "module.backbone."
    del state[f"{begin}norm.bias"]
    state[f"{begin}blocks.0.attn.qkv.bias"] = torch.zeros(5)
    state[f"{begin}cls_token"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        model_of(golden, tmp_path, target_encoder=state).load((Layer(0),), CPU, torch.float32)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'vitx16.pth.tar'} does not fit")
    assert f"{begin}norm.bias missing" in message and f"{begin}cls_token unknown" in message
    assert f"{begin}blocks.0.attn.qkv.bias (5,) instead of" in message


def test_another_model_in_the_file_is_refused(models: list[SimpleNamespace], tmp_path: Path) -> None:
    backbone = model_of(models[0], tmp_path, ema={"w": torch.zeros(2)})
    with pytest.raises(WeightsError, match=r"vitx16\.pth\.tar holds tensors under 'ema'"):
        backbone.load((Layer(0),), CPU, torch.float32)


class _Rogue:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code in a weight file was run",)


def test_code_in_the_pickle_is_refused_and_not_run(
    models: list[SimpleNamespace], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = model_of(models[0], tmp_path, scaler=_Rogue())
    with pytest.raises(
        WeightsError, match=r"vitx16\.pth\.tar cannot be read .*more than tensors, of which nothing was run"
    ):
        backbone.load((Layer(0),), CPU, torch.float32)
    assert "was run" not in capsys.readouterr().out


def test_what_is_known_in_advance() -> None:
    info = BACKBONES["vjepa_h384"].info
    assert info.mean == (0.485, 0.456, 0.406) and info.std == (0.229, 0.224, 0.225)
    assert not info.commercial and info.public and info.final_norm
    with pytest.raises(CallError, match="stored positions only"):
        replace(BACKBONES["vjepa_l"].size, positions="sinusoid", table=(8, 14, 14))
