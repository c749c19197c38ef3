"""4DS from npz files in the released layout, against the reference's own states at every layer."""

import pickle
import zipfile
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
from featcache.backbones.families.fourds import FourDS
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, VideoViTSize
from featcache.backbones.weights.checkpoint import Shapes
from featcache.errors import CallError, WeightsError
from featcache.resampling import temporal_matrix
from featcache.spec import Layer

CPU = torch.device("cpu")
TOLERANCE = 1e-4
NAMES = ("4ds_b_dist_e", "4ds_l", "4ds_e")
Golden = Callable[[str], list[SimpleNamespace]]
Distance = Callable[[Tensor, np.ndarray], float]


def fourds(size: VideoViTSize, file: Callable[[], Path]) -> FourDS:
    return FourDS(info=vit_info("tiny", "fourds", size), size=size, file=file)


def released(size: VideoViTSize) -> Shapes:
    return fourds(size, Path).key_map({}).shapes


def size_of(config: dict[str, object]) -> VideoViTSize:
    width, heads, mlp, depth, frames, side = (
        int(str(config[key])) for key in ("width", "heads", "mlp", "depth", "T", "S")
    )
    tubelet, rows, columns = np.asarray(config["patch"]).tolist()
    return VideoViTSize(
        block=BlockSize(width=width, heads=heads, mlp=mlp), depth=depth, patch=(tubelet, rows, columns),
        input_size=(side, side), n_frames=frames, positions="stored", gelu="tanh", final_norm=False,
    )  # fmt: skip


def save(path: Path, state: dict[str, Tensor]) -> Path:
    np.savez(path, **{key: tensor.numpy() for key, tensor in state.items()})  # type: ignore[arg-type]
    return path


def model_of(golden: SimpleNamespace, folder: Path, **change: Tensor) -> FourDS:
    path = save(folder / "scaling4d_x.npz", {**golden.released[""], **change})
    return fourds(size_of(golden.config), lambda: path)


TINY = VideoViTSize(
    block=BlockSize(width=12, heads=2, mlp=20), depth=3, patch=(2, 4, 4), input_size=(8, 8), n_frames=4,
    positions="stored", gelu="tanh", final_norm=False,
)  # fmt: skip


@pytest.fixture
def tiny() -> dict[str, np.ndarray]:
    """Made-up arrays under the released names."""
    draw = np.random.default_rng(0)
    return {key: draw.normal(0, 0.3, s).astype(np.float32) for key, s in released(TINY).items()}


def load_tiny(path: Path, *layers: Layer) -> dict[Layer, Tensor]:
    clip = torch.rand(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return fourds(TINY, lambda: path).load(layers or (Layer(3),), CPU, torch.float32)(clip)


def test_golden_every_layer_in_one_pass(golden_models: Golden, distance: Distance, tmp_path: Path) -> None:
    for golden in golden_models("4ds*.npz"):
        backbone = model_of(golden, tmp_path)
        layers = tuple(Layer(block) for block in range(backbone.size.depth + 1))
        found = backbone.load(layers, CPU, torch.float32)(golden.clip)
        assert found[layers[-1]].dtype == torch.float32
        for entry in range(backbone.size.depth + 1):
            # The reference's list has the token embedding twice: entry k is the output of block k - 1.
            layer = Layer(max(entry - 1, 0))
            assert distance(found[layer], golden.arrays[f"aux_{entry:02d}"]) < TOLERANCE, (golden.name, entry)


def test_golden_fractions_and_cubic_resize_give_the_readout_s_tokens(
    golden_models: Golden, distance: Distance, tmp_path: Path
) -> None:
    for golden in golden_models("4ds*.npz"):
        backbone = model_of(golden, tmp_path)
        for fraction, entry in golden.readout.items():
            (layer,) = resolve_layers(fraction, backbone.info)
            assert layer == Layer(entry["after_blocks"])
            tokens = backbone.load((layer,), CPU, torch.float32)(golden.clip)[layer]
            resize = temporal_matrix(tokens.shape[1], backbone.info.n_frames, "cubic")
            stretched = torch.einsum("ut,bthwc->buhwc", resize, tokens)
            assert distance(stretched, golden.arrays[f"readout_{fraction}"]) < TOLERANCE
        assert backbone.info.default_layers == resolve_layers("0.95", backbone.info)
        assert backbone.info.upsampling == "cubic"


def test_golden_notices_the_other_gelu(golden_models: Golden, distance: Distance, tmp_path: Path) -> None:
    for golden in golden_models("4ds*.npz"):
        backbone = model_of(golden, tmp_path)
        wrong = replace(backbone, size=replace(backbone.size, gelu="erf"))
        (layer,) = backbone.info.default_layers
        found = wrong.load((layer,), CPU, torch.float32)(golden.clip)[layer]
        assert distance(found, golden.arrays["features"]) > 2 * TOLERANCE


def test_golden_in_bfloat16(golden_models: Golden, distance: Distance, tmp_path: Path) -> None:
    for golden in golden_models("4ds*.npz"):
        backbone = model_of(golden, tmp_path)
        (layer,) = backbone.info.default_layers
        found = backbone.load((layer,), CPU, torch.bfloat16)(golden.clip)[layer]
        assert found.dtype == torch.float32
        assert 1e-3 < distance(found, golden.arrays["features"]) < 0.1


@pytest.mark.parametrize(("name", "listing"), [("4ds_b_dist_e", "b"), ("4ds_l", "l"), ("4ds_e", "e")])
def test_released_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str, listing: str
) -> None:
    listed = released_listing(f"4ds_{listing}.npz_released")
    backbone = load_backbone(name)
    assert isinstance(backbone, FourDS)
    key_map = backbone.key_map(listed.shapes)
    key_map.check(listed.shapes, name)
    assert key_map.skipped == ()
    state = backbone.whole().state_dict()
    assert key_map.entries.keys() == state.keys()
    assert backbone.size.n_params == listed.n_params == sum(t.numel() for t in state.values())


