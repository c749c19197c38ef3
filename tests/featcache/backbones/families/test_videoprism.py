"""VideoPrism through the real loading path, against Flax and transformers, from both layouts.

Every classic mistake moves the tokens by far more than the tolerance; the tests say so by making it.
"""

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
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from featcache.backbones import load_backbone
from featcache.backbones.base import resolve_layers
from featcache.backbones.families import videoprism
from featcache.backbones.families.videoprism import VideoPrism
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, VideoPrismSize
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer

CPU = torch.device("cpu")
TOLERANCE = 1e-3
"""Of max |difference| / std, as the golden files ask."""
REFERENCE_TOLERANCE = 1e-5
"""Of max |difference| / max |reference|: the reference's own fixtures."""

STACK = "params/{}_encoder/transformers_stack/x_layers/"

ReadGolden = Callable[[str], list[SimpleNamespace]]
Distance = Callable[[Tensor, np.ndarray], float]
LastTokens = Callable[[VideoPrism, Tensor], Tensor]
State = dict[str, np.ndarray]


def saved(path: Path, state: State, size: VideoPrismSize) -> VideoPrism:
    if path.suffix == ".npz":
        np.savez(path, **state)  # type: ignore[arg-type]
    else:
        save_file({key: torch.from_numpy(array) for key, array in state.items()}, path)
    return VideoPrism(info=vit_info("videoprism_b", "videoprism", size), size=size, file=lambda: path)


def of_golden(golden: SimpleNamespace, folder: Path, n_frames: int) -> VideoPrism:
    config = golden.config
    side = config["image_size"] // config["tubelet_size"][1]
    size = VideoPrismSize(
        block=BlockSize(
            width=config["hidden_size"],
            heads=config["num_attention_heads"],
            mlp=config["intermediate_size"],
        ),
        depth=config["num_spatial_layers"] + config["num_temporal_layers"],
        temporal_depth=config["num_temporal_layers"],
        patch=tuple(config["tubelet_size"]),
        input_size=tuple(golden.clip.shape[-2:]),
        n_frames=n_frames,
        table=(config["num_frames"], side, side),
        soft_cap=config["attn_logit_softcapping"],
    )
    state = {key.removeprefix("state/"): a for key, a in golden.arrays.items() if key.startswith("state/")}
    is_flax = any(key.startswith("params/") for key in state)
    return saved(folder / f"{golden.name}{'.npz' if is_flax else '.safetensors'}", state, size)


def every_layer(backbone: VideoPrism, clip: Tensor) -> dict[Layer, Tensor]:
    layers = (*(Layer(block) for block in range(backbone.size.depth + 1)), backbone.info.last_layer)
    return backbone.load(layers, CPU, torch.float32)(clip)


@pytest.fixture
def reference(shared: Path, tmp_path: Path) -> Callable[[str], tuple[VideoPrism, Tensor, np.ndarray]]:
    """Model, clip and output of one fixture of the Flax reference."""

    def read(name: str) -> tuple[VideoPrism, Tensor, np.ndarray]:
        path = shared / f"golden/reference/{name}.npz"
        arguments = json.loads(path.with_suffix(".json").read_text())["module_kwargs"]
        with np.load(path, allow_pickle=False) as file:
            state = {key.removeprefix("param/"): file[key] for key in file.files if key.startswith("param/")}
            video, expected = file["in/video"], file["out/y"]
        size = VideoPrismSize(
            block=BlockSize(
                width=arguments["model_dim"], heads=arguments["num_heads"], mlp=arguments["mlp_dim"]
            ),
            depth=arguments["num_spatial_layers"] + arguments["num_temporal_layers"],
            temporal_depth=arguments["num_temporal_layers"],
            patch=(1, arguments["patch_size"], arguments["patch_size"]),
            input_size=video.shape[2:4],
            n_frames=video.shape[1],
            table=tuple(arguments["pos_emb_shape"]),
            soft_cap=arguments["atten_logit_cap"],
        )
        clip = torch.from_numpy(np.moveaxis(video, -1, 2).copy())
        return saved(tmp_path / f"{name}.npz", state, size), clip, expected

    return read


def relative(found: Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy().reshape(expected.shape) - expected).max() / np.abs(expected).max())


