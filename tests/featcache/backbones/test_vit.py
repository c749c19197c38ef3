"""The video ViT by itself, on made-up weights: one block by hand, early exit, precision, memory."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.backbones.families.fourds import FourDS
from featcache.backbones.model import vit_info
from featcache.backbones.parts import Block
from featcache.backbones.sizes import BlockSize, VideoViTSize
from featcache.backbones.vit import VideoViT, VideoViTBackbone
from featcache.errors import CallError
from featcache.spec import Layer

CPU = torch.device("cpu")

SIZE = VideoViTSize(
    block=BlockSize(width=12, heads=2, mlp=20), depth=3, patch=(2, 4, 4), input_size=(8, 8), n_frames=4,
    positions="stored", gelu="tanh", final_norm=False,
)  # fmt: skip


def fourds(file: Callable[[], Path]) -> FourDS:
    return FourDS(info=vit_info("tiny", "fourds", SIZE), size=SIZE, file=file)


@pytest.fixture
def backbone(tmp_path: Path) -> VideoViTBackbone:
    draw = np.random.default_rng(0)
    arrays = {
        key: draw.normal(0, 0.3, s).astype(np.float32) for key, s in fourds(Path).key_map({}).shapes.items()
    }
    np.savez(tmp_path / "tiny.npz", **arrays)  # type: ignore[arg-type]
    return fourds(lambda: tmp_path / "tiny.npz")


@pytest.fixture
def clips() -> Tensor:
    return torch.rand(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("gelu", ["erf", "tanh"])
def test_a_block_by_hand(gelu: str) -> None:
    draw = np.random.default_rng(0)
    w = {name: draw.normal(0, 0.5, shape) for name, shape in BLOCK_SHAPES.items()}
    x = draw.normal(size=(5, 4))

    def norm(y: np.ndarray, name: str) -> np.ndarray:
        scaled = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])

    def linear(y: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(y @ w[f"{name}.weight"].T + w[f"{name}.bias"])

    q, k, v = np.split(linear(norm(x, "norm1"), "qkv"), 3, axis=-1)
    mixed = []
    for head in (slice(0, 2), slice(2, 4)):
        weights = np.exp(q[:, head] @ k[:, head].T / np.sqrt(2))
        mixed.append(weights / weights.sum(-1, keepdims=True) @ v[:, head])
    state = x + linear(np.concatenate(mixed, -1), "out")
    hidden = linear(norm(state, "norm2"), "up")
    if gelu == "tanh":
        cdf = 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    else:
        cdf = 0.5 * (1 + torch.erf(torch.from_numpy(hidden) / 2**0.5).numpy())
    expected = state + linear(hidden * cdf, "down")

    block = Block(BlockSize(width=4, heads=2, mlp=6), gelu=gelu).double()  # type: ignore[arg-type]
    block.load_state_dict({name: torch.from_numpy(value) for name, value in w.items()})
    np.testing.assert_allclose(block(torch.from_numpy(x)[None])[0].detach(), expected, rtol=1e-12)


BLOCK_SHAPES = {
    "norm1.weight": (4,), "norm1.bias": (4,), "qkv.weight": (12, 4), "qkv.bias": (12,),
    "out.weight": (4, 4), "out.bias": (4,), "norm2.weight": (4,), "norm2.bias": (4,),
    "up.weight": (6, 4), "up.bias": (6,), "down.weight": (4, 6), "down.bias": (4,),
}  # fmt: skip


def test_tokens_are_numbered_through_steps_rows_and_columns() -> None:
    model = VideoViT(SIZE, n_blocks=0, normed=False).requires_grad_(False)
    model.embedding.weight.zero_()
    model.embedding.weight[0] = 1 / (3 * 2 * 4 * 4)
    model.embedding.bias.zero_()
    model.positions.zero_()
    frames = torch.zeros(1, 4, 3, 8, 8)
    frames[0, 2:, :, :4, 4:] = 1
    tokens = model(frames, (Layer(0),))[Layer(0)][..., 0]
    expected = torch.zeros(1, 2, 2, 2)
    expected[0, 1, 0, 1] = 1
    assert torch.allclose(tokens, expected)


def test_early_exit_is_the_same_function_and_reads_no_later_block(
    backbone: VideoViTBackbone, clips: Tensor, record_keys: Callable[[], list[str]]
) -> None:
    whole = backbone.load(tuple(map(Layer, range(4))), CPU, torch.float32)(clips)
    asked = record_keys()
    for block in range(4):
        asked.clear()
        encoder = backbone.load((Layer(block),), CPU, torch.float32)
        model = encoder.model  # type: ignore[attr-defined]
        assert isinstance(model, VideoViT) and len(model.blocks) == block
        numbers = {key.split("layers_")[1].split("/")[0] for key in asked if "layers_" in key}
        assert numbers == {str(number) for number in range(block)}
        found = encoder(clips)
        assert list(found) == [Layer(block)] and torch.equal(found[Layer(block)], whole[Layer(block)])


def test_bfloat16_products_float32_sums(backbone: VideoViTBackbone, clips: Tensor) -> None:
    layers = (Layer(0), Layer(3))
    encoder = backbone.load(layers, CPU, torch.bfloat16)
    found, exact = encoder(clips), backbone.load(layers, CPU, torch.float32)(clips)
    for name, tensor in encoder.model.state_dict().items():  # type: ignore[attr-defined]
        exactly = name == "positions" or ".norm" in name
        assert tensor.dtype == (torch.float32 if exactly else torch.bfloat16), name
    for layer in layers:
        error = (found[layer] - exact[layer]).square().mean().sqrt() / exact[layer].std()
        assert found[layer].dtype == torch.float32 and 1e-4 < error < 0.02


def test_half_precision_files_load_into_float32(
    backbone: VideoViTBackbone, clips: Tensor, tmp_path: Path
) -> None:
    with np.load(backbone.file()) as file:
        halves = {key: file[key].astype(np.float16) for key in file.files}
    np.savez(tmp_path / "half.npz", **halves)
    np.savez(tmp_path / "same.npz", **{key: array.astype(np.float32) for key, array in halves.items()})
    one, other = (
        fourds(lambda name=name: tmp_path / name).load((Layer(3),), CPU, torch.float32)(clips)  # type: ignore[misc]
        for name in ("half.npz", "same.npz")
    )
    assert torch.equal(one[Layer(3)], other[Layer(3)])


def test_a_loaded_model_does_not_follow_its_file(backbone: VideoViTBackbone, clips: Tensor) -> None:
    encoder = backbone.load((Layer(3),), CPU, torch.float32)
    before = encoder(clips)[Layer(3)]
    path = backbone.file()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(encoder(clips)[Layer(3)], before)


def test_a_clip_does_not_see_its_batch(backbone: VideoViTBackbone, clips: Tensor) -> None:
    encoder = backbone.load((Layer(3),), CPU, torch.float32)
    together = encoder(clips)[Layer(3)]
    padded = encoder(torch.cat([clips[:1], torch.zeros_like(clips[:2])]))[Layer(3)]
    assert torch.equal(together[0], padded[0])


def test_wrong_clips_and_layers_are_refused(backbone: VideoViTBackbone) -> None:
    encoder = backbone.load((Layer(0),), CPU, torch.float32)
    with pytest.raises(CallError, match="clips of 4 RGB frames, not 5 frames"):
        encoder(torch.zeros(1, 5, 3, 8, 8))
    for layer in (Layer(4), Layer(3, True)):
        with pytest.raises(CallError, match="tiny has blocks 0"):
            backbone.load((layer,), CPU, torch.float32)


def test_architecture_names_everything_that_changes_the_function(backbone: VideoViTBackbone) -> None:
    seen = [backbone.architecture()]
    for change in ({"gelu": "erf"}, {"input_size": (16, 8)}, {"block": replace(SIZE.block, heads=3)}):
        seen.append(replace(backbone, size=replace(SIZE, **change)).architecture())
        assert seen[-1] not in seen[:-1]
    assert seen[0]["family"] == "4ds" and seen[0]["patch"] == [2, 4, 4]


LOADING = """
import sys, threading
from pathlib import Path
import numpy as np, torch
from featcache.backbones.model import vit_info
from featcache.backbones.families.fourds import FourDS
from featcache.backbones.sizes import BlockSize, VideoViTSize
from featcache.spec import Layer

