"""Tokens come to the host as a store has them, in memory that is used again."""

import numpy as np
import pytest
import torch

from featcache.extract.host_tokens import HostTokens
from featcache.spec import Layer
from featcache.store.dtypes import quantize

CPU, LAYER, OTHER = torch.device("cpu"), Layer(3), Layer(7)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


def passes(n: int, device: torch.device = CPU) -> list[dict[Layer, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes = {LAYER: (3, 2, 2, 2, 5), OTHER: (3, 1, 2, 2, 5)}
    return [
        {
            layer: torch.randn(shape, generator=generator).mul(100).to(device)
            for layer, shape in shapes.items()
        }
        for _ in range(n)
    ]


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=GPU)])
def test_tokens_of_a_pass_are_good_until_two_passes_later(device: torch.device) -> None:
    taker, given = HostTokens(device, quantised=False), passes(4, device)
    addresses: list[int] = []
    before = taker.begin(given[0])
    for number in range(1, 4):
        begun = taker.begin(given[number])
        for layer, (found,) in before.arrived().items():
            assert np.array_equal(found, given[number - 1][layer].half().cpu().numpy())
        addresses.append(before.arrived()[LAYER][0].ctypes.data)
        before = begun
    assert addresses[0] == addresses[2] != addresses[1]


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=GPU)])
def test_quantised_tokens_have_the_bits_that_the_writer_gives_them(device: torch.device) -> None:
    (given,) = passes(1, device)
    found = HostTokens(device, quantised=True).begin(given).arrived()
    for layer, tokens in given.items():
        levels, scales = found[layer]
        for clip, rounded in enumerate(tokens.half().cpu().numpy()):
            wanted = quantize(rounded)
            assert np.array_equal(levels[clip], wanted.levels)
            assert np.array_equal(scales[clip], wanted.scales)


def test_what_does_not_fit_becomes_infinite() -> None:
    (given,) = passes(1)
    given[LAYER][1, 0, 0, 0, 2] = -1e6
    (found,) = HostTokens(CPU, quantised=False).begin(given).arrived()[LAYER]
    assert np.argwhere(np.isinf(found)).tolist() == [[1, 0, 0, 0, 2]]
