"""Stores of a small 4DS, in a user's file, that can be tuned."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from tests.tunable import write_model

SETTINGS = ("steps=12", "minival_every=4", "batch=4", "lr=0.02", "width=16", "heads=2", "dropout=0.1")


@dataclass(frozen=True)
class Place:
    """Where the small world lies."""

    root: Path
    data: Path
    task: str = "flyvsfly"

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
            "extract", "--backbone", self.backbone, "--task", self.task, "--data-dir", self.data,
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
        task = load_task(self.task, known)
        splits, tuning = open_run_splits(self.asked(**change), task, known, wish, silent)
        return configure(task, splits, settings=(*SETTINGS, *settings), seed=seed, tuning=tuning)


@pytest.fixture(scope="session")
def place(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Stores of train (two views) and val with layers 1, 2 and 3; for reading only."""
    made = Place(tmp_path_factory.mktemp("tuning"), tiny_data)
    backbone = load_backbone(write_model(made.root))
    assert Layer(3) in backbone.info.default_layers
    made.extract("--layers", "1,2,3", "--views", "2", "--split", "train,val")
    return made
