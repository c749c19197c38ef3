"""A small run on made-up features, for the tests of what a run is and of training it."""

from pathlib import Path

import numpy as np
import pytest

from featcache.manifest import load_manifest
from readouts.features import open_task_splits
from readouts.run import Run, configure
from readouts.tasks import load_task

SETTINGS = ["steps=40", "minival_every=10", "batch=16", "lr=0.05", "width=16", "heads=2", "dropout=0.1"]


@pytest.fixture
def settings() -> list[str]:
    """Those of the run."""
    return list(SETTINGS)


@pytest.fixture
def run(make_split, tmp_path: Path) -> Run:
    """Tokens whose channel c says class c, and a little noise."""
    rng = np.random.default_rng(0)
    for role, n in (("train", 48), ("val", 24), ("test", 12)):
        labels = rng.integers(2, size=(n, 7))
        tokens = rng.normal(scale=0.1, size=(n, 1, 2, 2, 2, 8))
        tokens[..., :7] += labels[:, None, None, None, None]
        make_split(role, tokens, labels)
    task = load_task("flyvsfly", load_manifest())
    splits = open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))
    return configure(task, splits, settings=SETTINGS, seed=3)