def test_what_is_known_in_advance() -> None:
    info = BACKBONES["4ds_e"].info
    assert (info.mean, info.std, info.final_norm, info.upsampling) == (None, None, False, "cubic")
    assert [BACKBONES[name].info.default_layers for name in NAMES] == [
        (Layer(10),),
        (Layer(21),),
        (Layer(52),),
    ]
    assert not BACKBONES["4ds_l"].info.public and info.public


def test_full_width_4ds_e_in_bfloat16_is_a_float64_recomputation(tmp_path: Path) -> None:
    size = replace(BACKBONES["4ds_e"].size, depth=1, input_size=(32, 32), n_frames=4)
    draw = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(shape, generator=draw) * (0.02 if len(shape) > 1 else 0.1)
        for key, shape in released(size).items()
    }
    path = save(tmp_path / "scaling4d_e.npz", state)
    clip = torch.rand(1, 4, 3, 32, 32, generator=draw)
    layer = Layer(1)
    found = fourds(size, lambda: path).load((layer,), CPU, torch.bfloat16)(clip)[layer]
    exact = float64_features(state, clip)
    error = (found.reshape(exact.shape) - exact).abs()
    # 8 bits of mantissa: 2^-8 a product, of random sign.
    assert error.max() / exact.std() < 0.03 and error.square().mean().sqrt() / exact.std() < 2**-7


