"""V-JEPA 2 through the real loading path, against the whole model of transformers.

Every classic mistake moves the tokens by far more than the tolerance; the tests say so by making it.
"""

import json
import sys
from collections.abc import Callable
from math import cos, prod, sin
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from featcache.backbones import load_backbone
from featcache.backbones.base import resolve_layers
from featcache.backbones.families import vjepa2
from featcache.backbones.families.vjepa2 import Vjepa2
from featcache.backbones.inputs import model_input
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, ViTSize
from featcache.errors import WeightsError
from featcache.spec import Layer, TokenGrid

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Of max |difference| / std, as the golden files ask."""

ReadGolden = Callable[[str], list[SimpleNamespace]]
Distance = Callable[[Tensor, np.ndarray], float]
LastTokens = Callable[[Vjepa2, Tensor], Tensor]


def saved(
    golden: SimpleNamespace,
    folder: Path,
    state: dict[str, Tensor] | None = None,
    side: int | None = None,
) -> Vjepa2:
    """The fixture's model from a file in the hub's layout, at `side` pixels or at the clip's."""
    config = golden.config
    path = folder / "model.safetensors"
    save_file(golden.released[""] if state is None else state, path)
    size = ViTSize(
        block=BlockSize(
            width=config["hidden_size"],
            heads=config["num_attention_heads"],
            mlp=int(config["hidden_size"] * config["mlp_ratio"]),
            eps=config["layer_norm_eps"],
        ),
        depth=config["num_hidden_layers"],
        patch=(config["tubelet_size"], config["patch_size"], config["patch_size"]),
        input_size=golden.clip.shape[-2:] if side is None else (side, side),
        n_frames=golden.clip.shape[1],
    )
    return Vjepa2(info=vit_info("vjepa2_l", "vjepa2", size), size=size, file=lambda: path)


def test_golden_every_layer_in_one_pass(
    golden_models: ReadGolden, check_every_layer: Callable[..., None], tmp_path: Path
) -> None:
    for golden in golden_models("vjepa2*"):
        check_every_layer(saved(golden, tmp_path), golden, golden.hidden, TOLERANCE)


def test_golden_fractions_choose_the_reference_layers(golden_models: ReadGolden, tmp_path: Path) -> None:
    for golden in golden_models("vjepa2*"):
        info = saved(golden, tmp_path).info
        for fraction, entry in golden.readout.items():
            assert resolve_layers(fraction, info) == (Layer(entry["after_blocks"]),)


def test_positions_are_those_of_the_size_that_is_run(
    golden_models: ReadGolden, last_tokens: LastTokens, distance: Distance, tmp_path: Path
) -> None:
    # The library's own model places tokens by its config's crop size: right only where that is the frames'.
    from transformers import VJEPA2Config, VJEPA2Model

    golden = golden_models("vjepa2*")[0]
    side = golden.clip.shape[-1] + 2 * golden.config["patch_size"]
    clip = torch.rand(1, golden.clip.shape[1], 3, side, side, generator=torch.Generator().manual_seed(0))
    backbone = saved(golden, tmp_path, side=side)
    found = last_tokens(backbone, clip)
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.info.mean, backbone.info.std))
    for crop_size, right in ((side, True), (golden.clip.shape[-1], False)):
        model = VJEPA2Model(VJEPA2Config(**{**golden.config, "crop_size": crop_size})).eval()
        model.load_state_dict(golden.released[""])
        with torch.inference_mode():
            reference = model((clip - mean) / std, skip_predictor=True).last_hidden_state.numpy()
        assert (distance(found, reference) < TOLERANCE) == right


def test_angles_are_the_library_s_bit_for_bit_in_float32_and_keep_it_in_bfloat16(
    golden_models: ReadGolden, last_tokens: LastTokens, tmp_path: Path
) -> None:
    golden = golden_models("vjepa2*")[0]
    backbone = saved(golden, tmp_path)
    found: Any = backbone.load((backbone.info.last_layer,), CPU, torch.float32)
    ours = found(golden.clip)[backbone.info.last_layer]
    state = rearrange(
        found.model.patches(model_input(golden.clip, backbone.info, CPU)), "b t n d -> b (t n) d"
    )
    for layer in found.model.layer:
        del layer.attention.get_position_ids, layer.attention.apply_rotary_embeddings
        layer.attention.grid_size = backbone.info.grid.rows
        state = layer(state)[0]
    theirs = found.model.layernorm(state).reshape(ours.shape)
    assert torch.equal(ours, theirs)
    # Step 15 at the second frequency, which bfloat16 does not hold as an angle.
    grid = TokenGrid(steps=16, rows=1, columns=1, channels=1)
    cosine, sine = vjepa2.rotation(grid, 64, like=torch.empty(0, dtype=torch.bfloat16))
    angle = 15 * 10000 ** (-1 / 10)
    assert cosine.dtype == torch.bfloat16 and cosine.shape == (16, 64)
    assert float(cosine[15, 1]) == pytest.approx(cos(angle), abs=2**-9)
    assert float(sine[15, 11]) == pytest.approx(sin(angle), abs=2**-9)
    assert (cosine[:, 60:] == 1).all() and (sine[:, 60:] == 0).all()


