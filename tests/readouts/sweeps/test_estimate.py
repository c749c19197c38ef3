from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from readouts.features.splits import FeatureSplit
from readouts.sweeps.estimate import estimate
from readouts.tasks import load_task
from readouts.training.settings import configure
from readouts.training.tuning import Tuning


def test_what_is_alike_is_tuned_as_far(
    make_split: Callable[..., FeatureStore], make_row: Callable[..., dict[str, Any]]
) -> None:
    store = make_split("train", np.zeros((3, 1, 2, 2, 2, 4)), np.eye(3, 7))
    splits = {"train": FeatureSplit(store=store, layers=store.spec.layers)}
    task = load_task("flyvsfly", load_manifest())
    frozen = configure(task, splits, readouts=["linear"], settings=["steps=10"])
    tuning = Tuning(blocks=2, backbone_lr=0.1, layer=Layer(3), build=lambda device, rounds: None)
    tuned = replace(frozen, tuning=tuning)
    alike = {"backbone": "toy", "readout": "linear", "steps": 4, "together": 2}
    rows = [
        make_row(**alike, seconds=8.0),
        make_row(**alike, seconds=80.0, tuned="partial", tuned_blocks=2, backbone_lr=0.5),
    ]
    # 8 s of 4 steps were shared by two: a second a step and run.
    assert estimate([[frozen, frozen], [tuned]], rows) == (20.0 + 100.0, 0)
    one = replace(tuned, tuning=replace(tuning, blocks=1))
    assert estimate([[frozen, one], [frozen]], rows) == (10.0, 1)
