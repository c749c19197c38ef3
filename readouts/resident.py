"""A training split kept in the memory of the device that trains: read once, drawn from without a disk.

On a GPU it saves the copy of every batch. On a CPU the page cache does nearly the same, unless the stores
lie on a network or are evicted by other work; there it has to be asked for.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import CallError
from featcache.progress import Progress
from readouts.draws import Draws
from readouts.features import Batch, FeatureSplit, Select, wanted_at

Residence = Literal["auto", "yes", "no"]

SHARE_OF_FREE_MEMORY = 0.5
"""What `auto` takes at most: heads, their gradients and evaluation need the rest."""

CLIPS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class ResidentTokens:
    """Tokens of all usable clips and views of a split, on the device."""

    values: Float[Tensor, "n V T N C"]
    row_of: Int64[np.ndarray, " clips"]
    """Clip number -> row of `values`, -1 where the clip is not used."""
    _room: list[Tensor] = field(default_factory=list, repr=False)
    """Memory of the last batch on a CPU, where fresh pages cost more than the copy."""

    def batch(
        self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
    ) -> Float[Tensor, "B T N C"]:
        """The tokens of some clips, each at its view; on a CPU the next call overwrites them."""
        flat, n_views = self.values.flatten(0, 1), self.values.shape[1]
        rows = torch.from_numpy(self.row_of[clips] * n_views + views).to(flat.device)
        if flat.device.type != "cpu":
            return flat[rows]
        if not self._room or len(self._room[0]) != len(rows):
            self._room[:] = [torch.empty((len(rows), *flat.shape[1:]), dtype=flat.dtype)]
        return torch.index_select(flat, 0, rows, out=self._room[0])


def resident_batches(
    resident: ResidentTokens, split: FeatureSplit, select: Select, draws: Draws, steps: Iterable[int]
) -> Iterator[Batch]:
    """The batches of `readouts.features.training_batches`, from memory."""
    for step in steps:
        clips, views, rng = wanted_at(split, draws, step)
        rows = {} if split.targets is None else select(split.targets, clips, views, rng)
        device = resident.values.device
        targets = {name: torch.from_numpy(values).to(device) for name, values in rows.items()}
        yield Batch(clips=clips, tokens=resident.batch(clips, views), targets=targets)


def resident_bytes(split: FeatureSplit) -> int:
    """What a split takes in memory."""
    return len(split.usable) * split.n_views * split.store.spec.grid.nbytes


def make_resident(
    split: FeatureSplit, device: torch.device, wish: Residence, progress: Progress
) -> ResidentTokens | None:
    """The split in memory if it is wished for and there is room; None where batches are read from disk.

    Raises:
        CallError: `wish` is unknown, or "yes" and the split does not fit.
        StoreError: a chunk is damaged.
    """
    if wish not in get_args(Residence):
        raise CallError(f"--resident {wish}: one of {', '.join(get_args(Residence))}.")
    if wish == "no" or (wish == "auto" and device.type != "cuda"):
        return None
    needed, free = resident_bytes(split), free_memory(device)
    if needed > SHARE_OF_FREE_MEMORY * free:
        if wish == "auto":
            return None
        raise CallError(
            f"--resident yes: {split.store.path.name} takes {needed / 1e9:,.1f} GB and {device} has "
            f"{free / 1e9:,.1f} GB free, half of which may be used: read it from disk (--resident no)."
        )
    return _load(split, device, progress)


def _load(split: FeatureSplit, device: torch.device, progress: Progress) -> ResidentTokens:
    grid, usable = split.store.spec.grid, split.usable
    shape = (len(usable), split.n_views, grid.steps, grid.rows * grid.columns, grid.channels)
    values = torch.empty(shape, dtype=torch.float16, device=device)
    buffer = np.empty((CLIPS_AT_ONCE, *grid.shape), np.float16)
    for at in range(0, len(usable), CLIPS_AT_ONCE):
        clips = usable[at : at + CLIPS_AT_ONCE]
        for view in range(split.n_views):
            out = buffer[: len(clips)]
            split.store.read(clips.tolist(), views=view, layer=split.layer, out=out)
            values[at : at + len(clips), view] = rearrange(
                torch.from_numpy(out).to(device), "b t h w c -> b t (h w) c"
            )
        progress("reading into memory", at + len(clips), len(usable))
    row_of = np.full(split.store.spec.n_clips, -1, np.int64)
    row_of[usable] = np.arange(len(usable))
    return ResidentTokens(values=values, row_of=row_of)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
