"""Random weights in full-size models: the same in every process, cut short the same, no file looked for."""

import pytest
import torch

from featcache.backbones import BACKBONES
from featcache.backbones.encoder import PretrainedBackbone
from featcache.spec import Layer
from tests.benchmarks.random_backbones import random_backbone

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["videomae_b", "4ds_b_dist_e", "dinov2_s", "vjepa2_l", "videoprism_b"])
def test_a_short_one_gives_tokens_that_vary_and_are_drawn_again_the_same(name: str) -> None:
    backbone = random_backbone(name, CPU, depth=1)
    assert isinstance(backbone, PretrainedBackbone) and backbone.weights_digest() == "random"
    info = backbone.info
    pixels = torch.rand(1, info.n_frames, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens, again = (
        random_backbone(name, CPU, depth=1).load((Layer(0),), CPU, torch.float32)(pixels)[Layer(0)]
        for _ in range(2)
    )
    assert tokens.shape == (1, *info.grid.shape) and torch.equal(tokens, again)
    assert 0.01 < float(tokens.std()) < 100


def test_what_needs_no_file_comes_as_it_is() -> None:
    assert random_backbone("resize", CPU).weights_digest() != "random"
    assert random_backbone("4ds_e", CPU).info == BACKBONES["4ds_e"].info
