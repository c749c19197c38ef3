"""Splits preloaded into the memory of the device that trains: read once, for as many passes as there are.

On a GPU it saves the reading and the copy of every batch: the training split, and of val all of it or, where
that is too much, what every point of the curve is scored on. On a CPU the page cache does nearly the same,
unless the stores lie on a network or are evicted by other work; there it has to be asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from featcache.errors import CallError
from featcache.store.targets import Targets
from featcache.system.console import Progress
from featcache.system.device import free_memory
from featcache.system.files import size
from readouts.features.batches import Batch, batches_of
from readouts.features.preloaded import PreloadedTokens
from readouts.features.splits import FeatureSplit
from readouts.features.staging import new_parts
from readouts.tokens.prepared import QuantizedTokens, copy_tokens

PreloadChoice = Literal["auto", "yes", "no"]

LARGEST_SHARE, SMALLEST_SHARE, RESERVE = 0.8, 0.5, 8_000_000_000
"""What may be taken of the free memory, and the bytes that are left in any case but a small device's.

Heads, their gradients and an evaluation need 1 to 3 GB, sixteen large ones more, and are there only later.
"""

CLIPS_AT_ONCE = 32


def preload_choice(wish: str) -> PreloadChoice:
    """The value of `--resident` as it was written.

    Raises:
        CallError: it is none of the choices, which are named.
    """
    known: dict[str, PreloadChoice] = {name: name for name in get_args(PreloadChoice)}
    if wish not in known:
        raise CallError(f"--resident {wish}: one of {', '.join(known)}.")
    return known[wish]


def usable_bytes(free: int) -> int:
    """What may be taken of so many free bytes."""
    return int(max(SMALLEST_SHARE * free, min(LARGEST_SHARE * free, free - RESERVE)))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Clips of a split that are preloaded together, with their first views."""

    split: FeatureSplit
    n_clips: int
    """The first so many usable ones."""
    n_views: int

    @property
    def key(self) -> tuple[object, ...]:
        """What stands for the same tokens, whoever opened the store."""
        store, split = self.split.store, self.split
        of_targets = None if split.targets is None else split.targets.path
        return (
            store.path,
            store.fingerprint,
            of_targets,
            split.layer,
            split.fraction,
            self.n_clips,
            self.n_views,
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the tokens take in memory."""
        rows = new_parts(self.split, self.n_clips * self.n_views, torch.device("meta"))
        return sum(part.nbytes for part in rows)


class Preloads:
    """What is preloaded on a device; it lives as long as this object, for a pass or for all of a sweep."""

    def __init__(self, device: torch.device, choice: PreloadChoice = "auto") -> None:
        """Nothing yet; `choice` is what the user wrote.

        Raises:
            CallError: `choice` is unknown.
        """
        self.device, self.choice = device, preload_choice(choice)
        self._held: dict[tuple[object, ...], PreloadedTokens] = {}

    def drop(self) -> None:
        """Give the memory back."""
        self._held.clear()

    def for_pass(
        self, training: FeatureSplit, val: FeatureSplit, *, minival_clips: int, progress: Progress
    ) -> dict[str, PreloadedTokens]:
        """Role -> what is in memory of the two splits of a pass; roles that are read from disk are missing.

        What an earlier pass has left is used again, and what this one does not use is dropped if there is
        no room beside it.

        Raises:
            CallError: the user asked for it, and the training split does not fit.
            StoreError: a chunk is damaged.
        """
        if self.choice == "no" or (self.choice == "auto" and self.device.type != "cuda"):
            return {}
        train = _Part(split=training, n_clips=training.n_usable, n_views=training.n_views)
        # Scores are of view 0.
        whole, first = (
            _Part(split=val, n_clips=min(val.n_usable, most), n_views=1)
            for most in (val.n_usable, minival_clips)
        )
        found = {}
        wanted = {part.key for part in (train, whole, first)}
        if (held := self._hold(train, wanted, progress)) is not None:
            found["train"] = held
        elif self.choice == "yes":
            free = free_memory(self.device) + self._held_bytes
            raise CallError(
                f"--resident yes: {training.store.path.name} takes {size(train.nbytes)} and {self.device} "
                f"has {size(free)} free, of which {size(usable_bytes(free))} may be used: read it from disk "
                "(--resident no)."
            )
        held = self._hold(whole, wanted, progress) or self._hold(first, wanted, progress)
        return found if held is None else {**found, "val": held}

    def _hold(
        self, part: _Part, wanted: Iterable[tuple[object, ...]], progress: Progress
    ) -> PreloadedTokens | None:
        if part.key not in self._held:
            if not self._fits(part):
                self._held = {key: self._held[key] for key in wanted if key in self._held}
            if not self._fits(part):
                return None
            self._held[part.key] = _load(part, self.device, progress)
        return self._held[part.key]

    def _fits(self, part: _Part) -> bool:
        free = free_memory(self.device)
        return self._held_bytes + part.nbytes <= usable_bytes(free + self._held_bytes)

    @property
    def _held_bytes(self) -> int:
        return sum(held.nbytes for held in self._held.values())


def _load(part: _Part, device: torch.device, progress: Progress) -> PreloadedTokens:
    """Read clips once, into memory that a GPU copies from beside the reading of the next ones."""
    split, n_views = part.split, part.n_views
    clips = split.first_usable(part.n_clips)
    stored = new_parts(split, len(clips) * n_views, device)
    row_of = np.full(split.store.spec.n_clips, -1, np.int64)
    row_of[clips] = n_views * np.arange(len(clips))
    blocks = [clips[at : at + CLIPS_AT_ONCE] for at in range(0, len(clips), CLIPS_AT_ONCE)]
    wanted = ((np.repeat(of, n_views), np.tile(np.arange(n_views), len(of)), None) for of in blocks)
    first = 0
    for batch in batches_of(split, lambda *_: {}, wanted, device):
        rows = slice(first, first + len(batch.clips))
        _write(batch, [values[rows].flatten(2, 3) for values in stored])
        first = rows.stop
        progress("reading into memory", first // n_views, len(clips))
    if device.type == "cuda":
        # Batches are gathered on another stream than the one that wrote the tokens.
        torch.cuda.current_stream(device).synchronize()
    return PreloadedTokens(stored=stored, n_views=n_views, row_of=row_of, targets=_in_memory(split.targets))


def _write(batch: Batch, into: list[torch.Tensor]) -> None:
    tokens, rows = batch.tokens, slice(0, len(batch.clips))
    if isinstance(tokens, QuantizedTokens):
        copy_tokens(tokens.values, rows, into[0])
        into[1].copy_(tokens.scales)
    else:
        copy_tokens(tokens, rows, into[0])


def _in_memory(targets: Targets | None) -> Targets | None:
    """Targets whose rows are read no more; those of a forecast may be larger than the memory of the host."""
    if targets is None or targets.nbytes > usable_bytes(free_memory(torch.device("cpu"))):
        return targets
    return targets.in_memory()
