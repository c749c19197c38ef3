"""The order of one epoch: a list where the split is small, arithmetic where it is not.

A list of 10^8 clips takes seconds and 800 MB an epoch, of which a run may look at a thousandth. Beyond
`MOST_LISTED` clips a place in the epoch is therefore turned into a clip by a keyed bijection (a Feistel
network on a rectangle of numbers, as format-preserving encryption has it: Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", 2002), which costs the same for any split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, isqrt
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Integer, UInt64

MOST_LISTED = 2**22
"""Clips of a split whose orders are lists, 64 MB each; what an order is changes beyond."""

_ROUNDS = 8
"""Of the network; four give a pseudorandom permutation."""

Positions = Int64[np.ndarray, " n"]


@runtime_checkable
class Order(Protocol):
    """One epoch of a split."""

    def at(self, places: Positions) -> tuple[Positions, Positions]:
        """The positions among the usable clips that stand at these places of the epoch, and their views."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Clips and views in a list."""

    clips: Positions
    views: Positions

    def at(self, places: Positions) -> tuple[Positions, Positions]:
        """See `Order`."""
        return self.clips[places], self.views[places]


@dataclass(frozen=True)
class Bijection:
    """The numbers from 0 to `n - 1` in a random order, of which each place is computed by itself."""

    n: int
    key: Sequence[int]
    """What the order depends on."""

    def at(self, places: Positions) -> Positions:
        """The numbers at these places."""
        left, right = divmod(places, self._columns)
        out = self._mixed(left, right)
        # The rectangle is a little larger than n: who comes out beyond walks on until inside.
        while (outside := np.flatnonzero(out >= self.n)).size:
            left, right = divmod(out[outside], self._columns)
            out[outside] = self._mixed(left, right)
        return out

    @cached_property
    def _columns(self) -> int:
        return isqrt(self.n - 1) + 1

    @cached_property
    def _keys(self) -> UInt64[np.ndarray, " round"]:
        return np.random.default_rng(self.key).integers(2**64, size=_ROUNDS, dtype=np.uint64)

    def _mixed(self, left: Positions, right: Positions) -> Positions:
        rows, columns = ceil(self.n / self._columns), self._columns
        for of_left, of_right in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = (left + hashed(right, of_left, rows)) % rows
            right = (right + hashed(left, of_right, columns)) % columns
        mixed: Positions = left * columns + right
        return mixed


def hashed(numbers: Positions, key: np.uint64, end: int | Int64[np.ndarray, " n"]) -> Positions:
    """A random number from 0 to `end - 1` for each of `numbers`, the same for the same key.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
    """
    with np.errstate(over="ignore"):
        bits = numbers.astype(np.uint64) * _GOLDEN + key
        bits = (bits ^ (bits >> _30)) * _FIRST
        bits = (bits ^ (bits >> _27)) * _SECOND
        bits ^= bits >> _31
    # The upper half alone, so that what is multiplied by `end` stays below 2^63.
    return ((bits >> _32).astype(np.int64) * end) >> 32


_GOLDEN, _FIRST, _SECOND = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_27, _30, _31, _32 = map(np.uint64, (27, 30, 31, 32))


@dataclass(frozen=True)
class Computed:
    """All clips in the order of a bijection, each at a view of its own."""

    clips: Bijection
    n_views: int | Integer[np.ndarray, " n"]
    """Of every clip, or of each one."""

    def at(self, places: Positions) -> tuple[Positions, Positions]:
        """See `Order`."""
        clips = self.clips.at(places)
        return clips, _views(clips, self.n_views, self.clips.key)


@dataclass(frozen=True)
class Grouped:
    """Groups of shards one after the other in a random order, the clips within a group mixed."""

    sizes: Int64[np.ndarray, " shard"]
    """Usable clips of each shard; those of one shard follow one another."""
    mixed: int
    """Shards of a group."""
    n_views: int | Integer[np.ndarray, " n"]
    key: Sequence[int]

    def at(self, places: Positions) -> tuple[Positions, Positions]:
        """See `Order`."""
        groups = np.searchsorted(self._ends, places, side="right")
        clips = np.empty_like(places)
        for group in np.unique(groups):
            inside = groups == group
            start = self._ends[group - 1] if group else 0
            clips[inside] = self._group(int(group))[places[inside] - start]
        return clips, _views(clips, self.n_views, self.key)

    @cached_property
    def _shards(self) -> Positions:
        return np.random.default_rng(self.key).permutation(len(self.sizes))

    @cached_property
    def _first(self) -> Positions:
        """The position of each shard's first clip."""
        first: Positions = np.cumsum(self.sizes) - self.sizes
        return first

    @cached_property
    def _ends(self) -> Positions:
        """Where each group ends in the epoch."""
        return np.cumsum(np.add.reduceat(self.sizes[self._shards], np.arange(0, len(self.sizes), self.mixed)))

    @cached_property
    def _group(self) -> Callable[[int], Positions]:
        def of(group: int) -> Positions:
            shards = self._shards[group * self.mixed : (group + 1) * self.mixed]
            clips = [self._first[shard] + np.arange(self.sizes[shard]) for shard in shards]
            return np.random.default_rng([*self.key, group]).permutation(np.concatenate(clips))

        # A batch ends one group and begins another; readers ahead of it may be there already.
        return lru_cache(maxsize=3)(of)


def _views(clips: Positions, n_views: int | Integer[np.ndarray, " n"], key: Sequence[int]) -> Positions:
    """A view of each clip, drawn by its number and the epoch's key."""
    if isinstance(n_views, int) and n_views == 1:
        return np.zeros_like(clips)
    of_views = np.random.default_rng([*key, 1]).integers(2**64, dtype=np.uint64)
    return hashed(clips, of_views, n_views if isinstance(n_views, int) else n_views[clips].astype(np.int64))
