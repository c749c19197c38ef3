"""Sizes: counts by hand for small ones, JSON for the fingerprint, and sizes that cannot be."""

import json
from dataclasses import replace
from typing import Any

import pytest

from featcache.backbones.sizes import (
    DINOV2_SIZES,
    DINOV3_SIZES,
    VIDEOPRISM_SIZES,
    VJEPA2_SIZES,
    BlockSize,
    Vjepa2Size,
    size_entry,
)
from featcache.errors import CallError

BLOCK = BlockSize(width=4, heads=2, mlp=6)
SIZE = Vjepa2Size(block=BLOCK, depth=3, patch=(2, 2, 2), input_size=(4, 6), n_frames=4)


def test_a_block_counted_by_hand() -> None:
    # 4 projections of 4 x 4 and their biases, 4 x 6 + 6 and 6 x 4 + 4 of the MLP, two norms.
    assert BLOCK.n_params == 4 * (16 + 4) + 30 + 28 + 16
    assert replace(BLOCK, biases="qv").n_params == BLOCK.n_params - 4
    assert replace(BLOCK, gated=True).n_params == BLOCK.n_params + 30
    assert replace(BLOCK, scaled=True).n_params == BLOCK.n_params + 8
    # 10 tokens: 4 x 16 + 2 x 24 each, and 10 x 10 x 4 twice.
    assert BLOCK.multiply_adds(10) == 10 * 112 + 800


def test_a_model_counted_by_hand() -> None:
    assert SIZE.grid.shape == (2, 2, 3, 4)
    assert SIZE.n_params == (3 * 8 + 1) * 4 + 3 * BLOCK.n_params + 8
    assert SIZE.gflop == pytest.approx(2e-9 * (12 * 24 * 4 + 3 * BLOCK.multiply_adds(12)))


def test_stages_of_videoprism() -> None:
    assert {name: size.spatial_depth for name, size in VIDEOPRISM_SIZES.items()} == {
        "videoprism_b": 12,
        "videoprism_l": 24,
        "videoprism_g": 40,
    }


def test_what_no_key_shape_tells() -> None:
    # A wrong number of heads or another eps loads as well and gives other tokens.
    families = (DINOV2_SIZES, VIDEOPRISM_SIZES, VJEPA2_SIZES, DINOV3_SIZES)
    heads = [[size.block.heads for size in sizes.values()] for sizes in families]
    assert heads == [[6, 12, 16, 24], [12, 16, 16], [16, 16, 22, 22], [6, 12, 16, 20, 32]]
    eps = [{size.block.eps for size in sizes.values()} for sizes in families]
    assert eps == [{1e-6}, {1e-6}, {1e-6}, {1e-5}]
    assert {size.soft_cap for size in VIDEOPRISM_SIZES.values()} == {50.0}
    assert {size.registers for size in DINOV3_SIZES.values()} == {4}


def test_entries_are_plain_json() -> None:
    for size in (SIZE, DINOV2_SIZES["dinov2_g"], VIDEOPRISM_SIZES["videoprism_l"]):
        entry = size_entry(size)
        assert json.loads(json.dumps(entry)) == entry
    assert size_entry(SIZE)["patch"] == [2, 2, 2]


@pytest.mark.parametrize("change", [{"heads": 3}, {"width": 0}, {"mlp": 0}])
def test_blocks_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(CallError, match="multiple of the heads"):
        replace(BLOCK, **change)


@pytest.mark.parametrize("change", [{"input_size": (5, 6)}, {"n_frames": 3}])
def test_patches_that_do_not_divide(change: dict[str, Any]) -> None:
    with pytest.raises(CallError, match="do not divide"):
        replace(SIZE, **change)
