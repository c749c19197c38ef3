"""VideoMAEv2 from its three kinds of files, against the authors' models at every layer."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from featcache.backbones import BACKBONES, backbone_table, load_backbone
from featcache.backbones.base import resolve_layers
from featcache.backbones.families.videomaev2 import SKIPPED, VideoMAEv2
from featcache.backbones.model import vit_info
from featcache.backbones.parts import sinusoid
from featcache.backbones.sizes import BlockSize, VideoViTSize
from featcache.errors import WeightsError
from featcache.spec import Layer

CPU = torch.device("cpu")
TOLERANCE = 1e-4
Golden = Callable[[str], list[SimpleNamespace]]
Distance = Callable[[Tensor, np.ndarray], float]
State = dict[str, Tensor]


def videomaev2(size: VideoViTSize, file: Callable[[], Path]) -> VideoMAEv2:
    return VideoMAEv2(info=vit_info("tiny", "videomaev2", size), size=size, file=file)


def size_of(golden: SimpleNamespace) -> VideoViTSize:
    (state,) = golden.released.values()
    config, beginning = golden.config, "encoder." if "mask_token" in state else ""
    width, _, tubelet, rows, columns = state[f"{beginning}patch_embed.proj.weight"].shape
    heads = config.get("encoder_num_heads", config.get("num_heads"))
    mlp = len(state[f"{beginning}blocks.0.mlp.fc1.bias"])
    side = config["img_size"]
    return VideoViTSize(
        block=BlockSize(width=width, heads=heads, mlp=mlp, biases="qv"), depth=len(golden.hidden) - 1,
        patch=(tubelet, rows, columns), input_size=(side, side), n_frames=config["all_frames"],
        positions="sinusoid",
    )  # fmt: skip


def as_released(golden: SimpleNamespace, folder: Path, change: State | None = None) -> VideoMAEv2:
    """From a `.pth` as the authors' scripts save it."""
    ((section, state),) = golden.released.items()
    path = folder / "vit_x.pth"
    torch.save({section: state | (change or {}), "optimizer": {"state": {}}, "epoch": 1}, path)
    return videomaev2(size_of(golden), lambda: path)


def as_on_the_hub(golden: SimpleNamespace, folder: Path) -> VideoMAEv2:
    """A fine-tuned file without its head, under the hub's prefix."""
    (state,) = golden.released.values()
    path = folder / "model.safetensors"
    save_file({f"model.{key}": t for key, t in state.items() if not key.startswith("head.")}, path)
    return videomaev2(size_of(golden), lambda: path)


def blocks_of(backbone: VideoMAEv2) -> tuple[Layer, ...]:
    return tuple(Layer(block) for block in range(backbone.size.depth + 1))


@pytest.mark.parametrize(
    ("pattern", "saved"),
    [
        ("videomaev2_pretrain*.npz", as_released),
        ("videomaev2_finetune*.npz", as_released),
        ("videomaev2_finetune*.npz", as_on_the_hub),
    ],
)
def test_golden_every_layer_in_one_pass(
    golden_models: Golden,
    distance: Distance,
    tmp_path: Path,
    pattern: str,
    saved: Callable[[SimpleNamespace, Path], VideoMAEv2],
) -> None:
    for golden in golden_models(pattern):
        backbone = saved(golden, tmp_path)
        found = backbone.load(blocks_of(backbone), CPU, torch.float32)(golden.clip)
        for layer, tokens in found.items():
            assert distance(tokens, golden.hidden[layer.block]) < TOLERANCE, (golden.name, layer)
        for fraction, entry in golden.readout.items():
            assert resolve_layers(fraction, backbone.info) == (Layer(entry["after_blocks"]),)


def test_golden_norm_of_the_pretraining(golden_models: Golden, distance: Distance, tmp_path: Path) -> None:
    for golden in golden_models("videomaev2_pretrain*.npz"):
        backbone = as_released(golden, tmp_path)
        last = backbone.info.last_layer
        assert last.normed
        for dtype, least, most in ((torch.float32, 0.0, TOLERANCE), (torch.bfloat16, 1e-3, 0.1)):
            found = backbone.load((last,), CPU, dtype)(golden.clip)[last]
            assert least <= distance(found, golden.arrays["features"]) < most


@pytest.mark.parametrize("saved", [as_released, as_on_the_hub])
def test_the_norm_of_a_mean_is_never_used_on_tokens(
    golden_models: Golden,
    distance: Distance,
    tmp_path: Path,
    saved: Callable[[SimpleNamespace, Path], VideoMAEv2],
) -> None:
    for golden in golden_models("videomaev2_finetune*.npz"):
        backbone = saved(golden, tmp_path)
        depth = backbone.size.depth
        assert backbone.info.default_layers == (Layer(depth),)
        found = backbone.load((Layer(depth),), CPU, torch.float32)(golden.clip)[Layer(depth)]
        assert distance(found, golden.arrays["features"]) < TOLERANCE
        with pytest.raises(WeightsError, match=rf"ask for layer {depth} instead of {depth}_normed"):
            backbone.load((Layer(depth, True),), CPU, torch.float32)


