"""VideoMAE through the real loading path, against what transformers gave from the released layout.

Every classic mistake (other mean and std, biases lost, norm in the wrong place, eps, positions) moves the
tokens by far more than the tolerance; the tests say so by making it.
"""

import json
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
from featcache.backbones.families import videomae as hf
from featcache.backbones.parts import sinusoid
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Of max |difference| / std, as the golden files ask."""


def tokens(folder: Path, clip: Tensor, *layers: Layer) -> dict[Layer, Tensor]:
    """Through the public functions only."""
    return load_backbone(str(folder)).load(layers, CPU, torch.float32)(clip)


def distance(found: Tensor, reference: np.ndarray) -> float:
    """Max |difference| over the reference's standard deviation; steps, rows and columns flattened alike."""
    flat = found.numpy().reshape(reference.shape)
    return float(np.abs(flat - reference).max() / reference.std())


def test_golden_every_layer_in_one_pass(golden: SimpleNamespace, golden_folder: Path) -> None:
    layers = [Layer(block) for block in range(5)]
    found = tokens(golden_folder, golden.clip, *layers, Layer(4, normed=True))
    assert list(found) == [*layers, Layer(4, normed=True)]
    for layer in layers:
        assert distance(found[layer], golden.hidden[layer.block]) < TOLERANCE, layer
    last = found[Layer(4, normed=True)]
    assert last.shape == (2, 4, 4, 4, 48) and last.dtype == torch.float32
    assert distance(last, golden.features) < TOLERANCE


def test_golden_fractions_choose_the_reference_layers(golden: SimpleNamespace, golden_folder: Path) -> None:
    info = load_backbone(str(golden_folder)).info
    for fraction, after_blocks in golden.after_blocks.items():
        assert resolve_layers(fraction, info) == (Layer(after_blocks),)


def test_golden_from_a_torch_pickle(golden: SimpleNamespace, golden_folder: Path) -> None:
    (golden_folder / "model.safetensors").unlink()
    torch.save(golden.state, golden_folder / "pytorch_model.bin")
    assert distance(tokens(golden_folder, golden.clip, Layer(3))[Layer(3)], golden.hidden[3]) < TOLERANCE


def test_golden_under_the_newer_key_names(
    golden: SimpleNamespace, save_model: Callable[..., Path], tmp_path: Path
) -> None:
    renamed = {
        key.removeprefix("videomae.").replace("q_bias", "query.bias").replace("v_bias", "value.bias"): tensor
        for key, tensor in golden.state.items()
        if key.startswith("videomae.")
    }
    folder = save_model(tmp_path / "new", renamed, golden.config)
    assert distance(tokens(folder, golden.clip, Layer(4, True))[Layer(4, True)], golden.features) < TOLERANCE


def test_golden_positions_are_exact(golden: SimpleNamespace) -> None:
    np.testing.assert_array_equal(sinusoid(64, 48).numpy(), golden.positions)


def test_positions_by_hand() -> None:
    table = sinusoid(3, 4).numpy()
    np.testing.assert_allclose(table[0], [0, 1, 0, 1], atol=0)
    np.testing.assert_allclose(table[2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)], rtol=1e-7)


def test_biases_land(tiny_folder: Path, tiny_state: dict[str, Tensor]) -> None:
    encoder: Any = load_backbone(str(tiny_folder)).load((Layer(3),), CPU, torch.float32)
    loaded = encoder.model.state_dict()
    for block in range(3):
        for ours, released in (("query.bias", "q_bias"), ("value.bias", "v_bias")):
            expected = tiny_state[f"videomae.encoder.layer.{block}.attention.attention.{released}"]
            assert expected.abs().min() > 0
            assert torch.equal(loaded[f"layer.{block}.attention.attention.{ours}"], expected)


@pytest.mark.parametrize("lost", ["q_bias", "v_bias"])
def test_golden_notices_lost_biases(
    golden: SimpleNamespace, save_model: Callable[..., Path], tmp_path: Path, lost: str
) -> None:
    state = {key: tensor * (lost not in key) for key, tensor in golden.state.items()}
    folder = save_model(tmp_path / "lost", state, golden.config)
    assert (
        distance(tokens(folder, golden.clip, Layer(4, True))[Layer(4, True)], golden.features)
        > 100 * TOLERANCE
    )


def test_golden_notices_the_wrong_processor(golden: SimpleNamespace, golden_folder: Path) -> None:
    backbone: Any = load_backbone(str(golden_folder))
    half = (0.5, 0.5, 0.5)
    wrong = replace(backbone, info=replace(backbone.info, mean=half, std=half))
    found = wrong.load((Layer(4, True),), CPU, torch.float32)(golden.clip)[Layer(4, True)]
    assert distance(found, golden.features) > 0.5


