"""Tokens and targets of a split in memory, and the batches drawn from them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from featcache.store.targets import Targets
from readouts.features.splits import FeatureSplit
from readouts.features.staging import Parts, as_tokens, by_layer, pinned
from readouts.tokens.prepared import Native, QuantizedTokens, ScatteredTokens


@dataclass(frozen=True, kw_only=True)
class PreloadedTokens:
    """Tokens of some clips and their views, on the device, and the targets of their split."""

    split: FeatureSplit
    """What they are of; says which layers."""
    stored: Parts
    """A row per clip and view, as stored, so that heads see the numbers that reading gives them."""
    n_views: int
    row_of: Int64[np.ndarray, " clips"]
    """Clip number -> row of its first view, or -1 where the clip is not held."""
    targets: Targets | None
    """In the host's memory if they fit there, as tasks choose from them by numpy; else as opened."""

    @property
    def device(self) -> torch.device:
        """The device that holds the tokens."""
        return self.stored[0].device

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens."""
        return sum(part.nbytes for part in self.stored)

    def holds(self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]) -> bool:
        """Whether all of these are held."""
        return bool((self.row_of[clips] >= 0).all() and (views < self.n_views).all())

    def batch(self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]) -> list[Native]:
        """The tokens of some clips, each at its view, by layer; on a CPU they stay where they are."""
        numbers = self.row_of[clips] + views
        of_layers = by_layer(self.split, self.stored).values()
        if self.device.type != "cpu":
            # A GPU is not waited for: while it works on a step, the next one is made ready.
            rows = pinned(torch.from_numpy(numbers), self.device).to(self.device, non_blocking=True)
            return [as_tokens(tuple(part[rows] for part in of_layer)) for of_layer in of_layers]
        return [_in_place(of_layer, numbers) for of_layer in of_layers]


def _in_place(stored: Parts, numbers: Int64[np.ndarray, " B"]) -> Native:
    values, *scales = stored
    pieces = [values[row].flatten(1, 2) for row in numbers.tolist()]
    tokens = ScatteredTokens(pieces=pieces, pieces_per_clip=1)
    if not scales:
        return tokens
    return QuantizedTokens(values=tokens, scales=scales[0][torch.from_numpy(numbers)].flatten(2, 3))