def test_golden_positions_are_exact(golden_models: Golden) -> None:
    for golden in golden_models("videomaev2_pretrain*.npz"):
        (table,) = golden.arrays["pos_embed"]
        np.testing.assert_array_equal(sinusoid(*table.shape).numpy(), table)


@pytest.mark.parametrize("lost", ["q_bias", "v_bias"])
def test_golden_notices_lost_biases(
    golden_models: Golden, distance: Distance, tmp_path: Path, lost: str
) -> None:
    for golden in golden_models("videomaev2_pretrain*.npz"):
        (state,) = golden.released.values()
        zeros = {key: torch.zeros_like(t) for key, t in state.items() if key.endswith(lost)}
        backbone = as_released(golden, tmp_path, zeros)
        layer = Layer(backbone.size.depth)
        found = backbone.load((layer,), CPU, torch.float32)(golden.clip)[layer]
        assert distance(found, golden.hidden[-1]) > 100 * TOLERANCE


@pytest.mark.parametrize(
    "kind", ["pretrain_pth_released", "finetune_k710_pth_released", "hf_safetensors_expected"]
)
@pytest.mark.parametrize("name", [f"videomaev2_{size}" for size in "blhg"])
def test_released_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str, kind: str
) -> None:
    released = released_listing(f"{name}.{kind}").shapes
    backbone = load_backbone(name)
    assert isinstance(backbone, VideoMAEv2)
    key_map = backbone.key_map(released)
    key_map.check(released, name)
    norm = () if kind.startswith("pretrain") else ("norm.weight", "norm.bias")
    assert key_map.entries.keys() == backbone.whole().state_dict().keys() - set(norm)
    used = sum(int(np.prod(shape)) for shape in key_map.shapes.values())
    assert backbone.size.n_params == used + len(norm) * backbone.size.block.width


def test_missing_and_unknown_keys_are_named(golden_models: Golden, tmp_path: Path) -> None:
    for golden in golden_models("videomaev2_pretrain*.npz"):
        # A bias that training never had, and a scale of residuals that this architecture has not.
        extra = {f"encoder.blocks.0.{key}": torch.zeros(2) for key in ("attn.k_bias", "gamma_1")}
        with pytest.raises(
            WeightsError, match=r"vit_x\.pth does not fit.*k_bias, encoder\.blocks\.0\.gamma_1 unknown"
        ):
            as_released(golden, tmp_path, extra).load((Layer(0),), CPU, torch.float32)
        torch.save({"model": {"encoder.patch_embed.proj.weight": torch.zeros(3)}}, tmp_path / "empty.pth")
        with pytest.raises(WeightsError, match=r"encoder\.blocks\.0\.attn\.proj\.bias.* missing"):
            videomaev2(size_of(golden), lambda: tmp_path / "empty.pth").load((Layer(0),), CPU, torch.float32)


def test_a_truncated_or_flat_pickle(golden_models: Golden, distance: Distance, tmp_path: Path) -> None:
    golden = golden_models("videomaev2_finetune*.npz")[0]
    backbone = as_released(golden, tmp_path)
    path = backbone.file()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(WeightsError, match=r"vit_x\.pth cannot be read .*fetch the file again"):
        backbone.load((Layer(0),), CPU, torch.float32)
    torch.save(golden.released["module"], path)
    found = backbone.load((Layer(1),), CPU, torch.float32)(golden.clip)[Layer(1)]
    assert distance(found, golden.hidden[1]) < TOLERANCE


def test_where_files_are_looked_for(tmp_path: Path) -> None:
    backbone = load_backbone("videomaev2_g", tmp_path)
    with pytest.raises(
        WeightsError,
        match=r"(?s)4\.05 GB.*OpenGVLab.*CC-BY-NC-4\.0.*--weights videomaev2_g .*VideoMAEv2-giant",
    ):
        backbone.weights_digest()
    folder = tmp_path / "videomaev2_g"
    folder.mkdir()
    for number, name in enumerate(("vit_g_hybrid_pt_1200e.pth", "vit_g_ft.pth"), start=1):
        (folder / name).write_bytes(b"a")
        rows = {row.info.name: row.weights for row in backbone_table(tmp_path)}
        assert rows["videomaev2_g"] == ("here" if number == 1 else "incomplete")
        assert rows["videomaev2_b"] == "missing"
    with pytest.raises(WeightsError, match=r"vit_g_ft\.pth, vit_g_hybrid_pt_1200e\.pth: leave the one"):
        backbone.weights_digest()
    (folder / "model.safetensors").write_bytes(b"b")
    assert backbone.weights_digest().startswith("3e23e816")  # sha256 of b"b"


def test_what_is_skipped_is_no_encoder() -> None:
    assert not any("blocks" in name or "patch" in name for kind in SKIPPED.values() for name in kind)
    info = BACKBONES["videomaev2_g"].info
    assert (info.grid.shape, info.commercial) == ((8, 16, 16, 1408), False)
