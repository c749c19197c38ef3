"""A small 4DS of made-up weights in the released layout, defined in a user's file: what tests tune."""

from pathlib import Path
from typing import Any

import numpy as np

from featcache.backbones import load_backbone

MODEL = """
from pathlib import Path
from featcache.backbones.model import vit_info
from featcache.backbones.families.fourds import FourDS
from featcache.backbones.sizes import BlockSize, VideoViTSize

SIZE = VideoViTSize(
    block=BlockSize(width=12, heads=2, mlp=20), depth=5, patch=(2, 8, 8), input_size=(16, 16), n_frames=16,
    positions="stored", gelu="tanh", final_norm=False,
)
BACKBONE = FourDS(
    info=vit_info("small", "fourds", SIZE), size=SIZE,
    file=lambda: Path(__file__).with_name("scaling4d_x.npz"),
)
"""
"""Readouts see it behind its third block of five."""


def write_model(folder: Path) -> str:
    """Write the model's file and its weights; returns what `--backbone` is given."""
    named = f"{folder / 'model.py'}:BACKBONE"
    (folder / "model.py").write_text(MODEL)
    draw = np.random.default_rng(0)
    shapes = load_backbone(named).own.key_map({}).shapes  # type: ignore[attr-defined]
    arrays: dict[str, Any] = {key: draw.normal(0, 0.3, s).astype(np.float32) for key, s in shapes.items()}
    np.savez(folder / "scaling4d_x.npz", **arrays)
    return named
