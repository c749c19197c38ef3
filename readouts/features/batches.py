"""Batches of a split on the device, read ahead of their use.

What is drawn at a step is a pure function of (seed, step), so a resumed run and one that never stopped see
the same batches, whatever the number of threads.

On a CPU heads get the mapped pages of the store's files, where these may be mapped: nothing is copied, and a
thread sees to it that the pages are in memory. Elsewhere batches are read into buffers. On their way to a GPU
one is copied while the next is read. What is preloaded is not read at all.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.buckets.path import BucketPath
from featcache.store.targets import Targets
from featcache.system.ahead import map_ahead
from readouts.features.draws import Draws
from readouts.features.preloaded import PreloadedTokens
from readouts.features.splits import FeatureSplit
from readouts.features.staging import (
    Mark,
    Parts,
    Rotation,
    as_tokens,
    beside,
    mark,
    pinned,
    received,
    sent,
    settle,
)
from readouts.tokens.prepared import Native, QuantizedTokens, ScatteredTokens, tensors_of

READ_AHEAD = 2
"""Batches being read while one is being used."""

AT_ONCE_FROM_A_BUCKET = 2
"""Batches whose requests are under way together: else all would wait for the slowest of each batch."""


Select = Callable[
    [Targets, Int64[np.ndarray, " B"], Int64[np.ndarray, " B"], np.random.Generator | None],
    dict[str, np.ndarray],
]
"""A task's choice of targets for clips and views (`readouts.tasks.base.Task.select`)."""


Wanted = tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"], np.random.Generator | None]
"""Clips and views of a batch, and the generator that draws from its targets; None in evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Clips of one split: their numbers, their tokens and their targets, the last two on the device."""

    clips: Int64[np.ndarray, " B"]
    tokens: Native | Float[Tensor, "B F rgb Y X"]
    """Pixels in [0, 1] where a backbone is trained from them."""
    targets: Mapping[str, Tensor]


Feed = Callable[[Select, Iterable[Wanted], torch.device], Iterator[Batch]]
"""Where the batches of a split come from that are not its tokens."""


def wanted_at(split: FeatureSplit, draws: Draws, step: int) -> Wanted:
    """Clips and views of one training step, and the generator that draws from their targets."""
    clips, views = draws.at(step)
    return split.clips_at(clips), views, np.random.default_rng([draws.seed, step])


def training_batches(
    split: FeatureSplit,
    select: Select,
    draws: Draws,
    steps: Iterable[int],
    device: torch.device,
    preloaded: PreloadedTokens | None = None,
    feed: Feed | None = None,
) -> Iterator[Batch]:
    """The batches of the given training steps, of the split's tokens or of what `feed` gives."""
    wanted = (wanted_at(split, draws, step) for step in steps)
    if feed is not None:
        return feed(select, wanted, device)
    return batches_of(split, select, wanted, device, preloaded)


def evaluation_batches(
    split: FeatureSplit,
    select: Select,
    batch: int,
    device: torch.device,
    limit: int | None = None,
    preloaded: PreloadedTokens | None = None,
    feed: Feed | None = None,
) -> Iterator[Batch]:
    """The first `limit` clips (None: all) in file order, at view 0; the last batch may be smaller.

    Of the split's tokens, or of what `feed` gives.
    """
    clips = split.first_usable(limit)
    parts = [clips[start : start + batch] for start in range(0, len(clips), batch)]
    wanted = ((part, np.zeros_like(part), None) for part in parts)
    if feed is not None:
        return feed(select, wanted, device)
    return batches_of(split, select, wanted, device, preloaded)


def batches_of(
    split: FeatureSplit,
    select: Select,
    wanted: Iterable[Wanted],
    device: torch.device,
    preloaded: PreloadedTokens | None = None,
) -> Iterator[Batch]:
    """Any batches of a split, in order; what is preloaded of them is taken from there.

    Tokens in a buffer are overwritten READ_AHEAD + 1 batches later, or by another loop after this one.

    Raises:
        StoreError: a chunk is damaged, or the targets are.
    """
    with (
        closing(Rotation(split, device, most=READ_AHEAD + 2)) as buffers,
        ThreadPoolExecutor(_readers(split), "read ahead") as reader,
    ):
        source = _Source(split, select, device, preloaded, buffers)
        try:
            for _, coming in map_ahead(reader, source.read, wanted, window=READ_AHEAD + 1):
                batch, native, marked = coming.result()
                received((*tensors_of(native), *batch.targets.values()), marked, device)
                yield batch
        finally:
            reader.shutdown(cancel_futures=True)
            settle(device)


def _readers(split: FeatureSplit) -> int:
    return AT_ONCE_FROM_A_BUCKET if isinstance(split.store.path, BucketPath) else 1


@dataclass(frozen=True)
class _Source:
    """Where batches come from; used by one thread, or a few."""

    split: FeatureSplit
    select: Select
    device: torch.device
    preloaded: PreloadedTokens | None
    buffers: Rotation

    def read(self, wanted: Wanted) -> tuple[Batch, Native, Mark | None]:
        """One batch, its tokens, and what marks their arrival on a GPU."""
        clips, views, rng = wanted
        split, held = self.split, self.preloaded
        if held is not None and not held.holds(clips, views):
            held = None
        targets = split.targets if held is None else held.targets
        chosen = {} if targets is None else self.select(targets, clips, views, rng)
        with beside(self.device):
            names = {name: pinned(torch.from_numpy(values), self.device) for name, values in chosen.items()}
            there = dict(zip(names, sent(names.values(), self.device), strict=True))
            tokens = self._read(clips, views) if held is None else held.batch(clips, views)
            batch = Batch(clips=clips.astype(np.int64), tokens=tokens, targets=there)
            return batch, tokens, mark(self.device)

    def _read(self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]) -> Native:
        mapped = mapped_tokens(self.split, clips, views) if self.device.type == "cpu" else None
        if mapped is not None:
            return mapped
        buffer = self.buffers.next(len(clips))
        parts = tuple(part[: len(clips)] for part in buffer.parts)
        read_into(parts, self.split, clips, views)
        there = sent(parts, self.device)
        # The buffer is free again only when the copies have left it.
        buffer.copied = mark(self.device)
        return as_tokens(there)


def mapped_tokens(
    split: FeatureSplit, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
) -> Native | None:
    """Tokens as the pages of the store's files, nothing copied but the scales; None where that may not be.

    Raises:
        StoreError: a chunk is damaged.
    """
    found = split.store.read_mapped(clips, views=views, layer=split.layer)
    if found is None:
        return None
    values, *scales = ([torch.from_numpy(np.asarray(_Unguarded(piece))) for piece in of] for of in found)
    per_clip = len(values) // len(clips)
    tokens = ScatteredTokens(pieces=[piece.flatten(1, 2) for piece in values], pieces_per_clip=per_clip)
    if not scales:
        return tokens
    of_tokens = rearrange(torch.stack(scales[0]), "(b k) t h w -> b (k t) (h w)", k=per_clip)
    return QuantizedTokens(values=tokens, scales=of_tokens)


class _Unguarded:
    """An array said to be writable, as torch, which has no other kind, warns of those that are not."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def read_into(
    parts: Parts, split: FeatureSplit, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
) -> None:
    """Fill host memory of as many rows as there are clips with tokens as stored.

    Raises:
        StoreError: a chunk is damaged.
    """
    store, arrays = split.store, [part.numpy() for part in parts]
    if store.spec.dtype == "int8":
        store.read_quantized(clips, views=views, layer=split.layer, out=(arrays[0], arrays[1]))
    else:
        store.read(clips, views=views, layer=split.layer, out=arrays[0])
