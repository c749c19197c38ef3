"""Random weights: pinned bits, and the scale they promise."""

import numpy as np
import pytest
import torch

from featcache.backbones.weights.random import random_tensors, tensors_digest

SHAPES = {
    "dense.weight": (64, 96),
    "dense.bias": (64,),
    "layernorm.weight": (64,),
    "conv.weight": (32, 3, 2, 8, 8),
}


def test_bits_are_pinned() -> None:
    # A change here changes every store that was made with random weights.
    values = random_tensors({"layer.0.query.weight": (2, 3)}, seed=0)["layer.0.query.weight"]
    assert [value.hex() for value in values.flatten().tolist()[:2]] == PINNED
    assert tensors_digest(random_tensors(SHAPES, seed=0)) == DIGEST


def test_scales() -> None:
    tensors = random_tensors(SHAPES, seed=0)
    assert torch.equal(tensors["dense.bias"], torch.zeros(64))
    assert torch.equal(tensors["layernorm.weight"], torch.ones(64))
    for name, fan_in in (("dense.weight", 96), ("conv.weight", 3 * 2 * 8 * 8)):
        values = tensors[name]
        assert values.shape == SHAPES[name] and values.dtype == torch.float32
        assert values.std().item() == pytest.approx(fan_in**-0.5, rel=0.03)
        assert abs(values.mean().item()) < 0.03 * fan_in**-0.5
        assert values.abs().max().item() <= (3 / fan_in) ** 0.5


def test_draws_depend_on_name_and_seed_only() -> None:
    whole = random_tensors(SHAPES, seed=0)
    alone = random_tensors({"dense.weight": (64, 96)}, seed=0)
    assert torch.equal(whole["dense.weight"], alone["dense.weight"])
    other_name = random_tensors({"other.weight": (64, 96)}, seed=0)["other.weight"]
    other_seed = random_tensors({"dense.weight": (64, 96)}, seed=1)["dense.weight"]
    for other in (other_name, other_seed):
        assert abs(np.corrcoef(other.flatten(), alone["dense.weight"].flatten())[0, 1]) < 0.05


def test_digest_sees_names_shapes_and_values() -> None:
    values = torch.arange(6.0)
    digests = {
        tensors_digest({"a": values}),
        tensors_digest({"b": values}),
        tensors_digest({"a": values.reshape(2, 3)}),
        tensors_digest({"a": values + 1}),
    }
    assert len(digests) == 4
    assert tensors_digest({"a": values, "b": values}) == tensors_digest({"b": values, "a": values})


PINNED = ["-0x1.e187420000000p-1", "0x1.1067ce0000000p-1"]
DIGEST = "50b420f2ccf0d60fe7cc676cf19c79cc46c47d51488f21374b5336c2026cfb56"
