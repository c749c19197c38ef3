"""The size of a batch, from the memory that two trial passes took."""

import pytest
import torch

from featcache.extract.batch_size import MOST, ON_CPU, Trial, chosen_batch, fitting_batch, useful_batch

GB = 10**9


@pytest.mark.parametrize(
    ("peaks", "free", "batch"),
    [
        # 1 GB and 2 GB a clip: 0.8 x 80 = 64 >= 1 + 2 x 31.5, so 16 (33 GB) fits and 32 (65 GB) does not.
        ((3 * GB, 5 * GB), 80 * GB, 16),
        # Exactly: 1 + 2 x 16 = 33 = 0.8 x 41.25.
        ((3 * GB, 5 * GB), 41 * GB + GB // 4, 16),
        ((3 * GB, 5 * GB), 41 * GB, 8),
        # A batch costs nothing, or less than a clip: never more than there is to fill.
        ((GB, GB), 80 * GB, MOST),
        ((5 * GB, 3 * GB), 80 * GB, MOST),
        # Steeper than through nothing: a line through 0.
        ((GB, 4 * GB), 80 * GB, 32),
        # Not even one clip: one is tried all the same, and running out of memory says so.
        ((3 * GB, 5 * GB), GB, 1),
    ],
)
def test_the_largest_power_of_two_that_fits(peaks: tuple[int, int], free: int, batch: int) -> None:
    small, large = Trial(batch=1, peak=peaks[0]), Trial(batch=2, peak=peaks[1])
    assert fitting_batch(small, large, free=free) == batch


def test_a_batch_is_no_larger_than_what_a_shard_holds() -> None:
    small, large = Trial(batch=1, peak=1), Trial(batch=2, peak=2)
    assert [fitting_batch(small, large, free=GB, most=most) for most in (1, 31, 32, 108)] == [1, 16, 32, 64]


def test_a_cpu_is_not_tried() -> None:
    def refuse(batch: int) -> None:
        raise AssertionError(f"a pass of {batch}")

    assert chosen_batch(refuse, torch.device("cpu")) == ON_CPU


@pytest.mark.parametrize(
    ("inputs", "tokens", "batch"),
    [
        # ViT-B and larger on fly: 1,568 tokens a clip, so that 11 are busy enough, as a power of two 16.
        (96, 1568, 16),
        (64, 1568, 16),
        # Small tokens fill a shard late: then an eighth is more.
        (1024, 1568, 128),
        # An image model's 16 frames have 4,096 tokens.
        (20, 4096, 4),
        # A shard that holds no more is one pass.
        (8, 1568, 8),
        (1, 10, 1),
        (0, 4096, 1),
    ],
)
def test_an_eighth_of_a_shard_if_that_keeps_a_device_busy(inputs: int, tokens: int, batch: int) -> None:
    assert useful_batch(inputs, tokens) == batch
