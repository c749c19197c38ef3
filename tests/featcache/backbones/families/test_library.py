"""Models by their folder alone, against what their library gives of the same pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from featcache.backbones import anywhere, load_backbone, store_name
from featcache.backbones.families.library import LibraryModel, open_place
from featcache.backbones.trainable import trainable
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer
from tests.featcache.backbones.families.conftest import MEAN, SMALL, STD, SaveLibrary

CPU = torch.device("cpu")
NO_MLP = {**{key: value for key, value in SMALL.items() if key != "intermediate_size"}, "mlp_ratio": 2}
VIDEO = {"num_frames": 4, "tubelet_size": [2, 8, 8]}
TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TEXT = {**TOWER, "vocab_size": 9}
VJEPA2 = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "crop_size": 32, "patch_size": 8,
    "frames_per_clip": 4, "mlp_ratio": 2, "pred_hidden_size": 12, "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}  # fmt: skip

# Class, what its config is given, tokens before those of patches, whether the last ones are normed.
IMAGES: list[tuple[str, dict[str, Any], int, bool]] = [
    ("ViTModel", SMALL, 1, True),
    ("Dinov2WithRegistersModel", {**NO_MLP, "num_register_tokens": 3}, 4, True),
    ("SiglipVisionModel", SMALL, 0, True),
    (
        "CLIPModel",
        {"vision_config": SMALL, "text_config": {**TOWER, "vocab_size": 9}, "projection_dim": 8},
        1,
        False,
    ),
    ("IJepaModel", SMALL, 0, True),
    ("Tipsv2VisionModel", NO_MLP, 2, True),
]
VIDEOS: list[tuple[str, dict[str, Any], int]] = [
    ("VJEPA2Model", VJEPA2, 0),
    ("VivitModel", {**{key: value for key, value in SMALL.items() if key != "patch_size"}, **VIDEO}, 1),
]


def everything(backbone: LibraryModel, pixels: Tensor) -> dict[Layer, Tensor]:
    info = backbone.info
    layers = dict.fromkeys([*map(Layer, range(info.n_blocks + 1)), info.last_layer])
    return dict(backbone.load(tuple(layers), CPU, torch.float32)(pixels))


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels - mean) / std


@pytest.mark.parametrize(("kind", "config", "n_extra", "normed"), IMAGES, ids=[row[0] for row in IMAGES])
def test_an_image_model_s_tokens_are_its_library_s_frame_by_frame(
    save_library: SaveLibrary, kind: str, config: dict[str, Any], n_extra: int, normed: bool
) -> None:
    folder, model = save_library(kind, **config)
    backbone: Any = load_backbone(f"hf:{folder}")
    info = backbone.info
    assert (info.grid.shape, info.frame_level, info.final_norm) == ((16, 4, 4, 24), True, normed)
    assert (backbone.n_extra, info.mean, info.std, info.input_size) == (n_extra, MEAN, STD, (32, 32))
    pixels = torch.rand(2, 16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = everything(backbone, pixels)
    vision: Any = getattr(model, "vision_model", model)
    with torch.inference_mode():
        reference = vision(normalised(pixels).flatten(0, 1), output_hidden_states=True)
    for layer, tokens in found.items():
        state = reference.last_hidden_state if layer.normed else reference.hidden_states[layer.block]
        if not layer.normed and layer.block == info.n_blocks and normed:
            continue  # some of the library's models list the normed ones there
        torch.testing.assert_close(tokens.flatten(0, 1).flatten(1, 2), state[:, n_extra:], rtol=0, atol=1e-6)
    last = found[info.last_layer].flatten(0, 1).flatten(1, 2)
    torch.testing.assert_close(last, reference.last_hidden_state[:, n_extra:], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "config", "n_extra"), VIDEOS, ids=[row[0] for row in VIDEOS])
def test_a_video_model_s_tokens_are_its_library_s(
    save_library: SaveLibrary, kind: str, config: dict[str, Any], n_extra: int
) -> None:
    folder, model = save_library(kind, **config)
    backbone: Any = open_place(str(folder))
    info = backbone.info
    assert (info.grid.shape, info.frame_level, info.n_frames) == ((2, 4, 4, 24), False, 4)
    assert (info.upsampling, backbone.n_extra) == ("linear", n_extra)
    pixels = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    more: dict[str, Any] = {"skip_predictor": True} if kind == "VJEPA2Model" else {}
    with torch.inference_mode():
        reference = model(normalised(pixels), **more).last_hidden_state[:, n_extra:]
    tokens = everything(backbone, pixels)[info.last_layer]
    torch.testing.assert_close(tokens.flatten(1, 3), reference, rtol=0, atol=1e-6)
    with pytest.raises(CallError, match="a model of your own gives tokens and no gradients"):
        trainable(backbone, info.last_layer, CPU)


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        ("TimesformerModel", {**SMALL, "num_frames": 4}, r"column 1 is not token 2 of its embedding but 5: "),
        ("ViTMAEModel", SMALL, r"its blocks give 5 tokens, where the patches of \(32, 32\) are 16"),
        (
            "SwinModel",
            {"image_size": 32, "patch_size": 4, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2],
             "window_size": 2},
            "its blocks give tokens of several kinds",
        ),
        ("BertModel", TEXT, "neither its config nor its processor.s names an image size"),
    ],
    ids=["order", "masked", "pyramid", "text"],
)  # fmt: skip
def test_what_cannot_be_known_is_refused_in_words(
    save_library: SaveLibrary, kind: str, config: dict[str, Any], why: str
) -> None:
    folder, _ = save_library(kind, **config)
    with pytest.raises((CallError, WeightsError), match=why):
        backbone = open_place(str(folder))
        backbone.load((backbone.info.last_layer,), CPU, torch.float32)


@pytest.mark.parametrize("processor", [{}, {"do_rescale": False, "image_mean": MEAN, "image_std": STD}])
def test_a_normalisation_that_nothing_tells_is_refused(
    save_library: SaveLibrary, processor: dict[str, Any]
) -> None:
    folder, _ = save_library("ViTModel", processor, **SMALL)
    with pytest.raises(CallError, match=r"no preprocessor_config\.json beside its config says how pixels"):
        open_place(str(folder))


def test_weights_that_lack_a_parameter_are_not_drawn_at_random(save_library: SaveLibrary) -> None:
    folder, _ = save_library("ViTModel", **SMALL)
    backbone = open_place(str(folder))
    state = load_file(folder / "model.safetensors")
    lost = next(name for name in state if name.endswith("layernorm_after.weight"))
    save_file(
        {name: state[name] for name in state if name != lost}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(
        WeightsError, match=r"lacks .*layernorm_after\.weight of ViTModel, which would be random"
    ):
        backbone.load((Layer(1),), CPU, torch.float32)


def test_blocks_after_the_deepest_layer_are_gone_and_tokens_the_same(save_library: SaveLibrary) -> None:
    folder, _ = save_library("ViTModel", **SMALL)
    backbone: Any = open_place(str(folder))
    pixels = torch.rand(1, 16, 3, 32, 32)
    whole = everything(backbone, pixels)
    for block in (0, 2):
        encoder: Any = backbone.load((Layer(block),), CPU, torch.float32)
        blocks = [m for m in encoder.model.model.modules() if isinstance(m, nn.ModuleList)]
        assert [len(some) for some in blocks] == [max(1, block)]
        assert torch.equal(encoder(pixels)[Layer(block)], whole[Layer(block)])


def test_a_folder_s_name_goes_to_its_stores_and_its_files_to_their_fingerprint(
    save_library: SaveLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = save_library("ViTModel", {"crop_size": {"height": 64, "width": 64}, "image_mean": MEAN,
                                          "image_std": STD}, **SMALL)  # fmt: skip
    backbone: Any = load_backbone(str(folder))
    # The processor asks for 64 pixels, which this model has no positions for: then its config's.
    assert backbone.info.input_size == (32, 32)
    assert store_name(f"hf:{folder}") == backbone.info.name == folder.name
    assert backbone.info.weights_from == folder.name and not backbone.info.public
    entry = backbone.architecture()
    assert entry["class"] == "ViTModel" and entry["config"]["hidden_size"] == 24
    assert json.loads(json.dumps(entry)) == entry and len(backbone.weights_digest()) == 64
    monkeypatch.chdir(folder.parent)
    assert anywhere(f"hf:{folder.name}") == str(folder) and anywhere("hf:lab/mice") == "hf:lab/mice"
    with pytest.raises(WeightsError, match=r"lab/mice is no folder here.*hf download lab/mice"):
        load_backbone("hf:lab/mice")
    (tmp_path / "config.json").write_text("[]")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match=r"is not a model's config \(it is no object\)"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "normed"),
    [("vit_pe_core_tiny_patch16_384", True), ("vit_pe_spatial_tiny_patch16_512", False)],
)
def test_perception_encoder_is_timm_s(
    timm: Any, tmp_path: Path, name: str, normed: bool, save_timm: Callable[..., nn.Module]
) -> None:
    model: Any = save_timm(timm, tmp_path / name, name)
    backbone: Any = open_place(str(tmp_path / name))
    info = backbone.info
    assert (info.grid.shape, info.frame_level, info.mean) == ((16, 4, 4, 32), True, (0.5, 0.5, 0.5))
    assert (info.final_norm, backbone.n_extra) == (normed, 1)
    pixels = torch.rand(1, 16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = everything(backbone, pixels)
    frames = ((pixels - 0.5) / 0.5).flatten(0, 1)
    with torch.inference_mode():
        last = model.forward_features(frames)[:, 1:]
        blocks = model.forward_intermediates(frames, intermediates_only=True, output_fmt="NLC")
    for number, state in enumerate(blocks, start=1):
        torch.testing.assert_close(found[Layer(number)].flatten(0, 1).flatten(1, 2), state, rtol=0, atol=1e-6)
    tokens = found[info.last_layer].flatten(0, 1).flatten(1, 2)
    torch.testing.assert_close(tokens, last, rtol=0, atol=1e-6)


@pytest.fixture
def save_timm() -> Callable[..., nn.Module]:
    """A tiny model of timm's, saved as its repositories on the hub are."""

    def save(timm: Any, folder: Path, name: str) -> nn.Module:
        sizes = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 64, "ref_feat_shape": [4, 4]}
        model: nn.Module = timm.create_model(name, num_classes=0, **sizes).eval()
        draw = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2, generator=draw)
        folder.mkdir()
        save_file(model.state_dict(), folder / "model.safetensors")
        pixels = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3}
        config = {"architecture": name, "model_args": sizes, "pretrained_cfg": pixels}
        (folder / "config.json").write_text(json.dumps(config))
        return model

    return save
