"""What a folder of a library says of itself."""

import json
from pathlib import Path

import pytest

from featcache.backbones.families.libraries import Timm, Transformers, library_of, read_config
from featcache.errors import CallError, WeightsError
from tests.featcache.backbones.families.conftest import MEAN, SMALL, STD, SaveLibrary


def test_a_processor_s_crop_goes_before_the_config_s_size(save_library: SaveLibrary) -> None:
    processor = {"crop_size": {"height": 16, "width": 24}, "size": {"shortest_edge": 40}, "image_mean": MEAN,
                 "image_std": STD}  # fmt: skip
    library = library_of(str(save_library("Dinov2Model", processor, hidden_size=8, num_attention_heads=2,
                                          num_hidden_layers=1, image_size=48, patch_size=8)[0]))  # fmt: skip
    assert isinstance(library, Transformers)
    assert library.sizes() == [(16, 24), (48, 48)]
    assert (library.patch, library.n_frames, library.mean_std()) == ((1, 8, 8), None, (MEAN, STD))


def test_positions_made_for_a_crop_take_no_other_size(save_library: SaveLibrary) -> None:
    processor = {"crop_size": {"height": 64, "width": 64}, "image_mean": MEAN, "image_std": STD}
    folder, _ = save_library(
        "VJEPA2Model", processor, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, crop_size=32,
        patch_size=8, frames_per_clip=4, pred_hidden_size=12, pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )  # fmt: skip
    library = library_of(str(folder))
    assert (library.sizes(), library.patch, library.n_frames) == ([(32, 32)], (2, 8, 8), 4)


def test_of_two_towers_it_is_the_one_for_pixels(save_library: SaveLibrary) -> None:
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    folder, _ = save_library("CLIPModel", vision_config=SMALL, text_config=text, projection_dim=8)
    assert library_of(str(folder)).title == "CLIPVisionModel"


def test_a_model_that_no_library_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoModel": "x.Y"}})
    )
    with pytest.raises(CallError, match="is no model that the installed transformers knows"):
        library_of(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks config\.json"):
        library_of(str(tmp_path))
    with pytest.raises(WeightsError, match="is not a model's config"):
        read_config(tmp_path / "config.json")


def test_a_folder_of_timm_s_says_what_its_config_has(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    pixels = {"input_size": [3, 56, 42], "mean": MEAN, "std": STD}
    config = {"architecture": "vit_pe_core_tiny_patch16_384", "pretrained_cfg": pixels}
    (tmp_path / "config.json").write_text(json.dumps(config))
    library = library_of(str(tmp_path))
    assert isinstance(library, Timm)
    assert (library.sizes(), library.mean_std(), library.n_frames) == ([(56, 42)], (MEAN, STD), None)
    assert library.architecture() == {"class": "vit_pe_core_tiny_patch16_384", "config": {}}
    del pixels["std"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CallError, match="its config says nothing of std"):
        library_of(str(tmp_path)).mean_std()
