"""The measurement runs, and its two ways take the same step."""

from itertools import repeat

import numpy as np
import torch

from featcache.backbones.trainable import trainable
from featcache.spec import Layer
from readouts.features.batches import Batch
from tests.benchmarks.stores import N_CLASSES
from tests.benchmarks.tuning_step import TUNED, TunedRun, cached, deep, measure, online


def test_both_ways_take_the_same_step() -> None:
    cpu = torch.device("cpu")
    backbone = deep(1 + TUNED, cpu, small=True)
    lower = trainable(backbone, Layer(1), cpu)
    pixels = torch.rand(1, backbone.info.n_frames, 3, *backbone.info.input_size)
    labels = {"labels": torch.eye(1, N_CLASSES)}
    with torch.no_grad():
        stored = Batch(clips=np.zeros(1, np.int64), tokens=lower(pixels), targets=labels)
    found = []
    for take in (cached, lambda run, batches: online(run, batches, lower, pixels)):
        torch.manual_seed(0)
        run = TunedRun.of(backbone, cpu)
        take(run, repeat(stored, 1))
        found.append([*run.head.parameters(), *run.blocks.module.parameters()])
    assert len(found[0]) == len(found[1]) > 30
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_it_measures() -> None:
    assert [claim.target for claim in measure(small=True)] == [0.9, None]