def test_golden_notices_the_tanh_gelu(
    golden_models: ReadGolden,
    last_tokens: LastTokens,
    distance: Distance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config_class, layer_class = vjepa2._library_classes()

    def changed(**fields: Any) -> Any:
        return config_class(**{**fields, "hidden_act": "gelu_pytorch_tanh"})

    monkeypatch.setattr(vjepa2, "_library_classes", lambda: (changed, layer_class))
    for golden in golden_models("vjepa2*"):
        found = last_tokens(saved(golden, tmp_path), golden.clip)
        assert distance(found, golden.arrays["features"]) > 2 * TOLERANCE


def test_golden_notices_the_wrong_pixels(
    golden_models: ReadGolden,
    last_tokens: LastTokens,
    distance: Distance,
    tmp_path: Path,
    wrong_pixels: Callable[[Vjepa2], Vjepa2],
) -> None:
    for golden in golden_models("vjepa2*"):
        found = last_tokens(wrong_pixels(saved(golden, tmp_path)), golden.clip)
        assert distance(found, golden.arrays["features"]) > 0.1


@pytest.mark.parametrize("lost", ["query.bias", "key.bias", "value.bias"])
def test_golden_notices_lost_biases(
    golden_models: ReadGolden, last_tokens: LastTokens, distance: Distance, tmp_path: Path, lost: str
) -> None:
    for golden in golden_models("vjepa2*"):
        state = {key: tensor * (not key.endswith(lost)) for key, tensor in golden.released[""].items()}
        found = last_tokens(saved(golden, tmp_path, state), golden.clip)
        # The key's too: positions turn it, so the softmax does not cancel it.
        assert distance(found, golden.arrays["features"]) > 10 * TOLERANCE


def test_final_norm_only_when_asked(golden_models: ReadGolden, distance: Distance, tmp_path: Path) -> None:
    golden = golden_models("vjepa2*")[0]
    backbone = saved(golden, tmp_path)
    plain: Any = backbone.load((Layer(backbone.size.depth),), CPU, torch.float32)
    assert plain.model.layernorm is None
    (tokens,) = plain(golden.clip).values()
    assert distance(tokens, golden.arrays["features"]) > 0.1
    assert backbone.info.default_layers == (Layer(backbone.size.depth, normed=True),)


def test_early_exit_is_the_same_function_and_reads_no_later_block(
    golden_models: ReadGolden, tmp_path: Path, record_keys: Callable[[], list[str]]
) -> None:
    asked = record_keys()
    golden = golden_models("vjepa2*")[0]
    backbone = saved(golden, tmp_path)
    every = tuple(Layer(block) for block in range(backbone.size.depth + 1))
    whole = backbone.load(every, CPU, torch.float32)(golden.clip)
    for block in (0, 2):
        asked.clear()
        encoder: Any = backbone.load((Layer(block),), CPU, torch.float32)
        assert len(encoder.model.layer) == block
        assert {key.split(".")[2] for key in asked if ".layer." in key} == set(map(str, range(block)))
        assert not any(key.startswith("predictor.") for key in asked)
        assert torch.equal(encoder(golden.clip)[Layer(block)], whole[Layer(block)])


def test_bfloat16_is_close_and_comes_out_float32(
    golden_models: ReadGolden, distance: Distance, tmp_path: Path
) -> None:
    golden = golden_models("vjepa2*")[0]
    found = saved(golden, tmp_path).load((Layer(1),), CPU, torch.bfloat16)(golden.clip)[Layer(1)]
    assert found.dtype == torch.float32
    assert TOLERANCE < distance(found, golden.hidden[1]) < 0.2


@pytest.mark.parametrize("name", ["vjepa2_l", "vjepa2_h", "vjepa2_g", "vjepa2_g384"])
def test_released_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str
) -> None:
    found = released_listing(f"{name}.hf_hub_released").shapes
    backbone = load_backbone(name)
    assert isinstance(backbone, Vjepa2)
    key_map = backbone.key_map(found)
    key_map.check(found, name)
    wanted = key_map.shapes
    assert all(key.startswith(vjepa2.SKIPPED) for key in found.keys() - wanted.keys())
    assert sum(map(prod, wanted.values())) == backbone.size.n_params