size = VideoViTSize(
    block=BlockSize(width=512, heads=8, mlp=2048), depth=12, patch=(2, 16, 16), input_size=(64, 64),
    n_frames=4, positions="stored", gelu="tanh", final_norm=False,
)
path = Path(sys.argv[1])
backbone = FourDS(info=vit_info("middle", "fourds", size), size=size, file=lambda: path)
np.savez(path, **{key: np.ones(shape, np.float32) for key, shape in backbone.key_map({}).shapes.items()})

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))

def load(block):
    return backbone.load((Layer(block),), torch.device("cpu"), torch.bfloat16)

def watch():
    while not finished.wait(0.001):
        seen.append(anonymous_bytes())

load(0)  # the first load of a process also imports parts of torch
before, seen, finished = anonymous_bytes(), [], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
encoder = load(12)
seen.append(anonymous_bytes())
finished.set()
watcher.join()
print(size.n_params, max(seen) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_loading_takes_little_more_than_the_model(tmp_path: Path) -> None:
    """155 MB of float32 on disk, 77 MB in bfloat16: hardly more on the way.

    Only anonymous memory counts, pages of a mapped file are the kernel's to drop; in a process of its own,
    whose heap holds nothing that others freed.
    """
    command = [sys.executable, "-c", LOADING, str(tmp_path / "middle.npz")]
    n_parameters, peak = map(int, subprocess.check_output(command, text=True).split())
    assert n_parameters > 38e6
    assert 0.9 < peak / (2 * n_parameters) < 1.1
