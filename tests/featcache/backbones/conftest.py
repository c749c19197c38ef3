"""A VideoMAE small enough to write to disk in a test: the golden one, and one with made-up weights."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

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
