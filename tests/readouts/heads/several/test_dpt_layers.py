"""DPT over depths: coarse maps of deep layers."""

import pytest
import torch

from featcache.errors import CallError
from tests.readouts.heads.several.of_layers import head_of


def test_coarse_maps_are_of_deep_layers_and_fine_ones_of_shallow_layers() -> None:
    head = head_of("dpt_layers", n_layers=2)
    seen: list[float] = []
    for module in head.get_submodule("of_one.decoder.reassemble").children():
        module.register_forward_pre_hook(lambda _, given: seen.append(float(given[0].mean())))
    head([torch.full((1, 2, 4, 12), 1.0), torch.full((1, 2, 4, 12), 2.0)])
    assert seen == [2.0, 2.0, 1.0, 1.0]
    with pytest.raises(CallError, match="at most as many layers, not 5"):
        head_of("dpt_layers", n_layers=5)
