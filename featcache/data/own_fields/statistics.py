"""Mean and deviation of fields, and of their change from frame to frame, over the training split alone.

A block of times is in memory at once, and the fields that the next ones are compared with: as much for a year
as for forty.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from jaxtyping import Float64

from featcache.data.readers.weather.fields import FieldStore

BLOCK_BYTES = 2**22


@dataclass(slots=True)
class _Moments:
    """Mean and sum of squares of each variable, of values that come in blocks (Chan et al., 1979)."""

    n: int
    mean: Float64[np.ndarray, " C"]
    squares: Float64[np.ndarray, " C"]

    def add(self, values: np.ndarray) -> None:
        """Take values [n C]."""
        if not len(values):
            return
        wide = values.astype(np.float64)
        n, mean = len(wide), wide.mean(axis=0)
        apart, total = mean - self.mean, self.n + n
        self.squares = self.squares + ((wide - mean) ** 2).sum(axis=0) + apart**2 * self.n * n / total
        self.mean = self.mean + apart * n / total
        self.n = total

    @property
    def std(self) -> list[float]:
        found: list[float] = np.sqrt(self.squares / max(1, self.n)).tolist()
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldStatistics:
    """Of each variable, in its unit."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    residual_std: tuple[float, ...]
    """Of the change from one frame to the next."""


def statistics_of(
    store: FieldStore, steps: range, stride: int, progress: Callable[[int, int], None] | None = None
) -> FieldStatistics:
    """Statistics of consecutive time steps of a store.

    Args:
        store: an opened one.
        steps: of its time axis.
        stride: time steps from one frame to the next.
        progress: called with time steps read and to be read.

    Raises:
        WholeFileError: a file cannot be decoded.
        UnreadableError: a field is not finite everywhere.
    """
    rows, columns, channels = store.shape
    at_once = max(1, BLOCK_BYTES // (4 * rows * columns * channels))
    zeros = np.zeros(channels)
    of_values, of_changes = _Moments(0, zeros, zeros), _Moments(0, zeros, zeros)
    before: np.ndarray | None = None
    for first in range(steps.start, steps.stop, at_once):
        block = store.decode_many(first, min(steps.stop, first + at_once))
        of_values.add(rearrange(block, "n y x c -> (n y x) c"))
        joined = block if before is None else np.concatenate([before, block])
        changes = joined[stride:].astype(np.float64) - joined[:-stride]
        of_changes.add(rearrange(changes, "n y x c -> (n y x) c"))
        before = joined[-stride:]
        if progress:
            progress(min(steps.stop, first + at_once) - steps.start, len(steps))
    return FieldStatistics(
        mean=tuple(of_values.mean.tolist()), std=tuple(of_values.std), residual_std=tuple(of_changes.std)
    )
