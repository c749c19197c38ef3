"""Sizes: counts by hand for small ones, JSON for the fingerprint, and sizes that cannot be."""

import json
from dataclasses import replace
from typing import Any

import pytest

from featcache.backbones import BACKBONES
from featcache.backbones.sizes import BlockSize, ViTSize, size_entry
from featcache.errors import CallError

BLOCK = BlockSize(width=4, heads=2, mlp=6)
SIZE = ViTSize(block=BLOCK, depth=3, patch=(2, 2, 2), input_size=(4, 6), n_frames=4)


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


def test_entries_are_plain_json() -> None:
    for size in (SIZE, *(BACKBONES[name].size for name in ("dinov2_g", "videoprism_l", "4ds_e"))):
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


@pytest.mark.parametrize("table", [(0, 14, 14), (8, 14, -1)])
def test_a_table_without_entries_is_refused(table: tuple[int, int, int]) -> None:
    with pytest.raises(CallError, match="must be positive"):
        replace(BACKBONES["4ds_l"].size, table=table)