def float64_features(state: dict[str, Tensor], clip: Tensor) -> Tensor:
    """4DS with one block on a 2 x 2 x 2 grid of 2 x 16 x 16 tubelets, written out as the formulas say."""
    w = {key.removeprefix("params/"): tensor.double() for key, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * w[f"{block}/{name}/scale"] + w[f"{block}/{name}/bias"]

    def project(x: Tensor, name: str) -> Tensor:
        kernel, bias = w[f"{block}/attention/{name}/kernel"], w[f"{block}/attention/{name}/bias"]
        return torch.einsum("sc,chd->hsd", x, kernel) + bias[:, None]

    block, conv = "processor/layers_0", "encoder/patch_embedding/Conv_0"
    tubelets = clip[0].double().unfold(0, 2, 2).unfold(2, 16, 16).unfold(3, 16, 16)
    x = torch.einsum("tchwfyx,fyxck->thwk", tubelets, w[f"{conv}/kernel"]) + w[f"{conv}/bias"]
    x = (x + w["encoder/posenc/embeddings"]).flatten(0, 2)
    q, k, v = (project(norm(x, "attention_norm"), name) for name in ("query", "key", "value"))
    mixed = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
    x = x + torch.einsum("hsd,hdc->sc", mixed, w[f"{block}/attention/out/kernel"])
    x = x + w[f"{block}/attention/out/bias"]
    hidden = norm(x, "mlp_norm") @ w[f"{block}/mlp/dense_in/kernel"] + w[f"{block}/mlp/dense_in/bias"]
    gelu = 0.5 * hidden * (1 + torch.tanh((2 / np.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    return x + gelu @ w[f"{block}/mlp/dense_out/kernel"] + w[f"{block}/mlp/dense_out/bias"]


def test_missing_unknown_and_misshapen_arrays_are_all_named(
    tmp_path: Path, tiny: dict[str, np.ndarray]
) -> None:
    # Of a block that early exit never reads: the file is not the model's all the same.
    del tiny["params/processor/layers_2/mlp/dense_out/bias"]
    tiny["params/processor/layers_3/mlp_norm/scale"] = np.ones(12, np.float32)
    tiny["params/encoder/posenc/embeddings"] = np.ones((8, 14, 14, 12), np.float32)
    np.savez(tmp_path / "bad.npz", **tiny)  # type: ignore[arg-type]
    with pytest.raises(WeightsError) as error:
        load_tiny(tmp_path / "bad.npz", Layer(0))
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'bad.npz'} does not fit")
    assert "params/processor/layers_2/mlp/dense_out/bias missing" in message
    assert "params/processor/layers_3/mlp_norm/scale unknown" in message
    assert "params/encoder/posenc/embeddings (8, 14, 14, 12) instead of (2, 2, 2, 12)" in message


def test_positions_are_not_stretched() -> None:
    with pytest.raises(CallError, match=r"positions of \(4, 4, 4\) do not fit a grid of \(2, 2, 2\)"):
        fourds(replace(TINY, table=(4, 4, 4)), lambda: Path("absent"))


def test_damage_inside_a_compressed_file_says_so(tmp_path: Path, tiny: dict[str, np.ndarray]) -> None:
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, **tiny)  # type: ignore[arg-type]
    content = bytearray(path.read_bytes())
    content[300:340] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\.npz (cannot be read|is damaged)"):
        load_tiny(path)


def test_a_registered_name_finds_its_file_and_takes_only_its_own_size(
    tmp_path: Path, tiny: dict[str, np.ndarray]
) -> None:
    backbone = load_backbone("4ds_b_dist_e", tmp_path)
    with pytest.raises(WeightsError, match=r"(?s)350 MB.*CC-BY-4\.0.*data download .*scaling4d_dist_b\.npz"):
        backbone.load((Layer(0),), CPU, torch.float32)
    (tmp_path / "4ds_b_dist_e").mkdir()
    np.savez(tmp_path / "4ds_b_dist_e/scaling4d_dist_b.npz", **tiny)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"scaling4d_dist_b\.npz does not fit .* of another shape"):
        backbone.load((Layer(0),), CPU, torch.float32)


def test_compressed_and_column_major_files_are_the_same_model(
    tmp_path: Path, tiny: dict[str, np.ndarray]
) -> None:
    np.savez(tmp_path / "a.npz", **tiny)  # type: ignore[arg-type]
    np.savez_compressed(tmp_path / "b.npz", **tiny)  # type: ignore[arg-type]
    np.savez(tmp_path / "c.npz", **{k: np.asfortranarray(v).astype(">f4") for k, v in tiny.items()})  # type: ignore[arg-type]
    np.savez(tmp_path / "d.npz", **{k: np.asfortranarray(v) for k, v in tiny.items()})  # type: ignore[arg-type]
    first, *others = (load_tiny(tmp_path / f"{name}.npz")[Layer(3)] for name in "abcd")
    assert first.std() > 0.1
    for other in others:
        assert torch.equal(first, other)


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_truncated_file_says_so(tmp_path: Path, tiny: dict[str, np.ndarray], kept: float) -> None:
    path = tmp_path / "cut.npz"
    np.savez(path, **tiny)  # type: ignore[arg-type]
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match=r"cut\.npz cannot be read .*get it again"):
        load_tiny(path)


class _Rogue:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code in a weight file was run",)


def test_pickled_objects_are_refused_and_not_run(
    tmp_path: Path, tiny: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny["params/encoder/posenc/embeddings"] = np.array([_Rogue()], dtype=object)
    np.savez(tmp_path / "rogue.npz", allow_pickle=True, **tiny)
    with pytest.raises(WeightsError, match=r"rogue\.npz holds params/encoder/posenc/embeddings\.npy of type"):
        load_tiny(tmp_path / "rogue.npz")
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(_Rogue()))
    with pytest.raises(WeightsError, match=r"raw\.npz cannot be read"):
        load_tiny(tmp_path / "raw.npz")
    with zipfile.ZipFile(tmp_path / "inside.npz", "w") as file:
        file.writestr("params.npy", pickle.dumps(_Rogue()))
    with pytest.raises(WeightsError, match=r"inside\.npz cannot be read"):
        load_tiny(tmp_path / "inside.npz")
    assert "was run" not in capsys.readouterr().out
