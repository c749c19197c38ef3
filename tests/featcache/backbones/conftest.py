"""Models small enough to write to disk in a test, and what tests of several families ask of them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from featcache.backbones import encoder
from featcache.backbones.base import Backbone, BackboneInfo, block_at_fraction
from featcache.backbones.catalogue import BACKBONES
from featcache.backbones.weights.checkpoint import TensorFile, open_tensors
from featcache.spec import Layer

CPU = torch.device("cpu")
State = dict[str, Tensor]
Save = Callable[[Path, State, dict[str, Any]], Path]


@pytest.fixture
def save_model() -> Save:
    """Write a model's folder as transformers does."""

    def save(folder: Path, state: State, config: dict[str, Any]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder

    return save


@pytest.fixture
def tiny_config() -> dict[str, Any]:
    """2 x 2 x 2 tokens of 12 channels, 3 blocks."""
    return {
        "model_type": "videomae",
        "image_size": 16,
        "patch_size": 8,
        "num_frames": 4,
        "tubelet_size": 2,
        "hidden_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "use_mean_pooling": False,
        "layer_norm_eps": 1e-12,
    }


@pytest.fixture
def tiny_state() -> State:
    """Random tensors under the names and shapes of the released files, written out by hand."""
    shapes: dict[str, tuple[int, ...]] = {
        "mask_token": (1, 1, 6),
        "videomae.embeddings.patch_embeddings.projection.weight": (12, 3, 2, 8, 8),
        "videomae.embeddings.patch_embeddings.projection.bias": (12,),
        "videomae.layernorm.weight": (12,),
        "videomae.layernorm.bias": (12,),
        "encoder_to_decoder.weight": (6, 12),
        "decoder.norm.weight": (6,),
    }
    block = {
        "attention.attention.query.weight": (12, 12),
        "attention.attention.q_bias": (12,),
        "attention.attention.key.weight": (12, 12),
        "attention.attention.value.weight": (12, 12),
        "attention.attention.v_bias": (12,),
        "attention.output.dense.weight": (12, 12),
        "attention.output.dense.bias": (12,),
        "intermediate.dense.weight": (20, 12),
        "intermediate.dense.bias": (20,),
        "output.dense.weight": (12, 20),
        "output.dense.bias": (12,),
        "layernorm_before.weight": (12,),
        "layernorm_before.bias": (12,),
        "layernorm_after.weight": (12,),
        "layernorm_after.bias": (12,),
    }
    for number in range(3):
        shapes |= {f"videomae.encoder.layer.{number}.{name}": shape for name, shape in block.items()}
    draw = np.random.default_rng(0)
    return {name: torch.from_numpy(draw.normal(0, 0.3, s).astype(np.float32)) for name, s in shapes.items()}


@pytest.fixture
def tiny_folder(tmp_path: Path, save_model: Save, tiny_state: State, tiny_config: dict[str, Any]) -> Path:
    """A saved VideoMAE of made-up weights."""
    return save_model(tmp_path / "tiny", tiny_state, tiny_config)


ReadGolden = Callable[[str], list[SimpleNamespace]]


@pytest.fixture(scope="session")
def golden_models(shared: Path) -> ReadGolden:
    """Every fixture of `golden/backbones` whose name fits a pattern, of whatever seed and size.

    `clip` is [B, F, C, Y, X] in [0, 1]; `released` has the state dicts by top-level key, "" where there is
    none; `hidden[i]` is the output of block i (for 4DS, whose list counts otherwise, look at `arrays`).
    """

    def read(pattern: str) -> list[SimpleNamespace]:
        found = [_golden_model(path) for path in sorted((shared / "golden/backbones").glob(pattern))]
        assert found, f"no golden file is called {pattern}"
        return found

    return read


def _golden_model(path: Path) -> SimpleNamespace:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    released: dict[str, State] = {}
    for name, array in arrays.items():
        if name.startswith("state/"):
            key = name.removeprefix("state/")
            plain = key.startswith("params/") or "/" not in key
            section, _, rest = ("", "", key) if plain else key.partition("/")
            released.setdefault(section, {})[rest] = torch.from_numpy(array)
    meta = json.loads(arrays["meta"].tobytes())
    return SimpleNamespace(
        name=path.stem,
        config=meta["config"],
        readout=meta["readout"],
        released=released,
        clip=as_clip(arrays["clip_uint8"]),
        hidden=[arrays[name] for name in sorted(arrays) if name.startswith("hidden_")],
        arrays=arrays,
    )


def as_clip(frames: np.ndarray) -> Tensor:
    """[B, F, Y, X, C] bytes as [B, F, C, Y, X] in [0, 1]."""
    return torch.from_numpy(np.moveaxis(frames, -1, 2).astype(np.float32) / 255)


@pytest.fixture(scope="session")
def distance() -> Callable[[Tensor, np.ndarray], float]:
    """Max |difference| over the reference's standard deviation, axes flattened alike."""

    def measure(found: Tensor, reference: np.ndarray) -> float:
        flat = found.numpy().reshape(reference.shape)
        return float(np.abs(flat - reference).max() / reference.std())

    return measure


@pytest.fixture(scope="session")
def last_tokens() -> Callable[[Backbone, Tensor], Tensor]:
    """What a backbone gives of a clip by default, in float32."""

    def run(backbone: Backbone, clip: Tensor) -> Tensor:
        layer = backbone.info.last_layer
        return backbone.load((layer,), CPU, torch.float32)(clip)[layer]

    return run


CheckLayers = Callable[[Any, SimpleNamespace, Sequence[np.ndarray], float], None]


@pytest.fixture(scope="session")
def check_every_layer(distance: Callable[[Tensor, np.ndarray], float]) -> CheckLayers:
    """Of a model with a final norm: every layer, all in one pass, is the reference's, given by block."""

    def check(backbone: Any, golden: SimpleNamespace, hidden: Sequence[np.ndarray], tolerance: float) -> None:
        depth = backbone.size.depth
        layers = (*(Layer(block) for block in range(depth + 1)), Layer(depth, normed=True))
        found = backbone.load(layers, CPU, torch.float32)(golden.clip)
        assert tuple(found) == layers
        for layer in layers[:-1]:
            assert distance(found[layer], hidden[layer.block]) < tolerance, (golden.name, layer)
        assert found[layers[-1]].shape == (len(golden.clip), *backbone.info.grid.shape)
        assert found[layers[-1]].dtype == torch.float32
        assert distance(found[layers[-1]], golden.arrays["features"]) < tolerance, golden.name

    return check


@pytest.fixture(
    params=[{"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}, {"mean": None, "std": None}],
    ids=["half", "none"],
)
def wrong_pixels(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Makes a backbone normalise pixels as another one does."""
    return lambda backbone: replace(backbone, info=replace(backbone.info, **request.param))


@pytest.fixture
def record_keys(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Watches backbones open weight files: the list grows by each key whose tensor is read."""

    def watch() -> list[str]:
        asked: list[str] = []

        @contextmanager
        def recording(path: Path, **options: Any) -> Iterator[TensorFile]:
            with open_tensors(path, **options) as file:

                def read(key: str) -> Tensor:
                    asked.append(key)
                    return file.read(key)

                yield replace(file, read=read)

        monkeypatch.setattr(encoder, "open_tensors", recording)
        return asked

    return watch


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Registers a model as one whose files' digests nobody knows: the test writes files of its own."""

    def register(name: str) -> None:
        model = BACKBONES[name]
        assert model.release is not None
        monkeypatch.setitem(BACKBONES, name, replace(model, release=replace(model.release, digests={})))

    return register


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Names and shapes of a released file's tensors."""

    shapes: Mapping[str, tuple[int, ...]]
    n_params: int


@pytest.fixture(scope="session")
def released_listing(shared: Path) -> Callable[[str], Listing]:
    """Reads `golden/keys/<name>.json`."""

    def read(name: str) -> Listing:
        listing = json.loads((shared / f"golden/keys/{name}.json").read_text())
        shapes = {key: tuple(shape) for key, shape in listing["shapes"].items()}
        return Listing(shapes=shapes, n_params=listing["n_params"])

    return read


@pytest.fixture(scope="session")
def check_published() -> Callable[..., None]:
    """Holds what follows from a model's sizes against published counts, to their digits."""

    def check(
        info: BackboneInfo,
        params_m: float,
        gflop: float,
        grid: tuple[int, int, int, int],
        megabytes: float,
        *,
        at: Mapping[float, int] | None = None,
    ) -> None:
        assert info.params_m == pytest.approx(params_m, abs=0.006)
        assert info.gflop == pytest.approx(gflop, abs=0.5)
        assert info.grid.shape == grid
        assert info.grid.nbytes / 1e6 == pytest.approx(megabytes, abs=0.006)
        for fraction, block in (at or {}).items():
            assert block_at_fraction(fraction, info.n_blocks) == block

    return check


@pytest.fixture(scope="session")
def golden(shared: Path) -> SimpleNamespace:
    """`golden/backbones/videomae.npz`; `clip` is [B, F, C, Y, X] in [0, 1]."""
    with np.load(shared / "golden/backbones/videomae.npz", allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(arrays["meta"].tobytes())
    return SimpleNamespace(
        state={
            k.removeprefix("state/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("state/")
        },
        config={**meta["config"], "model_type": "videomae"},
        clip=torch.from_numpy(np.moveaxis(arrays["clip_uint8"], -1, 2).astype(np.float32) / 255),
        pixel_values=arrays["pixel_values"],
        positions=arrays["pos_embed"][0],
        hidden=[arrays[name] for name in sorted(arrays) if name.startswith("hidden_")],
        features=arrays["features"],
        after_blocks={key: entry["after_blocks"] for key, entry in meta["readout"].items()},
    )


@pytest.fixture
def golden_folder(golden: SimpleNamespace, save_model: Save, tmp_path: Path) -> Path:
    """The golden model on disk, in the released layout."""
    return save_model(tmp_path / "golden", golden.state, golden.config)
