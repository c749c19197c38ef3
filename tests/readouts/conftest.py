"""A small run on made-up features, for the tests of what a run is and of training it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.manifest import load_manifest
from readouts.features.find import open_task_splits
from readouts.results.table import SCHEMA
from readouts.tasks import load_task
from readouts.training.loop import train
from readouts.training.run import Run
from readouts.training.settings import configure
from tests.readouts.own_dots import Dots, make_dots
from tests.readouts.own_lab import Lab, make_lab

SETTINGS = ["steps=40", "minival_every=10", "batch=16", "lr=0.05", "width=16", "heads=2", "dropout=0.1"]


_NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=_NEEDS_GPU)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, then the GPU if there is one."""
    return torch.device(request.param)


@pytest.fixture
def settings() -> list[str]:
    """Those of the run."""
    return list(SETTINGS)


@pytest.fixture
def run(make_split_in, tmp_path: Path) -> Run:
    """Tokens whose channel c says class c, and a little noise, in `tmp_path/features`."""
    return _run(make_split_in, tmp_path / "features")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that was trained, where its stores lie, and what came of it."""

    run: Run
    features: Path
    results: Path
    rows: list[dict[str, Any]]


@pytest.fixture(scope="session")
def trained(make_split_in, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same run, trained once for all tests: they copy the results before they change them."""
    folder = tmp_path_factory.mktemp("trained")
    run = _run(make_split_in, folder / "features")
    command, cpu = "scivid train-readout ...", torch.device("cpu")
    rows = train(run, results_dir=folder / "results", device=cpu, command=command)
    return Trained(run=run, features=folder / "features", results=folder / "results", rows=rows)


def _run(make_split_in, cache: Path) -> Run:
    rng = np.random.default_rng(0)
    for role, n in (("train", 48), ("val", 24), ("test", 12)):
        labels = rng.integers(2, size=(n, 7))
        tokens = rng.normal(scale=0.1, size=(n, 1, 2, 2, 2, 8))
        tokens[..., :7] += labels[:, None, None, None, None]
        make_split_in(cache, role, tokens, labels)
    task = load_task("flyvsfly", load_manifest())
    splits = open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"))
    return configure(task, splits, settings=SETTINGS, seed=3)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A readout of a lab's own videos, trained once for all tests; for reading only."""
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Dots:
    """Videos of dots and a tracker, for reading only."""
    return make_dots(tmp_path_factory.mktemp("tracked"))


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    """Makes a row of the results table; what is not said is as in every other one."""

    def make(**given: Any) -> dict[str, Any]:
        recipe = {"lr": 1e-3, "steps": 10, **given.pop("recipe", {})}
        config = given.pop("config", {})
        row: dict[str, Any] = {
            **dict.fromkeys(SCHEMA.names), "run": "a", "task": "flyvsfly", "task_spec": "flyvsfly",
            "backbone": "toy", "backbone_title": "a toy", "layer": "1", "readout": "linear", "seed": 0,
            "metric": "mean_AP", "higher_is_better": True, "val": 0.5, "exactness": "exact", "views": 1,
            "finished": datetime(2026, 1, 1, tzinfo=UTC), "seconds": 2.0, "command": "scivid ...",
            "targets": "{}", "train_fingerprint": "t", "val_fingerprint": "v", **given,
        }  # fmt: skip
        return {**row, "recipe": json.dumps(recipe), "readout_config": json.dumps(config)}

    return make


@pytest.fixture
def flips() -> Callable[..., Iterator[int]]:
    """A file with one bit flipped, another one each time; whole again at the end."""

    def each(path: Path, n: int = 24) -> Iterator[int]:
        content, rng = path.read_bytes(), np.random.default_rng(0)
        for at in rng.integers(len(content), size=n).tolist():
            damaged = bytearray(content)
            damaged[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            yield at
        path.write_bytes(content)

    return each
