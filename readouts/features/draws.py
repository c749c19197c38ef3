"""Which clip and view each step of training takes: a pure function of seed and step.

Hence a resumed run and one that never stopped see the same batches, and so do any number of runs that share
one pass over the data.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int16, Int64

from readouts.features.orders import MOST_LISTED, Bijection, Computed, Grouped, Listed, Order

EPOCHS_KEPT = 4
"""Orders kept in memory: a batch needs two at the most, readers ahead of it another."""

Draw = tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]
"""Positions among the usable clips of a split, and the view of each."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Which clip and view each training draw takes: epochs reshuffled, batches running on across them.

    The reference repeats before it batches and reshuffles every epoch, so no clip is dropped and a batch may
    hold the end of one epoch and the start of the next.
    """

    n_clips: int
    n_views: int | tuple[int, ...] | Int16[np.ndarray, " n"]
    """How many views there are to draw from: of every clip, or of each one."""
    batch: int
    seed: int
    shards: Int64[np.ndarray, " n"] | None = None
    """The shard of each clip, where `mix_shards` needs it and the order is listed."""
    shard_sizes: Int64[np.ndarray, " shard"] | None = None
    """Or the number of clips in each shard, where they follow one another and are too many for lists."""
    mix_shards: int = 0
    """How many shards are shuffled together, one such group after another; 0: all clips together."""
    _epochs: dict[int, Order] = field(default_factory=dict, init=False, repr=False, compare=False)

    def at(self, step: int) -> Draw:
        """Positions among the usable clips, and view numbers, of the batch of `step`."""
        draws = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, positions = np.divmod(draws, self.n_clips)
        clips, views = np.empty_like(draws), np.empty_like(draws)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            clips[inside], views[inside] = self._epoch(int(epoch)).at(positions[inside])
        return clips, views

    def _epoch(self, epoch: int) -> Order:
        if epoch not in self._epochs:
            if len(self._epochs) > EPOCHS_KEPT:
                self._epochs.clear()
            listed = self.n_clips <= MOST_LISTED or self.shards is not None
            self._epochs[epoch] = self._listed(epoch) if listed else self._computed(epoch)
        return self._epochs[epoch]

    def _computed(self, epoch: int) -> Order:
        key = [self.seed, epoch]
        n_views = self.n_views if isinstance(self.n_views, int) else np.asarray(self.n_views)
        if self.shard_sizes is not None and self.mix_shards:
            return Grouped(self.shard_sizes, self.mix_shards, n_views, key)
        return Computed(Bijection(self.n_clips, key), n_views)

    def _listed(self, epoch: int) -> Order:
        # Of seed 0 the reference's, seed + epoch; by that of others an epoch would be the next one of its
        # neighbour's, and two runs of other orders would share all epochs but one.
        rng = np.random.default_rng([self.seed, epoch] if self.seed else epoch)
        order = self._order(rng)
        high = self.n_views if isinstance(self.n_views, int) else np.asarray(self.n_views)[order]
        return Listed(order, rng.integers(high, size=self.n_clips))

    def _order(self, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
        if self.shards is None or not self.mix_shards:
            return rng.permutation(self.n_clips)
        shards = rng.permutation(np.unique(self.shards))
        # Rank of each clip's group; within a group a random number decides.
        rank = np.empty(int(self.shards.max()) + 1, np.int64)
        rank[shards] = np.arange(len(shards)) // self.mix_shards
        return np.lexsort((rng.random(self.n_clips), rank[self.shards]))


def evenly(n: int, most: int) -> Int64[np.ndarray, " m"]:
    """At most so many of `n` positions, evenly spaced, the first and the last among them.

    Neighbours in a file are often of one video, so where a few clips do they are taken from all over it.
    """
    positions: Int64[np.ndarray, " m"] = np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)
    return positions