def test_golden_features(
    golden_models: ReadGolden, last_tokens: LastTokens, distance: Distance, tmp_path: Path
) -> None:
    for golden in golden_models("videoprism_*"):
        native = golden.config["num_frames"]
        # The whole clip needs the temporal table stretched, its first frames do not.
        for n_frames, key in ((golden.clip.shape[1], "features"), (native, "features_native")):
            backbone = of_golden(golden, tmp_path, n_frames)
            found = last_tokens(backbone, golden.clip[:, :n_frames])
            assert found.shape[1:] == backbone.info.grid.shape and found.dtype == torch.float32
            for name in (key, f"{key}_flax"):
                if name in golden.arrays:
                    assert distance(found, golden.arrays[name]) < TOLERANCE, (golden.name, name)


def test_golden_every_layer_of_both_layouts(
    golden_models: ReadGolden, distance: Distance, tmp_path: Path
) -> None:
    flax = golden_models("videoprism_flax*")
    for golden in golden_models("videoprism_hf*"):
        same = [other for other in flax if torch.equal(other.clip, golden.clip)]
        for model in (golden, *same):
            backbone = of_golden(model, tmp_path, golden.clip.shape[1])
            found = every_layer(backbone, golden.clip)
            spatial = backbone.size.spatial_depth
            for block in range(spatial + 1):
                reference = golden.arrays[f"hidden_spatial_{block:02d}"]
                tokens = rearrange(found[Layer(block)], "b t h w c -> (b t) (h w) c")
                assert distance(tokens, reference) < TOLERANCE, (model.name, block)
            for block in range(1, backbone.size.temporal_depth + 1):
                reference = golden.arrays[f"hidden_temporal_{block:02d}"]
                tokens = rearrange(found[Layer(spatial + block)], "b t h w c -> (b h w) t c")
                assert distance(tokens, reference) < TOLERANCE, (model.name, spatial + block)


def test_golden_fractions_choose_the_reference_layers(golden_models: ReadGolden, tmp_path: Path) -> None:
    for golden in golden_models("videoprism_*"):
        info = of_golden(golden, tmp_path, golden.clip.shape[1]).info
        for fraction, entry in golden.readout.items():
            assert resolve_layers(fraction, info) == (Layer(entry["after_blocks"]),)


@pytest.mark.parametrize("name", ["videoprism_scan", "videoprism_interp"])
def test_reference_in_flax(name: str, reference: Any, last_tokens: LastTokens) -> None:
    backbone, clip, expected = reference(name)
    assert relative(last_tokens(backbone, clip), expected) < REFERENCE_TOLERANCE


