"""How many clips fit into one forward pass: two trial passes, a straight line, the largest power of two.

The number is chosen once a store and kept in it: another batch meets other kernels, whose sums differ in
their last bits, and a store that was killed and resumed is to be the same as one that was not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from featcache.system.device import free_memory

ON_CPU = 8
MOST = 256
"""Clip views; more gain nothing on any GPU we measured."""

SHARE = 0.8
"""Share of the free memory to use: allocators break it to pieces, and the next clips take some meanwhile."""

BATCHES_OF_A_SHARD = 8
"""Batches to a shard, roughly: a GPU begins when an eighth of one is decoded and ends an eighth after the
last clip was, batches that are made ahead stay small, and a shard's last one has little padding.
"""

BUSY_TOKENS = 2**14
"""Tokens of a pass that keep a large GPU busy: a block's narrowest products (768 channels and more) are then
128 x 3 tiles of 128 x 256 and more, three for each of an H200's 132 processors. Fewer leave the last round of
tiles half empty; by counting, not measured.
"""

TRIALS = (1, 2)
"""Clip views of the two trial passes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What one forward pass took beside the weights."""

    batch: int
    peak: int
    """Bytes of the device's memory."""

    def __post_init__(self) -> None:
        assert self.batch >= 1 and self.peak >= 0


def fitting_batch(small: Trial, large: Trial, *, free: int, most: int = MOST) -> int:
    """The largest power of two, `most` at the most, whose pass stays within `SHARE` of `free` bytes.

    The peak grows with the batch along the line through two trials, or from nothing, whichever is steeper at
    the larger one: a first part that does not grow is believed, memory that a batch gives back is not.
    """
    assert small.batch < large.batch
    slope = max((large.peak - small.peak) / (large.batch - small.batch), 0.0)
    fixed = large.peak - slope * large.batch
    if fixed < 0:
        slope, fixed = large.peak / large.batch, 0.0
    batch = 1
    while 2 * batch <= most and fixed + slope * 2 * batch <= SHARE * free:
        batch *= 2
    return batch


def useful_batch(inputs_of_a_shard: int, tokens_each: int) -> int:
    """Inputs of a pass beyond which more gain nothing: an eighth of a shard, if these keep a device busy."""
    busy = 1
    while busy * tokens_each < BUSY_TOKENS:
        busy *= 2
    return max(1, min(inputs_of_a_shard, max(inputs_of_a_shard // BATCHES_OF_A_SHARD, busy)))


def chosen_batch(encode: Callable[[int], object], device: torch.device, *, most: int = MOST) -> int:
    """The batch for a model that is loaded: on a CPU `ON_CPU`, on a GPU what fits by two trial passes.

    Args:
        encode: one forward pass of so many clip views, its tokens given back.
        device: where the model is.
        most: what is of use, as `useful_batch` says.
    """
    if device.type != "cuda":
        return ON_CPU
    try:
        encode(TRIALS[0])  # libraries allocate what they keep
        small, large = (_trial(encode, device, batch) for batch in TRIALS)
    except torch.OutOfMemoryError:
        return 1
    return fitting_batch(small, large, free=free_memory(device), most=min(most, MOST))


def _trial(encode: Callable[[int], object], device: torch.device, batch: int) -> Trial:
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    encode(batch)
    return Trial(batch=batch, peak=torch.cuda.max_memory_allocated(device) - before)