def test_final_norm_only_when_asked(golden: SimpleNamespace, golden_folder: Path) -> None:
    backbone: Any = load_backbone(str(golden_folder))
    plain, normed = (backbone.load((layer,), CPU, torch.float32) for layer in (Layer(4), Layer(4, True)))
    assert plain.model.layernorm is None and normed.model.layernorm is not None
    assert distance(plain(golden.clip)[Layer(4)], golden.features) > 0.5
    assert backbone.info.default_layers == (Layer(4, True),)


def test_eps_is_the_config_s(
    golden: SimpleNamespace, save_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "eps", golden.state, {**golden.config, "layer_norm_eps": 0.1})
    assert (
        distance(tokens(folder, golden.clip, Layer(4, True))[Layer(4, True)], golden.features)
        > 100 * TOLERANCE
    )
    assert load_backbone(str(folder)).architecture()["eps"] == 0.1


def test_early_exit_is_the_same_function_and_reads_no_later_block(
    golden: SimpleNamespace, golden_folder: Path, record_keys: Callable[[], list[str]]
) -> None:
    whole = tokens(golden_folder, golden.clip, *(Layer(block) for block in range(5)))
    asked = record_keys()
    for block in (0, 2):
        asked.clear()
        encoder: Any = load_backbone(str(golden_folder)).load((Layer(block),), CPU, torch.float32)
        assert len(encoder.model.layer) == block
        blocks_read = {key.split(".")[3] for key in asked if ".layer." in key}
        assert blocks_read == {str(number) for number in range(block)}
        assert torch.equal(encoder(golden.clip)[Layer(block)], whole[Layer(block)])


def test_a_clip_does_not_see_its_batch(golden: SimpleNamespace, golden_folder: Path) -> None:
    encoder = load_backbone(str(golden_folder)).load((Layer(4, True),), CPU, torch.float32)
    clip, other = golden.clip[:1], golden.clip[1:]
    blank = torch.zeros_like(clip)
    padded = encoder(torch.cat([clip, blank, blank]))[Layer(4, True)][0]
    beside = encoder(torch.cat([clip, other, other]))[Layer(4, True)][0]
    assert torch.equal(padded, beside)
    alone = encoder(clip)[Layer(4, True)][0]
    assert (alone - padded).abs().max() / padded.std() < TOLERANCE


def test_bfloat16_is_close_and_comes_out_float32(golden: SimpleNamespace, golden_folder: Path) -> None:
    encoder = load_backbone(str(golden_folder)).load((Layer(2),), CPU, torch.bfloat16)
    found = encoder(golden.clip)[Layer(2)]
    assert found.dtype == torch.float32
    assert 1e-4 < distance(found, golden.hidden[2]) < 0.2


def test_other_frame_sizes_are_area_resized(golden: SimpleNamespace, golden_folder: Path) -> None:
    doubled = golden.clip.repeat_interleave(2, -1).repeat_interleave(2, -2)
    found = tokens(golden_folder, doubled, Layer(1))[Layer(1)]
    assert distance(found, golden.hidden[1]) < TOLERANCE


@pytest.mark.parametrize(("name", "kind"), [("b", ""), ("l", ""), ("h", "_finetuned")])
def test_released_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str, kind: str
) -> None:
    released = released_listing(f"videomae_{name}.hf_hub{kind}_released").shapes
    backbone = load_backbone(f"videomae_{name}")
    assert isinstance(backbone, hf.VideoMAE)
    key_map = backbone.key_map(released)
    key_map.check(released, name)
    wanted = key_map.shapes
    assert all(key.startswith(hf.SKIPPED) for key in released.keys() - wanted.keys())
    assert sum(int(np.prod(shape)) for shape in wanted.values()) == backbone.size.n_params


def test_missing_unknown_and_misshapen_keys_are_all_named(
    tiny_state: dict[str, Tensor],
    tiny_config: dict[str, Any],
    save_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    query = "videomae.encoder.layer.0.attention.attention.query.weight"
    tiny_state["videomae.encoder.layer.0.attention.attention.k_bias"] = torch.zeros(12)
    tiny_state[query] = torch.zeros(12, 13)
    # Also a block that early exit would never read: the file is not the model's.
    del tiny_state["videomae.encoder.layer.2.output.dense.bias"]
    folder = save_model(tmp_path / "broken", tiny_state, tiny_config)
    with pytest.raises(WeightsError) as error:
        load_backbone(str(folder)).load((Layer(0),), CPU, torch.float32)
    assert "layer.2.output.dense.bias missing" in str(error.value)
    assert "attention.k_bias unknown" in str(error.value)
    assert f"{query} (12, 13) instead of (12, 12) of another shape" in str(error.value)


def test_one_place_named_twice_is_refused(
    tiny_state: dict[str, Tensor],
    tiny_config: dict[str, Any],
    save_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    tiny_state["encoder.layer.1.attention.attention.query.bias"] = torch.zeros(12)
    folder = save_model(tmp_path / "twice", tiny_state, tiny_config)
    with pytest.raises(WeightsError, match="unknown"):
        load_backbone(str(folder)).load((Layer(1),), CPU, torch.float32)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "vit"},
        {"hidden_size": "wide"},
        {"num_attention_heads": 5},
        {"num_channels": 1},
        {"patch_size": 7},
        {"hidden_act": "swoosh"},
    ],
)
def test_configs_that_cannot_be_run(
    tiny_state: dict[str, Tensor],
    tiny_config: dict[str, Any],
    save_model: Callable[..., Path],
    tmp_path: Path,
    change: dict[str, Any],
) -> None:
    folder = save_model(tmp_path / "other", tiny_state, {**tiny_config, **change})
    with pytest.raises(WeightsError, match=r"config\.json is not the config of a VideoMAE"):
        hf.open_folder(folder)