@pytest.mark.parametrize("name", ["videoprism_scan", "videoprism_interp"])
def test_reference_notices_norms_without_their_one(
    name: str, reference: Any, last_tokens: LastTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, clip, expected = reference(name)
    entries = videoprism.flax_entries(backbone.size)
    bare = {name: replace(entry, plus=0.0) for name, entry in entries.items()}
    monkeypatch.setattr(videoprism, "flax_entries", lambda _: bare)
    assert relative(last_tokens(backbone, clip), expected) > 0.1


@pytest.mark.parametrize("soft_cap", [1e9, 5.0])
def test_reference_notices_another_soft_cap(soft_cap: float, reference: Any, last_tokens: LastTokens) -> None:
    backbone, clip, expected = reference("videoprism_scan")
    backbone = replace(backbone, size=replace(backbone.size, soft_cap=soft_cap))
    assert relative(last_tokens(backbone, clip), expected) > 10 * REFERENCE_TOLERANCE


def test_golden_notices_a_missing_soft_cap(
    golden_models: ReadGolden, last_tokens: LastTokens, distance: Distance, tmp_path: Path
) -> None:
    for golden in golden_models("videoprism_*"):
        backbone = of_golden(golden, tmp_path, golden.clip.shape[1])
        backbone = replace(backbone, size=replace(backbone.size, soft_cap=1e9))
        assert distance(last_tokens(backbone, golden.clip), golden.arrays["features"]) > 10 * TOLERANCE


def test_reference_notices_the_tanh_gelu(
    reference: Any, last_tokens: LastTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, clip, expected = reference("videoprism_scan")
    exact = torch.nn.functional.gelu
    monkeypatch.setattr(torch.nn.functional, "gelu", lambda state, **_: exact(state, approximate="tanh"))
    assert relative(last_tokens(backbone, clip), expected) > 3 * REFERENCE_TOLERANCE


def test_golden_notices_normalised_pixels(
    golden_models: ReadGolden, last_tokens: LastTokens, distance: Distance, tmp_path: Path
) -> None:
    half = (0.5, 0.5, 0.5)
    for golden in golden_models("videoprism_*"):
        backbone = of_golden(golden, tmp_path, golden.clip.shape[1])
        assert backbone.preprocessing()["mean"] is None and backbone.preprocessing()["std"] is None
        wrong = replace(backbone, info=replace(backbone.info, mean=half, std=half))
        assert distance(last_tokens(wrong, golden.clip), golden.arrays["features"]) > 0.1


@pytest.mark.parametrize("lost", ["key/b", "query/b", "value/b", "post/b"])
def test_golden_notices_lost_biases(
    golden_models: ReadGolden, last_tokens: LastTokens, distance: Distance, tmp_path: Path, lost: str
) -> None:
    for golden in golden_models("videoprism_flax*"):
        arrays = {key: a * (not key.endswith(lost)) for key, a in golden.arrays.items()}
        damaged = SimpleNamespace(**{**vars(golden), "arrays": arrays})
        backbone = of_golden(damaged, tmp_path, golden.clip.shape[1])
        assert distance(last_tokens(backbone, golden.clip), golden.arrays["features"]) > 3 * TOLERANCE


def test_positions_by_hand() -> None:
    # Two steps become four: half-pixel centres at -0.25, 0.25, 0.75, 1.25, held at the ends; four columns
    # become two with anti-aliasing: triangles of half width 2 around 0.5 and 2.5, cut off at the ends.
    size = VideoPrismSize(
        block=BlockSize(width=1, heads=1, mlp=1), depth=2, temporal_depth=1,
        patch=(1, 2, 2), input_size=(8, 4), n_frames=4, table=(2, 4, 4),
    )  # fmt: skip
    ramp = torch.arange(4.0).repeat(4)[:, None]
    found = videoprism.stretch_temporal(torch.tensor([[0.0], [8.0]]), size)
    assert found.flatten().tolist() == [0, 2, 6, 8]
    weights = np.array([0.75, 0.75, 0.25])
    low = float(weights @ [0, 1, 2] / weights.sum())
    found = videoprism.stretch_spatial(ramp, size)
    assert found.flatten().tolist() == pytest.approx([low, 3 - low] * 4)


def test_tables_of_the_grid_s_size_stay(reference: Any) -> None:
    backbone, _, _ = reference("videoprism_scan")
    draw = torch.Generator().manual_seed(0)
    steps, rows, columns = backbone.size.table
    for stretch, length in (
        (videoprism.stretch_spatial, rows * columns),
        (videoprism.stretch_temporal, steps),
    ):
        table = torch.randn(length, 8, generator=draw)
        assert torch.equal(stretch(table, backbone.size), table)


def test_early_exit_is_the_same_function_and_holds_no_later_block(
    golden_models: ReadGolden, tmp_path: Path, record_keys: Callable[[], list[str]]
) -> None:
    read = record_keys()
    golden = golden_models("videoprism_flax*")[0]
    backbone = of_golden(golden, tmp_path, golden.clip.shape[1])
    whole = every_layer(backbone, golden.clip)
    spatial = backbone.size.spatial_depth
    for block in (0, 1, spatial, spatial + 1):
        read.clear()
        encoder: Any = backbone.load((Layer(block),), CPU, torch.float32)
        held = (len(encoder.model.spatial), len(encoder.model.temporal))
        assert held == (min(block, spatial), max(block - spatial, 0))
        assert any("temporal" in key for key in read) == (block > spatial)
        assert not any("temporal_ln" in key for key in read)
        assert torch.equal(encoder(golden.clip)[Layer(block)], whole[Layer(block)])


def test_final_norm_only_when_asked(golden_models: ReadGolden, distance: Distance, tmp_path: Path) -> None:
    golden = golden_models("videoprism_flax*")[0]
    backbone = of_golden(golden, tmp_path, golden.clip.shape[1])
    plain = every_layer(backbone, golden.clip)[Layer(backbone.size.depth)]
    assert distance(plain, golden.arrays["features"]) > 0.1
    assert backbone.info.default_layers == (backbone.info.last_layer,)


def test_bfloat16_is_close_and_comes_out_float32(
    golden_models: ReadGolden, distance: Distance, tmp_path: Path
) -> None:
    golden = golden_models("videoprism_hf*")[0]
    encoder = of_golden(golden, tmp_path, golden.clip.shape[1]).load((Layer(1),), CPU, torch.bfloat16)
    found = encoder(golden.clip)[Layer(1)]
    assert found.dtype == torch.float32
    assert 1e-4 < distance(found, golden.arrays["hidden_spatial_01"]) < 0.3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("videoprism_b", "flax_npz_released"),
        ("videoprism_l", "flax_npz_released"),
        ("videoprism_b", "transformers_5.23_state_dict"),
        ("videoprism_l", "transformers_5.23_state_dict"),
        ("videoprism_g", "transformers_5.23_state_dict"),
    ],
)
def test_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str, kind: str
) -> None:
    released = released_listing(f"{name}.{kind}")
    found = released.shapes
    backbone = load_backbone(name)
    assert isinstance(backbone, VideoPrism)
    key_map = backbone.key_map(found)
    key_map.check(found, name)
    assert key_map.skipped == ()
    assert key_map.entries.keys() == backbone.whole().state_dict().keys()
    assert sum(map(prod, found.values())) == released.n_params == backbone.size.n_params


