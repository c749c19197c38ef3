"""A training split preloaded into the memory of the device that trains: read once, then never from disk.

On a GPU it saves the copy of every batch. On a CPU the page cache does nearly the same, unless the stores
lie on a network or are evicted by other work; there it has to be asked for.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from featcache.errors import CallError
from featcache.system.console import Progress
from readouts.features.batches import Batch, Buffer, Select, as_tokens, new_buffer, read_into, wanted_at
from readouts.features.draws import Draws
from readouts.features.splits import FeatureSplit
from readouts.tokens.prepared import Native

PreloadChoice = Literal["auto", "yes", "no"]

SHARE_OF_FREE_MEMORY = 0.5
"""What `auto` takes at most: heads, their gradients and evaluation need the rest."""

CLIPS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class PreloadedTokens:
    """Tokens of all usable clips and views of a split, on the device."""

    stored: Buffer
    """A row per clip and view, as stored, so that heads see the numbers that reading gives them."""
    n_views: int
    row_of: Int64[np.ndarray, " clips"]
    """Clip number -> row of its first view, or -1 where the clip is not used."""
    _last: list[Buffer] = field(default_factory=list, repr=False)
    """Memory of the last batch on a CPU, where fresh pages cost more than the copy."""

    @property
    def device(self) -> torch.device:
        """The device that holds the tokens."""
        return self.stored[0].device

    def batch(self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]) -> Native:
        """The tokens of some clips, each at its view; on a CPU the next call overwrites them."""
        rows = _sent(self.row_of[clips] + views, self.device)
        if self.device.type != "cpu":
            return as_tokens(tuple(part[rows] for part in self.stored))
        if not self._last or len(self._last[0][0]) != len(rows):
            self._last[:] = [tuple(part.new_empty(len(rows), *part.shape[1:]) for part in self.stored)]
        pairs = zip(self.stored, self._last[0], strict=True)
        return as_tokens(tuple(torch.index_select(part, 0, rows, out=out) for part, out in pairs))


def preloaded_batches(
    preloaded: PreloadedTokens, split: FeatureSplit, select: Select, draws: Draws, steps: Iterable[int]
) -> Iterator[Batch]:
    """The batches that `readouts.features.batches.training_batches` would read, from memory."""
    for step in steps:
        clips, views, rng = wanted_at(split, draws, step)
        rows = {} if split.targets is None else select(split.targets, clips, views, rng)
        targets = {name: _sent(values, preloaded.device) for name, values in rows.items()}
        yield Batch(clips=clips, tokens=preloaded.batch(clips, views), targets=targets)


def _sent(values: np.ndarray, device: torch.device) -> Tensor:
    """On the device. A GPU is not waited for: while it works on a step, the next one is made ready."""
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def preloaded_bytes(split: FeatureSplit) -> int:
    """Bytes that the tokens of a split take in memory."""
    spec = split.store.spec
    # The grid counts float16: int8 takes half of it, and a float32 scale per token.
    of_a_view = spec.grid.nbytes
    if spec.dtype == "int8":
        of_a_view = of_a_view // 2 + 4 * spec.grid.steps * spec.grid.tokens_per_step
    return len(split.usable) * split.n_views * of_a_view


def preload_choice(wish: str) -> PreloadChoice:
    """The value of `--resident` as it was written.

    Raises:
        CallError: it is none of the choices, which are named.
    """
    known: dict[str, PreloadChoice] = {name: name for name in get_args(PreloadChoice)}
    if wish not in known:
        raise CallError(f"--resident {wish}: one of {', '.join(known)}.")
    return known[wish]


def preload(
    split: FeatureSplit, device: torch.device, wish: PreloadChoice, progress: Progress
) -> PreloadedTokens | None:
    """The split in memory if that is wished for and it fits; None where batches are read from disk.

    Raises:
        CallError: `wish` is unknown, or "yes" and the split does not fit.
        StoreError: a chunk is damaged.
    """
    wish = preload_choice(wish)
    if wish == "no" or (wish == "auto" and device.type != "cuda"):
        return None
    needed, free = preloaded_bytes(split), free_memory(device)
    if needed > SHARE_OF_FREE_MEMORY * free:
        if wish == "auto":
            return None
        raise CallError(
            f"--resident yes: {split.store.path.name} takes {needed / 1e9:,.1f} GB and {device} has "
            f"{free / 1e9:,.1f} GB free, half of which may be used: read it from disk (--resident no)."
        )
    return _load(split, device, progress)


def _load(split: FeatureSplit, device: torch.device, progress: Progress) -> PreloadedTokens:
    usable, n_views = split.usable, split.n_views
    stored = new_buffer(split, len(usable) * n_views, device=device)
    read = new_buffer(split, CLIPS_AT_ONCE * n_views)
    row_of = np.full(split.store.spec.n_clips, -1, np.int64)
    row_of[usable] = n_views * np.arange(len(usable))
    for at in range(0, len(usable), CLIPS_AT_ONCE):
        clips = usable[at : at + CLIPS_AT_ONCE]
        n_rows, first = len(clips) * n_views, at * n_views
        buffer = tuple(part[:n_rows] for part in read)
        read_into(buffer, split, np.repeat(clips, n_views), np.tile(np.arange(n_views), len(clips)))
        for part, rows in zip(stored, buffer, strict=True):
            part[first : first + n_rows].copy_(rows)
        progress("reading into memory", at + len(clips), len(usable))
    return PreloadedTokens(stored=stored, n_views=n_views, row_of=row_of)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        # What torch holds for later is free to us: after a sweep's first pass that is nearly everything.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