def test_a_registered_name_takes_only_its_own_size(tiny_folder: Path, made_up: Callable[[str], None]) -> None:
    made_up("videomae_b")
    tiny_folder.rename(tiny_folder.parent / "videomae_b")
    backbone = load_backbone("videomae_b", tiny_folder.parent)
    with pytest.raises(WeightsError, match="width 12 instead of 768, depth 3 instead of 12"):
        backbone.architecture()


def test_wrong_clips_and_layers_are_refused(tiny_folder: Path) -> None:
    backbone = load_backbone(str(tiny_folder))
    encoder = backbone.load((Layer(1),), CPU, torch.float32)
    with pytest.raises(CallError, match="clips of 4 RGB frames, not 5 frames of 3"):
        encoder(torch.zeros(1, 5, 3, 16, 16))
    with pytest.raises(CallError, match="clips of 4 RGB frames, not 4 frames of 1"):
        encoder(torch.zeros(1, 4, 1, 16, 16))
    with pytest.raises(CallError, match="blocks 0"):
        backbone.load((Layer(4),), CPU, torch.float32)


def test_digest_is_the_file_s(tiny_folder: Path, tiny_config: dict[str, Any]) -> None:
    import hashlib

    expected = hashlib.sha256((tiny_folder / "model.safetensors").read_bytes()).hexdigest()
    assert load_backbone(str(tiny_folder)).weights_digest() == expected


def test_architecture_and_preprocessing_survive_json(tiny_folder: Path) -> None:
    backbone = load_backbone(str(tiny_folder))
    for part in (backbone.architecture(), backbone.preprocessing()):
        assert json.loads(json.dumps(part)) == part
    assert backbone.architecture()["patch"] == [2, 8, 8]
    assert backbone.preprocessing()["mean"] == [0.485, 0.456, 0.406]


def test_huge_has_no_token_norm() -> None:
    info = BACKBONES["videomae_h"].info
    assert "fine-tuned" in info.title and info.source.endswith("finetuned-kinetics")
    with pytest.raises(CallError, match="ends without a norm"):
        resolve_layers("32_normed", info)


def test_random_backbone_sees_appearance_and_motion() -> None:
    backbone = load_backbone("videomae_random")
    info = backbone.info
    assert info.control == "random weights"
    encoder = backbone.load((Layer(1), info.last_layer), CPU, torch.float32)
    draw = torch.Generator().manual_seed(0)
    clip = torch.rand(1, info.n_frames, 3, *info.input_size, generator=draw)
    swapped = clip[:, [frame ^ 1 for frame in range(info.n_frames)]]  # within every tubelet
    found, moved = encoder(clip), encoder(swapped)
    for layer, value in found.items():
        assert value.shape == (1, *info.grid.shape)
        assert value.std() > 0.1 and (value - value.mean((1, 2, 3), keepdim=True)).std() > 0.1
        assert (value - moved[layer]).std() / value.std() > 0.1


def test_random_weights_of_a_shorter_model_are_the_longer_one_s() -> None:
    backbone = load_backbone("videomae_random")
    clip = torch.rand(1, 16, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    short = backbone.load((Layer(1),), CPU, torch.float32)(clip)[Layer(1)]
    whole = backbone.load((Layer(1), Layer(2)), CPU, torch.float32)(clip)[Layer(1)]
    assert torch.equal(short, whole)


def test_random_control_of_videomae_b_has_its_grid() -> None:
    backbone = load_backbone("videomae_random_b")
    released = BACKBONES["videomae_b"].info
    assert replace(backbone.info, **{f: getattr(released, f) for f in _NAMES}) == released
    found = backbone.load((Layer(0),), CPU, torch.float32)(torch.rand(1, 16, 3, 224, 224))
    assert found[Layer(0)].shape == (1, 8, 14, 14, 768)


_NAMES = ("name", "title", "source", "licence", "commercial", "public", "control")


def test_random_digest_depends_on_seed_and_size() -> None:
    backbone = load_backbone("videomae_random")
    assert isinstance(backbone, hf.RandomVideoMAE)
    small = replace(backbone.size, depth=1)
    digests = {
        replace(backbone, size=size, seed=seed).weights_digest()
        for size, seed in ((small, 0), (small, 1), (replace(small, depth=2), 0))
    }
    assert len(digests) == 3
    assert replace(backbone, size=small).weights_digest() in digests