def test_missing_unknown_and_misshapen_keys_are_all_named(golden_models: ReadGolden, tmp_path: Path) -> None:
    golden = golden_models("videoprism_flax*")[0]
    arrays = dict(golden.arrays)
    del arrays["state/params/temporal_ln/scale"]
    arrays["state/params/contrastive_vision_pooler/query"] = np.zeros((1, 2), np.float32)
    arrays["state/params/spatial_ln/bias"] = np.zeros(3, np.float32)
    damaged = SimpleNamespace(**{**vars(golden), "arrays": arrays})
    with pytest.raises(WeightsError) as error:
        # Also what early exit would never read: the file is not the model's.
        of_golden(damaged, tmp_path, golden.clip.shape[1]).load((Layer(0),), CPU, torch.float32)
    assert "params/temporal_ln/scale missing" in str(error.value)
    assert "params/contrastive_vision_pooler/query unknown" in str(error.value)
    assert "params/spatial_ln/bias (3,) instead of" in str(error.value)


def test_pickled_objects_are_never_loaded(golden_models: ReadGolden, tmp_path: Path) -> None:
    golden = golden_models("videoprism_flax*")[0]
    backbone = of_golden(golden, tmp_path, golden.clip.shape[1])
    state = {"params/spatial_ln/bias": np.array([{"a": 1}], dtype=object)}
    np.savez(backbone.file(), **state)  # type: ignore[arg-type]
    with pytest.raises(WeightsError):
        backbone.load((Layer(0),), CPU, torch.float32)


def test_missing_files_say_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"flax_base_f16r288_repeated\.npz \(457 MB\), by Google") as error:
        load_backbone("videoprism_b", tmp_path).weights_digest()
    assert "https://huggingface.co/google/videoprism-base-f16r288/resolve/main/" in str(error.value)
    with pytest.raises(WeightsError, match="never released"):
        load_backbone("videoprism_g", tmp_path).load((Layer(0),), CPU, torch.float32)
    (tmp_path / "videoprism_l").mkdir()
    path = tmp_path / "videoprism_l/flax_large_f8r288_repeated.npz"
    path.write_bytes(b"no zip")
    backbone = load_backbone("videoprism_l", tmp_path)
    assert isinstance(backbone, VideoPrism) and backbone.file() == path
    with pytest.raises(WeightsError, match="cannot be read"):
        backbone.load((Layer(0),), CPU, torch.float32)


def test_architecture_survives_json_and_layers_are_checked(reference: Any) -> None:
    backbone, _, _ = reference("videoprism_scan")
    part = backbone.architecture()
    assert json.loads(json.dumps(part)) == part
    assert part["soft_cap"] == 50.0
    with pytest.raises(CallError, match="blocks 0"):
        backbone.load((Layer(backbone.size.depth + 1),), CPU, torch.float32)