def test_missing_unknown_and_misshapen_keys_are_all_named(golden_models: ReadGolden, tmp_path: Path) -> None:
    state = dict(golden_models("vjepa2*")[0].released[""])
    del state["encoder.layernorm.bias"]
    state["encoder.pos_embed"] = torch.zeros(1, 4, 8)
    state["encoder.layer.0.norm1.weight"] = torch.zeros(7)
    with pytest.raises(WeightsError) as error:
        saved(golden_models("vjepa2*")[0], tmp_path, state).load((Layer(0),), CPU, torch.float32)
    assert "encoder.layernorm.bias missing" in str(error.value)
    assert "encoder.pos_embed unknown" in str(error.value)
    assert "encoder.layer.0.norm1.weight (7,) instead of" in str(error.value)


def test_a_user_s_file_of_the_authors_own_code_is_the_same_model(
    golden_models: ReadGolden, last_tokens: LastTokens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # What most models trained further are saved as; the released one is the library's.
    golden = golden_models("vjepa2*")[0]
    released = saved(golden, tmp_path)
    state: dict[str, Tensor] = {"pos_embed": torch.zeros(1, 4, 8)}
    for key, tensor in golden.released[""].items():
        if key.startswith("encoder.") and ".attention.query." not in key and ".attention.value." not in key:
            parts = [tensor]
            if ".attention.key." in key:
                names = (key.replace("key", part) for part in ("query", "key", "value"))
                parts = [golden.released[""][name] for name in names]
            ours = key.removeprefix("encoder.").replace("embeddings.patch_embeddings", "patch_embed")
            ours = ours.replace("attention.key", "attn.qkv").replace("attention.proj", "attn.proj")
            state[ours.replace("layernorm", "norm").replace("layer.", "blocks.")] = torch.cat(parts)
    wrong = {f"module.backbone.{key}": tensor * 0 for key, tensor in state.items()}
    right = {f"module.backbone.{key}": tensor for key, tensor in state.items()}
    torch.save({"encoder": wrong, "target_encoder": right, "epoch": 3}, tmp_path / "adapted.pt")
    adapted = released.of_weights(tmp_path / "adapted.pt", str(tmp_path / "adapted.pt"))
    assert torch.equal(last_tokens(adapted, golden.clip), last_tokens(released, golden.clip))
    assert "under 'target_encoder.module.backbone.' and not from 'encoder." in caplog.text
    (tmp_path / "config.json").write_text('{"crop_size": 384}', encoding="utf-8")
    with pytest.raises(WeightsError, match="is not vjepa2_l: crop_size 384"):
        released.of_weights(tmp_path / "adapted.pt", "x")


def test_a_transformers_without_the_model_says_which_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.vjepa2.modeling_vjepa2", None)
    with pytest.raises(WeightsError, match=r"no V-JEPA 2: pip install 'transformers>=4\.53'"):
        Vjepa2.named("vjepa2_l", None).whole()


def test_registered_name(tmp_path: Path) -> None:
    folder = tmp_path / "vjepa2_g384"
    folder.mkdir()
    config = '{"crop_size": 384, "num_attention_heads": 22}'
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_text(config, encoding="utf-8")
    backbone = load_backbone("vjepa2_g384", tmp_path)
    assert isinstance(backbone, Vjepa2)
    assert backbone.file() == folder / "model.safetensors"
    # The g of 256 pixels has the same keys and shapes.
    (folder / "config.json").write_text('{"crop_size": 256}', encoding="utf-8")
    with pytest.raises(WeightsError, match="is not vjepa2_g384: crop_size 256 instead of 384"):
        backbone.file()
    for text in ("[]", "{"):
        (folder / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(WeightsError, match="is not a model's config"):
            backbone.file()
    part = backbone.architecture()
    assert json.loads(json.dumps(part)) == part and part["input_size"] == [384, 384]
