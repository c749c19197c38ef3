"""DINOv2 through the real loading path, against transformers and Meta's own code, from both released layouts.

Every classic mistake moves the tokens by far more than the tolerance; the tests say so by making it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.base import resolve_layers
from featcache.backbones.families import dinov2 as dino
from featcache.backbones.families.dinov2 import HUB_FORMAT, META_FORMAT, Dinov2
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, Dinov2Size
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer, TokenGrid

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Of max |difference| / std, as the golden files ask."""

ReadGolden = Callable[[str], list[SimpleNamespace]]
Distance = Callable[[Tensor, np.ndarray], float]
LastTokens = Callable[[Dinov2, Tensor], Tensor]


def size_of(golden: SimpleNamespace) -> Dinov2Size:
    """From the fixture's transformers config and clip."""
    config = golden.config
    hidden = int(config["hidden_size"] * config["mlp_ratio"])
    gated = config["use_swiglu_ffn"]
    return Dinov2Size(
        block=BlockSize(
            width=config["hidden_size"],
            heads=config["num_attention_heads"],
            mlp=(int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden,
            gated=gated,
            scaled=True,
            eps=config["layer_norm_eps"],
        ),
        depth=config["num_hidden_layers"],
        patch=(1, config["patch_size"], config["patch_size"]),
        input_size=tuple(golden.clip.shape[-2:]),
        n_frames=golden.clip.shape[1],
        table=config["image_size"] // config["patch_size"],
    )


def saved(golden: SimpleNamespace, folder: Path, state: dict[str, Tensor] | None = None) -> Dinov2:
    """The fixture's model from a file in its released layout: Meta's is a pickle, the hub's safetensors."""
    state = golden.released[""] if state is None else state
    is_meta = "pos_embed" in state
    path = folder / f"{golden.name}{'.pth' if is_meta else '.safetensors'}"
    if is_meta:
        torch.save(state, path)
    else:
        save_file(state, path)
    size = size_of(golden)
    return Dinov2(info=vit_info("dinov2_b", "dinov2", size), size=size, file=lambda: path)


def test_golden_every_layer_in_one_pass(
    golden_models: ReadGolden, check_every_layer: Callable[..., None], tmp_path: Path
) -> None:
    for golden in golden_models("dinov2_*"):
        # The reference's first token is the class token.
        hidden = [state[:, 1:] for state in golden.hidden]
        check_every_layer(saved(golden, tmp_path), golden, hidden, TOLERANCE)


def test_golden_fractions_choose_the_reference_layers(golden_models: ReadGolden) -> None:
    for golden in golden_models("dinov2_*"):
        info = vit_info("dinov2_b", "dinov2", size_of(golden))
        for fraction, entry in golden.readout.items():
            assert resolve_layers(fraction, info) == (Layer(entry["after_blocks"]),)


def test_golden_notices_the_other_code_s_positions(
    golden_models: ReadGolden,
    last_tokens: LastTokens,
    distance: Distance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dino, "META_FORMAT", replace(META_FORMAT, offset=0.0))
    monkeypatch.setattr(dino, "HUB_FORMAT", replace(HUB_FORMAT, offset=0.1))
    for golden in golden_models("dinov2_*"):
        found = last_tokens(saved(golden, tmp_path), golden.clip)
        assert distance(found, golden.arrays["features"]) > 100 * TOLERANCE, golden.name


def test_the_rule_for_positions_is_part_of_the_architecture(
    golden_models: ReadGolden, tmp_path: Path
) -> None:
    for golden in golden_models("dinov2_*"):
        part = saved(golden, tmp_path).architecture()
        assert json.loads(json.dumps(part)) == part
        expected = "(grid + 0.1) / table" if "pos_embed" in golden.released[""] else "to the grid"
        assert expected in str(part["positions"])


def test_a_wrapper_s_name_before_the_keys_changes_neither_the_rule_nor_a_token(
    golden_models: ReadGolden, last_tokens: LastTokens, tmp_path: Path
) -> None:
    for golden in golden_models("dinov2_*"):
        plain = saved(golden, tmp_path)
        found = plain.architecture(), last_tokens(plain, golden.clip)
        state = {f"module.{key}": tensor for key, tensor in golden.released[""].items()}
        path = tmp_path / f"{golden.name}_wrapped.pth"
        torch.save(state, path)
        wrapped = replace(plain, file=lambda path=path: path)
        assert wrapped.architecture() == found[0]
        assert torch.equal(last_tokens(wrapped, golden.clip), found[1])


def cubic(distance: float) -> float:
    """Keys's kernel with torch's a = -0.75."""
    d = abs(distance)
    return (1.25 * d - 2.25) * d * d + 1 if d <= 1 else ((-0.75 * d + 3.75) * d - 6) * d + 3 if d < 2 else 0


def test_positions_by_hand() -> None:
    ramp = torch.arange(5.0).repeat(5).reshape(1, 25, 1)
    table = torch.cat([torch.full((1, 1, 1), 9.0), ramp], dim=1)
    grid = TokenGrid(steps=1, rows=3, columns=3, channels=1)
    # The middle of 3 lies in the middle of 5; with the offset, short of it.
    for offset, place in ((0.0, 2.0), (0.1, 1.5 * 5 / 3.1 - 0.5)):
        middle = sum(value * cubic(value - place) for value in range(5))
        found = dino.resize_positions(table, grid, offset)
        assert found.shape == (1, 10, 1) and found[0, 0, 0] == 9.0
        assert found[0, [2, 5, 8], 0].tolist() == pytest.approx([middle] * 3, abs=1e-5)
    assert dino.resize_positions(table, replace(grid, rows=5, columns=5), 0.1) is table


def test_golden_notices_the_wrong_pixels(
    golden_models: ReadGolden,
    last_tokens: LastTokens,
    distance: Distance,
    tmp_path: Path,
    wrong_pixels: Callable[[Dinov2], Dinov2],
) -> None:
    for golden in golden_models("dinov2_*"):
        found = last_tokens(wrong_pixels(saved(golden, tmp_path)), golden.clip)
        assert distance(found, golden.arrays["features"]) > 0.1, golden.name


def test_golden_notices_lost_biases(
    golden_models: ReadGolden, last_tokens: LastTokens, distance: Distance, tmp_path: Path
) -> None:
    for golden in golden_models("dinov2_*"):
        whole = golden.released[""]
        for lost in ("value.bias", "qkv.bias"):
            state = {key: tensor * (not key.endswith(lost)) for key, tensor in whole.items()}
            if all(torch.equal(state[key], tensor) for key, tensor in whole.items()):
                continue
            found = last_tokens(saved(golden, tmp_path, state), golden.clip)
            assert distance(found, golden.arrays["features"]) > 100 * TOLERANCE, (golden.name, lost)


def test_golden_notices_the_tanh_gelu(
    golden_models: ReadGolden,
    last_tokens: LastTokens,
    distance: Distance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = torch.nn.functional.gelu
    monkeypatch.setattr(torch.nn.functional, "gelu", lambda state, **_: exact(state, approximate="tanh"))
    for golden in golden_models("dinov2_mlp*"):
        found = last_tokens(saved(golden, tmp_path), golden.clip)
        assert distance(found, golden.arrays["features"]) > 2 * TOLERANCE, golden.name


def test_golden_notices_swapped_gates(
    golden_models: ReadGolden, last_tokens: LastTokens, distance: Distance, tmp_path: Path
) -> None:
    for golden in golden_models("dinov2_swiglu*"):
        state = {
            key: tensor.roll(len(tensor) // 2, 0) if "weights_in" in key else tensor
            for key, tensor in golden.released[""].items()
        }
        found = last_tokens(saved(golden, tmp_path, state), golden.clip)
        assert distance(found, golden.arrays["features"]) > 100 * TOLERANCE


def test_final_norm_only_when_asked(golden_models: ReadGolden, distance: Distance, tmp_path: Path) -> None:
    golden = golden_models("dinov2_*")[0]
    backbone = saved(golden, tmp_path)
    plain: Any = backbone.load((Layer(backbone.size.depth),), CPU, torch.float32)
    assert plain.model.norm is None
    (tokens,) = plain(golden.clip).values()
    assert distance(tokens, golden.arrays["features"]) > 0.1
    assert backbone.info.default_layers == (Layer(backbone.size.depth, normed=True),)


def test_early_exit_is_the_same_function_and_reads_no_later_block(
    golden_models: ReadGolden, tmp_path: Path, record_keys: Callable[[], list[str]]
) -> None:
    asked = record_keys()
    for golden in golden_models("dinov2_*"):
        backbone = saved(golden, tmp_path)
        every = tuple(Layer(block) for block in range(backbone.size.depth + 1))
        whole = backbone.load(every, CPU, torch.float32)(golden.clip)
        for block in (0, 2):
            asked.clear()
            encoder: Any = backbone.load((Layer(block),), CPU, torch.float32)
            assert len(encoder.model.blocks) == block
            numbers = {key.split("layer." if "layer." in key else "blocks.")[1].split(".")[0]
                       for key in asked if "encoder.layer." in key or "blocks." in key}  # fmt: skip
            assert numbers == {str(number) for number in range(block)}
            assert torch.equal(encoder(golden.clip)[Layer(block)], whole[Layer(block)])


def test_frames_do_not_see_each_other(
    golden_models: ReadGolden, last_tokens: LastTokens, tmp_path: Path
) -> None:
    golden = golden_models("dinov2_*")[0]
    backbone = saved(golden, tmp_path)
    backwards = last_tokens(backbone, golden.clip.flip(1)).flip(1)
    torch.testing.assert_close(backwards, last_tokens(backbone, golden.clip), atol=1e-5, rtol=1e-5)
    assert backbone.info.upsampling is None
    assert backbone.info.grid.steps == backbone.info.n_frames


def test_bfloat16_is_close_and_comes_out_float32(
    golden_models: ReadGolden, distance: Distance, tmp_path: Path
) -> None:
    for golden in golden_models("dinov2_*"):
        encoder = saved(golden, tmp_path).load((Layer(1),), CPU, torch.bfloat16)
        found = encoder(golden.clip)[Layer(1)]
        assert found.dtype == torch.float32
        assert TOLERANCE < distance(found, golden.hidden[1][:, 1:]) < 0.2


@pytest.mark.parametrize("name", [f"dinov2_{size}" for size in "sblg"])
@pytest.mark.parametrize("kind", ["hf_hub", "meta_pth"], ids=["hub", "meta"])
def test_released_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str, kind: str
) -> None:
    released = released_listing(f"{name}.{kind}_released")
    backbone = load_backbone(name)
    assert isinstance(backbone, Dinov2)
    key_map = backbone.key_map(released.shapes)
    key_map.check(released.shapes, name)
    assert key_map.entries.keys() == backbone.whole().state_dict().keys()
    skipped = released.shapes.keys() - key_map.shapes.keys()
    assert len(skipped) == 1 and skipped <= set(dino.SKIPPED)
    assert sum(map(prod, released.shapes.values())) == released.n_params == BACKBONES[name].size.n_params


def test_missing_unknown_and_misshapen_keys_are_all_named(golden_models: ReadGolden, tmp_path: Path) -> None:
    golden = golden_models("dinov2_*_hf*")[0]
    state = dict(golden.released[""])
    # Also a block that early exit would never read: the file is not the model's.
    del state["encoder.layer.2.mlp.fc2.bias" if "encoder.layer.2.mlp.fc2.bias" in state else "layernorm.bias"]
    # The variants with registers are other weights.
    state["embeddings.register_tokens"] = torch.zeros(1, 4, 8)
    state["layernorm.weight"] = torch.zeros(7)
    with pytest.raises(WeightsError) as error:
        saved(golden, tmp_path, state).load((Layer(0),), CPU, torch.float32)
    assert "bias missing" in str(error.value)
    assert "embeddings.register_tokens unknown" in str(error.value)
    assert "layernorm.weight (7,) instead of" in str(error.value)


def test_registered_names_take_either_released_file(tmp_path: Path, made_up: Callable[[str], None]) -> None:
    made_up("dinov2_s")
    folder = tmp_path / "dinov2_s"
    folder.mkdir()
    backbone = load_backbone("dinov2_s", tmp_path)
    assert isinstance(backbone, Dinov2)
    shapes = backbone.key_map({}).shapes
    save_file({key: torch.full(shape, 0.01) for key, shape in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert backbone.file() == folder / "model.safetensors"
    assert backbone.weights_digest() == hashlib.sha256(backbone.file().read_bytes()).hexdigest()
    encoder = backbone.load((Layer(0),), CPU, torch.float32)
    assert encoder(torch.rand(1, 16, 3, 224, 224))[Layer(0)].shape == (1, 16, 16, 16, 384)
    (folder / "dinov2_vits14_pretrain.pth").write_bytes(b"")
    assert backbone.file() == folder / "dinov2_vits14_pretrain.pth"
    with pytest.raises(WeightsError, match="dinov2_vits14_pretrain"):
        backbone.architecture()


def test_wrong_clips_and_layers_are_refused(golden_models: ReadGolden, tmp_path: Path) -> None:
    golden = golden_models("dinov2_*")[0]
    backbone = saved(golden, tmp_path)
    encoder = backbone.load((Layer(0),), CPU, torch.float32)
    with pytest.raises(CallError, match="RGB frames"):
        encoder(torch.cat([golden.clip, golden.clip], dim=1))
    with pytest.raises(CallError, match="blocks 0"):
        backbone.load((Layer(backbone.size.depth + 1),), CPU, torch.float32)
