from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from readouts.sweeps.plan import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(
        cache_dir=tmp_path / "features", results_dir=tmp_path / "results", manifest=load_manifest()
    )


@pytest.fixture
def stores(make_split: Callable[..., FeatureStore]) -> None:
    """Tokens whose channel c says class c, and a little noise, of two tasks."""
    for task, n_classes in (("flyvsfly", 7), ("calms21", 4)):
        rng = np.random.default_rng(0)
        for role, n in (("train", 32), ("val", 16), ("test", 16)):
            labels = rng.integers(2, size=(n, n_classes))
            tokens = rng.normal(scale=0.1, size=(n, 1, 2, 2, 2, 8))
            tokens[..., :n_classes] += labels[:, None, None, None, None]
            make_split(role, tokens, labels, task=task)
