"""A small 4DS of made-up weights in the released layout, in a user's file, and stores of its tokens."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import app
from featcache.backbones import load_backbone
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.system.console import silent
from readouts.tasks import load_task
from readouts.training.run import Run
from readouts.training.settings import configure
from readouts.tuning.opening import Asked, open_run_splits
from readouts.tuning.wish import Wish

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

SETTINGS = ("steps=12", "minival_every=4", "batch=4", "lr=0.02", "width=16", "heads=2", "dropout=0.1")


@dataclass(frozen=True)
class Place:
    """Where the small world lies."""

    root: Path
    data: Path

    @property
    def cache(self) -> Path:
        return self.root / "features"

    @property
    def backbone(self) -> str:
        return f"{self.root / 'model.py'}:BACKBONE"

    def scivid(self, *words: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def extract(self, *more: object) -> None:
        code, said = self.scivid(
            "extract", "--backbone", self.backbone, "--task", "flyvsfly", "--data-dir", self.data,
            "--cache-dir", self.cache, *more,
        )  # fmt: skip
        assert code == 0, said

    def asked(self, **change: Any) -> Asked:
        default = Asked(
            backbone=self.backbone, layer="3", fingerprint=None, roles=("train", "val"),
            cache_dir=self.cache, weights_dir=None, data_dir=self.data, extract="scivid extract ...",
        )  # fmt: skip
        return replace(default, **change)

    def run(self, wish: Wish | None, settings: tuple[str, ...] = (), seed: int = 0, **change: Any) -> Run:
        known = load_manifest()
        task = load_task("flyvsfly", known)
        splits, tuning = open_run_splits(self.asked(**change), task, known, wish, silent)
        return configure(task, splits, settings=(*SETTINGS, *settings), seed=seed, tuning=tuning)


@pytest.fixture(scope="session")
def place(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Stores of train (two views) and val with layers 1, 2 and 3; for reading only."""
    made = Place(tmp_path_factory.mktemp("tuning"), tiny_data)
    (made.root / "model.py").write_text(MODEL)
    backbone = load_backbone(made.backbone)
    draw = np.random.default_rng(0)
    shapes = backbone.own.key_map({}).shapes  # type: ignore[attr-defined]
    arrays: dict[str, Any] = {key: draw.normal(0, 0.3, s).astype(np.float32) for key, s in shapes.items()}
    np.savez(made.root / "scaling4d_x.npz", **arrays)
    assert Layer(3) in backbone.info.default_layers
    made.extract("--layers", "1,2,3", "--views", "2", "--split", "train,val")
    return made
