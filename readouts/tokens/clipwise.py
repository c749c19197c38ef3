"""Passes over a batch clip by clip, so that what is cast to float32 is used while it is still in cache.

A clip of 8 x 196 tokens is 4.8 MB in float32, a batch 154 MB: written down it would cost more than it saves.
A clip stays on one thread, so results do not depend on how many threads there are.
"""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.system.threads import parallel_map

_DEVICE_TILE_BYTES = 2**28
"""How much of a batch a GPU takes at once: a call costs it microseconds, worth many megabytes."""

Part = TypeVar("Part")
Work = Callable[[slice, Tensor], None]
"""What to do with some clips of a batch, given a tile [b T N C] of float32 to cast them into."""


def each(work: Callable[[Part], None], parts: Sequence[Part], device: torch.device) -> None:
    """Call `work` for all parts of a batch, without autograd: on a CPU side by side, each on one thread."""
    inferring = torch.is_inference_mode_enabled()

    def one(part: Part) -> None:
        # Modes belong to a thread.
        with torch.inference_mode(inferring), torch.no_grad():
            work(part)

    if device.type == "cpu":
        parallel_map(one, parts)
    else:
        for part in parts:
            one(part)


class Workspace:
    """Memory that the passes of a readout share, batch after batch: fresh pages cost ten times the cast."""

    def __init__(self) -> None:
        self._tiles: list[Tensor] = []
        self._buffers: dict[int, Tensor] = {}

    def run(self, work: Work, *, n_clips: int, clip: torch.Size, device: torch.device) -> None:
        """Call `work` for all clips, some at a time, without autograd; `clip` is the shape of one."""
        on_cpu = device.type == "cpu"
        at_once = 1 if on_cpu else min(n_clips, max(1, _DEVICE_TILE_BYTES // (4 * clip.numel())))
        chunks = [slice(i, min(i + at_once, n_clips)) for i in range(0, n_clips, at_once)]
        free: SimpleQueue[Tensor] = SimpleQueue()
        for tile in self._tiles_for((at_once, *clip), torch.get_num_threads() if on_cpu else 1, device):
            free.put(tile)

        def one(clips: slice) -> None:
            tile = free.get()
            try:
                work(clips, tile[: clips.stop - clips.start])
            finally:
                # Another thread may wait for it.
                free.put(tile)

        each(one, chunks, device)

    def buffer(self, shape: torch.Size, device: torch.device, number: int = 0) -> Float[Tensor, "B ..."]:
        """Memory for a whole batch in float32, overwritten by whoever next calls for the same number."""
        kept = self._buffers.get(number)
        if kept is None or (kept.shape[1:], kept.device) != (shape[1:], device) or len(kept) < shape[0]:
            kept = self._buffers[number] = _empty(shape, device)
        return kept[: shape[0]]

    def _tiles_for(self, shape: tuple[int, ...], n_tiles: int, device: torch.device) -> list[Tensor]:
        if self._tiles and (self._tiles[0].shape, self._tiles[0].device) != (shape, device):
            self._tiles.clear()
        self._tiles += [_empty(shape, device) for _ in range(n_tiles - len(self._tiles))]
        return self._tiles[:n_tiles]


def _empty(shape: tuple[int, ...], device: torch.device) -> Tensor:
    # The first batch may be an evaluation's, and training can do nothing with inference tensors.
    with torch.inference_mode(False):
        return torch.empty(shape, device=device)
